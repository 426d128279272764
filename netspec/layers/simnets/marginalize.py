"""Marginalize: in training, positions are dropped at random and integrated out by the layers above."""

from __future__ import annotations

from math import nan

import torch
from torch import Tensor

from netspec.errors import Problem
from netspec.layers import ranks
from netspec.layers.base import Shape, register
from netspec.layers.tree import Choose, Inner
from netspec.schema.spec import TRAIN


@register("Marginalize")
class Marginalize(Inner):
    """TRAIN: y = x at positions kept with probability `keep_probability`, NaN or 0 at the others; TEST: y =
    x.

    One draw for each sample and spatial position, the same in all channels, from torch's default generator.
    `value: NAN_VALUE` marks pixels as missing (for a Similarity with `ignore_nan_input`); `value: ZERO` sets
    log densities to log 1, which leaves that position's subtree out of the likelihood. Dropped positions get
    no gradient.
    Shapes: bottom and top (N, C, ...). NaN in the bottom stays, or becomes 0 where a position is dropped by
    ZERO.
    Raises SpecError for a probability outside [0, 1].
    Source: the masks rm0 to rm3 of the nets of Sharir, Tamari, Cohen and Shashua 2018 (appendix F).
    """

    family, roles = "pointwise", ("image",)
    param_field = "marginalize_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        if not 0 <= p.keep_probability <= 1:
            self.fail(
                f"keep_probability {p.keep_probability} is outside [0, 1]",
                "keep_probability",
            )
        if len(shapes[0]) < 2:
            self.fail(f"needs a bottom (N, C, ...), found {shapes[0]}")
        self.fill_value = 0.0 if p.value == p.ZERO else nan

    @property
    def passes(self) -> bool:
        return self.phase != TRAIN

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0]
        if self.phase != TRAIN:
            return x
        shape = (x.shape[0], 1, *x.shape[2:])
        kept = (
            ranks.drawn(lambda rows: torch.rand(rows, device=x.device), shape) < self.param.keep_probability
        )
        if x.dim() == 4 and x.stride(0) == 1 and len(x) > 1:  # the batch is innermost, and stays so
            kept = kept.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
        return torch.where(kept, x, self.fill_value)

    # In a latent tree (TEST) it changes nothing

    def tree_problem(self) -> Problem | None:
        return None

    def upward_max(self, below: Tensor) -> Tensor:
        return below

    def downward(self, states: Tensor, below: Tensor, choose: Choose, best: bool = False) -> Tensor:
        return states
