"""Images in another size as FlowNet's Caffe makes them: Resample and Downsample."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, copysign, floor, prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, register
from netspec.schema.spec import LayerSpec

Taps = tuple[list[list[int]], list[list[float]]]
"""For each pixel of an axis of the top the pixels of the bottom's axis that it sees, and their weights."""


def nearest(x: float) -> int:
    """The nearest integer, halves away from 0, as C rounds."""
    return int(copysign(floor(abs(x) + 0.5), x))


def even(taps: list[dict[int, float]]) -> Taps:
    """The same number of taps for every pixel: weights of 0 at the end."""
    most = max(1, *map(len, taps))
    rows = [[*tap.items(), *[(0, 0.0)] * (most - len(tap))] for tap in taps]
    return [[i for i, _ in row] for row in rows], [[w for _, w in row] for row in rows]


class Resize(Layer):
    """What Resample and Downsample share: weighted sums along rows and columns."""

    family, roles = "shape", ("image", "like")
    bottoms = between(1, 2)
    size: tuple[int, int]

    def __init__(self, spec: LayerSpec, phase: str):
        super().__init__(spec, phase)
        self.seen = {"rows": 0, "columns": 0}
        """Pixels that the sums along an axis add up, over all pixels of the top's axis."""

    def read_size(self, shapes: tuple[Shape, ...], height: int, width: int, names: tuple[str, str]) -> None:
        """Set `size`, of the second bottom or as written."""
        for i, shape in enumerate(shapes):
            self.require(len(shape) == 4, ("bottom", i), f"needs a bottom (N, C, H, W), found {shape}")
        self.size = (shapes[1][2], shapes[1][3]) if len(shapes) == 2 else (height, width)
        if min(self.size) < 1:
            self.fail(f"needs {names[0]} and {names[1]} > 0, or a second bottom", str(self.param_field))

    def keep(self, axis: str, taps: list[dict[int, float]]) -> None:
        """Make the taps of "rows" or "columns" buffers."""
        self.seen[axis] = sum(map(len, taps))
        places, weights = even(taps)
        self.register_buffer(f"{axis}_places", torch.tensor(places), persistent=False)
        self.register_buffer(f"{axis}_weights", torch.tensor(weights), persistent=False)

    def sums(self, x: Tensor) -> Tensor:
        """The weighted sums of x (N, C, H, W) along columns, then along rows."""
        for dim, axis in ((3, "columns"), (2, "rows")):
            places, weights = self.get_buffer(f"{axis}_places"), self.get_buffer(f"{axis}_weights")
            seen = x.index_select(dim, places.flatten())
            seen = seen.view(*x.shape[:dim], *places.shape, *x.shape[dim + 1 :])
            weights = weights.to(x.dtype).view(*weights.shape, *(1,) * (3 - dim))
            x = torch.where(weights == 0, 0.0, weights * seen).sum(dim + 1)  # NaN at weight 0 has no part
        return x

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """A product for each pixel that a sum along columns, then along rows, sees."""
        *lead, height, _ = bottoms[0]
        return prod(lead) * (height * self.seen["columns"] + tops[0][-1] * self.seen["rows"])


def cubic(x: float) -> float:
    """Catmull-Rom's weight at distance x."""
    x = abs(x)
    if x <= 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def linear(x: float) -> float:
    """1 at distance 0, falling to 0 at distance 1."""
    return max(0.0, 1 - abs(x))


