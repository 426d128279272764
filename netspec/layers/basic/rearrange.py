"""Layers that put values in another order: of axes, of channels, of pixels.

NaN (a missing value) moves like any other value. Gradients move back the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.errors import Problem
from netspec.layers.base import Layer, Shape, at_least, register
from netspec.layers.tree import Choose, Inner
from netspec.schema.spec import TRAIN


@register("Permute")
class Permute(Layer):
    """y = x with its axes in the given `order`; axes not named follow in theirs.

    Raises SpecError when the order names an axis twice or one that the bottom lacks.
    Source: the Permute layer of SSD (W. Liu's fork of Caffe).
    """

    family, roles = "shape", ("values",)
    mixes = True
    param_field = "permute_param"

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        order = [
            self.axis(axis, len(shape), "permute_param", "order", i)
            for i, axis in enumerate(self.param.order)
        ]
        if len(set(order)) != len(order):
            self.fail(f"order {order} names an axis twice", "order", 0)
        self.order = [*order, *(axis for axis in range(len(shape)) if axis not in order)]

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].permute(self.order).contiguous()

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        places = sorted(range(len(self.order)), key=self.order.__getitem__)
        return (tops[0].permute(places).contiguous(),)


@register("Transpose")
class Transpose(Layer):
    """y = x with axis i of the top being axis `dim` i of the bottom.

    Raises SpecError when `dim` does not name every axis once. Source: Tian et al. 2016 (CTPN),
    transpose_layer.cpp.
    """

    family, roles = "shape", ("values",)
    mixes = True
    param_field = "transpose_param"

    def setup(self, *shapes: Shape) -> None:
        self.order = [int(axis) for axis in self.param.dim]
        if sorted(self.order) != list(range(len(shapes[0]))):
            self.fail(f"dim {self.order} does not name each axis of {shapes[0]} once", "dim")

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].permute(self.order).contiguous()


@register("Reverse")
class Reverse(Layer):
    """y = x turned round along `axis` (default 0): the last first.

    Raises SpecError when the bottom lacks the axis. Source: reverse_layer.cpp of CTPN's Caffe and of the CTC
    forks.
    """

    family, roles = "shape", ("values",)
    param_field = "reverse_param"

    def setup(self, *shapes: Shape) -> None:
        self.along = self.axis(self.param.axis, len(shapes[0]), "reverse_param", "axis")

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].flip(self.along)

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        return (tops[0].flip(self.along),)


@register("ShuffleChannel")
class ShuffleChannel(Layer):
    """y = x with channel g * (C / group) + i moved to i * group + g.

    Shapes: (N, C, ...) to the same. Raises SpecError when `group` does not divide C.
    Source: Zhang et al. 2018, "ShuffleNet"; its layer in forks of Caffe.
    """

    family, roles = "shape", ("image",)
    param_field = "shuffle_channel_param"

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        self.group = int(self.param.group)
        if len(shape) < 2 or self.group < 1 or shape[1] % self.group:
            self.fail(
                f"group {self.group} does not divide the channels of {shape}",
                "group",
            )

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x,) = bottoms
        grid = x.reshape(x.shape[0], self.group, -1, *x.shape[2:])
        return grid.transpose(1, 2).flatten(1, 2)


@register("Reorg")
class Reorg(Layer):
    """y = x cut into stride x stride windows whose positions become channels; `reverse` puts them back.

    Shapes: (N, C, H, W) to (N, C s^2, H / s, W / s), reversed to (N, C / s^2, H s, W s). As in Darknet, the
    values are first read as if they lay in the *smaller* number of channels (N, C / s^2, H s, W s), so this
    is no plain space-to-depth; trained YOLOv2 weights rely on it. Raises SpecError when s^2 does not divide
    C, or s not H and W. Source: Redmon and Farhadi 2017, "YOLO9000"; Darknet, reorg_layer.c; its layer in
    forks of Caffe.
    """

    family, roles = "shape", ("image",)
    mixes = True
    param_field = "reorg_param"

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        s = self.stride = int(self.param.stride)
        if len(shape) != 4:
            self.fail(f"needs a bottom (N, C, H, W), found {shape}", "bottom", 0)
        if s < 1 or shape[1] % (s * s):
            self.fail(f"the square of stride {s} does not divide the channels of {shape}", "stride")
        if not self.param.reverse and (shape[2] % s or shape[3] % s):
            self.fail(f"stride {s} does not divide height and width of {shape}", "stride")

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x,) = bottoms
        s, (n, c, h, w) = self.stride, x.shape
        if self.param.reverse:
            windows = x.reshape(n, s, s, c // (s * s), h, w)
            return windows.permute(0, 3, 4, 1, 5, 2).reshape(n, c // (s * s), h * s, w * s)
        windows = x.reshape(n, c // (s * s), h, s, w, s)
        return windows.permute(0, 3, 5, 1, 2, 4).reshape(n, c * s * s, h // s, w // s)


@torch.library.custom_op("netspec::draw_shifts", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def draw_shifts(x: Tensor, largest: list[int]) -> Tensor:
    """A random integer of [-n, n] for each n, on x's device; int64 (len(largest),).

    An operator of its own: compiled code would draw the same number again for each pixel that it moves.
    """
    return torch.stack([torch.randint(-n, n + 1, (), device=x.device) for n in largest])


@draw_shifts.register_fake
def _(x: Tensor, largest: list[int]) -> Tensor:
    return x.new_empty(len(largest), dtype=torch.int64)


@register("Translation")
class Translation(Layer):
    """y[h, w] = x[h - shift_y, w - shift_x], `out_of_bounds_value` where that lies outside the image.

    Shapes: one top a bottom, (N, C, H, W). With `random`, each forward in TRAIN draws one shift for the whole batch and
    all bottoms, uniform over the integers of [-shift_x, shift_x] and [-shift_y, shift_y]; TEST does not shift. Random
    numbers: torch's generator of the device. out_of_bounds_value: nan marks what came in as missing. Raises SpecError
    for bottoms of other than 4 axes and for negative random shifts. Source: SimNets fork of Caffe,
    translation_layer.cpp.
    """

    family, roles = "shape", ("image",)
    bottoms = at_least(1)
    tops = at_least(1)
    paired = True
    param_field = "translation_param"

    def setup(self, *shapes: Shape) -> None:
        for i, shape in enumerate(shapes):
            if len(shape) != 4:
                self.fail(f"needs bottoms (N, C, H, W), found {shape}", "bottom", i)
        if self.param.random:
            for name in ("shift_x", "shift_y"):
                if getattr(self.param, name) < 0:
                    self.fail(f"a random shift needs {name} >= 0", name)

    @property
    def passes(self) -> bool:
        return bool(self.param.random) and self.phase != TRAIN

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        down, right = self.shifts(bottoms[0])
        return tuple(self.shifted(self.shifted(x, 2, down), 3, right) for x in bottoms)

    def shifts(self, x: Tensor) -> tuple[int | Tensor, int | Tensor]:
        """By how many pixels the batch goes down and right."""
        p = self.param
        if not p.random:
            return p.shift_y, p.shift_x
        if self.phase != TRAIN:
            return 0, 0
        drawn = draw_shifts(x, [p.shift_y, p.shift_x])
        return drawn[0], drawn[1]

    def shifted(self, x: Tensor, axis: int, shift: int | Tensor) -> Tensor:
        size = x.shape[axis]
        source = torch.arange(size, device=x.device) - shift
        inside = ((source >= 0) & (source < size)).view(-1, *(1,) * (3 - axis))
        moved = x.index_select(axis, source.clamp(0, size - 1))
        return torch.where(inside, moved, self.param.out_of_bounds_value)


@register("Permutation")
class Permutation(Inner):
    """y = x with the pixels of every plane in another order.

    QUAD2 (default): y[h, w] = x[s(h), s(w)], s(i) = i / 2 for even i and L - 1 - (i - 1) / 2 for odd i of a
    side L, so that every 2 x 2 window holds a pixel and its mirror images. GEN: y[j] = x[a_j] over the H * W
    pixels in row-major order, for the list a of `permute_string` "a0,a1,...". Shapes: (N, C, H, W) to the
    same. Raises SpecError for other bottoms and when the list is no permutation. Source: SimNets fork of
    Caffe, permutation_layer.cpp.
    """

    family, roles = "shape", ("image",)
    mixes = counts_values = True
    param_field = "permutation_param"
    order: Tensor

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        if len(shape) != 4:
            self.fail(f"needs a bottom (N, C, H, W), found {shape}", "bottom", 0)
        height, width = shape[2:]
        fits = height * width <= self.MOST_ENTRIES
        self.require(fits, ("bottom", 0), f"{height} x {width} pixels are more than {self.MOST_ENTRIES}")
        if self.param.type == self.param.QUAD2:
            rows, columns = mirrored(height), mirrored(width)
            order = [row * width + column for row in rows for column in columns]
        else:
            order = self.listed(height * width)
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def listed(self, count: int) -> list[int]:
        text = self.param.permute_string
        try:
            order = [int(word) for word in text.split(",")]
        except ValueError:
            order = []
        if sorted(order) != list(range(count)):
            self.fail(
                f"permute_string is no list of the pixels 0..{count - 1}, each once, separated by commas",
                "permute_string",
            )  # fmt: skip
        return order

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].flatten(2).index_select(2, self.order).view(bottoms[0].shape)

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        return (tops[0].flatten(2).index_select(2, self.order.argsort()).view(shapes[0]),)

    # In a latent tree: positions change places, their states with them

    def tree_problem(self) -> Problem | None:
        return None

    def upward_max(self, below: Tensor) -> Tensor:
        return self.forward(below)

    def downward(self, states: Tensor, below: Tensor, choose: Choose, best: bool = False) -> Tensor:
        flat = states.flatten(1)
        return torch.zeros_like(flat).index_copy(1, self.order, flat).view(len(states), *below.shape[2:])


def mirrored(size: int) -> list[int]:
    """0, L-1, 1, L-2, ...: each index followed by its mirror image."""
    return [size - 1 - i // 2 if i % 2 else i // 2 for i in range(size)]
