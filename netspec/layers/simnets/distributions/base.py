"""The distribution of a value under a leaf: log probability, mode, moments, draws, and learning from expected counts.

A Distribution knows nothing of nets: it works on its parameters ("blobs") and on values.
Shape letters: P positions (or 1, where all share their components); B batch; M components; K values of a patch;
L levels, the values that a discrete kind can take. All logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

Shape = tuple[int, ...]
Blobs = Sequence[Tensor]
OFF_LEVEL = 1e-2
"""How far, in steps, a value may lie beside its level: rounding of single precision, and no more."""

kinds: dict[str, type[Distribution]] = {}
"""Class of a distribution by the name written in `kind`."""


class Distribution:
    """One kind of value, with the settings of its LeafDistribution message."""

    kind: ClassVar[str]
    discrete: ClassVar[bool] = False
    """Whether it gives probabilities of single values, and no densities."""
    finite: ClassVar[bool] = False
    """Whether there are finitely many values: `levels` of them."""
    statistics: ClassVar[int] = 1
    """Number of tensors in `evidence`."""
    exact: ClassVar[bool] = True
    """Whether one `maximise` finds the parameters that are most likely under counts, wherever it starts."""

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            kinds[cls.kind] = cls

    def __init__(self, p: Any):
        self.p = p
        self.levels: int = p.levels
        self.low, self.step = float(p.low), float(p.step)
        self.min_scale = float(p.min_scale)

    def problem(self) -> tuple[str, str] | None:
        """(what is wrong with the settings, the field)."""
        if self.discrete and not self.step > 0:
            return f"{self.kind}: step must be > 0, found {self.step:g}", "step"
        if self.finite and self.levels < 2:
            return f"{self.kind}: needs levels of at least 2, found {self.levels}", "levels"
        if not self.min_scale > 0:
            return f"{self.kind}: min_scale must be > 0, found {self.min_scale:g}", "min_scale"
        return None

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        """(shape, field of the filler) of each parameter."""
        raise NotImplementedError

    # Values

    def legal(self, x: Tensor) -> Tensor:
        """Whether a value (not NaN) is possible."""
        if not self.discrete:
            return x.isfinite()
        n = self.count(x)
        whole = (n - n.round()).abs() <= OFF_LEVEL
        return x.isfinite() & whole & (n.round() >= 0) & ((n.round() < self.levels) if self.finite else whole)

    def range(self) -> str:
        """The legal values, in words."""
        if not self.discrete:
            return "any finite number"
        step = f" in steps of {self.step:g}" if self.step != 1 else ""
        if self.finite:
            return f"{self.low:g} to {self.low + self.step * (self.levels - 1):g}{step or ', whole numbers'}"
        return f"{self.low:g} and above{step or ', whole numbers'}"

    def count(self, x: Tensor) -> Tensor:
        """The number of a value's level, not yet rounded."""
        return (x - self.low) / self.step

    def value(self, level: Tensor) -> Tensor:
        """The value of a level."""
        return level * self.step + self.low

    # Probabilities

    def log_prob(self, blobs: Blobs, x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        """log p of the values that are seen, under each component (P, B, M), nats; no NaN in x."""
        x = x_PBK.unsqueeze(2)
        terms_PBMK = self.element([blob.unsqueeze(1) for blob in blobs], x)
        return torch.where(seen_PBK.unsqueeze(2), terms_PBMK, 0.0).sum(3)

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        """log p of values, for parameters that broadcast with x."""
        raise NotImplementedError

    def mode(self, blobs: Blobs) -> Tensor:
        """The most probable value (P, M, K)."""
        raise NotImplementedError

    def mean(self, blobs: Blobs) -> Tensor:
        """(P, M, K)."""
        raise NotImplementedError

    def variance(self, blobs: Blobs) -> Tensor:
        """(P, M, K)."""
        raise NotImplementedError

    def peak(self, blobs: Blobs) -> Tensor:
        """log p of the mode (P, M, K)."""
        return self.element(blobs, self.mode(blobs))

    def sample(self, blobs: Blobs, states_PB: Tensor, generator: torch.Generator | None) -> Tensor:
        """A draw (P, B, K) from the component that `states` names at each position."""
        raise NotImplementedError

    def table(self, blobs: Blobs) -> Tensor:
        """log p of every level (P, M, K, L); finite kinds alone."""
        levels = torch.arange(self.levels, device=blobs[0].device, dtype=blobs[0].dtype)
        return self.element([blob.unsqueeze(-1) for blob in blobs], self.value(levels))

    def begin(self, blobs: Blobs, mean: Tensor, deviation: Tensor) -> None:
        """Start from the mean and deviation (P or 1, 1, K) of the data, where these are parameters."""

    # Learning: expected sufficient statistics are the gradients of `evidence`

    def evidence(self, blobs: Blobs) -> list[Tensor]:
        """Tensors whose gradient in `gathering` is what `maximise` needs."""
        raise NotImplementedError

    def gathering(self, blobs: Blobs, evidence: list[Tensor], x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        """`log_prob`, as a function of `evidence`: its gradient are expected counts."""
        raise NotImplementedError

    def maximise(self, blobs: Blobs, counts: list[Tensor], prior: float) -> None:
        """Write the parameters that are most likely under expected counts, and bring these to the new origin.

        prior: share of a component's evidence that is taken from all components together (finite kinds).
        A component without evidence keeps its parameters.
        """
        raise NotImplementedError


def chosen(parameter: Tensor, states_PB: Tensor) -> Tensor:
    """Rows (P, B, ...) of a parameter (P or 1, M, ...) for the component that `states` names."""
    positions = torch.arange(states_PB.shape[0], device=states_PB.device).unsqueeze(1)
    rows: Tensor = parameter[positions if parameter.shape[0] > 1 else 0, states_PB]
    return rows


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers from (0, 1), in double precision."""
    drawn = torch.rand(like.shape, generator=generator, device=like.device, dtype=torch.float64)
    return drawn.clamp(2.0**-60, 1 - 2.0**-53)
