"""Ways to use one-pixel shifts at test time, compared on held-out images.

    python -m tools.bench.compare_shifts runs/ht_cac_missing_mnist [--images 3000] [--settings iid:0.95,iid:0.99]

For 1, 5, 9 and 25 shifts: the sum of the class scores (what `netspec missing --shifts` takes), the mixture of the
shifts (log-sum-exp), and the mean of their posteriors. Accuracy in per cent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec import lab
from netspec.lab.methods import translate
from netspec.model import model

Shift = tuple[int, int]
SETS: dict[str, Callable[[Shift], bool]] = {
    "1": lambda s: s == (0, 0),
    "5": lambda s: abs(s[0]) + abs(s[1]) <= 1,
    "9": lambda s: max(abs(s[0]), abs(s[1])) <= 1,
    "25": lambda s: True,
}
WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda scores: scores.sum(0),
    "mixture": lambda scores: scores.logsumexp(0),
    "mean posterior": lambda scores: scores.softmax(-1).mean(0),
}


def main() -> None:
    """Print a table a setting."""
    form = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    options.add_argument("run", type=Path, help="run folder of a generative net")
    options.add_argument("--images", type=int, default=3000)
    options.add_argument("--settings", default="iid:0.95,iid:0.99")
    options.add_argument("--seed", type=int, default=1)
    args = options.parse_args()
    one = model.load(args.run)
    pixels, labels = one.images("validation", 0, args.images)
    truth = torch.from_numpy(labels)
    moves = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    for name in args.settings.split(","):
        observed = lab.parse(name).observed(pixels, np.arange(len(pixels)), args.seed)
        x = one.from_pixels(pixels, observed)
        scores = {move: one.scores(translate(x, *move)).cpu() for move in moves}
        print(f"{name}, shifts: {', '.join(WAYS)}")
        for count, within in SETS.items():
            chosen = torch.stack([score for move, score in scores.items() if within(move)])
            right = [(way(chosen).argmax(1) == truth).double().mean() for way in WAYS.values()]
            print(f"{count:>3}  " + "  ".join(f"{100 * share:.1f}" for share in right), flush=True)


if __name__ == "__main__":
    main()
