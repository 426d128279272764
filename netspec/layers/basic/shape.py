"""Layers that move values and compute nothing: joining, cutting, reshaping.

NaN (a missing value) moves like any other value. Gradients move back the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, at_least, exactly, register
from netspec.layers.traits import Common, Constant, Field, Value
from netspec.schema.spec import LayerSpec


@register("Concat")
class Concat(Layer):
    """y = the bottoms joined along `axis` (default 1, the channels).

    Shapes: bottoms equal but along the axis, where the top has the sum. `concat_dim` is the axis's old name.
    Raises SpecError when other axes differ. Source: Caffe, concat_layer.cpp.
    """

    family, roles = "shape", ("values",)
    carries = True
    bottoms = at_least(1)
    param_field = "concat_param"

    def setup(self, *shapes: Shape) -> None:
        self.along = named_axis(self, "concat_dim", len(shapes[0]))
        for i, shape in enumerate(shapes[1:], 1):
            if without(shape, self.along) != without(shapes[0], self.along):
                self.fail(
                    f"joins along axis {self.along}, but bottoms {shapes[0]} and {shape} differ elsewhere",
                    "bottom",
                    i,
                )

    def forward(self, *bottoms: Tensor) -> Tensor:
        return torch.cat(bottoms, self.along)

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        return torch.split(tops[0], [shape[self.along] for shape in shapes], self.along)


@register("Slice")
class Slice(Layer):
    """Tops = parts of the bottom along `axis` (default 1), cut at each `slice_point` or into equal ones.

    Raises SpecError when the points are not one fewer than the tops, not rising or outside the axis, or when
    equal parts do not come out even. `slice_dim` is the axis's old name. Source: Caffe, slice_layer.cpp.
    """

    family, roles = "shape", ("values",)
    carries = True
    tops = at_least(1)
    param_field = "slice_param"

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        self.along = named_axis(self, "slice_dim", len(shape))
        size, count, points = shape[self.along], len(self.spec.tops), list(self.param.slice_point)
        if not points:
            if size % count:
                self.fail(f"cannot cut axis {self.along} of {shape} into {count} equal parts", "slice_param")
            points = [size // count * i for i in range(1, count)]
        if len(points) != count - 1:
            self.fail(f"{len(points)} slice_point values for {count} tops", "slice_point", 0)
        edges = [0, *points, size]
        if any(start >= end for start, end in pairwise(edges)):
            self.fail(
                f"slice_point values {points} do not rise within 0..{size}, axis {self.along} of {shape}",
                "slice_point", 0,
            )  # fmt: skip
        self.sizes = [end - start for start, end in pairwise(edges)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return torch.split(bottoms[0], self.sizes, self.along)

    @classmethod
    def bottom_for(cls, spec: LayerSpec, tops: Mapping[int, Shape], sure: Sequence[int]) -> Shape:
        """The shape that is cut into these; the last of several cuts is as large as the one before it if not sure."""
        p, count = spec.message.slice_param, len(spec.tops)
        shape = max(tops.values(), key=len)
        axis = p.slice_dim if p.HasField("slice_dim") else p.axis
        axis = axis % len(shape) if axis < 0 else axis
        shape = shape + (1,) * (axis + 1 - len(shape))
        points = list(p.slice_point)
        sizes = {i: top[axis] if axis < len(top) else 1 for i, top in tops.items()}
        if not points:
            return (*shape[:axis], count * max(sizes.values()), *shape[axis + 1 :])
        rest = points[-1] - (points[-2] if len(points) > 1 else 0)
        return (
            *shape[:axis],
            points[-1] + (sizes[count - 1] if count - 1 in sure else rest),
            *shape[axis + 1 :],
        )

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        return (torch.cat(tuple(tops), self.along),)


def named_axis(layer: Layer, old: str, rank: int) -> int:
    """The axis of Concat and Slice, written as `axis` or under its old name."""
    field = layer.param_field or ""
    if not layer.param.HasField(old):
        return layer.axis(layer.param.axis, rank, field, "axis")
    if layer.param.HasField("axis"):
        layer.fail(f"has both axis and {old}; use axis", field, old)
    return layer.axis(getattr(layer.param, old), rank, field, old)


def without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


@register("Split")
class Split(Layer):
    """Every top = the bottom; gradients add up.

    Only old files need it: any number of layers may read one blob. Source: Caffe, split_layer.cpp.
    """

    family, roles = "shape", ("values",)
    carries = True
    tops = at_least(1)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0],) * len(self.spec.tops)


@register("Silence")
class Silence(Layer):
    """Reads its bottoms so that they are no outputs of the net; their gradient is 0.

    Source: Caffe, silence_layer.cpp.
    """

    family, roles = "shape", ("ignored",)
    bottoms = at_least(1)
    tops = exactly(0)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()


@register("Flatten")
class Flatten(Layer):
    """y = x with the axes `axis` (default 1) to `end_axis` (default the last) made one.

    Raises SpecError for axes outside the bottom, or the wrong way round. Source: Caffe, flatten_layer.cpp.
    """

    family, roles = "shape", ("values",)
    carries = True
    param_field = "flatten_param"

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        self.start = self.axis(self.param.axis, len(shape), "flatten_param", "axis")
        self.end = self.axis(self.param.end_axis, len(shape), "flatten_param", "end_axis")
        if self.end < self.start:
            self.fail(f"end_axis {self.end} comes before axis {self.start} of {shape}", "end_axis")

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].flatten(self.start, self.end)

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        return (tops[0].reshape(shapes[0]),)


@register("Reshape")
class Reshape(Layer):
    """y = x with `num_axes` axes from `axis` on replaced by `shape`: 0 copies a size, -1 is inferred.

    By default all axes are replaced; num_axes 0 inserts the new ones before `axis` (a negative axis counts
    from behind the last). Raises SpecError when the count of values would change, -1 stands twice, or an axis
    is outside. Source: Caffe, reshape_layer.cpp.
    """

    family, roles = "shape", ("values",)
    carries = mixes = True
    counts_values = True
    param_field = "reshape_param"

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        p, rank = self.param, len(shape)
        self.start = p.axis if p.axis >= 0 else rank + p.axis + 1
        if not 0 <= self.start <= rank:
            self.fail(f"axis {p.axis} is outside a blob of shape {shape}", "axis")
        if p.num_axes < -1 or self.start + p.num_axes > rank:
            self.fail(
                f"num_axes {p.num_axes} from axis {self.start} is outside {shape}",
                "num_axes",
            )
        self.end = rank if p.num_axes == -1 else self.start + p.num_axes
        self.dims = [int(size) for size in p.shape.dim]
        if self.dims.count(-1) > 1 or any(size < -1 for size in self.dims):
            self.fail(f"shape {self.dims} may hold one -1 and no other negative size", "shape")
        for i, size in enumerate(self.dims):
            if size == 0 and self.start + i >= rank:
                self.fail(
                    f"0 copies axis {self.start + i}, which a bottom of shape {shape} lacks",
                    "shape", "dim", i,
                )  # fmt: skip
        new = self.new_shape(shape)
        known = prod(size for size in new if size != -1)
        if prod(shape) % known if -1 in new else prod(shape) != known:
            self.fail(f"cannot give a bottom of shape {shape} the shape {new}", "shape")

    def new_shape(self, shape: Shape) -> Shape:
        dims = (size or shape[self.start + i] for i, size in enumerate(self.dims))
        return (*shape[: self.start], *dims, *shape[self.end :])

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].reshape(self.new_shape(bottoms[0].shape))

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        return (tops[0].reshape(shapes[0]),)


@register("Tile")
class Tile(Layer):
    """y = `tiles` copies of x behind each other along `axis` (default 1).

    Raises SpecError when tiles is not positive. Source: Caffe, tile_layer.cpp.
    """

    family, roles = "shape", ("values",)
    param_field = "tile_param"

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        if self.param.tiles < 1:
            self.fail("needs tiles > 0", "tiles")
        along = self.axis(self.param.axis, len(shape), "tile_param", "axis")
        self.repeats = [self.param.tiles if i == along else 1 for i in range(len(shape))]

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].repeat(self.repeats)

    def tree_value(self, index: int, below: Sequence[Value]) -> Value | None:
        return below[0] if isinstance(below[0], Common | Constant) else None


@register("Crop")
class Crop(Layer):
    """y = the part of the first bottom from `offset` on that has the second's sizes.

    Shapes: top as bottom 0 before `axis` (default 2), as bottom 1 from it on. `offset` is given never (0),
    once, or once an axis. The second bottom gets no gradient. Raises SpecError when the part would reach
    outside. Source: Caffe, crop_layer.cpp.
    """

    family, roles = "shape", ("image", "like")
    bottoms = exactly(2)
    param_field = "crop_param"

    def setup(self, *shapes: Shape) -> None:
        shape, wanted = shapes
        if len(shape) != len(wanted):
            self.fail(f"bottoms {shape} and {wanted} have different numbers of axes", "bottom", 1)
        self.start = self.axis(self.param.axis, len(shape), "crop_param", "axis")
        cut, offsets = len(shape) - self.start, list(self.param.offset)
        if len(offsets) > 1 and len(offsets) != cut:
            self.fail(f"{len(offsets)} offset values for {cut} axes from {self.start} on", "offset", 0)
        self.offsets = offsets if len(offsets) == cut else (offsets or [0]) * cut
        for i, offset in enumerate(self.offsets, self.start):
            if offset + wanted[i] > shape[i]:
                self.fail(
                    f"cannot take {wanted[i]} values from offset {offset} on out of axis {i} of {shape}",
                    "offset", 0,
                )  # fmt: skip

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, like = bottoms
        for i, offset in enumerate(self.offsets, self.start):
            x = x.narrow(i, offset, like.shape[i])
        return x

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        """As below, with the first value at the offset."""
        offsets = [0] * self.start + self.offsets
        return replace(below, first=below.at(offsets[2:]))
