"""What a leaf may say of a value: its log probability, mode, moments, draws, and how it learns from expected counts.

A Distribution knows nothing of nets: it works on its parameters ("blobs") and on values.
Shape letters: P positions (or 1, where all share their components); B batch; M components; K values of a patch;
L levels, the values that a discrete kind can take. All logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lgamma, log, pi
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from netspec.layers.simnets.logsumexp import may_look

Shape = tuple[int, ...]
Blobs = Sequence[Tensor]
inf = float("inf")
OFF_LEVEL = 1e-2
"""How far, in steps, a value may lie beside its level: rounding of single precision, and no more."""
EVEN = 0.05
"""Share of a prior over levels that is the same for all levels, so that none is impossible."""

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
        """Whether a value (not NaN) can occur at all."""
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


# Locations and scales


class Located(Distribution):
    """A location and the logarithm of a scale for each value."""

    statistics = 4

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        shape = (positions, components, values)
        return [(shape, "location_filler"), (shape, "log_scale_filler")]

    def begin(self, blobs: Blobs, mean: Tensor, deviation: Tensor) -> None:
        blobs[0].copy_(mean.expand_as(blobs[0]))
        blobs[1].copy_(deviation.clamp_min(self.min_scale).log().expand_as(blobs[1]))

    def mode(self, blobs: Blobs) -> Tensor:
        return blobs[0]

    def mean(self, blobs: Blobs) -> Tensor:
        return blobs[0]

    def weight(self, blobs: Blobs, x: Tensor) -> Tensor:
        """How much each value counts for its component's location: 1, but for long tails."""
        return torch.ones_like(x)

    def evidence(self, blobs: Blobs) -> list[Tensor]:
        return [torch.zeros_like(blobs[0]) for _ in range(4)]

    def gathering(self, blobs: Blobs, evidence: list[Tensor], x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        # Counts, then weighted counts, deviations and squares, each deviation from the component's own location.
        location, log_scale = (blob.detach().unsqueeze(1) for blob in blobs)
        apart = x_PBK.unsqueeze(2) - location
        u = self.weight([location, log_scale], apart + location)
        terms = self.element([location, log_scale], x_PBK.unsqueeze(2))
        for e, power in zip(
            evidence, (torch.ones_like(apart), u, u * apart, u * apart.square()), strict=True
        ):
            terms = terms + e.unsqueeze(1) * power
        return torch.where(seen_PBK.unsqueeze(2), terms, 0.0).sum(3)

    def maximise(self, blobs: Blobs, counts: list[Tensor], prior: float) -> None:
        n, weight, first, second = counts
        alive = (n > 0) & (weight > 0) if not prior else (n.sum(1, keepdim=True) > 0).expand_as(n)
        before = blobs[0].to(n.dtype)
        tiny = torch.finfo(n.dtype).tiny
        pull = torch.zeros_like(n)
        if prior:  # towards the mean of all components
            share = weight / weight.sum(1, keepdim=True).clamp_min(tiny)
            pull = (share * (before + first / weight.clamp_min(tiny))).sum(1, keepdim=True) - before
        shift = torch.where(alive, (first + prior * pull) / (weight + prior).clamp_min(tiny), 0.0)
        moved = (second - 2 * shift * first + shift.square() * weight).clamp_min(0)
        if prior:
            own, together = n, moved.sum(1, keepdim=True) / n.sum(1, keepdim=True).clamp_min(tiny)
            moved, n = moved + prior * together, own + prior
        new = (moved / n.clamp_min(tiny)).sqrt().clamp_min(self.min_scale).log()
        blobs[1].copy_(torch.where(alive, new, blobs[1].to(new.dtype)))
        blobs[0].copy_(before + shift)
        real = blobs[0].to(n.dtype) - before  # what rounding left of the shift
        counts[3].copy_((second - 2 * real * first + real.square() * weight).clamp_min(0))
        counts[2].copy_(first - real * weight)


class Gaussian(Located):
    """log N(x; location, exp(log_scale)^2)."""

    kind = "gaussian"

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        location, log_scale = blobs
        return -0.5 * ((x - location) * torch.exp(-log_scale)).square() - log_scale - 0.5 * log(2 * pi)

    def variance(self, blobs: Blobs) -> Tensor:
        return (2 * blobs[1]).exp()

    def sample(self, blobs: Blobs, states_PB: Tensor, generator: torch.Generator | None) -> Tensor:
        location, log_scale = (chosen(blob, states_PB) for blob in blobs)
        normal = torch.randn(
            location.shape, generator=generator, device=location.device, dtype=location.dtype
        )
        return location + normal * log_scale.exp()


class StudentT(Located):
    """Student's t with a fixed number of degrees of freedom, a location and a scale."""

    kind = "student_t"
    exact = False

    def __init__(self, p: Any):
        super().__init__(p)
        self.df = float(p.degrees_of_freedom)

    def problem(self) -> tuple[str, str] | None:
        if not self.df > 2:
            text = (
                f"student_t: degrees_of_freedom must be above 2 (else it has no variance), found {self.df:g}"
            )
            return text, "degrees_of_freedom"
        return super().problem()

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        location, log_scale = blobs
        constant = lgamma((self.df + 1) / 2) - lgamma(self.df / 2) - 0.5 * log(self.df * pi)
        z = (x - location) * torch.exp(-log_scale)
        return constant - log_scale - 0.5 * (self.df + 1) * torch.log1p(z.square() / self.df)

    def variance(self, blobs: Blobs) -> Tensor:
        return (2 * blobs[1]).exp() * self.df / (self.df - 2)

    def weight(self, blobs: Blobs, x: Tensor) -> Tensor:
        z = (x - blobs[0]) * torch.exp(-blobs[1])
        return (self.df + 1) / (self.df + z.square())

    def sample(self, blobs: Blobs, states_PB: Tensor, generator: torch.Generator | None) -> Tensor:
        # Bailey 1994: sqrt(df (u^(-2/df) - 1)) cos(2 pi v) has Student's distribution.
        location, log_scale = (chosen(blob, states_PB) for blob in blobs)
        radius = (self.df * torch.expm1(-2 / self.df * uniform(location, generator).log())).sqrt()
        t = radius * torch.cos(2 * pi * uniform(location, generator))
        return location + t.to(location.dtype) * log_scale.exp()


# Finitely many levels


class Levels(Distribution):
    """A kind with finitely many values; it learns from how often each is expected."""

    discrete, finite = True, True

    def evidence(self, blobs: Blobs) -> list[Tensor]:
        return [self.table(blobs).permute(0, 2, 3, 1).contiguous().detach()]

    def gathering(self, blobs: Blobs, evidence: list[Tensor], x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        return self.pick(evidence[0], x_PBK, seen_PBK)

    def pick(self, table_PKLM: Tensor, x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        """Sums over K of the table's rows for the levels of x: (P, B, M)."""
        p, k, levels, m = table_PKLM.shape
        level = self.count(x_PBK).round()
        fine = self.legal(x_PBK)
        level = torch.where(fine, level, 0.0).long().clamp(0, levels - 1)
        start = torch.arange(p * k, device=x_PBK.device).view(p, 1, k) * levels
        shape = (*level.shape, m)
        rows = table_PKLM.reshape(p * k * levels, m).index_select(0, (level + start).flatten()).view(shape)
        if may_look(x_PBK) and bool((fine & seen_PBK).all()):
            return rows.squeeze(2) if k == 1 else rows.sum(2)
        rows = torch.where(fine.unsqueeze(3), rows, -inf)
        rows = torch.where(seen_PBK.unsqueeze(3), rows, 0.0)
        return rows.squeeze(2) if k == 1 else rows.sum(2)

    def mode(self, blobs: Blobs) -> Tensor:
        return self.value(self.table(blobs).argmax(3).to(blobs[0].dtype))

    def peak(self, blobs: Blobs) -> Tensor:
        return self.table(blobs).amax(3)

    def mean(self, blobs: Blobs) -> Tensor:
        table = self.table(blobs)
        return self.value(table.exp() @ torch.arange(self.levels, device=table.device, dtype=table.dtype))

    def variance(self, blobs: Blobs) -> Tensor:
        table = self.table(blobs)
        levels = torch.arange(self.levels, device=table.device, dtype=table.dtype)
        apart = levels - (table.exp() @ levels).unsqueeze(3)
        return (table.exp() * apart.square()).sum(3) * self.step**2

    def sample(self, blobs: Blobs, states_PB: Tensor, generator: torch.Generator | None) -> Tensor:
        logits = chosen(self.table(blobs), states_PB)
        level = (logits - torch.log(-torch.log(uniform(logits, generator)))).argmax(3)
        return self.value(level.to(logits.dtype))

    def maximise(self, blobs: Blobs, counts: list[Tensor], prior: float) -> None:
        (counts_PKLM,) = counts
        if prior:
            counts_PKLM = counts_PKLM + prior * shared(counts_PKLM)
        self.fit(blobs, counts_PKLM.permute(0, 3, 1, 2))

    def fit(self, blobs: Blobs, counts_PMKL: Tensor) -> None:
        """The parameters of greatest likelihood, or of a greater one than now, for counts of levels."""
        raise NotImplementedError


def shared(counts_PKLM: Tensor) -> Tensor:
    """What all components together make of the levels (P, K, L, 1), a little of it evenly; sums to 1 over L."""
    together = counts_PKLM.sum(3, keepdim=True)
    total = together.sum(2, keepdim=True)
    known = torch.where(
        total > 0, together / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / together.shape[2]
    )
    return (1 - EVEN) * known + EVEN / together.shape[2]


class Categorical(Levels):
    """Every level has its own probability: softmax of logits (P, K, L, M)."""

    kind = "categorical"

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        return [((positions, values, self.levels, components), "logit_filler")]

    def log_prob(self, blobs: Blobs, x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        return self.pick(torch.log_softmax(blobs[0], 2), x_PBK, seen_PBK)

    def table(self, blobs: Blobs) -> Tensor:
        return torch.log_softmax(blobs[0], 2).permute(0, 3, 1, 2)

    def evidence(self, blobs: Blobs) -> list[Tensor]:
        return [torch.log_softmax(blobs[0].detach(), 2)]

    def maximise(self, blobs: Blobs, counts: list[Tensor], prior: float) -> None:
        (counts_PKLM,) = counts
        total = counts_PKLM.sum(2, keepdim=True)
        if prior:
            counts_PKLM, total = counts_PKLM + prior * shared(counts_PKLM), total + prior
        new = counts_PKLM.log().sub_(total.log())
        blobs[0].copy_(torch.where(total > 0, new, blobs[0].to(new.dtype)))


class Binomial(Levels):
    """Successes among levels - 1 trials, of probability sigmoid(logit)."""

    kind = "binomial"

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        return [((positions, components, values), "logit_filler")]

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        (logit,), trials = blobs, self.levels - 1
        n = self.count(x).round()
        fine = self.legal(x)
        n = torch.where(fine, n, 0.0)
        choose = lgamma(trials + 1) - torch.lgamma(n + 1) - torch.lgamma(trials - n + 1)
        # No successes of probability 0 are certain: 0 times -inf is 0.
        yes = torch.where(n > 0, n * logsigmoid(logit), 0.0)
        no = torch.where(n < trials, (trials - n) * logsigmoid(-logit), 0.0)
        return torch.where(fine, choose + yes + no, -inf)

    def mean(self, blobs: Blobs) -> Tensor:
        return self.value((self.levels - 1) * blobs[0].sigmoid())

    def variance(self, blobs: Blobs) -> Tensor:
        return (self.levels - 1) * blobs[0].sigmoid() * (-blobs[0]).sigmoid() * self.step**2

    def fit(self, blobs: Blobs, counts_PMKL: Tensor) -> None:
        levels = torch.arange(self.levels, device=counts_PMKL.device, dtype=counts_PMKL.dtype)
        yes, total = counts_PMKL @ levels, counts_PMKL.sum(3) * (self.levels - 1)
        # Bounded: a sure success would make every failure impossible for ever.
        new = (yes.log() - (total - yes).clamp_min(0).log()).clamp(-30, 30)
        blobs[0].copy_(torch.where(total > 0, new, blobs[0].to(new.dtype)))


class Bernoulli(Binomial):
    """1 with probability sigmoid(logit), else 0."""

    kind = "bernoulli"

    def __init__(self, p: Any):
        super().__init__(p)
        self.levels = 2

    def problem(self) -> tuple[str, str] | None:
        if self.p.HasField("levels") and self.p.levels != 2:
            return f"bernoulli: has 2 levels, found {self.p.levels}; take categorical or binomial", "levels"
        return super().problem()


class DiscretisedLogistic(Levels):
    """p(level) = sigmoid((upper - location) / scale) - sigmoid((lower - location) / scale), in units of the data.

    The level's interval reaches half a step to each side, to infinity at both ends, so that all levels' sum is 1.
    """

    kind = "discretised_logistic"
    exact = False

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        shape = (positions, components, values)
        return [(shape, "location_filler"), (shape, "log_scale_filler")]

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        location, log_scale = blobs
        n, fine, rate = self.count(x).round(), self.legal(x), torch.exp(-log_scale)
        centre = (self.value(torch.where(fine, n, 0.0)) - location) * rate
        half = 0.5 * self.step * rate
        # log (s(b) - s(a)) = log s(b) + log s(-a) + log(1 - e^(a - b)); at the ends one side is certain.
        above = torch.where(n >= self.levels - 1, 0.0, logsigmoid(centre + half))
        below = torch.where(n <= 0, 0.0, logsigmoid(half - centre))
        ends = (n >= self.levels - 1) | (n <= 0)
        width = torch.where(ends, 0.0, log1mexp(torch.where(ends, 1.0, 2 * half)))
        return torch.where(fine, above + below + width, -inf)

    def begin(self, blobs: Blobs, mean: Tensor, deviation: Tensor) -> None:
        blobs[0].copy_(mean.expand_as(blobs[0]))
        scale = (deviation * 3**0.5 / pi).clamp_min(max(self.min_scale, 0.1 * self.step))
        blobs[1].copy_(scale.log().expand_as(blobs[1]))

    def fit(self, blobs: Blobs, counts_PMKL: Tensor) -> None:
        total = counts_PMKL.sum(3)
        levels = self.value(torch.arange(self.levels, device=total.device, dtype=torch.float64))
        weights = (counts_PMKL / total.unsqueeze(3).clamp_min(torch.finfo(total.dtype).tiny)).double()
        now = [blob.detach().double().clone() for blob in blobs]
        value = self.score(now, weights, levels)
        pace = torch.ones_like(value)
        for _ in range(12):
            leaves = [blob.requires_grad_() for blob in now]
            with torch.enable_grad():
                slopes = torch.autograd.grad(self.score(leaves, weights, levels).sum(), leaves)
            now = [blob.detach() for blob in now]
            # The logistic's Fisher information: 1 / (3 scale^2) of the location, (3 + pi^2) / 9 of log scale.
            square = (2 * now[1]).exp().clamp_min(self.step**2 / 12)
            moved = [now[0] + pace * 3 * square * slopes[0], now[1] + pace * slopes[1] * 9 / (3 + pi**2)]
            moved[1] = torch.maximum(torch.minimum(moved[1], now[1] + 1), now[1] - 1).clamp_min(
                log(self.min_scale)
            )
            new = self.score(moved, weights, levels)
            better = new > value
            now = [torch.where(better, a, b) for a, b in zip(moved, now, strict=True)]
            value, pace = torch.where(better, new, value), torch.where(better, pace * 1.2, pace * 0.3)
        for blob, new in zip(blobs, now, strict=True):
            blob.copy_(torch.where(total > 0, new.to(blob.dtype), blob))

    def score(self, blobs: Blobs, weights_PMKL: Tensor, levels: Tensor) -> Tensor:
        """Mean log probability of levels under weights (P, M, K)."""
        terms = self.element([blob.unsqueeze(-1) for blob in blobs], levels)
        return torch.where(weights_PMKL > 0, weights_PMKL * terms, 0.0).sum(3)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0, to full precision at both ends."""
    small = x < log(2)
    near = torch.log(-torch.expm1(-torch.where(small, x, 1.0)))
    far = torch.log1p(-torch.exp(-torch.where(small, 1.0, x)))
    return torch.where(small, near, far)


class Poisson(Distribution):
    """Counts of rate exp(log_rate)."""

    kind = "poisson"
    discrete = True
    statistics = 2

    def blobs(self, positions: int, components: int, values: int) -> list[tuple[Shape, str]]:
        return [((positions, components, values), "logit_filler")]

    def element(self, blobs: Blobs, x: Tensor) -> Tensor:
        (log_rate,) = blobs
        fine = self.legal(x)
        n = torch.where(fine, self.count(x).round(), 0.0)
        return torch.where(fine, n * log_rate - log_rate.exp() - torch.lgamma(n + 1), -inf)

    def mode(self, blobs: Blobs) -> Tensor:
        return self.value(blobs[0].exp().floor())

    def mean(self, blobs: Blobs) -> Tensor:
        return self.value(blobs[0].exp())

    def variance(self, blobs: Blobs) -> Tensor:
        return blobs[0].exp() * self.step**2

    def sample(self, blobs: Blobs, states_PB: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.value(torch.poisson(chosen(blobs[0], states_PB).exp(), generator=generator))

    def evidence(self, blobs: Blobs) -> list[Tensor]:
        return [torch.zeros_like(blobs[0]) for _ in range(2)]

    def gathering(self, blobs: Blobs, evidence: list[Tensor], x_PBK: Tensor, seen_PBK: Tensor) -> Tensor:
        x = x_PBK.unsqueeze(2)
        terms = self.element([blob.detach().unsqueeze(1) for blob in blobs], x)
        n = torch.where(self.legal(x), self.count(x).round(), 0.0)
        terms = terms + evidence[0].unsqueeze(1) + evidence[1].unsqueeze(1) * n
        return torch.where(seen_PBK.unsqueeze(2), terms, 0.0).sum(3)

    def maximise(self, blobs: Blobs, counts: list[Tensor], prior: float) -> None:
        n, total = counts
        if prior:
            rate = total.sum(1, keepdim=True) / n.sum(1, keepdim=True).clamp_min(torch.finfo(n.dtype).tiny)
            n, total = n + prior, total + prior * rate
        # Bounded from below: a rate of 0 would make every other count impossible for ever.
        new = (total.clamp_min(0) / n.clamp_min(torch.finfo(n.dtype).tiny)).log().clamp_min(-30)
        blobs[0].copy_(torch.where(n > 0, new, blobs[0].to(new.dtype)))
