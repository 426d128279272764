"""Markov chains that complete data with a latent-variable net: pseudo-Gibbs and Metropolis within Gibbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from netspec.queries.latent import Latent

Look = Callable[[int, Tensor], None]
"""Called after each step with its number, from 1, and the completed rows."""


@dataclass
class Chain:
    """Where a chain stands."""

    x: Tensor
    """Rows with their missing values as drawn last."""
    z: Tensor
    """The latent variable of each row."""
    accepted: list[float]
    """Share of the proposals accepted in each step of Metropolis within Gibbs."""
    missing: Tensor
    """Where values are missing, as x."""


def start(latent: Latent, x: Tensor, fill: float = 0.0) -> Chain:
    """A chain that begins at a draw of z given the observed values; missing values are `fill` until the first step."""
    missing = x.isnan()
    weighed = latent.weigh(torch.where(missing, fill, x), 1)
    return Chain(torch.where(missing, fill, x), weighed.z, [], missing)


def pseudo_gibbs(latent: Latent, chain: Chain, steps: int, look: Look | None = None) -> Chain:
    """z ~ q(. | observed, missing as they stand), then missing ~ p(. | z), `steps` times.

    Its limit is not the model's distribution unless q is the posterior. Source: Rezende, Mohamed and Wierstra
    2014, appendix F.
    """
    for number in range(1, steps + 1):
        weighed = latent.weigh(chain.x, 1)
        drawn = latent.observation.draw(weighed.parameters).reshape(chain.x.shape)
        chain.x, chain.z = torch.where(chain.missing, drawn, chain.x), weighed.z
        if look is not None:
            look(number, chain.x)
    return chain


def metropolis_within_gibbs(latent: Latent, chain: Chain, steps: int, look: Look | None = None) -> Chain:
    """As pseudo-Gibbs, but z is a proposal, accepted with probability min(1, w(proposed) / w(present)).

    w(z) = p(x | z) p(z) / q(z | x) of x as it stands, so that the chain's limit is p(missing | observed). Old
    and new z are decoded in one pass. Source: Mattei and Frellsen 2018, algorithm 1.
    """
    n = len(chain.x)
    for number in range(1, steps + 1):
        proposed = latent.weigh(chain.x, 1).z
        weighed = latent.weigh(chain.x, 2, torch.cat([chain.z, proposed]))
        present, wanted = weighed.log_weights
        accept = torch.rand_like(present).log() < wanted - present
        chain.accepted.append(float(accept.to(chain.x.dtype).mean()))
        rows = torch.arange(n, device=accept.device) + n * accept
        drawn = latent.observation.draw([p[rows] for p in weighed.parameters]).reshape(chain.x.shape)
        chain.x, chain.z = torch.where(chain.missing, drawn, chain.x), weighed.z[rows]
        if look is not None:
            look(number, chain.x)
    return chain
