"""Whether two runs, or two groups of runs, differ by more than chance: McNemar's test, and pairs over seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EXACT = 16
"""Up to this number of pairs every exchange of signs is tried; beyond it, random draws."""
DRAWS = 20_000


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same examples.

    Both forms of z (Zethraeus 2019, 3.6, reads both ways): one counts every example that is taken for two classes,
    z = sqrt(N) (2x - 1) with N such examples of which the first is right on a share x; those that both get wrong, in
    different ways, pull it down for both. McNemar's leaves these out: z = (n10 - n01) / sqrt(n10 + n01). Positive: the
    first is better.
    """

    n11: int
    """Examples that both get right."""
    n10: int
    """Examples that only the first gets right."""
    n01: int
    """Examples that only the second gets right."""
    n00: int
    """Examples that both get wrong."""
    differ: int
    """Examples for which they name different classes."""

    @property
    def z(self) -> float:
        """McNemar's form; 0 where they are right on the same examples."""
        return (self.n10 - self.n01) / math.sqrt(self.n10 + self.n01) if self.n10 + self.n01 else 0.0

    @property
    def z_literal(self) -> float:
        """The form over all examples that are taken for different classes; 0 where there are none."""
        return (2 * self.n10 - self.differ) / math.sqrt(self.differ) if self.differ else 0.0

    @property
    def p(self) -> float:
        """Probability of this or a larger difference between equal classifiers (binomial, two-sided)."""
        from scipy.stats import binomtest

        several = self.n10 + self.n01
        return float(binomtest(self.n10, several, 0.5).pvalue) if several else 1.0

    @property
    def examples(self) -> int:
        return self.n11 + self.n10 + self.n01 + self.n00

    def as_json(self) -> dict[str, Any]:
        own = {
            name: getattr(self, name)
            for name in ("n11", "n10", "n01", "n00", "differ", "z", "z_literal", "p")
        }
        return {"examples": self.examples, **own}


def mcnemar(labels: Any, first: Any, second: Any) -> McNemar:
    """Compare the predictions of two classifiers (whole numbers, an entry per example); labels below 0 are left out."""
    known = np.asarray(labels) >= 0
    y, a, b = (np.asarray(values)[known] for values in (labels, first, second))
    right_a, right_b = a == y, b == y
    return McNemar(
        int((right_a & right_b).sum()),
        int((right_a & ~right_b).sum()),
        int((~right_a & right_b).sum()),
        int((~right_a & ~right_b).sum()),
        int((a != b).sum()),
    )


@dataclass(frozen=True)
class Paired:
    """The difference of two groups of runs over the seeds that both have."""

    count: int
    difference: float
    """Mean of (first - second)."""
    low: float
    high: float
    """The 95 % interval of the mean, by Student's t; NaN for a single pair."""
    p: float
    """Student's paired test, two-sided; NaN for a single pair."""
    p_signs: float
    """The sign-flip test: the share of all exchanges within pairs whose mean is at least as far from 0. It assumes no
    normal distribution, and is never below 2 / 2^pairs.
    """

    def as_json(self) -> dict[str, Any]:
        fields = {
            name: getattr(self, name) for name in ("count", "difference", "low", "high", "p", "p_signs")
        }
        return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in fields.items()}


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare values that belong together one by one (the same seed). Raises ValueError where there are none."""
    from scipy.stats import t

    d = np.asarray(first, float) - np.asarray(second, float)
    if not len(d):
        raise ValueError("no pairs")
    mean = float(d.mean())
    if len(d) == 1:
        return Paired(1, mean, math.nan, math.nan, math.nan, 1.0)
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    half = float(t.ppf(0.975, len(d) - 1)) * error
    if error == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        p = float(2 * t.sf(abs(mean) / error, len(d) - 1))
    return Paired(len(d), mean, mean - half, mean + half, p, sign_flips(d))


def sign_flips(d: Any) -> float:
    """The share of exchanges of signs whose sum is at least as far from 0 as that of d; for many pairs estimated by
    draws.
    """
    if len(d) <= EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(d))))
    else:
        generator = np.random.Generator(np.random.PCG64(0))
        signs = np.concatenate([np.ones((1, len(d))), generator.choice((1.0, -1.0), (DRAWS, len(d)))])
    sums = np.abs(signs @ d)
    limit = abs(float(d.sum()))
    return float((sums >= limit - 1e-12 * max(1.0, limit)).mean())


def spread(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half of its 95 % interval by Student's t), NaN for the half of a single value."""
    from scipy.stats import t

    v = np.asarray(values, float)
    if len(v) < 2:
        return float(v.mean()), math.nan
    return float(v.mean()), float(t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v)))
