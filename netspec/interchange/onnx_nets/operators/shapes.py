"""Constants, and operators that move values without changing them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.interchange.onnx_nets.graph import SHORT, SHORT_OF, Call, Refused, bounded, computes


@computes("Constant")
def constant(c: Call) -> Tensor:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if (value := c.get(name)) is not None:
            return value if isinstance(value, Tensor) else torch.tensor(value)
    raise Refused("is a constant of another kind than numbers")


@computes("ConstantOfShape")
def constant_of_shape(c: Call, shape: Tensor) -> Tensor:
    sizes = c.ints(0) or []
    bounded(math.prod(sizes))
    value = c.get("value")
    return torch.full(sizes, value.flatten()[0].item()) if value is not None else torch.zeros(sizes)


@computes("Range")
def arange(c: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, last, step = (c.lists[i][0] for i in range(3))
    if not step:
        raise Refused("has steps of 0")
    bounded(int((last - first) / step))
    return torch.arange(first, last, step)


@computes("Reshape")
def reshape(c: Call, x: Tensor, shape: Tensor | None = None) -> Tensor:
    sizes = c.ints(1, "shape")
    if sizes is None:
        raise Refused("has a shape that depends on the input")
    if not c.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


@computes("Flatten")
def flatten(c: Call, x: Tensor) -> Tensor:
    axis = c.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1 and x.dim() > 1:
        return x.flatten(1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


@computes("Squeeze")
def squeeze(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    axis_numbers = c.ints(1, "axes")
    gone = (
        {a % x.dim() for a in axis_numbers}
        if axis_numbers is not None
        else {i for i, n in enumerate(x.shape) if n == 1}
    )
    return x.reshape([n for i, n in enumerate(x.shape) if i not in gone])


@computes("Unsqueeze")
def unsqueeze(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    axis_numbers = c.ints(1, "axes") or []
    rank = x.dim() + len(axis_numbers)
    new, rest = {axis % rank for axis in axis_numbers}, iter(x.shape)
    return x.reshape([1 if i in new else next(rest) for i in range(rank)])


@computes("Transpose")
def transpose(c: Call, x: Tensor) -> Tensor:
    return x.permute(c.get("perm", list(range(x.dim()))[::-1]))


@computes("Concat")
def concat(c: Call, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, c.get("axis", 1))


@computes("Split")
def split(c: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = c.get("axis", 0)
    parts = c.ints(1, "split")
    if parts is None:
        each = -(-x.shape[axis] // c.outputs)
        parts = [each] * (c.outputs - 1) + [x.shape[axis] - each * (c.outputs - 1)]
    return torch.split(x, parts, axis)


@computes("Slice")
def cut(c: Call, x: Tensor, *rest: Tensor | None) -> Tensor:
    starts, ends = c.ints(1, "starts"), c.ints(2, "ends")
    if starts is None or ends is None:
        raise Refused("begins or ends where the input says")
    axes = c.ints(3, "axes", range(len(starts))) or []
    steps = c.ints(4, "", [1] * len(starts)) or []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise Refused("goes backwards, which Caffe's Slice cannot")
        size = x.shape[axis]
        first, last, _ = slice(start, end).indices(size)
        if (first, last, step) != (0, size, 1):
            x = (
                x.narrow(axis, first, max(last - first, 0))
                if step == 1
                else strided(x, axis, first, last, step)
            )
    return x


def strided(x: Tensor, axis: int, first: int, last: int, step: int) -> Tensor:
    """Every step-th value of an axis."""
    index = [slice(None)] * x.dim()
    index[axis] = slice(first, last, step)
    return x[tuple(index)]


@computes("Gather")
def gather(c: Call, x: Tensor, index: Tensor) -> Tensor:
    axis = c.get("axis", 0)
    if 1 not in c.constants:
        raise Refused("takes what the input says; Caffe's Embed does so from a table alone")
    axis = axis % x.dim()
    size = x.shape[axis]
    if 0 in c.constants:
        flat = index.flatten()
        taken = x.index_select(axis, torch.where(flat < 0, flat + size, flat))
        return taken.reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])
    places = c.ints(1)
    if places is None:
        raise Refused(f"takes more than {SHORT_OF['Gather']} places")
    if outside := [place for place in places if not -size <= place < size]:
        raise Refused(f"takes place {outside[0]} of {size}")
    places = [place % size for place in places]
    if index.dim() == 0:
        return x.select(axis, places[0])
    if index.dim() != 1 or not places:
        raise Refused("takes a table of places, or none")
    stretches = runs(places)
    if len(stretches) > SHORT:
        raise Refused(f"takes {len(stretches)} runs of places, more than {SHORT}")
    parts = [x.narrow(axis, first, count) for first, count in stretches]
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]


def runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """(first, count) of the runs in which places follow each other."""
    stretches: list[tuple[int, int]] = []
    for place in places:
        if stretches and place == sum(stretches[-1]):
            stretches[-1] = (stretches[-1][0], stretches[-1][1] + 1)
        else:
            stretches.append((place, 1))
    return stretches
