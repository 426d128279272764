"""Images in another size: Interp, Upsample, and the spatial transformer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

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
        self.size = (height, width)

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
