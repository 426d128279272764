"""Pooling of regions of interest: the largest value, the average by place, or interpolated samples.

Shape legend: N images, C channels, H x W map, R regions, G cells of a region's grid. A region is a row
(image index, x1, y1, x2, y2) in image coordinates; without the index, as placeholders in deploy nets have it, it
is one of image 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from netspec.layers.base import Layer, Shape, exactly, register
from netspec.layers.vision.largest_places import Span, largest_places


def half_up(x: Tensor) -> Tensor:
    """x rounded, halves away from zero as C does."""
    return x.sign() * (x.abs() + 0.5).floor()


class Regional(Layer):
    """What the layers of this file share: two bottoms, the map and the regions, which have no gradient."""

    family, roles = "pooling", ("image", "regions")
    bottoms = exactly(2)

    scale: float

    def check(self, shapes: tuple[Shape, ...]) -> None:
        """Refuse a map without 4 axes and regions that are not rows of 5."""
        shape, regions = shapes
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found shape {shape}")
        self.require(prod(shape) > 0, ("bottom", 0), f"needs a map with values, found shape {shape}")
        if len(regions) < 2 or regions[1] not in (4, 5) or any(n != 1 for n in regions[2:]):
            self.fail(f"needs regions (R, 5), found shape {regions}", "bottom", 1)
        self.scale = float(self.param.spatial_scale)

    def grid(self) -> tuple[int, int]:
        """pooled_h and pooled_w."""
        p = self.param
        for name in ("pooled_h", "pooled_w"):
            self.require(getattr(p, name) >= 1, name, f"needs {name} > 0")
        return int(p.pooled_h), int(p.pooled_w)

    @staticmethod
    def regions(bottom: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(image index, (y1, y2), (x1, x2)) of each region."""
        rows = bottom.detach().flatten(1)
        if rows.shape[1] == 4:
            rows = torch.nn.functional.pad(rows, (1, 0))
        image, x1, y1, x2, y2 = rows.unbind(1)
        return image.long(), (y1, y2), (x1, x2)


@register("ROIPooling")
class ROIPooling(Regional):
    """y = the largest value in each cell of a pooled_h x pooled_w grid over each region of the map.

    Shapes: bottoms map (N, C, H, W) and regions (R, 5); top (R, C, pooled_h, pooled_w). Corners are moved outwards by
    pad_ratio of the sides, multiplied by spatial_scale and rounded; a region holds both its corners and at least one
    pixel; cell i covers [floor(i size / pooled), ceil((i + 1) size / pooled)) of it, and 0 is the top of a cell outside
    the map. The first of equal maxima gets the gradient. NaN in the map: undefined for the cells that hold it.
    Raises SpecError for other shapes. Source: Girshick 2015, Fast R-CNN, roi_pooling_layer.cpp.
    """

    param_field = "roi_pooling_param"

    def setup(self, *shapes: Shape) -> None:
        self.check(shapes)
        self.pooled = self.grid()

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        image, *ends = self.regions(bottoms[1])
        down, right = (
            self.span(*end, count, size)
            for end, count, size in zip(ends, self.pooled, x.shape[2:], strict=True)
        )
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])  # (N H W, C)
        with torch.no_grad():
            place = largest_places(x, image, down, right)
            empty = down.empty()[:, :, None] | right.empty()[:, None, :]
        offset = (image * x.shape[2] * x.shape[3])[:, None, None, None]
        top = rows.gather(0, (place + offset).flatten(0, 2)).reshape(place.shape)
        return torch.where(empty[..., None], 0.0, top).permute(0, 3, 1, 2)

    def span(self, first: Tensor, last: Tensor, count: int, size: int) -> Span:
        pad = (last - first + 1) * self.param.pad_ratio
        start, end = half_up((first - pad) * self.scale), half_up((last + pad) * self.scale)
        step = ((end - start + 1).clamp(min=1) / count)[:, None]
        line = torch.arange(count + 1, device=first.device, dtype=first.dtype)
        start = start[:, None]
        return Span(
            ((line[:-1] * step).floor() + start).clamp(0, size).long(),
            ((line[1:] * step).ceil() + start).clamp(0, size).long(),
        )


