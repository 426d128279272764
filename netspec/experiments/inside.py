"""A net for the page of a report: where its layers stand, their lines of prototxt, shapes and histograms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from netspec import schema
from netspec.check import shaped_net
from netspec.draw.families import COLOURS
from netspec.draw.layout import POINT, layered
from netspec.draw.text import shape_text, width
from netspec.errors import NetspecError
from netspec.experiments.runs import RunFolder
from netspec.interchange.snapshot_files import states
from netspec.net.net import Net
from netspec.net.summary import rows
from netspec.run.evaluate import fed, tests_of
from netspec.run.stopping import BEST
from netspec.schema.formatting import format_text

BINS = 32
MOST_VALUES = 1_000_000
"""Most values of a blob that a histogram counts; larger blobs are sampled at every n-th value."""
SIZE = 11.0


def net_of(
    run: RunFolder, weights: bool = True, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """{"nodes", "links", "width", "height"} of the training net, and of each layer its lines, shapes and histograms.

    weights: add histograms of the parameters and, on a batch of test data, of the tops. Where the run keeps no weights
    or its data is not here, `tell` is called with the reason.
    """
    net = shaped_net(run.path)
    graph = graph_of(net)
    if weights:
        try:
            for name, blobs in histograms(run).items():
                for node in graph["nodes"]:
                    if node["name"] == name:
                        node |= blobs
        except (NetspecError, OSError) as error:
            tell(f"no histograms: {error}")
    return graph


def graph_of(net: Net) -> dict[str, Any]:
    """Places and links of the layers, and what is known of each without weights."""
    steps = net.graph.steps
    maker = {slot: i for i, step in enumerate(steps) for slot in step.writes}
    edges = dict.fromkeys(
        (maker[slot], i) for i, step in enumerate(steps) for slot in step.reads if maker.get(slot, i) < i
    )
    sizes = [
        (max(width(step.layer.name, SIZE, True), width(step.layer.type, SIZE - 1)) + 20, 40.0)
        for step in steps
    ]
    placed = layered(sizes, list(edges))
    nodes = []
    for i, (step, row) in enumerate(zip(steps, rows(net), strict=True)):
        item = placed.items[i]
        nodes.append(
            {
                "name": step.layer.name, "type": step.layer.type, "family": step.kind.family,
                "colour": COLOURS[step.kind.family], "x": round(item.x, 1), "y": round(placed.tops[item.rank], 1),
                "w": round(sizes[i][0], 1), "h": sizes[i][1], "text": text_of(step.layer.message),
                "bottoms": named(net, step.reads, row.bottoms), "tops": named(net, step.writes, row.tops),
                "parameters": row.parameters, "products": row.multiply_adds,
            }
        )  # fmt: skip
    links = []
    for chain in placed.chains:
        line: list[float] = []
        for place in chain:
            item = placed.items[place]
            top = placed.tops[item.rank]
            tall = sizes[item.node][1] if item.node != POINT else placed.heights[item.rank]
            ends = {chain[0]: [top + tall], chain[-1]: [top]}.get(place, [top, top + tall])
            line += [round(value, 1) for y in ends for value in (item.x, y)]
        links.append(line)
    return {
        "nodes": nodes,
        "links": links,
        "width": round(placed.width, 1),
        "height": round(placed.height, 1),
    }


def text_of(message: Any) -> str:
    """A layer's lines of prototxt, its fields side by side."""
    inner = " ".join(schema.print_text(message).split("\n"))
    return format_text(f"layer {{\n{inner}\n}}")


def named(net: Net, slots: Any, shapes: Any) -> list[list[str]]:
    listed = [shape_text(shape) for shape in shapes] or [""] * len(slots)
    return [[net.graph.name(slot), shape] for slot, shape in zip(slots, listed, strict=True)]


def histograms(run: RunFolder) -> dict[str, dict[str, Any]]:
    """For each layer of the first test net: {"blobs": histograms of its parameters, "values": of its tops on a batch of
    data}.
    """
    kept = bool(states(run.path))
    best = run.path / BEST
    if not kept and not best.is_file():
        raise NetspecError(f"{run.path}: keeps no weights")
    wanted = tests_of(run.path, None if kept else best, (), "cpu")
    per_layer: dict[str, dict[str, Any]] = {}
    with fed(wanted.nets[0][0], wanted, 1) as (net, feeder), torch.no_grad():
        slots = net.slots(*feeder.next())
        for step, layer in zip(net.graph.steps, net.made, strict=True):
            entry = per_layer.setdefault(step.layer.name, {})
            if blobs := [counted for blob in layer.blobs if (counted := histogram(blob))]:
                entry["blobs"] = blobs
            tops = [counted for slot in step.writes if slot in slots and (counted := histogram(slots[slot]))]
            if tops:
                entry["values"] = tops
    return per_layer


def histogram(values: Tensor) -> dict[str, Any] | None:
    """{"low", "high", "counts", "mean", "sd", "odd"} of the finite values; odd: number of values that are not finite.
    None where no value is finite.
    """
    flat = values.detach().flatten().double().cpu()
    flat = flat[:: math.ceil(len(flat) / MOST_VALUES)] if len(flat) > MOST_VALUES else flat
    finite = flat[flat.isfinite()]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    counts = torch.histc(finite, BINS, low, high) if low < high else torch.tensor([float(len(finite))])
    deviation = float(finite.std(unbiased=False))
    return {
        "low": float(f"{low:.4g}"), "high": float(f"{high:.4g}"), "counts": [int(c) for c in counts],
        "mean": float(f"{float(finite.mean()):.4g}"), "sd": float(f"{deviation:.4g}"), "odd": len(flat) - len(finite),
        "shape": shape_text(tuple(values.shape)),
    }  # fmt: skip
