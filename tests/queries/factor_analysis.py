"""A factor analyser as a net whose encoder is the exact posterior where nothing is missing."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec import schema
from netspec.net.make import make_net
from netspec.net.net import Net

D, P = 2, 5
W = torch.tensor([[1.0, 0.5, -0.7, 0.2, 0.9], [0.3, -0.8, 0.4, 1.1, -0.05]]).double()
MEAN = torch.tensor([0.5, -1.0, 0.0, 2.0, 0.3]).double()
NOISE = torch.tensor([0.3, 0.5, 0.2, 0.4, 0.6]).double()
"""Variances of the observations given z."""

TEXT = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 4 dim: {P} }} }} }}
layer {{ name: "fill" type: "LearnableFill" bottom: "x" top: "filled" }}
layer {{ name: "m" type: "InnerProduct" bottom: "filled" top: "m" inner_product_param {{ num_output: {D} }} }}
layer {{ name: "v" type: "InnerProduct" bottom: "filled" top: "v" inner_product_param {{ num_output: {D} }} }}
layer {{ name: "z" type: "GaussianSample" bottom: "m" bottom: "v" top: "z" top: "q"
  latent_sample_param {{ num_samples: {K} }} }}
layer {{ name: "prior" type: "PriorLogProb" bottom: "z" bottom: "q" top: "p" }}
layer {{ name: "mu" type: "InnerProduct" bottom: "z" top: "mu" inner_product_param {{ num_output: {P} }} }}
layer {{ name: "s" type: "InnerProduct" bottom: "z" top: "s" inner_product_param {{ num_output: {P} }} }}
layer {{ name: "ll" type: "ObservationLogProb" bottom: "mu" bottom: "s" bottom: "x" top: "ll"
  observation_log_prob_param {{ family: GAUSSIAN }} }}
layer {{ name: "bound" type: "ImportanceBound" bottom: "ll" bottom: "p" bottom: "q" top: "loss" top: "w" top: "b" }}
"""


def orthogonal() -> Tensor:
    """W with rows that are orthogonal in the noise's metric, so that the posterior is diagonal."""
    a, b = W
    b = b - a * (a * b / NOISE).sum() / (a * a / NOISE).sum()
    return torch.stack([a, b])


def net(k: int = 1, worse: float = 0.0) -> Net:
    """The net in float64; `worse` widens the encoder's posterior (log variance)."""
    made = make_net(schema.parse_net(TEXT.format(P=P, D=D, K=k), "fa.prototxt"), seed=1)
    made = made.double().requires_grad_(False)
    w = orthogonal()
    precision = 1 + (w * w / NOISE).sum(1)
    gain = w / NOISE / precision[:, None]
    values = {
        "fill/0": MEAN,
        "m/0": gain,
        "m/1": -(gain @ MEAN),
        "v/0": torch.zeros(D, P),
        "v/1": -precision.log() + worse,
        "mu/0": w.T,
        "mu/1": MEAN,
        "s/0": torch.zeros(P, D),
        "s/1": NOISE.log(),
    }
    missing, unused = made.load_weights(values)
    if missing or unused:
        raise ValueError(f"{missing} {unused}")
    return made


def covariance() -> Tensor:
    w = orthogonal()
    return w.T @ w + torch.diag(NOISE)


def log_density(x: Tensor) -> Tensor:
    """Exact log p(observed values), (n,)."""
    densities = []
    for row in x:
        seen = ~row.isnan()
        law = torch.distributions.MultivariateNormal(MEAN[seen], covariance()[seen][:, seen])
        densities.append(law.log_prob(row[seen]))
    return torch.stack(densities)


def conditional(row: Tensor) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of the missing values of one row."""
    seen, s = ~row.isnan(), covariance()
    gain = s[~seen][:, seen] @ torch.linalg.inv(s[seen][:, seen])
    return MEAN[~seen] + gain @ (row[seen] - MEAN[seen]), s[~seen][:, ~seen] - gain @ s[seen][:, ~seen]


def data(n: int, missing: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, D, generator=generator, dtype=torch.float64)
    x = MEAN + z @ orthogonal() + NOISE.sqrt() * torch.randn(n, P, generator=generator, dtype=torch.float64)
    hidden = torch.rand(n, P, generator=generator) < missing
    hidden[hidden.all(1), 0] = False
    return torch.where(hidden, torch.nan, x)
