"""RandomAffine: in training, images are turned, resized, sheared and shifted at random."""

from __future__ import annotations

from math import log1p, radians

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from netspec.layers import ranks
from netspec.layers.base import Layer, Shape, register
from netspec.schema.spec import TRAIN


@register("RandomAffine")
class RandomAffine(Layer):
    """TRAIN: each image of x under an affine map of its own about its centre, bilinear; TEST: y = x.

    Shapes: bottom and top (N, C, H, W). Drawn for each image, uniform and independent: an angle in [-rotation,
    rotation] degrees; the logarithm of a factor of size, the factor in [1 / (1 + scale), 1 + scale]; a shear in
    [-shear, shear], columns a row; shifts in [-shift_x, shift_x] and [-shift_y, shift_y] pixels, fractions among
    them. Random numbers: torch's generator of the device. What comes from outside is `out_of_bounds_value`. NaN
    spreads to what is interpolated from it. Raises SpecError for bottoms of other than 4 axes and for negative
    options. Source: the usual augmentation, as RandomAffine of torchvision.
    """

    family, roles = "rendering", ("image",)
    param_field = "random_affine_param"

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) != 4:
            self.fail(f"needs a bottom (N, C, H, W), found {shapes[0]}", "bottom", 0)
        for name in ("rotation", "scale", "shear", "shift_x", "shift_y"):
            if not 0 <= getattr(self.param, name) < float("inf"):
                self.fail(
                    f"{name} must be 0 or more, found {getattr(self.param, name)}", self.param_field, name
                )

    @property
    def passes(self) -> bool:
        return self.phase != TRAIN

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x,) = bottoms
        if self.phase != TRAIN:
            return x
        outside = float(self.param.out_of_bounds_value)
        grid = affine_grid(self.draws(x), list(x.shape), align_corners=False)
        moved: Tensor = grid_sample(x - outside, grid, align_corners=False) + outside
        return moved

    def draws(self, x: Tensor) -> Tensor:
        """Maps (N, 2, 3) from a place of the top to one of the bottom, sides from -1 to 1."""
        p, (height, width) = self.param, x.shape[2:]
        angle, size, shear, right, down = (
            (ranks.rand_like(x[:, 0, 0, 0]) * 2 - 1) * most
            for most in (radians(p.rotation), log1p(p.scale), p.shear, p.shift_x, p.shift_y)
        )
        cos, sin, size = angle.cos(), angle.sin(), (-size).exp()
        rows = (
            (cos * size, (cos * shear - sin) * size * (height / width), -2 * right / width),
            (sin * size * (width / height), (sin * shear + cos) * size, -2 * down / height),
        )
        return torch.stack([torch.stack(row, 1) for row in rows], 1)
