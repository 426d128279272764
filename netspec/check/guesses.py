"""Guesses the size of data that is not here, and tells which mistakes do not depend on it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from netspec.check import assume
from netspec.errors import Position, Problem, SpecError
from netspec.layers.base import Shape
from netspec.net.graph import Graph, Step
from netspec.net.net import Net, build
from netspec.net.shapes import top_shapes
from netspec.schema.descriptors import is_repeated

NAMED: tuple[tuple[str, assume.Size], ...] = (
    ("mnist", (1, 28, 28)),
    ("cifar", (3, 32, 32)),
    ("imagenet|ilsvrc", (3, 224, 224)),
)
"""Shapes of data sets by words in the names of sources and mean files. ImageNet tells the channels alone."""
WHOLE = ("mnist", "cifar")
"""Data sets whose pictures all have one size."""
TIMES = (2, 4, 8, 16, 32)
"""Factors to try between the size that a layer restores and the size of the picture."""
ALTERNATIVES = 3
"""Number of other sizes tried to see whether the number of parameters depends on the size."""


def named(steps: Collection[Step]) -> tuple[str, assume.Size] | None:
    """The data set that sources or mean files of these steps are called after."""
    for step in steps:
        texts = [step.layer.message.transform_param.mean_file]
        texts += [str(getattr(value, "source", "")) for field, value in step.layer.message.ListFields()]
        for pattern, size in NAMED:
            if any(re.search(pattern, text, re.IGNORECASE) for text in texts):
                return pattern, size
    return None


def sizes(graph: Graph, steps: Sequence[Step]) -> Iterator[assume.Size]:
    """Sizes of pictures to try, the likeliest first: of a data set by its name, those that layers restore, the usual
    ones.
    """
    if (known := named(steps)) is not None:
        yield known[1]
    mentioned, usual = assume.sizes(graph)[: -len(assume.SIZES)], assume.SIZES
    for times in (1, *TIMES):
        for channels, height, width in mentioned:
            yield channels, times * height, times * width
    yield from usual


def is_told(
    graph: Graph, steps: Sequence[Step], shapes: Mapping[str, Shape], net: Net, given: Mapping[str, Shape]
) -> bool:
    """Whether the number of parameters is certain although shapes were assumed.

    given: the shapes that are known.

    It is where the data set is known by name, or where every other size that the net accepts gives the same number.
    """
    steps = [step for step in steps if graph.name(step.writes[0]) not in given]
    known = named(steps)
    if not steps or (known is not None and known[0] in WHOLE):
        return True
    total, seen = parameters(net), {tuple(sorted(shapes.items()))}
    channels = {
        shapes[graph.name(step.writes[0])][1]
        for step in steps
        if len(shapes[graph.name(step.writes[0])]) == 4
    }
    others: list[assume.Size] = [
        (c, *assume.SIZES[0][1:]) for c in (1, 3) if c not in channels and known is None
    ]
    others += [size for size in assume.SIZES if known is None or size[0] == known[1][0]]
    for size in islice(others, ALTERNATIVES + 1):
        other = assume.input_shapes(graph, steps, size, given=given)
        key = tuple(sorted(other.items()))
        if key in seen:
            continue
        seen.add(key)
        try:
            if (
                parameters(build(graph, device="meta", input_shapes={**shapes, **given, **other}, unknown=[]))
                != total
            ):
                return False
        except SpecError:
            continue
    return True


def parameters(net: Net) -> int:
    """How many numbers the net learns or keeps."""
    return sum(param.value.numel() for param in net.params)


def lasting(graph: Graph, tried: Sequence[tuple[Mapping[str, Shape], SpecError]]) -> list[Problem]:
    """Of the mistakes found with several shapes of absent data, those that no data would mend.

    Either the data has one shape whatever it holds; or a complaint is the same for all shapes, so it is of the
    layer's own fields; or bottoms that must be alike differ along an axis where no shape of the data changes them; or a
    layer takes no bottom whatever its sizes.
    """
    if not tried:
        return []
    first = tried[0][1].problems
    if all(shapes == tried[0][0] for shapes, _ in tried):
        return list(first)
    texts = [{str(problem) for problem in error.problems} for _, error in tried]
    same = [problem for problem in first if all(str(problem) in listed for listed in texts)]
    places = {problem.position for problem in first if problem not in same}
    unlike = [step for step in graph.steps if step.kind.alike and is_at(step, places)]
    walks = [walked(graph, shapes) for shapes, _ in tried] if unlike else []
    for step in unlike:
        if differs(step, walks):
            same += [problem for problem in first if is_at(step, {problem.position})]
    same += own_faults(graph, tried, [problem for problem in first if problem not in same])
    return sorted(set(same), key=first.index)


CHANNELS = (
    *range(1, 65),
    72,
    80,
    96,
    120,
    128,
    160,
    192,
    240,
    256,
    320,
    384,
    480,
    512,
    840,
    1024,
    2048,
    2520,
    5040,
)
SIDES = (1, 2, 3, 5, 8, 14, 28, 56, 113, 224, 512, 4096)
"""Sizes to try for a bottom along the axes that differ among the assumptions, beside the layer's own numbers."""
LARGEST, MOST_NUMBERS = 100_000, 12


