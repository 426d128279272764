"""The shape of every blob, computed from the sources on, on the meta device, with nothing allocated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import prod
from typing import Any

import torch

from netspec.errors import Problem, SpecError
from netspec.layers.base import Layer, Shape
from netspec.layers.consent import NoConsent
from netspec.net.graph import Graph, Step
from netspec.net.meta import without_compiler
from netspec.net.tripped import at_layer

MOST_VALUES = 1 << 40
"""Most bytes of a blob: no memory holds more."""


def shape_pass(
    graph: Graph, given: Mapping[str, Shape], unknown: list[Problem] | None = None
) -> tuple[list[Layer], list[Shape]]:
    """The layers, one per step, set up, and the shape of every slot; `given`: of source blobs, by name.

    unknown: a list that collects Python layers whose module may not be imported. The shapes of their tops and of
    everything after them are then None, and those layers are not set up.
    A net that does not fit is tried again as another fork's, where one of its layers has a different size there
    (Layer.other). Raises SpecError with every mistake, each at its layer.
    """
    try:
        return walk_shapes(graph, given, unknown)
    except SpecError:
        others = {step.kind.other(step.layer) for step in graph.steps} - {""}
        for dialect in sorted(others):
            with suppress(SpecError):
                if unknown is not None:
                    unknown.clear()
                return walk_shapes(as_of(graph, dialect), given, unknown)
        raise


def as_of(graph: Graph, dialect: str) -> Graph:
    """The graph with its layers taken as those of a fork."""
    steps = [
        replace(step, layer=replace(step.layer, dialect=dialect))
        if step.kind.other(step.layer) == dialect
        else step
        for step in graph.steps
    ]
    return replace(graph, steps=tuple(steps))


def walk_shapes(
    graph: Graph, given: Mapping[str, Shape], unknown: list[Problem] | None = None
) -> tuple[list[Layer], list[Shape]]:
    """`shape_pass` for the graph as it is."""
    shapes: list[Any] = [None] * len(graph.slots)
    layers: list[Layer] = []
    problems: list[Problem] = []
    for step in graph.steps:
        try:
            with at_layer(step.layer, "cannot be made"):
                layer = step.kind(step.layer, step.layer.phase(graph.spec.phase))
            layers.append(layer)
            if any(shapes[slot] is None for slot in step.reads):
                continue  # a mistake above is reported already
            for slot, shape in zip(step.writes, top_shapes(layer, step, graph, shapes, given), strict=True):
                shapes[slot] = shape
        except NoConsent as error:
            (problems if unknown is None else unknown).extend(error.problems)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return layers, shapes


def top_shapes(
    layer: Layer, step: Step, graph: Graph, shapes: list[Any], given: Mapping[str, Shape]
) -> Iterable[Shape]:
    """Shapes of a step's tops, from `shapes` of the slots that it reads; a layer that is no source is set up."""
    names = [graph.name(slot) for slot in step.writes]
    if step.kind.is_source:
        if all(name in given for name in names):
            return [tuple(given[name]) for name in names]
        with at_layer(step.layer, "cannot tell its shapes"):
            sizes = layer.source_shapes()
        own = [tuple(given.get(name, shape)) for name, shape in zip(names, sizes, strict=True)]
        for name, shape in zip(names, own, strict=True):
            if any(size < 0 for size in shape) or prod(shape) > MOST_VALUES:
                raise SpecError([step.layer.problem(f"top {name!r} would have shape {shape}")])
        return own
    bottoms = [shapes[slot] for slot in step.reads]
    with at_layer(step.layer, f"cannot be set up for bottoms of shape {bottoms}", bottoms):
        layer.setup(*bottoms)
    with at_layer(step.layer, f"bottom shapes {bottoms} do not fit"), torch.no_grad(), without_compiler():
        tops = layer.infer(*(torch.empty(shape, device="meta") for shape in bottoms))
    for name, top in zip(names, tops, strict=True):
        if any(size < 1 for size in top.shape) or prod(top.shape) > MOST_VALUES:
            raise SpecError(
                [
                    step.layer.problem(
                        f"top {name!r} would have shape {tuple(top.shape)} from bottoms {bottoms}"
                    )
                ]
            )
    return [tuple(top.shape) for top in tops]
