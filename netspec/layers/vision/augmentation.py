"""DataAugmentation of FlowNet's Caffe, without its random changes: a crop of the middle, less the mean."""

from __future__ import annotations

from math import floor

import torch
from torch import Tensor

from netspec.layers.base import Shape, between, register
from netspec.layers.basic.resize import Resize
from netspec.schema.spec import TRAIN


@register("DataAugmentation")
class DataAugmentation(Resize):
    """y = the middle of x less a mean: of the first `recompute_mean` batches, or `mean`; no random changes.

    Shapes: (N, C, H, W) to (N, C, crop_height, crop_width), or to the same without crop. A crop begins at (H -
    crop_height) / 2, bilinear where that is half a pixel; rows beyond H - 1.05 are taken at H - 1.05, so that the
    last row holds a twentieth of the one before it, and columns alike, as in the original. With recompute_mean:
    blobs batches seen (1, 1, 1, 1), mean image (1, C, h, w) and its channels' means (1, C, 1, 1), none learned;
    every forward, TEST's too, counts, and moves the means until recompute_mean batches are seen; then they stay.
    mean_per_pixel subtracts the image, else the channels' means. Weights of another image size are taken: the
    image is then their channels' means. Without: one blob, the batches. NaN spreads to what is interpolated from
    it, and into the means. Raises SpecError for a crop larger than x, `mean` that does not fit, a second bottom or
    top, and for random changes where they would be made (TRAIN, or augment_during_test, with a crop). Source:
    FlowNet's Caffe, data_augmentation_layer.cu.
    """

    family, roles = "shape", ("image", "affine map")
    bottoms = tops = between(1, 2)
    param_field = "augmentation_param"
    spreads = (1,)

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        if len(shapes) > 1 or len(self.spec.tops) > 1:
            self.fail(
                "random changes shared with other layers are not made here: give one bottom and one top"
            )
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found {shape}")
        self.crops = p.HasField("crop_width") and p.HasField("crop_height")
        self.refuse_random()
        self.size = (int(p.crop_height), int(p.crop_width)) if self.crops else (shape[2], shape[3])
        for name, have, want in zip(("crop_height", "crop_width"), shape[2:], self.size, strict=True):
            self.require(0 < want <= have, name, f"{name} must be 1 to {have}, found {want}")
        if self.crops:
            for axis, have, want in zip(("rows", "columns"), shape[2:], self.size, strict=True):
                self.keep(axis, [middle(i + (have - want) / 2, have) for i in range(want)])
        if not p.recompute_mean and len(p.mean) == 3 and not p.mean_per_pixel:
            if shape[1] != 3:
                self.fail(f"3 means for {shape[1]} channels", "mean", 0)
            self.register_buffer("given_mean", torch.tensor(list(p.mean)).view(1, 3, 1, 1), persistent=False)
        self.add_blob((1, 1, 1, 1), lr_mult=0.0)
        if p.recompute_mean:
            self.add_blob((1, shape[1], *self.size), lr_mult=0.0)
            self.add_blob((1, shape[1], 1, 1), lr_mult=0.0)

    def refuse_random(self) -> None:
        p = self.param
        random = [field.name for field, _ in p.ListFields() if field.message_type is not None]
        if random and self.crops and (self.phase == TRAIN or p.augment_during_test):
            self.fail(f"random changes ({', '.join(random)}) are not made here; leave them out, or change the data "
                      "beforehand", random[0])  # fmt: skip

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = self.sums(bottoms[0]) if self.crops else bottoms[0]
        counted = self.blob(0).detach() + 1
        if self.param.recompute_mean:
            mean = self.mean_with(x.detach(), counted)
        else:
            mean = getattr(self, "given_mean", x.new_zeros(()))
        if not torch.compiler.is_exporting():  # a program that is written for others changes no weights
            with torch.no_grad():
                self.blob(0).copy_(counted)
        return x - mean

    def mean_with(self, x: Tensor, counted: Tensor) -> Tensor:
        """The mean to subtract, the batch x, which is number `counted`, in it where it still counts."""
        more = counted <= self.param.recompute_mean
        image, each = self.blob(1).detach(), self.blob(2).detach()
        image = torch.where(more, (image * (counted - 1) + x.mean(0, keepdim=True)) / counted, image)
        each = torch.where(more, image.mean((2, 3), keepdim=True), each)
        if not torch.compiler.is_exporting():
            with torch.no_grad():
                self.blob(1).copy_(image)
                self.blob(2).copy_(each)
        return image if self.param.mean_per_pixel else each


def middle(place: float, size: int) -> dict[int, float]:
    """The two pixels around a place, no further than 1.05 from the end, and their weights."""
    place = max(0.0, min(place, size - 1.05))
    first = floor(place)
    return {i: w for i, w in ((first, 1 - (place - first)), (first + 1, place - first)) if w}
