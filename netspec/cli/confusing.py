"""What `netspec test --confusion --hardest N` shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def show_confusion(
    file: Path, weights: Path | None, how: Mapping[str, Any], seed: int, out: Path, as_json: bool
) -> None:
    """Print the confusion of each test net, and draw it and the hardest examples into the folder `out`."""
    from netspec.run.confusion import confusion, draw_confusion, draw_hardest

    confusions = confusion(file, weights, seed=seed, **how)
    out.mkdir(parents=True, exist_ok=True)
    for i, confused in enumerate(confusions):
        ending = f"_{i}" if len(confusions) > 1 else ""
        drawn = [draw_confusion(confused, out / f"confusion{ending}.svg")]
        if confused.hardest and confused.hardest[0].picture is not None:
            drawn.append(draw_hardest(confused, out / f"hardest{ending}.png"))
        if as_json:
            print(json.dumps({"net": i, "accuracy": confused.accuracy, **confused.as_json()}))
            continue
        print(f"test net {i}: accuracy {confused.accuracy:.6g} of {int(confused.counts.sum())}")
        print("\n".join(confused.lines()))
        for hard in confused.hardest:
            chance = f"{100 * hard.probability:.3g} %"
            label, taken = confused.name(hard.label), confused.name(hard.taken_for)
            print(f"example {hard.index}: label {label} has {chance}, taken for {taken}")
        print("pictures: " + ", ".join(map(str, drawn)))
