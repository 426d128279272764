"""Run folders for tests: written as a run writes them, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SOLVER = 'net: "net.prototxt"\nbase_lr: {base_lr}\nmax_iter: 20\ntype: "SGD"\n'
NET = """name: "small"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: {outputs} }} }}
"""


def write_run(
    folder: Path,
    accuracy: Sequence[float] = (0.5, 0.9),
    *,
    base_lr: float = 0.1,
    outputs: int = 4,
    seed: int = 1,
    facts: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
    status: str = "",
    points: int = 4,
) -> Path:
    """A run of 20 iterations with a test at the middle and the end; with `values`, one of a sweep."""
    folder.mkdir(parents=True)
    (folder / "solver.prototxt").write_text(SOLVER.format(base_lr=base_lr))
    (folder / "net.prototxt").write_text(NET.format(outputs=outputs))
    known = {"file": "small.prototxt", "seed": seed, "settings": {"base_lr": str(base_lr)}, "device": "cpu"}
    known["data"] = [{"layer": "data", "phase": "TRAIN", "name": "digits", "split": "train", "sha256": "ab"}]
    (folder / "run.json").write_text(json.dumps({**known, **(facts or {})}))
    lines: list[dict[str, Any]] = [
        {
            "kind": "train",
            "iteration": i * 20 // points,
            "loss": 2 / (1 + i),
            "lr": base_lr,
            "seconds": i * 0.5,
        }
        for i in range(points)
    ]
    for i, value in enumerate(accuracy, 1):
        tested = {"accuracy": value, "loss": 1 - value, "per_class": [value, None]}
        at = 20 * i // len(accuracy)
        lines.append({"kind": "test", "iteration": at, "net": 0, "outputs": tested, "seconds": 2.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if values is not None:
        point = {"run": folder.name, "plan": "plan.yaml", "stage": "", "values": dict(values), "seed": seed}
        point |= {"settings": {}, "source": "small.prototmp", "parent": "", "set": ""}
        (folder / "point.json").write_text(json.dumps(point))
        result = {"run": folder.name, "status": status or "done", "reason": "", "outputs": [], "seed": seed}
        result |= {"value": accuracy[-1], "best": None, "iteration": 20, "seconds": 2.0, "attempts": 1}
        (folder / "result.json").write_text(json.dumps(result))
    return folder
