"""The interface of layers in a latent tree: whether the layer fits, its max-product, and its way down.

A generative net is a chain of such layers from the image up to the class scores. A blob of activations (B, M, h, w)
holds log p(what lies below position (h, w) | state m); a blob of states (B, h, w) holds one chosen state per position.
Source: Sharir, Tamari, Cohen and Shashua 2018, section 3 and appendix E.

A leaf describes its own distribution: log density, mode, moments, draws, legal values. So no query names a type.
Shape letters: B batch; C, H, W channels, rows, columns of the image; h, w positions; M components; L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from netspec.errors import Problem
from netspec.layers.base import Layer
from netspec.layers.traits import Chain, Common, Value

Choose = Callable[[Tensor], Tensor]
"""From log weights (..., K), not normalised, to indices (...): a draw from their softmax, or their argmax."""


class TreeLayer(Layer):
    """A layer of a latent tree. It may learn by expectation maximisation: see `gather`."""

    evidence: list[Tensor] | None = None
    """While the layer gathers: tensors that the forward depends on, whose gradient of log p are expected counts."""

    first_counts: list[Tensor] | None = None
    """Expected counts (per image) from an initialisation, with which the solver begins."""

    @property
    def is_norm(self) -> bool:
        """Whether the top is logsumexp over all states, the term by which the original keeps activations near 0."""
        return False

    def keeps_common(self) -> bool:
        """Whether the top's channels are all equal wherever the bottom's are: sums, and normalised mixtures."""
        return True

    def tree_value(self, index: int, below: Sequence[Value]) -> Value | None:
        first = below[0]
        if len(below) > 1:
            return super().tree_value(index, below)
        if isinstance(first, Chain):
            return Common() if self.is_norm else Chain((*first.steps, index))
        return first if self.passes or (isinstance(first, Common) and self.keeps_common()) else None

    def tree_problem(self) -> Problem | None:
        """The problem that keeps this layer out of a latent tree, at its field, with the remedy; None where it fits."""
        raise NotImplementedError

    def new_evidence(self) -> list[Tensor]:
        """New `evidence` for the present values of the blobs; [] for a layer that learns nothing by counts."""
        if self.blobs:
            self.fail(f"{self.spec.type} cannot learn by expectation maximisation")
        return []

    def gather(self, on: bool = True) -> None:
        """Switch gathering on or off: while it is on, backward leaves expected counts in the gradients of `evidence`,
        and the blobs get no gradient.
        """
        self.evidence = [counts.requires_grad_() for counts in self.new_evidence()] if on else None

    def maximise(self, counts: list[Tensor], prior_states: float, prior_values: float) -> None:
        """Set the blobs to the values under which the expected counts (shaped as `evidence`) are most likely, and make
        new evidence for them.

        prior_states, prior_values: for an Inner layer and for a Leaf: share of the counts that all its rows take
        from their mean.
        """


class Inner(TreeLayer):
    """A layer between the leaves and the class scores."""

    joint: ClassVar[bool] = False
    """Whether the top holds log p(observed, class): then it is the last of the tree."""

    def cells(self) -> tuple[int, int]:
        """(rows, columns) of positions at the bottom per position at the top."""
        return 1, 1

    def upward_max(self, below: Tensor) -> Tensor:
        """The top when every sum over states is a maximum (max-product)."""
        raise NotImplementedError

    def downward(self, states: Tensor, below: Tensor, choose: Choose, best: bool = False) -> Tensor:
        """States (B, h', w') at the bottom, given states (B, h, w) at the top and the bottom's activations `below`.

        best: `below` comes from `upward_max`, and `choose` takes the largest: sums inside the layer are maxima too.
        """
        raise NotImplementedError


class Leaf(TreeLayer):
    """The layer that turns patches of pixels into log densities: state d is the component at a position."""

    components: int = 0
    """M, the number of components."""

    @property
    def is_leaf(self) -> bool:
        """Whether the layer, as configured, can be the leaf of a latent tree."""
        return True

    @property
    def discrete(self) -> bool:
        """Whether all values are discrete: then the tops are log probabilities, and no densities."""
        return False

    def margins(self) -> tuple[int, int, int, int]:
        """Cells that the windows add (above, below, left, right) to the image, to tile it."""
        raise NotImplementedError

    def illegal(self, x: Tensor) -> Tensor:
        """Mask of the values (B, C, H, W) that no component can take; NaN means missing, and is legal."""
        return x.isinf()

    def range_at(self, channel: int, row: int, column: int) -> str:
        """The legal values of a pixel, in words."""
        return "any finite number"

    def upward_max(self, x: Tensor) -> Tensor:
        """The log density of the observed pixels and of the most probable values of the missing ones."""
        raise NotImplementedError

    def mean_image(self, weights: Tensor) -> Tensor:
        """Pixels (B, C, H, W): component means, weighted by `weights` (B, M, h, w), in double precision."""
        raise NotImplementedError

    def variance_image(self, weights: Tensor, centre: Tensor) -> Tensor:
        """Mean squared distance (B, C, H, W) of the pixels from `centre`, components weighted by `weights`."""
        raise NotImplementedError

    def mode_image(self, states: Tensor) -> Tensor:
        """The most probable pixels (B, C, H, W) of chosen components, states (B, h, w)."""
        raise NotImplementedError

    def sample_image(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        """Pixels (B, C, H, W) drawn from chosen components, states (B, h, w)."""
        raise NotImplementedError

    def level_image(self, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        """(values (C, H, W, L), their probabilities (B, C, H, W, L)) where pixels have finitely many values.

        L is the largest number of levels; a pixel with fewer (or with none, as it is continuous) has NaN and 0 there.
        None where no pixel has levels.
        """
        return None


def share(counts: Tensor) -> Tensor:
    """Counts over their sum along the last axis; 0 where there are none."""
    return counts / counts.sum(-1, keepdim=True).clamp_min(torch.finfo(counts.dtype).tiny)


def with_rows(counts: Tensor, before: Tensor) -> Tensor:
    """log of rows of counts (last axis) over their sums; rows without counts as `before`."""
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, counts.log() - total.log(), before.to(counts.dtype))
