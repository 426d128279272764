"""Bits per dimension of a density net on test images, and whether the masses of a pixel's levels sum to 1.

    python -m tools.results.density RUN [--images 10000] [--out FILE.json]

RUN is a run folder of nets/ht_cac_density_mnist.prototxt or its like. Writes the mean, its standard error over images,
and the largest deviation from 1 of sum_v p(v, other pixels) / p(other pixels) over `CHECKED` pixels of test images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from netspec.interchange import snapshot_files
from netspec.model.model import Model, load

CHECKED = 20


def mass_error(model: Model, x: torch.Tensor) -> float:
    """The largest | sum of the masses of 256 levels - 1 | of a random pixel of each image of x (N, C, H, W)."""
    random, worst = np.random.default_rng(0), 0.0
    for image in x:
        row, column = (int(random.integers(n)) for n in image.shape[1:])
        every = image.repeat(256, 1, 1, 1)
        every[:, 0, row, column] = torch.arange(256)
        rest = image.clone()[None]
        rest[:, 0, row, column] = torch.nan
        joint = model.log_likelihood(every).double().logsumexp(0)
        worst = max(worst, abs(float((joint - model.log_likelihood(rest).double()[0]).exp()) - 1))
    return worst


def measure(run: Path, images: int) -> dict[str, object]:
    """The record of a run."""
    model, exact = load(run), load(run, dtype=torch.float64)
    pixels, _ = model.images("test", 0, images)
    bits = model.bits_per_dimension(model.from_pixels(pixels)).double()
    newest = snapshot_files.newest(run)[0]
    return {
        "run": run.name,
        "dataset": model.dataset,
        "iteration": newest.info["iteration"],
        "seconds": round(float(newest.info["seconds"]), 1),
        "images": len(pixels),
        "bits_per_dimension": round(float(bits.mean()), 5),
        "standard_error": round(float(bits.std() / len(bits) ** 0.5), 5),
        "mass_error": mass_error(exact, exact.from_pixels(pixels[:CHECKED]).double()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options.run, options.images), indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
