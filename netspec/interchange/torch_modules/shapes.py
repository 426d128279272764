"""Operators of torch that move values and change none, as layers of Caffe."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

from netspec.interchange.torch_modules.base import Blob, Conversion, Unsupported, handles


def reshaped(c: Conversion, x: Blob, shape: Sequence[int]) -> Blob:
    """Reshape; axes that stay are written as 0, so that any batch size works."""
    if tuple(shape) == x.shape:
        return x
    dims = [0 if i < len(x.shape) and x.shape[i] == n else n for i, n in enumerate(shape)]
    layer = c.one("Reshape", x, shape=shape, reshape_param={})
    target = c.message.layer[-1].reshape_param.shape
    target.SetInParent()
    target.dim.extend(dims)
    return layer


@handles("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "unflatten", "unsqueeze_", "squeeze_")
def reshape(c: Conversion, a: SimpleNamespace) -> Blob:
    return reshaped(c, c.blob(a.self), tuple(c.real[c.node].shape))


@handles("flatten")
def flatten(c: Conversion, a: SimpleNamespace) -> Blob:
    x, shape = c.blob(a.self), tuple(c.real[c.node].shape)
    if shape == x.shape:
        return x
    settings = {} if a.start_dim == 1 else {"axis": a.start_dim}
    settings |= {} if a.end_dim in (-1, len(x.shape) - 1) else {"end_axis": a.end_dim}
    return c.one("Flatten", x, shape=shape, flatten_param=settings)


@handles("permute", "transpose", "t", "movedim", "swapaxes")
def permute(c: Conversion, a: SimpleNamespace) -> Blob:
    """Permute, a layer of the SSD fork."""
    x = c.blob(a.self)
    rank = len(x.shape)
    order = list(range(rank))
    if hasattr(a, "dims"):
        order = [axis % rank for axis in a.dims]
    elif hasattr(a, "dim0"):
        i, j = a.dim0 % rank, a.dim1 % rank
        order[i], order[j] = order[j], order[i]
    elif rank == 2:
        order = [1, 0]
    if order == list(range(rank)):
        return x
    return c.one("Permute", x, shape=[x.shape[axis] for axis in order], permute_param={"order": order})


@handles("channel_shuffle")
def channel_shuffle(c: Conversion, a: SimpleNamespace) -> Blob:
    """Channels as a table of groups, transposed."""
    x = c.blob(a.self if hasattr(a, "self") else a.input)
    n, channels, *plane = x.shape
    y = reshaped(c, x, (n, a.groups, channels // a.groups, *plane))
    order = [0, 2, 1, *range(3, len(y.shape))]
    y = c.one("Permute", y, shape=[y.shape[axis] for axis in order], permute_param={"order": order})
    return reshaped(c, y, x.shape)


@handles("cat", "concat", "concatenate")
def cat(c: Conversion, a: SimpleNamespace) -> Blob:
    if (focused := focus(c, a)) is not None:
        return focused
    blobs = [c.blob(value) for value in a.tensors]
    axis = a.dim % len(blobs[0].shape)
    settings = {} if axis == 1 else {"axis": axis}
    return c.one("Concat", *blobs, shape=c.real[c.node].shape, concat_param=settings)


def focus(c: Conversion, a: SimpleNamespace) -> Blob | None:
    """Pixels of a block as channels (a Focus layer, space to depth): one Convolution; None for another join."""
    parts = [value for value in a.tensors if isinstance(value, Blob) and value.taken]
    first = parts[0] if parts else None
    if first is None or len(parts) != len(a.tensors) or a.dim % len(first.shape) != 1:
        return None
    steps = [tuple(step for _, step in part.taken) for part in parts]
    if len({(part.name, part.shape) for part in parts}) > 1 or len(set(steps)) > 1:
        return None
    return c.every(first, [part.taken for part in parts])


@handles("chunk", "split", "split_with_sizes", "tensor_split")
def split(c: Conversion, a: SimpleNamespace) -> list[Blob]:
    x = c.blob(a.self)
    axis = a.dim % len(x.shape)
    return pieces(c, x, axis, [int(value.shape[axis]) for value in c.real[c.node]])


@handles("unbind")
def unbind(c: Conversion, a: SimpleNamespace) -> list[Blob]:
    x = c.blob(a.self)
    axis = a.dim % len(x.shape)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return [reshaped(c, piece, shape) for piece in pieces(c, x, axis, [1] * x.shape[axis])]


@handles("slice", "narrow", "select")
def narrow(c: Conversion, a: SimpleNamespace) -> Blob:
    """A range of an axis: the middle one of up to three pieces."""
    if getattr(a, "step", 1) != 1:
        return every_so_many(c, a)
    if isinstance(a.self, Blob) and a.self.taken and tuple(c.real[c.node].shape) == a.self.shape:
        return a.self
    x, shape = c.blob(a.self), tuple(c.real[c.node].shape)
    axis, size = a.dim % len(x.shape), x.shape[a.dim]
    start = a.index if hasattr(a, "index") else (a.start or 0)
    start = min(start + size if start < 0 else start, size)
    length = 1 if hasattr(a, "index") else shape[axis]
    sizes = [start, length, size - start - length]
    piece = pieces(c, x, axis, [n for n in sizes if n])[1 if start else 0]
    return reshaped(c, piece, shape)


def every_so_many(c: Conversion, a: SimpleNamespace) -> Blob:
    """Every step-th row or column, left to what joins them again, or made by a Convolution."""
    x, shape = a.self, tuple(c.real[c.node].shape)
    rank = len(x.shape) if isinstance(x, Blob) else 0
    axis = a.dim % rank if rank else 0
    if rank != 4 or axis < 2 or x.pad:
        raise Unsupported("takes every other value of an axis that is no row or column, which Caffe cannot")
    taken = list(x.taken or ((0, 1), (0, 1)))
    if taken[axis - 2] != (0, 1):
        x, taken = c.blob(x), [(0, 1), (0, 1)]
    size = x.shape[axis]
    start = min(max(a.start + size if (a.start or 0) < 0 else (a.start or 0), 0), size)
    if shape[axis] != -(-(size - start) // a.step):
        raise Unsupported("takes every other value up to a place before the end, which Caffe cannot")
    taken[axis - 2] = (start, a.step)
    return Blob(x.name, shape, taken=tuple(taken))


def pieces(c: Conversion, x: Blob, axis: int, sizes: Sequence[int]) -> list[Blob]:
    """Slice; a single piece is the blob itself."""
    if len(sizes) == 1:
        return [x]
    shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in sizes]
    settings: dict[str, Any] = {"slice_point": list(accumulate(sizes))[:-1]}
    if axis != 1:
        settings["axis"] = axis
    return c.add("Slice", [x], shapes, slice_param=settings)


@handles("constant_pad_nd", "pad")
def pad(c: Conversion, a: SimpleNamespace) -> Blob:
    """Zeros around planes, left to the convolution that follows."""
    x = c.blob(a.self)
    if a.value or getattr(a, "mode", "constant") != "constant":
        raise Unsupported("pads with other values than zero, which Caffe does not")
    pairs = [tuple(a.pad[i : i + 2]) for i in range(0, len(a.pad), 2)][::-1]
    n = len(x.shape) - 2
    pairs = [(0, 0)] * (n - len(pairs)) + pairs
    if len(pairs) != n or any(low != high or low < 0 for low, high in pairs):
        raise Unsupported("pads unequally, or crops, or pads channels, which Caffe does not")
    return Blob(x.name, x.shape, tuple(low for low, _ in pairs)) if any(low for low, _ in pairs) else x
