"""OneHot: codes of whole numbers; in log space, leaves that are certain of their value."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.errors import Problem
from netspec.layers.base import Shape, register
from netspec.layers.tree import Leaf


@register("OneHot")
class OneHot(Leaf):
    """y_k = 1 where round(x) = k, else 0; with `to_log` 0 and -inf, their logarithms. No gradient.

    Shapes: (N, 1, ...) to (N, input_dim, ...). Halves round away from zero. An index outside 0..input_dim - 1
    gives no 1 at all (the original does not look). NaN: a missing index gives NaN in every channel; with `to_log`
    it gives 0 in every channel (log 1: integrated out), so that the layer is the leaf of a latent tree whose
    component k is the value k. Raises SpecError without input_dim, or for a bottom that has more than one channel.
    Source: SimNets fork of Caffe, one_hot_layer.cpp.
    """

    family, roles = "shape", ("label",)
    param_field = "one_hot_param"
    differentiable = False

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        if self.param.input_dim < 1:
            self.fail("needs input_dim > 0", "input_dim")
        if len(shape) < 2 or shape[1] != 1:
            self.fail(f"needs a bottom (N, 1, ...), found {shape}", "bottom", 0)
        self.components = int(self.param.input_dim)

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x,) = bottoms
        y = (rounded(x) == self.codes(x.dim() - 2, x)).to(x.dtype)
        if self.param.to_log:
            return torch.where(x.isnan(), 0.0, y.log())
        return torch.where(x.isnan(), x, y)

    def codes(self, axes: int, like: Tensor) -> Tensor:
        """0 .. M - 1 along axis 1 of a blob with `axes` axes beyond it."""
        return torch.arange(self.components, device=like.device).view(-1, *(1,) * axes)

    # As the leaf of a latent tree: component k is the value k

    @property
    def is_leaf(self) -> bool:
        return bool(self.param.to_log)

    @property
    def discrete(self) -> bool:
        return True

    def tree_problem(self) -> Problem | None:
        return None

    def margins(self) -> tuple[int, int, int, int]:
        return 0, 0, 0, 0

    def illegal(self, x: Tensor) -> Tensor:
        index = rounded(x)
        return ~((index == x) & (index >= 0) & (index < self.components)) & ~x.isnan()

    def range_at(self, channel: int, row: int, column: int) -> str:
        return f"0 to {self.components - 1}, whole numbers"

    def upward_max(self, x: Tensor) -> Tensor:
        return self(x)  # type: ignore[no-any-return]

    def mean_image(self, weights: Tensor) -> Tensor:
        return (weights.double() * self.codes(2, weights)).sum(1, keepdim=True)

    def variance_image(self, weights: Tensor, centre: Tensor) -> Tensor:
        return (weights.double() * (self.codes(2, weights) - centre).square()).sum(1, keepdim=True)

    def mode_image(self, states: Tensor) -> Tensor:
        return states.double().unsqueeze(1)

    def sample_image(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.mode_image(states)

    def level_image(self, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        p = weights.double().movedim(1, -1).unsqueeze(1)
        return torch.arange(self.components, device=p.device, dtype=p.dtype).expand(p.shape[1:]), p


def rounded(x: Tensor) -> Tensor:
    """The nearest whole number, halves away from zero."""
    return x.sign() * (x.abs() + 0.5).floor()
