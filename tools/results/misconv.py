"""Digits with missing pixels classified through MisConv and its rivals: Tables 1 and 2 of Przewiezlikowski et al. 2021.

    python -m tools.results.misconv [--masks square,noise] [--ways zero,mask,...] [--seeds 1] [--steps N] [--quick]

Rows, all of nets/misconv_mnist.prototxt: MisConv (behind the density of dmfa_mnist, trained first: for squares on whole
images, for the other kinds on images that lack pixels of that kind, scored on a second square), zero, mask, PC (partial
convolution), k-NN (filled in from --donors images, all incomplete), complete (nothing missing).
The same pixels are missing in every epoch. Overhead: seconds of a forward pass of MisConv and of a convolution. The
record is written after each training. --quick: a few steps, square only.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.data.sets.datasets import load
from netspec.draw.canvas import figure, write
from netspec.lab import parse, wilson
from netspec.net.make import make_net
from tools.results.reproduction import Results, markdown, page, parser, published, trained

MASKS = ("square", "trapezoid", "noise")
WAYS = {"zero": "zero", "mask": "mask", "k-NN": "knn", "PC": "partial", "MisConv": "", "complete": "zero"}
"""Rows, and the stage of the net that each is."""
AS_PUBLISHED = {"complete": "GT"}
SQUARES = "MisConv, density of squares"
"""Key of the runs whose density had met squares alone, whatever is missing."""
SIZES = ((28, 14), (32, 16), (64, 32))
BATCHES = (16, 32, 64)


def main() -> None:
    """Command line."""
    command = parser(__doc__, "docs/results/misconv")
    command.add_argument("--masks", default="square,noise")
    command.add_argument("--ways", default="zero,mask,PC,MisConv,complete")
    command.add_argument("--seeds", default="1")
    command.add_argument("--steps", type=int, default=5000)
    command.add_argument("--density-steps", type=int, default=5000)
    command.add_argument("--donors", type=int, default=5000)
    command.add_argument("--repetitions", type=int, default=50)
    options = command.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.steps = options.density_steps = 5
        options.masks, options.repetitions = "square", 3
    settings = {name: getattr(options, name) for name in ("steps", "density_steps", "donors", "quick")}
    results = Results(options.out.with_suffix(".json"), settings)
    for mask in options.masks.split(","):
        for way in options.ways.split(","):
            for seed in map(int, options.seeds.split(",")):
                key = f"{way} | {mask} | {seed}"
                print(key, results.get(key, partial(accuracy, options, way, mask, seed)), flush=True)
    for image, hole in SIZES:
        for batch in BATCHES:
            results.get(
                f"overhead | {image}, {hole} | {batch}",
                partial(overhead, image, hole, batch, options.repetitions),
            )
    print(report(options.out, results).read_text())


def accuracy(options: argparse.Namespace, way: str, mask: str, seed: int) -> float:
    """Accuracy on all test images after the last step."""
    stage = WAYS[way]
    folder: Path = options.runs / "misconv"
    folder.mkdir(parents=True, exist_ok=True)
    overrides = [f"random_seed={seed}", "snapshot=250"]
    if way == "MisConv":
        density = density_of(folder, mask, options.density_steps)
        overrides.append(f"weights={density.resolve()}")
    if way == "k-NN":
        write_neighbours(folder, mask, options.donors)
    name = f"{stage or 'misconv'}{'_complete' if way == 'complete' else ''}_{mask}_{options.steps}_{seed}"
    solver = solver_file(folder, name, stage, mask, way == "complete")
    run = trained(
        str(solver), folder / name, options.steps, overrides=[*overrides, f"test_interval={options.steps}"]
    )
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float([one["outputs"]["accuracy"] for one in records if one["kind"] == "test"][-1])


def density_of(folder: Path, mask: str, steps: int) -> Path:
    """The run of dmfa_mnist behind MisConv. A density must have met masks of the kind that it is asked about: its net
    reads the mask."""
    if mask == "square":
        return trained("nets/dmfa_mnist_solver.prototxt", folder / f"dmfa_{steps}", steps)
    net = Path("nets/dmfa_mnist.prototxt").read_text().replace('kind: "square"', f'kind: "{mask}"')
    file = folder / f"dmfa_{mask}_net.prototxt"
    file.write_text(net)
    text = Path("nets/dmfa_incomplete_mnist_solver.prototxt").read_text()
    solver = folder / f"dmfa_{mask}.prototxt"
    solver.write_text(text.replace("nets/dmfa_mnist.prototxt", str(file.resolve())))
    return trained(str(solver), folder / f"dmfa_{mask}_{steps}", steps)


def solver_file(folder: Path, name: str, stage: str, mask: str, complete: bool) -> Path:
    """A solver like the shipped ones, with the stages of a way and a mask."""
    source = f"misconv_{stage}_mnist_solver" if stage else "misconv_mnist_solver"
    text = Path(f"nets/{source}.prototxt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("pretraining", "train_state"))]
    stages = " ".join(f'stage: "{one}"' for one in (stage, mask) if one and one != "square")
    lines.append(f"train_state {{ {stages} }} test_state {{ {stages} }}")
    net = Path("nets/misconv_mnist.prototxt").read_text()
    net = net.replace("runs/misconv/knn", str((folder / f"knn_{mask}").resolve()))
    if complete:
        for kind in MASKS:
            net = net.replace(f'kind: "{kind}"', 'kind: "iid" probability: 0')
    file = folder / f"{name}_net.prototxt"
    file.write_text(net)
    path = folder / f"{name}.prototxt"
    path.write_text("\n".join(lines).replace("nets/misconv_mnist.prototxt", str(file.resolve())))
    return path


def write_neighbours(folder: Path, mask: str, donors: int) -> None:
    """All images with their missing pixels filled in from incomplete training images: HDF5 files, and lists of them."""
    train, test = load("mnist", "whole_train"), load("mnist", "test")
    sets = {"train": (train, 1), "test": (test, 2)}
    observed = {
        split: parse(mask).observed(data.images, np.arange(len(data)), seed)
        for split, (data, seed) in sets.items()
    }
    given = np.where(observed["train"], train.images, np.nan)[:donors].reshape(donors, -1) / 255
    for split, (data, _) in sets.items():
        listed = folder / f"knn_{mask}_{split}.txt"
        if listed.exists():
            continue
        rows = np.where(observed[split], data.images, np.nan).reshape(len(data), -1) / 255
        filled = from_neighbours(rows, given)
        with h5py.File(listed.with_suffix(".h5"), "w") as file:
            file["data"] = filled.reshape(data.images.shape).astype(np.float32)
            file["label"] = data.labels.astype(np.float32)
            file["mask"] = observed[split].astype(np.float32)
        listed.write_text(f"{listed.with_suffix('.h5').resolve()}\n")


def from_neighbours(rows: Array, donors: Array, k: int = 5, near: int = 40) -> Array:
    """Rows (N, D) with NaN at each hole filled by the mean over the k nearest donors (M, D) that have that value.

    Distances are root mean squares over values that both have, as scikit-learn's KNNImputer has them; donors beyond
    the `near` nearest are left out, and a hole that none of those has is the donors' mean.
    """
    have, values = (
        torch.from_numpy(~np.isnan(donors)).float(),
        torch.from_numpy(np.nan_to_num(donors)).float(),
    )
    mean = (have * values).sum(0) / have.sum(0).clamp_min(1)
    filled = []
    for begin in range(0, len(rows), 500):
        part = rows[begin : begin + 500]
        seen, x = torch.from_numpy(~np.isnan(part)).float(), torch.from_numpy(np.nan_to_num(part)).float()
        both = seen @ have.T
        square = (seen * x.square()) @ have.T + seen @ values.square().T - 2 * x @ values.T
        distance = torch.where(both > 0, square.clamp_min(0) / both, torch.inf)
        order = distance.topk(min(near, len(donors)), 1, largest=False).indices
        there, candidates = have[order], values[order]
        used = there * (there.cumsum(1) <= k)
        count = used.sum(1)
        guess = torch.where(count > 0, (used * candidates).sum(1) / count.clamp_min(1), mean)
        filled.append(torch.where(seen > 0, x, guess))
    return torch.cat(filled).double().numpy()


OVERHEAD = """
layer {{ name: "data" type: "Input" top: "data" top: "mask" top: "mu" top: "a" top: "d" input_param {{
  shape {{ dim: {b} dim: 3 dim: {i} dim: {i} }} shape {{ dim: {b} dim: 1 dim: {i} dim: {i} }}
  shape {{ dim: {b} dim: 3 dim: {i} dim: {i} }} shape {{ dim: {b} dim: 12 dim: {i} dim: {i} }}
  shape {{ dim: {b} dim: 3 dim: {i} dim: {i} }} }} }}
