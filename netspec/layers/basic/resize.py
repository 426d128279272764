"""Images in another size: Interp, SpatialTransformer, Upsample; as FlowNet's Caffe makes them: Resample, Downsample."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, copysign, floor, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.traits import Field
from netspec.schema.spec import LayerSpec


@register("Interp")
class Interp(Layer):
    """y = x resized bilinearly, corner pixels on corner pixels.

    Shapes: (N, C, H, W) to (N, C, H', W'), from the first of these that is given: shrink_factor s alone (H' =
    (H - 1) / s + 1, rounded down), zoom_factor z alone (H' = H + (H - 1)(z - 1); with the net's
    dialect `intel` H' = H z, which is tried too where a net does not fit otherwise), height and width, both
    factors (shrink, then zoom), or the second bottom's size. pad_beg and pad_end (not positive) crop the
    bottom before. NaN spreads to the pixels that are interpolated from it. Raises SpecError for a positive
    pad, when nothing is left, or no size is given. Source: DeepLab, interp_layer.cpp.
    """

    family, roles = "shape", ("image", "like")
    products = 4
    carries = resizes = True
    bottoms = between(1, 2)
    param_field = "interp_param"

    @classmethod
    def other(cls, spec: LayerSpec) -> str:
        p = spec.message.interp_param
        zooms = p.HasField("zoom_factor") and not p.HasField("shrink_factor")
        return "intel" if zooms and not spec.dialect else ""

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found {shape}")
        if p.interp_type != "bilinear":
            self.fail(f"interp_type can be 'bilinear' only, found {p.interp_type!r}", "interp_type")
        for name in ("pad_beg", "pad_end"):
            if getattr(p, name) > 0:
                self.fail(f"{name} {getattr(p, name)} is positive; it can only crop", name)
        for name in ("shrink_factor", "zoom_factor"):
            self.require(not p.HasField(name) or getattr(p, name) >= 1, name, f"needs {name} > 0")
        cropped = [size + p.pad_beg + p.pad_end for size in shape[2:]]
        self.require(min(cropped) >= 1, "pad_beg", f"pad_beg and pad_end leave nothing of {shape}")
        self.size = self.target(cropped, shapes[1:])
        if min(self.size) < 1:
            self.fail(f"would make an image of {self.size[0]} x {self.size[1]}", "height")

    def target(self, size: list[int], others: tuple[Shape, ...]) -> list[int]:
        p = self.param
        shrinks, zooms = p.HasField("shrink_factor"), p.HasField("zoom_factor")
        if shrinks == zooms:  # both or neither: an explicit size goes first
            if p.height > 0 and p.width > 0:
                return [int(p.height), int(p.width)]
            if not shrinks:
                if not others:
                    self.fail(
                        "needs shrink_factor, zoom_factor, height and width, or a second bottom",
                        "shrink_factor",
                    )
                return list(others[0][2:])
        if shrinks:
            size = [(side - 1) // p.shrink_factor + 1 for side in size]
        if zooms and not shrinks and self.spec.dialect == "intel":
            size = [side * p.zoom_factor for side in size]
        elif zooms:
            size = [side + (side - 1) * (p.zoom_factor - 1) for side in size]
        return size

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, x = self.param, bottoms[0]
        x = x[:, :, -p.pad_beg : x.shape[2] + p.pad_end, -p.pad_beg : x.shape[3] + p.pad_end]
        return F.interpolate(x, self.size, mode="bilinear", align_corners=True)


@register("SpatialTransformer")
class SpatialTransformer(Layer):
    """y(p) = x(theta p): the image seen through an affine map of the plane, one for each item.

    Shapes: x (N, C, H, W); theta, the maps, (N, 6) less the entries fixed by theta_i_j; top (N, C, output_H,
    output_W), by default x's size. p = (row, column, 1) with row 2 i / H' - 1, column 2 j / W' - 1, so theta
    is [[row from row, row from column, shift of row], [the same for the column]]; values between pixels are
    bilinear, those outside 0. NaN spreads to the pixels that are interpolated from it. x gets a gradient
    unless `to_compute_dU` is false. Raises SpecError for other transform or sampler types and a theta of the
    wrong size. Source: Jaderberg et al. 2015, "Spatial transformer networks"; its layer in forks of Caffe,
    st_layer.cpp.
    """

    family, roles = "shape", ("image", "affine map")
    products = 4
    mixes = True
    bottoms = exactly(2)
    param_field = "st_param"

    def setup(self, *shapes: Shape) -> None:
        p, (shape, theta) = self.param, shapes
        for name, only in (("transform_type", "affine"), ("sampler_type", "bilinear")):
            if getattr(p, name) != only:
                self.fail(f"{name} can be {only!r} only, found {getattr(p, name)!r}", name)
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found {shape}")
        names = [f"theta_{i}_{j}" for i in (1, 2) for j in (1, 2, 3)]
        self.fixed = [getattr(p, name) if p.HasField(name) else None for name in names]
        free = self.fixed.count(None)
        if theta[0] != shape[0] or prod(theta[1:]) != free:
            self.fail(f"needs a theta of shape {(shape[0], free)}, found {theta}", "bottom", 1)
        self.size = (int(p.output_H) or shape[2], int(p.output_W) or shape[3])

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, given = bottoms[0], bottoms[1].flatten(1)
        x = x if self.param.to_compute_dU else x.detach()
        free = iter(given.unbind(1))
        entries = [
            next(free) if value is None else given.new_full((len(given),), value) for value in self.fixed
        ]
        theta = torch.stack(entries, 1).view(-1, 2, 3)
        height, width = self.size
        rows = torch.arange(height, device=x.device, dtype=x.dtype) * 2 / height - 1
        columns = torch.arange(width, device=x.device, dtype=x.dtype) * 2 / width - 1
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)  # H' x W' x (row, column)
        place = torch.einsum("hwi,bji->bhwj", grid, theta[:, :, :2]) + theta[:, None, None, :, 2]
        # Here -1 is the centre of the first pixel; in grid_sample, which takes (x, y), its outer edge.
        edges = torch.stack((place[..., 1] + 1 / x.shape[3], place[..., 0] + 1 / x.shape[2]), -1)
        return F.grid_sample(x, edges, mode="bilinear", padding_mode="zeros", align_corners=False)


@register("Upsample")
class Upsample(Layer):
    """y = each pixel of x as a block of equal pixels; with a mask, each value where a max pooling took it
    from.

    Shapes: x (N, C, H, W); top (N, C, H', W') with H' = H * scale_h, W' = W * scale_w, or `scale` for both,
    or upsample_h and upsample_w, or `stride`, where `scale` multiplies the values instead; pad_out_h and
    pad_out_w take one row or column off that (factor 2 and a mask only). The second bottom, shaped like x, is
    the mask: the second top of MAX Pooling, positions h * W' + w in the plane; what no position names is 0.
    The mask gets no gradient. NaN moves like any other value.
    Raises SpecError for factors below 1, a mask of another shape, pad_out without mask or with another
    factor, and a size that is no multiple of x's where there is no mask. Source: Badrinarayanan et al. 2017,
    "SegNet" (mask); the Upsample layer of YOLOv3 forks of Caffe (blocks).
    """

    family, roles = "pooling", ("image", "switches")
    products = 0
    bottoms = between(1, 2)
    param_field = "upsample_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found {shape}")
        if len(shapes) == 2 and shapes[1] != shape:
            self.fail(f"needs a mask of the shape {shape} of the values, found {shapes[1]}", "bottom", 1)
        self.gain = float(p.scale) if p.stride and p.HasField("scale") else 1.0
        factors = [int(p.stride or p.scale_h or p.scale), int(p.stride or p.scale_w or p.scale)]
        self.require(min(factors) >= 1, "scale", "needs a scale > 0")
        for name, factor in (("pad_out_h", factors[0]), ("pad_out_w", factors[1])):
            if getattr(p, name) and (factor != 2 or len(shapes) == 1):
                self.fail(f"{name} goes with a mask and a factor of 2", name)
        height, width = shape[2] * factors[0] - p.pad_out_h, shape[3] * factors[1] - p.pad_out_w
        if p.upsample_h and p.upsample_w:
            height, width = int(p.upsample_h), int(p.upsample_w)
        if len(shapes) == 1 and (height % shape[2] or width % shape[3]):
            self.fail(f"cannot make {height} x {width} of {shape} with equal blocks", "scale")
        self.size, self.places = (height, width), height * width

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0] if self.gain == 1 else self.gain * bottoms[0]
        (n, c, h, w), (height, width) = x.shape, self.size
        if len(bottoms) == 1:
            blocks = x[:, :, :, None, :, None].expand(n, c, h, height // h, w, width // w)
            return blocks.reshape(n, c, height, width)
        empty = x.new_zeros(n, c, height * width)
        return empty.scatter(2, bottoms[1].long().flatten(2), x.flatten(2)).view(n, c, height, width)

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        factors = [-(-top // bottom) for top, bottom in zip(self.size, bottoms[0][2:], strict=True)]
        return below.enlarged(factors, factors)


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
            self.require(
                min(shape[2:]) >= 1, ("bottom", i), f"needs a side of one pixel at least, found {shape}"
            )
            fits = max(shape[2:]) <= self.MOST_ENTRIES
            self.require(fits, ("bottom", i), f"sides of {shape} are more than {self.MOST_ENTRIES}")
        self.size = (shapes[1][2], shapes[1][3]) if len(shapes) == 2 else (height, width)
        if min(self.size) < 1:
            self.fail(f"needs {names[0]} and {names[1]} > 0, or a second bottom", str(self.param_field))
        for name, side in zip(names, self.size, strict=True):
            self.require(
                side <= self.MOST_ENTRIES, name, f"a side of {side} is more than {self.MOST_ENTRIES}"
            )

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
        weights = {i: w for i in window if (w := weight((centre - i) / scale))}
        total = sum(weights.values())
        return {i: w / total for i, w in weights.items()} if total else {}

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
