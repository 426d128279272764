"""What a layer must answer to take part in a latent tree: is it a proper one, its max-product, its way down.

A generative net is a chain of such layers from the image up to the class scores. A blob of activations
(B, M, h, w) holds log p(what lies below position (h, w) | state m); a blob of states (B, h, w) holds one chosen state
a position. Source: Sharir, Tamari, Cohen and Shashua 2018, section 3 and appendix E.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from netspec.errors import Problem
from netspec.layers.base import Layer
from netspec.layers.traits import Chain, Common, Value

Choose = Callable[[Tensor], Tensor]
"""From log weights (..., K), not normalised, to indices (...): a draw from their softmax, or their argmax."""


class Inner(Layer):
    """A layer between the leaves and the class scores."""

    @property
    def is_norm(self) -> bool:
        """Whether the top is logsumexp over all states, the term by which the original keeps activations near 0."""
        return False

    def keeps_common(self) -> bool:
        """Whether all channels of the top are equal where all of the bottom are: sums, and normalised mixtures."""
        return True

    def tree_value(self, index: int, below: Sequence[Value]) -> Value | None:
        first = below[0]
        if len(below) > 1:
            return super().tree_value(index, below)
        if isinstance(first, Chain):
            return Common() if self.is_norm else Chain((*first.steps, index))
        return first if self.passes or (isinstance(first, Common) and self.keeps_common()) else None

    def tree_problem(self) -> Problem | None:
        """Why this layer is no part of a latent tree, at its field, and what to change; None when it is."""
        raise NotImplementedError

    def upward_max(self, below: Tensor) -> Tensor:
        """The top when every sum over states is a maximum (max-product)."""
        raise NotImplementedError

    def downward(self, states: Tensor, below: Tensor, choose: Choose) -> Tensor:
        """States (B, h', w') at the bottom, given states (B, h, w) at the top and the bottom's activations `below`."""
        raise NotImplementedError


class Leaf(Layer):
    """The layer that turns patches of pixels into log densities: state d is the component at a position."""

    def tree_problem(self) -> Problem | None:
        """Why this layer is no leaf of a latent tree, at its field, and what to change; None when it is."""
        raise NotImplementedError

    def margins(self) -> tuple[int, int, int, int]:
        """Cells that the windows add (above, below, left, right) to the image, to tile it."""
        raise NotImplementedError

    def upward_max(self, x: Tensor) -> Tensor:
        """The log density of the observed pixels and of the most probable values of the missing ones."""
        raise NotImplementedError

    def mean_image(self, weights: Tensor) -> Tensor:
        """Pixels (B, C, H, W): component means, weighted by `weights` (B, M, h, w)."""
        raise NotImplementedError

    def square_image(self, weights: Tensor) -> Tensor:
        """Pixels (B, C, H, W): component second moments (mean^2 + variance), weighted by `weights` (B, M, h, w)."""
        raise NotImplementedError

    def scale_image(self, weights: Tensor) -> Tensor:
        """Pixels (B, C, H, W): component standard deviations, weighted by `weights` (B, M, h, w)."""
        raise NotImplementedError
