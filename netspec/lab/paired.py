"""Two methods on the same images: whether one is right more often than the other beyond chance."""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from netspec.data.files.idx import Array


@dataclass(frozen=True)
class Paired:
    """Counts over images on which the predictions of two methods differ."""

    first: int
    """Images that only the first method has right."""
    second: int
    """Images that only the second has right."""
    neither: int
    """Images on which they differ and both are wrong."""

    @property
    def z(self) -> float:
        """(first - second) / sqrt(first + second), about N(0, 1) where both are as good; 0 where no image tells.

        Source: McNemar 1947.
        """
        count = self.first + self.second
        return (self.first - self.second) / sqrt(count) if count else 0.0

    @property
    def z_of_all(self) -> float:
        """sqrt(N) (2 x - 1), N all images on which they differ, x the share of them that the first has right: as
        Zethraeus 2019 writes it, which counts images that both have wrong against the first.
        """
        count = self.first + self.second + self.neither
        return sqrt(count) * (2 * self.first / count - 1) if count else 0.0

    @property
    def p(self) -> float:
        """Two-sided probability of a |z| at least this large where both are as good."""
        return erfc(abs(self.z) / sqrt(2))


def paired(first: Array, second: Array, labels: Array) -> Paired:
    """Compare classes (N,) of two methods with the true ones."""
    one, two = np.asarray(first) == labels, np.asarray(second) == labels
    differ = np.asarray(first) != np.asarray(second)
    return Paired(int((one & ~two).sum()), int((two & ~one).sum()), int((differ & ~one & ~two).sum()))
