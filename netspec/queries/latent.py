"""Questions to a latent-variable net: its bound, imputations by importance sampling, samples of its prior.

Such a net has a sampling layer (GaussianSample, StudentTSample), whose draws a decoder turns into the
parameters of an ObservationLogProb. A query is the net's own walk with another call at the sampling layer.
Draws come from torch's generator of the device. K-major blobs: see `netspec.layers.latent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor

from netspec.errors import SpecError
from netspec.layers.base import Layer, as_tuple
from netspec.layers.latent.observation import ObservationLogProb
from netspec.layers.latent.prior import PriorLogProb
from netspec.layers.latent.sampling import Sampler
from netspec.net.net import Net

AT_ONCE = 1 << 24
"""Most values that one pass decodes; more draws take several passes."""


@dataclass
class Weighed:
    """Draws of the latent variable with what the net says of them; rows in the order of z (K n, ...)."""

    z: Tensor
    parameters: tuple[Tensor, ...]
    """Parameters of the observations, each (K n, ...)."""
    observed: Tensor
    """log p(observed values | z), (K, n), nats."""
    prior: Tensor
    """log p(z), (K, n)."""
    proposal: Tensor
    """log q(z | observed values), (K, n)."""

    @property
    def log_weights(self) -> Tensor:
        """log p(x|z) + log p(z) - log q(z), (K, n)."""
        return self.observed + self.prior - self.proposal


class Latent:
    """A net as a latent-variable model of x (n, ...), NaN where a value is missing."""

    def __init__(self, net: Net, fill: float = 0.0):
        self.net, self.fill = net, fill
        self.sampler: Sampler = self.only(Sampler, "draws a latent variable")
        self.observation: ObservationLogProb = self.only(
            ObservationLogProb, "gives the log density of observations"
        )
        priors = [layer for layer in net.made if isinstance(layer, PriorLogProb)]
        self.prior = priors[0] if priors else None
        """None means the standard normal density, as for KLGaussian."""
        step = net.graph.steps[net.made.index(self.observation)]
        slot = step.reads[self.observation.given]
        if slot not in net.graph.inputs:
            raise SpecError(
                [step.layer.problem("its data is no input of the net", "bottom", self.observation.given)]
            )
        self.place = net.graph.inputs.index(slot)
        """Which input of the net holds x."""
        self.shape = tuple(net.shapes[slot][1:])

    def only(self, kind: type[Any], does: str) -> Any:
        """The net's one layer of a kind; SpecError where it has none, or several."""
        layers = [layer for layer in self.net.made if isinstance(layer, kind)]
        if len(layers) != 1:
            file = self.net.graph.spec.file
            raise SpecError(
                f"{file}: a latent-variable net has one layer that {does}; this one has {len(layers)}"
            )
        return layers[0]

    def is_mask(self, slot: int) -> bool:
        """Whether a layer reads this input as a mask of the values that are there."""
        for step in self.net.graph.steps:
            for i, read in enumerate(step.reads):
                own = step.kind is type(self.observation) and i == self.observation.given + 1
                if read == slot and (own or step.kind.role(i, len(step.reads)) == "mask"):
                    return True
        return False

    def inputs(self, x: Tensor) -> list[Tensor]:
        """The net's inputs for x: masks hold where x is observed; another input of x's shape holds x with `fill` in its
        holes (what a denoising net sees); every other input is 0.
        """
        values = []
        for i, slot in enumerate(self.net.graph.inputs):
            shape = (len(x), *self.net.shapes[slot][1:])
            if i == self.place:
                values.append(x.reshape(shape))
            elif self.is_mask(slot):
                seen = ~x.reshape(len(x), *self.shape).isnan()
                whole = shape[1:] == self.shape
                values.append((seen if whole else seen.all(1, keepdim=True)).to(x.dtype))
            elif shape[1:] == self.shape:
                values.append(torch.where(x.isnan(), self.fill, x).reshape(shape))
            else:
                values.append(x.new_zeros(shape))
        return values

    def weigh(self, x: Tensor, count: int, z: Tensor | None = None) -> Weighed:
        """`count` draws of q(z | x) for each row, or the given z (count n, ...), with their densities."""
        seen: dict[str, Any] = {}
        sampler, given = self.sampler, self.observation.given

        def call(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
            if layer is sampler:
                seen["z"] = sampler.draw(count, *bottoms) if z is None else z
                seen["proposal"] = sampler.log_prob(seen["z"], *bottoms)
                return (seen["z"], seen["proposal"])[: len(layer.spec.tops)]
            tops = as_tuple(layer(*bottoms))
            if layer is self.observation:
                seen["parameters"], seen["observed"] = bottoms[:given], tops[0]
            return tops

        self.net.run(call, *self.inputs(x))
        return Weighed(
            seen["z"],
            seen["parameters"],
            seen["observed"],
            self.log_prior(seen["z"]).reshape(seen["observed"].shape),
            seen["proposal"],
        )

    def log_prior(self, z: Tensor) -> Tensor:
        """(rows,): log p(z) of z (rows, ...)."""
        if self.prior is not None:
            return self.prior.log_prob(z.flatten(1))
        standard: Tensor = -0.5 * (log(2 * torch.pi) + z.flatten(1).square()).sum(1)
        return standard

    def passes(self, x: Tensor, count: int) -> list[int]:
        """`count` draws split into parts, each small enough for one pass."""
        most = max(1, AT_ONCE // max(1, x.numel()))
        return [min(most, count - first) for first in range(0, count, most)]

    def decode(self, z: Tensor) -> tuple[Tensor, ...]:
        """Parameters of the observations for z (rows, ...)."""
        empty = torch.full((len(z), *self.shape), torch.nan, dtype=z.dtype, device=z.device)
        return self.weigh(empty, 1, z).parameters


def bound(latent: Latent, x: Tensor, draws: int = 5000) -> Tensor:
    """log (1/K) sum_k w_k of each row, (n,), nats: below log p(observed values), closer with more draws."""
    parts = [latent.weigh(x, count).log_weights.logsumexp(0) for count in latent.passes(x, draws)]
    return torch.stack(parts).logsumexp(0) - log(draws)


def expected_completion(latent: Latent, x: Tensor, draws: int = 1000) -> Tensor:
    """x with E[missing | observed] in the missing places, by self-normalised importance sampling."""
    total = torch.zeros((len(x), 1), dtype=x.dtype, device=x.device)
    top = torch.full_like(total, -torch.inf)
    mean = torch.zeros((len(x), x[0].numel()), dtype=x.dtype, device=x.device)
    for count in latent.passes(x, draws):
        weighed = latent.weigh(x, count)
        logw_KN = weighed.log_weights
        rows = latent.observation.mean(weighed.parameters).reshape(count, len(x), -1)
        now = torch.maximum(top, logw_KN.amax(0).unsqueeze(1))
        old, new = (top - now).exp(), (logw_KN[..., None] - now).exp()
        mean = mean * old + (new * rows).sum(0)
        total, top = total * old + new.sum(0), now
    return torch.where(x.isnan(), (mean / total).reshape(x.shape), x)


def complete(latent: Latent, x: Tensor, copies: int = 1, draws: int = 1000) -> Tensor:
    """(copies, n, ...): x with its missing values drawn given the observed ones.

    Sampling, importance, resampling: of `draws` proposals one is kept in proportion to its weight, by the
    Gumbel maximum, so that several passes need no memory of the others; then the values are drawn.
    """
    if draws < 1:
        raise ValueError("a completion needs at least one draw")
    best = torch.full((copies, len(x)), -torch.inf, dtype=x.dtype, device=x.device)
    kept: list[Tensor] | None = None
    for count in latent.passes(x, draws):
        weighed = latent.weigh(x, count)
        uniform = torch.rand((copies, count, len(x)), dtype=x.dtype, device=x.device)
        gumbel = -(-uniform.clamp_min(torch.finfo(x.dtype).tiny).log()).log()
        scores, chosen = (weighed.log_weights + gumbel).max(1)
        rows = chosen * len(x) + torch.arange(len(x), device=x.device)
        new = [p.flatten(1)[rows] for p in weighed.parameters]
        better = scores > best
        kept = [torch.where(better[..., None], a, b) for a, b in zip(new, kept or new, strict=True)]
        best = torch.where(better, scores, best)
    drawn = latent.observation.draw(kept or ())
    return torch.where(x.isnan(), drawn.reshape(copies, *x.shape), x)


def sample(latent: Latent, rows: int, noise: bool = True) -> Tensor:
    """(rows, ...): draws z of the prior, decoded: with `noise` a drawn observation, else its mean."""
    parameter = next(latent.net.parameters())
    shape = latent_shape(latent)
    size = int(torch.Size(shape).numel())
    if latent.prior is not None:
        z = latent.prior.draw(rows, size, parameter)
    else:
        z = torch.randn((rows, size), dtype=parameter.dtype, device=parameter.device)
    parameters = latent.decode(z.reshape(rows, *shape))
    values = latent.observation.draw(parameters) if noise else latent.observation.mean(parameters)
    return values.reshape(rows, *latent.shape)


def latent_shape(latent: Latent) -> tuple[int, ...]:
    """The shape of one draw of z."""
    step = latent.net.graph.steps[latent.net.made.index(latent.sampler)]
    return tuple(latent.net.shapes[step.writes[0]][1:])
