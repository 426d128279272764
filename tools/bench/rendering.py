"""Time rendering models: the way top-down against the way bottom-up, and training against the plain DCN.

    python -m tools.bench.rendering [NET ...] [--threads 1] [--rounds 15] [--out rendering.json]
    python -m tools.bench.nets --rendering                  the same after the other figures

up: messages, switches and class scores of a batch; down: the image from the switches and the winning class (or
the top messages), which is all that the E-step adds. step_dcn, step_eg: forward, backward and the update of the
solver beside the net, as a DCN of the same configuration and as a rendering model (supervised EG). Timings of a net
are taken in turns; a ratio is the median over the rounds, `..._cpu` in processor time.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from netspec import schema
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.rendering import RenderingModel
from netspec.solver.solver import Solver
from tools.bench.timing import machine, milliseconds, ratios, rounds
from tools.generate import render_nets

SOLVER = 'type: "Adam" base_lr: 0.001 lr_policy: "fixed" max_iter: 1000000'


def batch_of(net: Net) -> list[Tensor]:
    """Random images, most of each dark, and random labels."""
    generator = torch.Generator().manual_seed(1)
    tensors = []
    for name in net.input_names:
        shape = net.shape(name)
        ink = torch.rand(shape, generator=generator)
        labels = torch.randint(10, shape, generator=generator).float()
        tensors.append(labels if len(shape) == 1 else torch.where(ink > 0.8, ink, 0.0))
    return tensors


def step_of(net: Net, batch: Sequence[Tensor]) -> Callable[[], object]:
    """One training step."""
    solver = Solver(net, schema.parse_solver(SOLVER).message)

    def step() -> None:
        net.objective(net(*batch)).backward()  # type: ignore[no-untyped-call]
        solver.step()

    return step


def runs_of(name: str) -> tuple[int, dict[str, Callable[[], object]]]:
    """The batch size of a net, and what is timed of it."""
    document = schema.parse_net(render_nets.rendered(name), f"{name}.prototxt")
    eg, dcn = (make_net(document, "TRAIN", stages=stages, seed=1) for stages in ((), ("dcn",)))
    batch = batch_of(eg)
    model = RenderingModel(eg)
    with torch.no_grad():
        messages, switches = model.up(batch[0])
        top = messages[-1]
        if model.by_class:
            top = model.template(model.scores(top).argmax(1), top.shape)

    def up() -> None:
        with torch.no_grad():
            model.scores(model.up(batch[0])[0][-1])

    def down() -> None:
        with torch.no_grad():
            model.down(top, switches)

    return len(batch[0]), {
        "up": up, "down": down, "step_dcn": step_of(dcn, batch), "step_eg": step_of(eg, batch),
    }  # fmt: skip


def measure(name: str, count: int) -> dict[str, Any]:
    """The entry of one net."""
    images, runs = runs_of(name)
    taken = rounds(runs, count)
    row: dict[str, Any] = {
        "batch": images,
        **ratios("down_over_up", taken["down"], taken["up"]),
        **ratios("eg_over_dcn", taken["step_eg"], taken["step_dcn"]),
        **{key: milliseconds(times) for key, times in taken.items()},
    }
    for kind in ("dcn", "eg"):
        row[f"images_per_cpu_second_{kind}"] = round(1e3 * images / row[f"step_{kind}"]["cpu_ms"])
    return row


def table(names: Sequence[str], count: int) -> dict[str, Any]:
    """The entries of the nets, each printed when it is there."""
    rows = {}
    for name in names:
        row = rows[name] = measure(name, count)
        print(
            f"{name}: down {row['down_over_up']:.2f} times up ({row['down_over_up_cpu']:.2f} in processor time), "
            f"EG step {row['eg_over_dcn']:.2f} times the DCN's ({row['eg_over_dcn_cpu']:.2f}), "
            f"{row['images_per_cpu_second_eg']} against {row['images_per_cpu_second_dcn']} images a processor second",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("nets", nargs="*", metavar="NET", help="names of rendering models; default all")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of timings (default 15)")
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {"machine": machine(), "nets": table(options.nets or render_nets.NETS, options.rounds)}
    results["machine"]["load_average_after"] = round(os.getloadavg()[0], 2)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
