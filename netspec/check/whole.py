"""Guesses the size of absent data from the windows of a net: where each image gives one score, its windows cover the
image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from netspec.check import assume
from netspec.errors import SpecError
from netspec.layers.traits import Field
from netspec.net.graph import Graph, Step
from netspec.net.shapes import top_shapes
from netspec.net.summary import field_of

LARGE = 2048
"""Side of the images for which windows are computed: large enough for each window."""


def whole_sizes(graph: Graph, steps: Sequence[Step]) -> Iterator[assume.Size]:
    """Image sizes, for the data of these steps, that one score sees as a whole; where images are single rows, one
    channel comes first.
    """
    seen = {
        field.size
        for step, field in scores(graph, steps)
        if len(field.size) == 2 and all(float(side).is_integer() for side in field.size)
    }
    for height, width in sorted(seen, reverse=True):
        for channels in (1, 3) if 1 in (height, width) else (3, 1):
            yield channels, int(height), int(width)


def scores(graph: Graph, steps: Sequence[Step]) -> Iterator[tuple[Step, Field]]:
    """Each layer that reads scores, with the receptive field of one score."""
    given = assume.input_shapes(graph, steps, (3, LARGE, LARGE))
    shapes: list[Any] = [None] * len(graph.slots)
    fields: dict[int, Field | None] = {}
    for step in graph.steps:
        bottoms = [shapes[slot] for slot in step.reads]
        if None in bottoms:
            continue
        role, field = step.kind.role(0, len(step.reads)), fields.get(step.reads[0]) if step.reads else None
        if role in ("scores", "features") and field is not None:
            yield step, field
        try:
            layer = step.kind(step.layer, step.layer.phase(graph.spec.phase))
            tops = tuple(tuple(shape) for shape in top_shapes(layer, step, graph, shapes, given))
        except SpecError:
            continue
        for slot, shape in zip(step.writes, tops, strict=True):
            shapes[slot] = shape
        below = [fields.get(slot) for slot in step.reads]
        fields.update(dict.fromkeys(step.writes, field_of(step, layer, tuple(bottoms), tops, below)))
