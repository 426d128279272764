"""Time the training step of nets against the machine's limit and the bare matrix products inside it.

    python -m tools.bench.nets [NET.prototxt ...] [--queries NET.prototxt] [--threads 2] [--rounds 30]
                          [--out docs/results/bench_cpu.json]
    python -m tools.bench.nets --caffe          nets of Caffe's time in place of these: tools/bench/caffe.py
    python -m tools.bench.nets --rendering      rendering models in place of these: tools/bench/rendering.py

For each net (default: every net in nets/ that has a solver beside it), on random images: forward; forward and
backward; and the whole step with the solver's update; compiled and layer by layer. The floor is what no other
implementation of the same layers can save: one matrix product (or convolution) a layer on data that lies ready,
forward, and backward for exactly those gradients that the step needs. `step_over_floor` is the whole compiled
step over that. The limit is below the floor: max(operations of those products / best rate of a matrix product, bytes of
batch and parameters / rate of a copy), with this machine's rates of the same round (tools/bench/limit.py).

With `--queries`, for a generative net: seconds for 10,000 images with half of their pixels missing, classified,
completed, explained by marginals, and so on, and each as a multiple of the plain forward pass.

All timings of a net are taken in turns, round after round, so that a disturbance hits all of them; a ratio is the
median over the rounds of ratios within a round. `..._cpu` is the same ratio of processor time in place of wall
time, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from netspec import schema
from netspec.lab import circumstances
from netspec.layers.base import Layer, as_tuple
from netspec.layers.basic.convolution import Convolution
from netspec.layers.basic.inner_product import InnerProduct
from netspec.layers.simnets.mex import MEX
from netspec.layers.simnets.similarity import Similarity
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.queries.likelihood import posterior
from netspec.queries.marginals import expected_completion, marginals
from netspec.queries.most_probable import most_probable_completion
from netspec.queries.sampling import complete, sample
from netspec.queries.tree import Tree
from netspec.solver.solver import Solver
from tools.bench.limit import best_product, copy, rates
from tools.bench.timing import Run, Taken, machine, milliseconds, ratios, rounds
from tools.results.reproduction import page as write_page

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Product:
    """One layer's matrix products on ready data: y = f(a, b), then the gradients that are needed."""

    function: Callable[[Tensor, Tensor], Tensor]
    operands: tuple[Tensor, Tensor]
    upstream: Tensor

    @property
    def multiply_adds(self) -> int:
        """Of the forward pass."""
        weights = self.operands[1]
        return self.upstream.numel() * (weights.shape[2] if weights.dim() == 3 else weights[0].numel())

    @property
    def wanted(self) -> int:
        """Operands whose gradient the step needs; each costs another product of the same size."""
        return sum(operand.requires_grad for operand in self.operands)

    def flops(self, backward: bool) -> float:
        """Two for each multiply-add of the forward pass and, with `backward`, of the gradients."""
        return 2.0 * self.multiply_adds * (1 + (self.wanted if backward else 0))

    def run(self) -> None:
        wanted = [operand for operand in self.operands if operand.requires_grad]
        y = self.function(*self.operands)
        if wanted:
            torch.autograd.grad(y, wanted, self.upstream)


def product_of(layer: Layer, bottom: Tensor) -> Product | None:
    """The bare product of a layer for this bottom, or None for a layer without one."""
    function: Callable[[Tensor, Tensor], Tensor]
    if isinstance(layer, MEX):
        a, b = layer.patches(bottom.detach()).contiguous(), layer.rows().detach()
        function = by_region
    elif isinstance(layer, Similarity):  # (x^2, x, 1)
        patches = layer.patches(bottom.detach()).flatten(0, -2)
        a, b = torch.ones(len(patches), 3 * patches.shape[1]), layer.blob(0).flatten(1).detach().repeat(1, 3)
        function = torch.nn.functional.linear
    elif isinstance(layer, InnerProduct):
        a, b = bottom.detach().flatten(layer.start), layer.blob(0).detach()
        function = torch.nn.functional.linear
    elif isinstance(layer, Convolution):
        a, b = bottom.detach(), layer.blob(0).detach()
        function = convolution(layer)
    else:
        return None
    a, b = a.clone().requires_grad_(bottom.requires_grad), b.clone().requires_grad_(needs_gradient(layer))
    with torch.no_grad():
        upstream = torch.randn_like(function(a, b))
    return Product(function, (a, b), upstream)