@register("PSROIPooling")
class PSROIPooling(Regional):
    """y[k, i, j] = the average of channel (k g + i) g + j over cell (i, j) of a g x g grid over each region.

    Shapes: bottoms map (N, output_dim g^2, H, W) and regions (R, 5), g = group_size; top (R, output_dim, g,
    g). A region reaches from round(x1) to round(x2) + 1, times spatial_scale, and is at least 0.1 wide; cells
    take whole pixels, the border ones included; 0 is the top of a cell outside the map. NaN in a channel
    makes the cells at and behind it NaN. Raises SpecError for other shapes. Source: Dai et al. 2016, R-FCN,
    psroi_pooling_layer.cu.
    """

    param_field = "psroi_pooling_param"

    def setup(self, *shapes: Shape) -> None:
        self.check(shapes)
        p = self.param
        self.group, self.outputs = int(p.group_size), int(p.output_dim)
        if self.group < 1 or self.outputs < 1:
            self.fail(
                f"needs group_size and output_dim > 0, found {self.group} and {self.outputs}",
                "group_size",
            )
        if shapes[0][1] != self.outputs * self.group**2:
            self.fail(
                f"needs output_dim group_size^2 = {self.outputs * self.group**2} channels, found {shapes[0]}",
                "output_dim",
            )

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, (image, *ends) = bottoms[0], self.regions(bottoms[1])
        down, right = (self.span(*end, size) for end, size in zip(ends, x.shape[2:], strict=True))
        # Sums from the corner, in float64 since differences are taken: (N, output_dim, g, g, H + 1, W + 1).
        sums = functional.pad(x.double().cumsum(2).cumsum(3), (1, 0, 1, 0))
        sums = sums.reshape(len(x), self.outputs, self.group, self.group, *sums.shape[2:])
        cell = torch.arange(self.group, device=x.device)
        i, j = cell[None, :, None], cell[None, None, :]

        def corner(h: Tensor, w: Tensor) -> Tensor:
            return sums[image[:, None, None], :, i, j, h[:, :, None], w[:, None, :]]  # (R, g, g, output_dim)

        total = corner(down.end, right.end) - corner(down.start, right.end)
        total = total - corner(down.end, right.start) + corner(down.start, right.start)
        count = (down.end - down.start).clamp(min=0)[:, :, None] * (right.end - right.start).clamp(min=0)[
            :, None, :
        ]
        mean = total / count.clamp(min=1)[..., None]
        return torch.where(count[..., None] > 0, mean, 0.0).to(x.dtype).permute(0, 3, 1, 2)

    def span(self, first: Tensor, last: Tensor, size: int) -> Span:
        start, end = half_up(first) * self.scale, (half_up(last) + 1) * self.scale
        step = ((end - start).clamp(min=0.1) / self.group)[:, None]
        line = torch.arange(self.group + 1, device=first.device, dtype=first.dtype)
        edges = line * step + start[:, None]
        return Span(edges[:, :-1].floor().clamp(0, size).long(), edges[:, 1:].ceil().clamp(0, size).long())


@register("ROIAlign")
class ROIAlign(Regional):
    """y = the average of s x s bilinear samples of the map in each cell of a grid over each region.

    Shapes: bottoms map (N, C, H, W) and regions (R, 5); top (R, C, pooled_h, pooled_w); s = sampling_ratio.
    Corners are multiplied by spatial_scale and not rounded (`roi_end_mode: 1` adds a pixel to the far ones);
    a region is at least one pixel wide. Samples stand evenly in a cell; beyond one pixel outside the map they
    are 0. NaN spreads to the samples that touch it. Raises SpecError for other shapes and for a
    sampling_ratio below 1 (a number of samples that depends on the data). Source: He et al. 2017, Mask R-CNN,
    section 3.
    """

    param_field = "roi_align_param"

    def setup(self, *shapes: Shape) -> None:
        if not self.param.ListFields() and self.spec.message.HasField("roi_pooling_param"):
            # Some forks read ROIPooling's settings.
            given = self.spec.message.roi_pooling_param
            self.param = type(self.param)(
                pooled_h=given.pooled_h, pooled_w=given.pooled_w, spatial_scale=given.spatial_scale
            )
        self.check(shapes)
        self.pooled, self.samples = self.grid(), int(self.param.sampling_ratio)
        self.beyond = int(self.param.roi_end_mode)
        if self.samples < 1:
            self.fail(f"needs a fixed sampling_ratio > 0, found {self.samples}", "sampling_ratio")

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, (image, *ends) = bottoms[0], self.regions(bottoms[1])
        (rows, down), (columns, right) = (
            self.taps(*end, count, size)
            for end, count, size in zip(ends, self.pooled, x.shape[2:], strict=True)
        )
        height, width = x.shape[2:]
        # Each cell is a weighted sum of pixels: taps of its samples down times taps to the right.
        place = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
        place = place + (image * height * width)[:, None, None, None, None]
        weight = down[:, :, None, :, None] * right[:, None, :, None, :]
        taps = place.shape[3] * place.shape[4]
        top = functional.embedding_bag(
            place.reshape(-1, taps),
            x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]),
            mode="sum",
            per_sample_weights=weight.reshape(-1, taps),
        )
        return top.reshape(-1, *self.pooled, x.shape[1]).permute(0, 3, 1, 2)

    def taps(self, first: Tensor, last: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
        """Pixels along an axis and their weights for every cell, (R, count, 2 samples)."""
        start, end = first * self.scale, (last + self.beyond) * self.scale
        step = ((end - start).clamp(min=1) / count)[:, None, None]
        line = torch.arange(count, device=first.device, dtype=first.dtype)[:, None]
        sample = (torch.arange(self.samples, device=first.device, dtype=first.dtype) + 0.5) / self.samples
        at = start[:, None, None] + (line + sample) * step
        inside = ((at >= -1) & (at <= size)).to(first.dtype) / self.samples
        at = at.clamp(0, size - 1)
        low = at.floor().clamp(max=max(size - 2, 0))
        share = at - low
        pixels = torch.cat((low, (low + 1).clamp(max=size - 1)), -1).long()
        return pixels, torch.cat(((1 - share) * inside, share * inside), -1)

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """Four pixels for each sample of a cell."""
        return 4 * self.samples**2 * prod(tops[0])