layer {{ name: "first" {kind} top: "first"
  convolution_param {{ num_output: 32 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} {more} }}
{relu}
"""


def overhead(image: int, hole: int, batch: int, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each forward pass of a convolution with ReLU, and of MisConv, taken in turn."""
    shapes = [(batch, c, image, image) for c in (3, 1, 3, 12, 3)]
    inputs = [torch.rand(shape) for shape in shapes]
    inputs[1].fill_(1)
    inputs[1][:, :, :hole, :hole] = 0
    relu = 'layer { name: "relu" type: "ReLU" bottom: "first" top: "first" }'
    bottoms = " ".join(f'bottom: "{name}"' for name in ("data", "mask", "mu", "a", "d"))
    plain = OVERHEAD.format(b=batch, i=image, kind='type: "Convolution" bottom: "data"', more="", relu=relu)
    misconv = OVERHEAD.format(
        b=batch,
        i=image,
        kind=f'type: "MisConv" {bottoms}',
        more="low_rank_gaussian_param { factors: 4 }",
        relu="",
    )
    nets = {"convolution": make_net(plain), "MisConv": make_net(misconv)}
    times: dict[str, list[float]] = {name: [] for name in nets}
    with torch.no_grad():
        for _ in range(repetitions + 1):
            for name, net in nets.items():
                times[name].append(timed(net, inputs))
    return {name: taken[1:] for name, taken in times.items()}


def timed(net: Callable[..., Any], inputs: list[Tensor]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    net(*inputs)
    return time.perf_counter() - begin


def figures_of(results: Results, way: str, mask: str) -> list[float]:
    """Accuracies of a way, one for each seed."""
    return [
        value
        for key, value in results.values.items()
        if key.split(" | ")[:2] == [way, mask] and way != "overhead"
    ]


def why(results: Results) -> str:
    """What the kind of mask in the density's training changes, where both were measured; else ""."""
    lines = []
    for mask in MASKS:
        other, ours = figures_of(results, SQUARES, mask), figures_of(results, "MisConv", mask)
        if other and not ours:
            lines.append(
                f"On {mask} the density had met squares alone, where the paper's had met {mask}; the density's net "
                "reads the mask. The command trains it on the right kind now; that has not been run, so what it "
                "changes is not known."
            )
        if other and ours:
            lines.append(
                f"Behind a density that had met squares alone MisConv has {np.mean(other):.4f} on {mask}, behind one "
                f"that had met {mask} {np.mean(ours):.4f}, with as many steps: the density's net reads the mask."
            )
    return " ".join(lines)


def overlap(one: float, other: float, images: int = 10_000) -> bool:
    """Whether the intervals of two accuracies have a point in common."""
    (low, high), (least, most) = wilson(one, images), wilson(other, images)
    return low <= most and least <= high


def missed(results: Results) -> str:
    """Where MisConv is not above its rivals, first of all."""
    lines = []
    for mask in MASKS:
        ours = figures_of(results, "MisConv", mask) or figures_of(results, SQUARES, mask)
        rivals = {way: figures_of(results, way, mask) for way in ("zero", "mask", "k-NN", "PC")}
        measured = {way: float(np.mean(values)) for way, values in rivals.items() if values}
        if not ours or not measured:
            lines.append(f"{mask}: not measured.")
            continue
        centre = float(np.mean(ours))
        better = [way for way, value in measured.items() if value >= centre]
        near = [way for way, value in measured.items() if way not in better and overlap(value, centre)]
        absent = [way for way in rivals if way not in measured]
        verdict = f"missed against {', '.join(better)}" if better else "reached"
        said = [f"not told apart from {', '.join(near)} by the 95 % intervals"] if near else []
        said += [f"not measured: {', '.join(absent)}"] if absent else []
        lines.append(f"{mask}: {'; '.join([verdict, *said])}.")
    return "The goal of MisConv above zero, mask, k-NN and PC. " + " ".join(lines)


def report(out: Path, results: Results) -> Path:
    """The page, from the record alone."""
    theirs, rows = published("misconv"), []
    for way in (*WAYS, SQUARES):
        cells = []
        for mask in MASKS:
            values = figures_of(results, way, mask)
            low, high = wilson(float(np.mean(values)), 10_000) if values else (0.0, 0.0)
            more = f", {len(values)} seeds" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4f} ({low:.4f} to {high:.4f}{more})" if values else "")
        if way == SQUARES:
            rows += [[way, *cells]] if any(cells) else []
            continue
        rows.append([way, *cells])
        rows.append([f"{way}, published", *(f"{x:.3f}" for x in theirs[AS_PUBLISHED.get(way, way)])])
    rows.append(["ACFlow, published", *(f"{x:.3f}" for x in theirs["ACFlow"])])
    settings = results.settings
    text = (
        "Accuracy on the 10,000 test images of MNIST after the last step, 95 % intervals (Wilson). This is a reduced "
        f"run, no reproduction: {settings['steps']:,} steps of 48 images for each classifier (published: 25,000 of "
        f"24), {settings['density_steps']:,} for the density, half the channels, a density net of 3.7 million weights "
        "in place of 118 million. ACFlow, a flow of its own, was not implemented again. What is missing: a square of "
        "14 x 14 pixels, half of the area, three quarters of the pixels."
    )
    picture = boxes(results, out.with_name(f"{out.name}_overhead.png"))
    cost = (
        "Seconds of a forward pass, medians; the first layer alone, 3 channels to 32, four factors. The published "
        "ratio is of a GPU, ours of one thread of a processor that ran other programs as well."
    )
    return page(
        out.with_suffix(".md"),
        "Classification through MisConv",
        [
            missed(results),
            *([reason] if (reason := why(results)) else []),
            text,
            markdown(["", *MASKS], rows),
            cost,
            ratios(results),
            f"![overhead]({picture.name})",
        ],
        {**settings, **results.facts()},
    )


def ratios(results: Results) -> str:
    """Medians of the overhead as a table, the published beside them."""
    theirs, rows = published("misconv_overhead"), []
    for key, times in results.values.items():
        if key.startswith("overhead"):
            _, size, batch = key.split(" | ")
            plain, ours = (float(np.median(times[name])) for name in ("convolution", "MisConv"))
            old, new = theirs[size][batch]
            rows.append([f"image {size.split(', ')[0]}, hole {size.split(', ')[1]}, batch {batch}",
                         f"{plain:.5f}", f"{ours:.5f}", f"{ours / plain:.1f}", f"{new / old:.1f}"])  # fmt: skip
    return markdown(["", "convolution", "MisConv", "ratio", "published ratio"], rows)


def boxes(results: Results, path: Path) -> Path:
    """Boxplots of MisConv's time over the convolution's median."""
    fig = figure(8, 4)
    axes: Any = fig.subplots()
    kept = {
        key.split(" | ", 1)[1]: times for key, times in results.values.items() if key.startswith("overhead")
    }
    axes.boxplot(
        [np.array(times["MisConv"]) / np.median(times["convolution"]) for times in kept.values()],
        showfliers=False,
    )
    axes.set_xticks(range(1, len(kept) + 1), [name.replace(" | ", "\nbatch ") for name in kept], fontsize=7)
    axes.set_ylabel("time over a convolution's")
    return write(fig, path)


if __name__ == "__main__":
    main()