def own_faults(
    graph: Graph, tried: Sequence[tuple[Mapping[str, Shape], SpecError]], left: Sequence[Problem]
) -> list[Problem]:
    """The problems whose layer refuses its bottom whatever the size of the axes that depend on the data.

    Only layers with one bottom are examined: agreement between several bottoms is not.
    """
    steps = [step for step in graph.steps if len(step.reads) == 1 and not step.kind.counts_values]
    faulty = [(step, problem) for problem in left for step in steps if is_within(step, problem)]
    if not faulty:
        return []
    walks = [walked(graph, shapes) for shapes, _ in tried]
    faults = []
    for step, problem in faulty:
        shapes = {walk[step.reads[0]] for walk in walks}
        if None in shapes or len({len(shape) for shape in shapes}) > 1:
            continue
        if all(fails(graph, step, shape) for shape in varied(shapes, step)):
            faults.append(problem)
    return faults


def is_within(step: Step, problem: Problem) -> bool:
    """Whether a problem belongs to this layer: its text begins with the layer's name and type."""
    return problem.message.startswith(f"{step.layer}: ")


def numbers(message: Any) -> set[int]:
    """The positive whole numbers that a layer's fields hold."""
    whole: set[int] = set()
    for known, value in message.ListFields():
        for item in value if is_repeated(known) else [value]:
            if known.message_type is not None:
                whole |= numbers(item)
            elif isinstance(item, int) and 0 < item < LARGEST:
                whole |= {item, 2 * item}
    return whole


def varied(shapes: Collection[Shape], step: Step) -> Iterator[Shape]:
    """The shapes, and shapes with other sizes along each axis in which they differ."""
    yield from shapes
    own_numbers = sorted(numbers(step.layer.message))[:MOST_NUMBERS]
    example = next(iter(shapes))
    axes = [axis for axis in range(len(example)) if len({shape[axis] for shape in shapes}) > 1]
    for size in (*CHANNELS, *own_numbers) if 1 in axes else (example[1] if len(example) > 1 else 1,):
        sides = (*SIDES, *own_numbers) if set(axes) - {1} else (0,)
        for side in sides:
            yield tuple(
                size if i == 1 and i in axes else side if i in axes else own for i, own in enumerate(example)
            )


def fails(graph: Graph, step: Step, shape: Shape) -> bool:
    """Whether the layer refuses a bottom of this shape."""
    shapes: list[Any] = [None] * len(graph.slots)
    shapes[step.reads[0]] = shape
    try:
        layer = step.kind(step.layer, step.layer.phase(graph.spec.phase))
        list(top_shapes(layer, step, graph, shapes, {}))
    except SpecError:
        return True
    return False


def is_at(step: Step, places: Collection[Position | None]) -> bool:
    """Whether one of these places lies in the layer."""
    own = {step.layer.at(), *(step.layer.at("bottom", i) for i in range(len(step.reads)))}
    return bool(own & set(places))


def walked(graph: Graph, given: Mapping[str, Shape]) -> list[Any]:
    """The shape of every slot that can be found with these shapes of the data; None for the others."""
    shapes: list[Any] = [None] * len(graph.slots)
    for step in graph.steps:
        if any(shapes[slot] is None for slot in step.reads):
            continue
        try:
            layer = step.kind(step.layer, step.layer.phase(graph.spec.phase))
            tops = tuple(top_shapes(layer, step, graph, shapes, given))
        except (SpecError, NotImplementedError):
            continue
        for slot, shape in zip(step.writes, tops, strict=True):
            shapes[slot] = tuple(shape)
    return shapes


def differs(step: Step, walks: Sequence[Sequence[Any]]) -> bool:
    """Whether two bottoms have different sizes along an axis, the same ones in every walk."""
    shapes_per_walk = [[walk[slot] for slot in step.reads] for walk in walks]
    if any(shape is None for shapes in shapes_per_walk for shape in shapes):
        return False
    if any(len({len(shape) for shape in shapes}) > 1 for shapes in shapes_per_walk):
        return False
    for axis in range(len(shapes_per_walk[0][0])):
        along = {tuple(shape[axis] for shape in shapes) for shapes in shapes_per_walk}
        if len(along) == 1 and len(set(next(iter(along)))) > 1:
            return True
    return False
