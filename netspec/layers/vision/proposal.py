"""Proposal: regions of interest from a region proposal network (Faster R-CNN)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.vision.boxes import suppress

# Shape suffixes: N = images, A = anchors of one cell, R = regions.


def anchors(base_size: float, ratios: Sequence[float], scales: Sequence[float]) -> Tensor:
    """(A, 4) corners, in pixels, of the anchors of the cell at the origin, in float64; ratios outside, scales
    inside.

    Sides for each ratio (height over width) are rounded to whole pixels before they are scaled. The pixels at
    both corners belong to a box.
    """
    centre = (base_size - 1) / 2
    boxes = []
    for ratio in ratios:
        width = round((base_size**2 / ratio) ** 0.5)
        height = round(width * ratio)
        for scale in scales:
            half_w, half_h = (width * scale - 1) / 2, (height * scale - 1) / 2
            boxes.append([centre - half_w, centre - half_h, centre + half_w, centre + half_h])
    return torch.tensor(boxes, dtype=torch.float64)


def moved(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Boxes (..., 4) in pixels after the moves (dx, dy, log dw, log dh) relative to their size."""
    size = boxes[..., 2:] - boxes[..., :2] + 1
    centre = boxes[..., :2] + size / 2 + deltas[..., :2] * size
    half = deltas[..., 2:].exp() * size / 2
    return torch.cat((centre - half, centre + half), -1)


@register("Proposal")
class Proposal(Layer):
    """Rows (image, x1, y1, x2, y2) of the regions that stay after suppression; the second top holds their
    scores.

    Shapes: scores (N, 2A, H, W), objects in the second half of the channels, moves (N, 4A, H, W), image sizes
    (N, 3 or more) as (height, width, scale) or (height, width, scale of rows, scale of columns), of which the
    first four count; tops (R, 5) and
    (R, 1), R depending on the data. Each anchor is moved by its four numbers and clipped to the image;
    regions narrower or lower than min_size * scale are dropped; the pre_nms_topn best go on, overlaps above
    nms_thresh are suppressed, the post_nms_topn best stay. A NaN score is never kept. Runs eagerly; no
    gradient. R may be 0. Raises SpecError when the channels do not fit the anchors. Source: Ren et al. 2015
    (Faster R-CNN), proposal_layer.
    """

    family, roles = "detection", ("scores", "offsets", "picture size")
    products = 0
    mixes = True
    bottoms, tops, differentiable = exactly(3), between(1, 2), False
    param_field = "proposal_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.positive("base_size", "ratio", "scale")
        boxes = anchors(p.base_size, list(p.ratio) or [0.5, 1, 2], list(p.scale) or [8, 16, 32])
        number = len(boxes)
        for i, each in enumerate((2, 4)):
            if len(shapes[i]) != 4 or shapes[i][1] != each * number or shapes[i][2:] != shapes[0][2:]:
                self.fail(
                    f"needs shape (N, {each} * {number} anchors, H, W), found {shapes[i]}; the anchors are "
                    "one for each ratio and scale of proposal_param",
                    "bottom",
                    i,
                )
        numbers = torch.Size(shapes[2]).numel()
        if numbers % shapes[0][0] or numbers < 3 * shapes[0][0]:
            self.fail(f"needs at least 3 numbers for each image, found {shapes[2]}", "bottom", 2)
        self.register_buffer("anchors", boxes, persistent=False)

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        images, channels, rows, columns = bottoms[0].shape
        regions = channels // 2 * rows * columns
        regions = min(regions, self.param.pre_nms_topn or regions, self.param.post_nms_topn or regions)
        tops = (bottoms[0].new_empty((images * regions, 5)), bottoms[0].new_empty((images * regions, 1)))
        return tops[: len(self.spec.tops)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        scores, moves, sizes = bottoms
        images, _, rows, columns = scores.shape
        y, x = (torch.arange(n, device=scores.device) * self.param.feat_stride for n in (rows, columns))
        shift = torch.stack((x.expand(rows, -1), y.unsqueeze(1).expand(-1, columns)), -1).repeat(1, 1, 2)
        boxes_HWA4 = (shift.unsqueeze(2) + self.get_buffer("anchors")).to(scores.dtype)
        scores_NR = scores[:, scores.shape[1] // 2 :].permute(0, 2, 3, 1).flatten(1)
        moves_NHWA4 = moves.permute(0, 2, 3, 1).reshape(images, rows, columns, -1, 4)
        boxes_NR4 = moved(boxes_HWA4, moves_NHWA4).reshape(images, -1, 4)
        pairs = [
            self.image_regions(n, boxes_NR4[n], scores_NR[n], sizes.reshape(images, -1)[n, :4])
            for n in range(images)
        ]
        regions, kept = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
        return (regions, kept.unsqueeze(1))[: len(self.spec.tops)]

    def image_regions(
        self, n: int, boxes_R4: Tensor, scores_R: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Regions (r, 5) and their scores (r,) of image n."""
        p = self.param
        limit = torch.stack((size[1], size[0])).repeat(2) - 1
        boxes_R4 = torch.minimum(boxes_R4, limit).clamp(min=0)
        least = p.min_size * torch.stack((size[-1], size[2]))
        large = (boxes_R4[:, 2:] - boxes_R4[:, :2] + 1 >= least).all(1) & ~scores_R.isnan()
        boxes_R4, scores_R = boxes_R4[large], scores_R[large]
        order = scores_R.argsort(descending=True, stable=True)
        order = order[: p.pre_nms_topn or None]
        kept = suppress(
            boxes_R4[order].cpu().numpy(), p.nms_thresh, most=p.post_nms_topn or None, pixels=True
        )
        chosen = order[kept]
        image = torch.full_like(scores_R[chosen], n).unsqueeze(1)
        return torch.cat((image, boxes_R4[chosen]), 1), scores_R[chosen]