def by_region(x_RLK: Tensor, w_RMK: Tensor) -> Tensor:
    return torch.bmm(x_RLK, w_RMK.transpose(1, 2))


def needs_gradient(layer: Layer) -> bool:
    """Whether any blob of the layer is trained."""
    return any(blob.requires_grad for blob in layer.blobs)


def convolution(layer: Convolution) -> Callable[[Tensor, Tensor], Tensor]:
    """The layer's convolution without its bias."""
    window = layer.window

    def function(x: Tensor, w: Tensor) -> Tensor:
        settings = (list(window.stride), list(window.pad), list(window.dilation))
        return torch.conv2d(x, w, None, *settings, layer.group)

    return function


def products(net: Net, batch: Sequence[Tensor]) -> list[Product]:
    """The bare products of a net, found by walking it once."""
    chosen: list[Product] = []

    def call(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if bottoms and (product := product_of(layer, bottoms[0])):
            chosen.append(product)
        return as_tuple(layer(*bottoms))

    net.run(call, *batch)
    return chosen


class Bench:
    """One net in training: the things to time."""

    def __init__(self, path: Path):
        document = schema.read_net(path)
        self.net = make_net(document, phase="TRAIN", seed=1)
        solver = schema.read_solver(path.with_name(f"{path.stem}_solver.prototxt"))
        self.batch = [self.blob(name) for name in self.net.input_names]
        self.products = products(self.net, self.batch)
        self.message = solver.message
        self.trained = [param.value for param in self.net.params if param.value.requires_grad]

    def blob(self, name: str) -> Tensor:
        """Random pixels, most of them dark as in written digits; or random labels."""
        shape, generator = self.net.shape(name), torch.Generator().manual_seed(1)
        if len(shape) == 1:
            return torch.randint(10, shape, generator=generator).float()
        ink = torch.rand(shape, generator=generator) < 0.2
        return torch.where(ink, torch.rand(shape, generator=generator), 0.0) - 0.5

    def floor(self) -> None:
        for product in self.products:
            product.run()

    def runs(self, compiled: bool) -> dict[str, Run]:
        """Forward, forward and backward, whole step; by name."""
        call = torch.compile(self.net, fullgraph=True, dynamic=False) if compiled else self.net
        solver = Solver(self.net, self.message, compiled=compiled)

        def forward() -> None:
            with torch.no_grad():
                call(*self.batch)

        def gradients() -> dict[int, Tensor]:
            objective = self.net.objective(call(*self.batch))
            return dict(zip(map(id, self.trained), torch.autograd.grad(objective, self.trained), strict=True))

        def step() -> None:
            computed = gradients()
            solver.step([computed.get(id(param.value)) for param in self.net.params])

        return {"forward": forward, "forward_backward": gradients, "step": step}


def measure(path: Path, count: int) -> dict[str, Any]:
    """The entry of one net."""
    bench = Bench(path)
    yardsticks = {"product": best_product(), "copy": copy()}
    runs: dict[str, Run] = {"floor": bench.floor} | {name: stick.run for name, stick in yardsticks.items()}
    for kind, compiled in (("compiled", True), ("eager", False)):
        runs |= {f"{kind}/{name}": run for name, run in bench.runs(compiled).items()}
    taken = rounds(runs, count)
    multiply_adds = sum(product.multiply_adds for product in bench.products)
    floor = taken["floor"]
    # What no cache can spare: the batch and the parameters are read, and in a step the parameters written.
    parameters = sum(param.value.numel() for param in bench.net.params)
    compulsory = 4.0 * (sum(blob.numel() for blob in bench.batch) + parameters)
    size = {
        "forward": (sum(one.flops(False) for one in bench.products), compulsory),
        "step": (sum(one.flops(True) for one in bench.products), compulsory + 4.0 * parameters),
    }

    def limits(kind: str) -> list[Taken]:
        """The limit of each round, by the rates of that round."""
        flops, moved = size[kind]
        product, copied = yardsticks["product"], yardsticks["copy"]
        return [
            Taken(
                max(product.seconds(flops, a), copied.seconds(moved, b)),
                max(flops * a.cpu / product.size, moved * b.cpu / copied.size),
            )
            for a, b in zip(taken["product"], taken["copy"], strict=True)
        ]

    return {
        "batch": bench.batch[0].shape[0],
        "parameters": parameters,
        "multiply_adds_forward": multiply_adds,
        "flops_step": size["step"][0],
        "bytes_step": size["step"][1],
        "limit": milliseconds(limits("step")),
        **ratios("step_over_limit", taken["compiled/step"], limits("step")),
        **ratios("forward_over_limit", taken["compiled/forward"], limits("forward")),
        **ratios("floor_over_limit", floor, limits("step")),
        **ratios("eager_step_over_limit", taken["eager/step"], limits("step")),
        **ratios("step_over_floor", taken["compiled/step"], floor),
        **ratios("forward_backward_over_floor", taken["compiled/forward_backward"], floor),
        **ratios("eager_step_over_floor", taken["eager/step"], floor),
        **{name: milliseconds(times) for name, times in taken.items() if name not in yardsticks},
    }


IMAGES, BATCH = 10_000, 500
"""Images that the queries are timed on, and how many go through at once."""


def measure_queries(path: Path, count: int) -> dict[str, Any]:
    """Seconds for IMAGES images of every query, and the median over the rounds of its ratio to the forward pass."""
    document = schema.read_net(path)
    side = make_net(document, device="meta")
    shapes = {name: (BATCH, *side.shape(name)[1:]) for name in side.input_names}
    net = make_net(document, seed=1, input_shapes=shapes)
    tree, generator = Tree(net), torch.Generator().manual_seed(1)
    x = torch.rand((BATCH, *tree.image_shape), generator=generator) - 0.5
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.5, torch.nan, x)
    y = torch.randint(tree.classes, (BATCH,), generator=generator)
    queries: dict[str, Run] = {
        "forward": lambda: tree.up(x),
        "posterior": lambda: posterior(tree, x),
        "complete": lambda: complete(tree, x, generator=generator),
        "sample": lambda: sample(tree, y, generator=generator),
        "most_probable_completion": lambda: most_probable_completion(tree, x),
        "marginals": lambda: marginals(tree, x),
        "expected_completion": lambda: expected_completion(tree, x),
    }
    with torch.no_grad():
        taken = rounds(queries, count)
    return {"images": IMAGES, "batch": BATCH} | {
        name: {"seconds": round(statistics.median(t.wall for t in times) * IMAGES / BATCH, 3)}
        | ratios("over_forward", times, taken["forward"])
        for name, times in taken.items()
    }


