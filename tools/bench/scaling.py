"""How the cost of a training pass grows with width, depth, side and batch: processor time, and the exponent of a fit.

    python -m tools.bench.scaling [--rounds 5] [--out docs/results/scaling.json]

A net of the kind of HT-CAC (2 x 2 patches under Gaussians, then MEX and SUM pooling until one position is left),
forward and backward, layer by layer. One of the four grows by factors of two, the others stay at WIDTH states, SIDE
pixels and BATCH images; its exponent is the slope of log time against log size over all sizes. Expected where products
dominate: width 2, side 2, batch 1. Depth: MEX layers of one position on top of each other, expected 1. Writes a plot
beside the JSON file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from netspec.net.allocator import keep_freed_memory
from netspec.net.make import make_net
from tools.bench.timing import Run, machine, rounds

WIDTH, SIDE, BATCH, DEPTH = 32, 16, 64, 2
SIZES = {
    "width": (16, 32, 64, 128),
    "side": (8, 16, 32, 64),
    "batch": (16, 32, 64, 128),
    "depth": (2, 4, 8, 16),
}
EXPECTED = {"width": 2.0, "side": 2.0, "batch": 1.0, "depth": 1.0}

MEX = """layer {{ name: "mex{i}" type: "MEX" bottom: "{bottom}" top: "mex{i}" param {{ lr_mult: 0 }} param {{ }}
  mex_param {{ num_instances: {width} block_param {{ block_size: 1 }} shared_offsets_region_size: 1 softmax_mode: true
    normalize_offsets: true epsilon_filler {{ type: "constant" value: 1 }}
    offsets_filler {{ type: "dirichlet" primal_dim: {width} to_log: true }} }} }}
"""
SUM = """layer {{ name: "sum{i}" type: "Pooling" bottom: "mex{i}" top: "sum{i}"
  pooling_param {{ pool: SUM kernel_size: 2 stride: 2 }} }}
"""


LOSS = 'layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "{bottom}" bottom: "label" top: "loss" }}'


def net_text(
    width: int = WIDTH,
    side: int = SIDE,
    batch: int = BATCH,
    depth: int = DEPTH,
    patch: int = 2,
    loss: str = LOSS,
) -> str:
    """A net of the kind of HT-CAC.

    depth: MEX layers at the one position that is left at the end. patch: side of what a Gaussian is over.
    loss: the text of the last layer, with its bottom as {bottom}.
    """
    text = f"""layer {{ name: "data" type: "Input" top: "data" top: "label"
        input_param {{ shape {{ dim: {batch} dim: 1 dim: {side} dim: {side} }} shape {{ dim: {batch} }} }} }}
    layer {{ name: "leaf" type: "Similarity" bottom: "data" top: "leaf" similarity_param {{ num_instances: {width}
      block_param {{ block_size: {patch} stride: {patch} }} normalization_term: true normalization_term_fudge: 1e-4
      ignore_nan_input: true template_filler {{ type: "gaussian" std: 0.05 }}
      weight_filler {{ type: "constant" value: 100 }} }} }}
    """
    bottom = "leaf"
    for i in range(int(math.log2(side // patch))):
        text += MEX.format(i=i, bottom=bottom, width=width) + SUM.format(i=i)
        bottom = f"sum{i}"
    for i in range(100, 100 + depth):
        text += MEX.format(i=i, bottom=bottom, width=width)
        bottom = f"mex{i}"
    return text + loss.format(bottom=bottom)


def training_pass(**sizes: Any) -> Run:
    """Forward and backward of a net of these sizes on random images."""
    net = make_net(net_text(**sizes), "TRAIN", seed=1)
    generator = torch.Generator().manual_seed(1)
    data = torch.rand(net.shape("data"), generator=generator) - 0.5
    label = torch.randint(10, net.shape("label"), generator=generator).float()

    def run() -> None:
        net.objective(net(data, label)).backward()  # type: ignore[no-untyped-call]
        for param in net.params:
            param.value.grad = None

    return run


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds against log size, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(one) for one in seconds]
    middle_x, middle_y = statistics.mean(x), statistics.mean(y)
    above = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - middle_x) ** 2 for a in x)


def measure(count: int) -> dict[str, Any]:
    curves: dict[str, Any] = {}
    for name, sizes in SIZES.items():
        taken = rounds({str(size): training_pass(**{name: size}) for size in sizes}, count)
        seconds = [statistics.median(one.cpu for one in taken[str(size)]) for size in sizes]
        curves[name] = {
            "sizes": list(sizes),
            "ms": [round(1e3 * one, 3) for one in seconds],
            "exponent": round(exponent(list(sizes), seconds), 2),
            "expected": EXPECTED[name],
        }
        print(f"{name}: {curves[name]}", flush=True)
    return curves


def plot(curves: dict[str, Any], path: Path) -> None:
    """Time against each of the four, log against log."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        axes.loglog(curve["sizes"], curve["ms"], "o-", base=2)
        axes.set_xlabel(f"{name} (exponent {curve['exponent']:.2f})")
        axes.set_xticks(curve["sizes"], [str(size) for size in curve["sizes"]])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("ms of a training pass")
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file, and a plot beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    facts = machine()
    curves = measure(options.rounds)
    facts["load_average_after"] = round(os.getloadavg()[0], 2)
    if options.out:
        options.out.write_text(
            json.dumps({"machine": facts, "rounds": options.rounds, "curves": curves}, indent=1) + "\n"
        )
        plot(curves, options.out.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