@register("Resample")
class Resample(Resize):
    """y = x in another size: weights by the distance of pixel centres (LINEAR, CUBIC), or the NEAREST pixel.

    Shapes: (N, C, H, W) to (N, C, height, width), or to the second bottom's size. With factors f = H / H', g = W /
    W', the top's row i stands at i f + g / 2 - 1/2 of the bottom, column j at j g + f / 2 - 1/2: the original
    swaps the factors in the second term, which matters where they differ. Weights are divided by their sum; with
    antialias (when shrinking) they reach as far as f and g tell, and a pixel that none reaches (an axis that
    grows while the other shrinks) is 0. NaN spreads to the pixels that are interpolated from it. The gradient,
    which the original lacks, is the derivative. Raises SpecError for type AREA and for no size. Source: Ilg et
    al. 2017 (FlowNet 2), resample_layer.cu.
    """

    param_field = "resample_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.read_size(shapes, p.height, p.width, ("height", "width"))
        self.require(p.type != p.AREA, "type", "type can be NEAREST, LINEAR or CUBIC")
        tall, wide = (have / want for have, want in zip(shapes[0][2:], self.size, strict=True))
        antialias = p.antialias and max(tall, wide) > 1
        for axis, have, want, factor, other in (
            ("rows", shapes[0][2], self.size[0], tall, wide), ("columns", shapes[0][3], self.size[1], wide, tall)
        ):  # fmt: skip
            centres = [i * factor + other / 2 - 0.5 for i in range(want)]
            self.keep(axis, [self.taps(centre, have, factor, antialias) for centre in centres])

    def taps(self, centre: float, size: int, factor: float, antialias: bool) -> dict[int, float]:
        """The pixels, of `size`, that a pixel at `centre` sees, with weights of sum 1."""
        p, middle = self.param, nearest(centre)
        if p.type == p.NEAREST:
            return {min(max(middle, 0), size - 1): 1.0}
        weight, reach = (cubic, 4) if p.type == p.CUBIC else (linear, 2)
        scale = factor if antialias else 1.0
        radius = 2 if factor < 1 else ceil(reach * scale)
        window = range(max(middle - radius, 0), min(middle + radius + 1, size))
        found = {i: w for i in window if (w := weight((centre - i) / scale))}
        total = sum(found.values())
        return {i: w / total for i, w in found.items()} if total else {}

    def forward(self, *bottoms: Tensor) -> Tensor:
        return self.sums(bottoms[0])


@register("Downsample")
class Downsample(Resize):
    """y = x in a smaller size: averages with linear weights, corner pixels on corner pixels, NaN left out.

    Shapes: (N, C, H, W) to (N, C, top_height, top_width), or to the second bottom's size. With f = (H - 1) / (H' -
    1), row i stands at i f of the bottom, and pixels at distance d from there weigh 1 - d / f where that is
    positive; columns alike. A missing value (NaN) takes no part, and a pixel is NaN where the missing ones weigh
    more than half of the others. The gradient, which the original lacks, is the derivative. Raises SpecError for
    no size, and for one that is larger than the bottom's or has a side of 1. Source: Dosovitskiy et al. 2015
    (FlowNet), downsample_layer.cu.
    """

    param_field = "downsample_param"

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        like = known[1] if len(known) > 1 and i == 0 else None
        return (*like[:2], *image[2:]) if like else None

    def setup(self, *shapes: Shape) -> None:
        p, have = self.param, shapes[0][2:]
        self.read_size(shapes, p.top_height, p.top_width, ("top_height", "top_width"))
        self.same = tuple(have) == self.size
        if self.same:  # the original hands the bottom on
            return
        path = ("bottom", 1) if len(shapes) == 2 else ("top_height",)
        if any(want > side or want < 2 for want, side in zip(self.size, have, strict=True)):
            self.fail(f"cannot make {self.size[0]} x {self.size[1]} of {shapes[0]}: sides must be 2 or more, and at "
                      "most the bottom's", *path)  # fmt: skip
        for axis, side, want in zip(("rows", "columns"), have, self.size, strict=True):
            factor = (side - 1) / (want - 1)
            self.keep(axis, [self.taps(i * factor, side, factor) for i in range(want)])

    def taps(self, centre: float, size: int, factor: float) -> dict[int, float]:
        """The pixels, of `size`, that weigh something at `centre`."""
        window = range(max(floor(centre - factor), 0), min(ceil(centre + factor) + 1, size))
        return {i: w for i in window if (w := linear((i - centre) / factor)) > 1e-9}

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x, *_) = bottoms
        if self.same:  # the original hands the bottom on
            return x
        seen = ~x.isnan()
        weight, missing = self.sums(seen.to(x.dtype)), self.sums((~seen).to(x.dtype))
        mean = self.sums(torch.where(seen, x, 0.0)) / torch.where(weight == 0, 1.0, weight)
        return torch.where(missing > 0.5 * weight, torch.nan, mean)