def nets_with_solvers() -> list[Path]:
    """Nets of nets/ that have a solver beside them."""
    return [
        net
        for path in sorted((ROOT / "nets").glob("*_solver.prototxt"))
        if (net := path.with_name(path.name.replace("_solver", ""))).exists()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("nets", nargs="*", metavar="NET", help="nets with a solver beside them")
    parser.add_argument(
        "--queries", type=Path, metavar="NET", help="time the queries of a generative net too"
    )
    parser.add_argument(
        "--caffe", action="store_true", help="time Caffe's nets against Caffe and plain PyTorch"
    )
    parser.add_argument("--rendering", action="store_true", help="time rendering models")
    parser.add_argument(
        "--no-compiled", action="store_true", help="with --caffe: leave out the compiled nets"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of timings (default 30)")
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"machine": machine(), "rounds": options.rounds}
    page = ""
    from tools.bench import caffe as bench_caffe

    if options.caffe:
        results["nets"] = bench_caffe.run(options.nets, options.rounds, not options.no_compiled)
        page = bench_caffe.table(results["nets"])
    elif options.rendering:
        from tools.bench import rendering as bench_rendering
        from tools.generate import render_nets

        results["nets"] = bench_rendering.table(options.nets or render_nets.NETS, options.rounds)
    else:
        results["rates"] = rates()
        print(f"rates of this machine: {results['rates']}", flush=True)
        results |= steps([Path(net) for net in options.nets], options.queries, options.rounds)
        page = speed_table(results)
    results["machine"]["load_average_after"] = round(os.getloadavg()[0], 2)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        if page:
            facts = circumstances() | results["machine"]
            title = (
                "Nets of Caffe's time"
                if options.caffe
                else "Speed: training steps beside the machine's limit"
            )
            head = bench_caffe.ORIGIN if options.caffe else SPEED
            write_page(options.out.with_suffix(".md"), title, [head, page.rstrip()], facts)
    return 0


SPEED = (
    "The limit is max(operations / best rate of a matrix product, bytes of batch and parameters / rate of a copy), the "
    "floor the bare matrix products on data that lies ready. Ratios are medians over the rounds of ratios within a "
    "round; in brackets those of processor time, which other programs disturb less. `python -m tools.bench.nets` says "
    "more."
)
GOALS = {"ht_cac_mnist": (2.2, 1.3), "cp_cac_mnist": (2.5, 1.3), "ht_cac_digits": (8.0, None)}
"""Compiled step over the limit and over the floor, at most."""


def speed_table(results: dict[str, Any]) -> str:
    """The page's tables: the machine's rates, and a row per net."""
    lines = ["| rate of this machine | |", "| --- | ---: |"]
    lines += [
        f"| {name.replace('_g', ', billions of ')} a second | {rate:.2f} |"
        for name, rate in results["rates"].items()
    ]
    columns = ("floor_over_limit", "step_over_limit", "step_over_floor", "eager_step_over_limit")
    lines += [
        "",
        "| net | limit, ms | floor / limit | step / limit | step / floor | eager step / limit | goals |",
    ]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | --- |"]
    for name, entry in results["nets"].items():
        cells = [f"{entry[key]:.2f} ({entry[key + '_cpu']:.2f})" for key in columns]
        limit, floor = GOALS.get(name, (None, None))
        goals = [f"{name} {goal}" for name, goal in (("limit", limit), ("floor", floor)) if goal]
        lines.append(
            f"| {name} | {entry['limit']['median_ms']:.2f} | {' | '.join(cells)} | {', '.join(goals)} |"
        )
    return "\n".join(lines)


def steps(nets: Sequence[Path], queries: Path | None, count: int) -> dict[str, Any]:
    """The training steps of nets over their matrix products, and the queries of one of them."""
    results: dict[str, Any] = {"nets": {}}
    for path in nets or nets_with_solvers():
        torch.compiler.reset()
        if not Bench(path).products:
            print(f"{path.stem}: no matrix products in it", flush=True)
            continue
        entry = results["nets"][path.stem] = measure(path, count)
        print(
            f"{path.stem}: floor {entry['floor']['median_ms']:.2f} ms, compiled step "
            f"{entry['compiled/step']['median_ms']:.2f} ms, {entry['step_over_limit']:.2f} times the limit, "
            f"{entry['step_over_floor']:.2f} times the floor, "
            f"{entry['step_over_floor_cpu']:.2f} in processor time "
            f"(forward and backward {entry['forward_backward_over_floor']:.2f}, "
            f"layer by layer {entry['eager_step_over_floor']:.2f})",
            flush=True,
        )
    if queries:
        entry = measure_queries(queries, max(3, count // 5))
        results["queries"] = {queries.stem: entry}
        for name, figures in entry.items():
            if isinstance(figures, dict):
                print(
                    f"{name}: {figures['seconds']:.2f} s, {figures['over_forward']:.2f} times the forward pass",
                    flush=True,
                )
    return results


if __name__ == "__main__":
    raise SystemExit(main())
