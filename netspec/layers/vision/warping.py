"""Regions and masks of multi-task network cascades (MNC), and a plain bilinear enlargement.

Shape legend: N images, C channels, H x W map, R regions. A region is a row (image, x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor
from torch.nn import functional

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.vision.roi import Regional, half_up


def taps(at: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(lower pixel, upper pixel, share of the upper, inside) of places along an axis; half a pixel beyond the border
    still counts, and takes the border's value.
    """
    inside = (at >= -0.5) & (at <= size - 0.5)
    at = at.clamp(0, size - 1)
    low = at.floor()
    return low.long(), (low + 1).clamp(max=size - 1).long(), at - low, inside


@register("ROIWarping")
class ROIWarping(Regional):
    """y = the largest of bilinear samples in each cell of a pooled_h x pooled_w grid over each region of the map.

    Shapes: bottoms map (N, C, H, W) and regions (R, 5); top (R, C, pooled_h, pooled_w). Corners are multiplied by
    spatial_scale and rounded. A cell has samples at steps of 1 / ceil(side of the region / pooled) of the cell, both
    its borders included; samples more than half a pixel outside the map take no part, and a cell without any is 0. The
    map gets the gradient of the largest sample, the regions none (the original gives them one). Runs eagerly. Raises
    SpecError for other shapes. Source: Dai, He and Sun 2016 (MNC), roi_warping_layer.cu.
    """

    param_field = "roi_warping_param"

    def setup(self, *shapes: Shape) -> None:
        self.check(shapes)
        self.pooled = self.grid()

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, regions = bottoms
        return (x.new_empty((regions.shape[0], x.shape[1], *self.pooled)),)

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        image, (y1, y2), (x1, x2) = self.regions(bottoms[1])
        corners = torch.stack([half_up(v * self.scale) for v in (y1, y2, x1, x2)], 1).tolist()
        parts = [self.warped(x[n], corner) for n, corner in zip(image.tolist(), corners, strict=True)]
        return torch.stack(parts) if parts else x.new_zeros((0, x.shape[1], *self.pooled))

    def warped(self, x_CHW: Tensor, corner: list[float]) -> Tensor:
        """(C, pooled_h, pooled_w) of one region."""
        rows, columns = (
            self.samples(start, end, count, x_CHW)
            for (start, end), count in zip((corner[:2], corner[2:]), self.pooled, strict=True)
        )
        top, bottom, down, row_in = taps(rows.flatten(), x_CHW.shape[1])
        left, right, along, column_in = taps(columns.flatten(), x_CHW.shape[2])
        upper = x_CHW[:, top][:, :, left] * (1 - along) + x_CHW[:, top][:, :, right] * along
        lower = x_CHW[:, bottom][:, :, left] * (1 - along) + x_CHW[:, bottom][:, :, right] * along
        value = upper * (1 - down[:, None]) + lower * down[:, None]
        inside = row_in[:, None] & column_in
        value = torch.where(inside, value, float("-inf"))
        value = value.reshape(-1, *rows.shape, *columns.shape).amax((2, 4))
        return torch.where(value == float("-inf"), 0.0, value)

    @staticmethod
    def samples(start: float, end: float, count: int, like: Tensor) -> Tensor:
        """Where the samples of each cell lie along an axis, (cells, samples)."""
        side = max(end - start, 0.0)
        number = max(ceil(side / count), 0)
        step = torch.arange(number + 1, dtype=like.dtype, device=like.device) / max(number, 1)
        cell = torch.arange(count, dtype=like.dtype, device=like.device)
        return start + (cell[:, None] + step) * (side / count)


@register("MaskPooling")
class MaskPooling(Layer):
    """y = features times a mask, the same for all channels.

    Shapes: features (R, C, H, W), mask (R, 1, H, W); top as the features. Both get a gradient. NaN spreads. Raises
    SpecError when sizes differ. Source: Dai, He and Sun 2016 (MNC), mask_pooling_layer.cu.
    """

    family, roles = "pointwise", ("image", "mask")
    products = 1
    bottoms = exactly(2)

    def setup(self, *shapes: Shape) -> None:
        features, mask = shapes
        if len(features) != 4 or mask != (features[0], 1, *features[2:]):
            self.fail(f"needs a mask (R, 1, H, W) for features {features}, found {mask}", "bottom", 1)

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0] * bottoms[1]


@register("MaskResize")
class MaskResize(Layer):
    """y = masks resized bilinearly, y[h, w] = x at (h H / output_height, w W / output_width).

    Shapes: (N, C, H, W) to (N, C, output_height, output_width). NaN spreads to what is interpolated from it. Raises
    SpecError without a size. Source: Dai, He and Sun 2016 (MNC), mask_resize_layer.cu.
    """

    family, roles = "shape", ("image",)
    products, resizes, carries = 4, True, True
    param_field = "mask_resize_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        if len(shapes[0]) != 4:
            self.fail(f"needs a bottom (N, C, H, W), found {shapes[0]}", "bottom", 0)
        self.require(min(shapes[0][2:]) > 0, ("bottom", 0), f"needs a side of one pixel, found {shapes[0]}")
        for name in ("output_height", "output_width"):
            self.require(getattr(p, name) > 0, name, f"needs {name} > 0")

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        down, right = (
            taps(torch.arange(n, dtype=x.dtype, device=x.device) * (size / n), size)
            for n, size in zip((self.param.output_height, self.param.output_width), x.shape[2:], strict=True)
        )
        x = x[:, :, down[0]] * (1 - down[2])[:, None] + x[:, :, down[1]] * down[2][:, None]
        x = x[..., right[0]] * (1 - right[2]) + x[..., right[1]] * right[2]
        return torch.where(down[3][:, None] & right[3], x, 0.0)


@register("BilinearInterpolation")
class BilinearInterpolation(Layer):
    """y = x resized bilinearly, corner pixels on corner pixels.

    Shapes: (N, C, H, W) to (N, C, z H, z W), z the interpolation_factor, or to the height and width of the optional
    second bottom. NaN spreads to what is interpolated from it. Raises SpecError without a factor and a second bottom.
    Source: interpolation_layers.cpp of the document-binarisation Caffe (Tensmeyer and Martinez 2017).
    """

    family, roles = "shape", ("image", "like")
    products, resizes, carries = 4, True, True
    bottoms = between(1, 2)
    param_field = "bilinear_interpolation_param"

    def setup(self, *shapes: Shape) -> None:
        for i, shape in enumerate(shapes):
            self.require(len(shape) == 4, ("bottom", i), f"needs a bottom (N, C, H, W), found {shape}")
        factor = self.param.interpolation_factor
        if len(shapes) == 2:
            self.size = list(shapes[1][2:])
        else:
            self.require(factor > 0, "interpolation_factor", "needs interpolation_factor > 0")
            self.size = [int(side * factor) for side in shapes[0][2:]]
        self.require(min(self.size) > 0, "interpolation_factor", f"would make an image of {self.size}")

    def forward(self, *bottoms: Tensor) -> Tensor:
        return functional.interpolate(bottoms[0], self.size, mode="bilinear", align_corners=True)
