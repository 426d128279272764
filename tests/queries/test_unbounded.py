"""The likelihood of Gaussian decoders has no bound without a floor; that of binary data has one."""

from __future__ import annotations

from math import log, pi

import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.net.graph import compile
from netspec.net.net import build
from netspec.queries import latent
from netspec.queries.latent import Latent
from netspec.schema import spec

P, N = 5, 50

FAMILY = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: {P} }} }} }}
layer {{ name: "m" type: "InnerProduct" bottom: "x" top: "m" inner_product_param {{ num_output: 1 }} }}
layer {{ name: "v" type: "InnerProduct" bottom: "x" top: "v" inner_product_param {{ num_output: 1 }} }}
layer {{ name: "z" type: "GaussianSample" bottom: "m" bottom: "v" top: "z" top: "q" }}
layer {{ name: "p" type: "PriorLogProb" bottom: "z" bottom: "q" top: "p" }}
layer {{ name: "steep" type: "Power" bottom: "z" top: "steep" power_param {{ scale: {alpha} }} }}
layer {{ name: "step" type: "TanH" bottom: "steep" top: "step" }}
layer {{ name: "log" type: "Power" bottom: "step" top: "log" power_param {{ scale: {alpha} shift: -{alpha} }} }}
layer {{ name: "s" type: "Tile" bottom: "log" top: "s" tile_param {{ tiles: {P} }} }}
layer {{ name: "mu" type: "InnerProduct" bottom: "z" top: "mu" inner_product_param {{ num_output: {P} }} }}
layer {{ name: "ll" type: "ObservationLogProb" bottom: "mu" bottom: "s" bottom: "x" top: "ll"
  observation_log_prob_param {{ family: GAUSSIAN floor: {floor} }} }}
layer {{ name: "b" type: "ImportanceBound" bottom: "ll" bottom: "p" bottom: "q" top: "loss" }}
"""


def log_likelihoods(alpha: float, x: Tensor, floor: float = 0.0) -> Tensor:
    """log p of each row of x, by quadrature over z, where the mean is row 0 and log sigma^2 = a tanh(a z) - a."""
    text = FAMILY.format(P=P, alpha=alpha, floor=floor)
    net = build(compile(spec.net(schema.parse_net(text, "u.prototxt"), "TEST")), seed=1).double()
    net.load_weights({"mu/1": x[0]})
    grid = torch.cat([torch.linspace(-9, 9, 8001), torch.linspace(-0.2, 0.2, 8001)]).double().sort().values
    steps = grid.diff()
    width = 0.5 * (torch.cat([steps[:1], steps]) + torch.cat([steps, steps[-1:]]))
    sums = []
    with torch.no_grad():
        for row in x:
            weighed = Latent(net).weigh(row[None], len(grid), grid[:, None])
            sums.append((weighed.observed[:, 0] + weighed.prior[:, 0] + width.log()).logsumexp(0))
    return torch.stack(sums)


def data() -> Tensor:
    return torch.randn(N, P, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_likelihood_of_one_point_grows_without_bound_and_the_others_stay() -> None:
    x = data()[:6]
    for alpha, expected in ((8.0, 34.48), (32.0, 154.64)):
        likelihoods = log_likelihoods(alpha, x)
        assert float(likelihoods[0]) == pytest.approx(expected, abs=0.02)
        below = log(0.5) - 0.5 * P * log(2 * pi) - 0.5 * (x[1:] - x[0]).square().sum(1)
        assert (
            likelihoods[1:] >= below - 3 / alpha
        ).all()  # the step from one spread to the other takes its share
    slope = (log_likelihoods(48.0, x[:1]) - log_likelihoods(32.0, x[:1])) / 16
    assert float(slope) == pytest.approx(P, abs=0.01)


def test_a_floor_bounds_it() -> None:
    xi = 0.01
    bound = -0.5 * P * log(2 * pi * xi)
    for alpha in (8.0, 32.0, 64.0):
        assert float(log_likelihoods(alpha, data()[:1], floor=xi)) < bound


BINARY = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 6 } } }
layer { name: "m" type: "InnerProduct" bottom: "x" top: "m"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "v" type: "InnerProduct" bottom: "x" top: "v" inner_product_param { num_output: 2 } }
layer { name: "z" type: "GaussianSample" bottom: "m" bottom: "v" top: "z" top: "q" }
layer { name: "p" type: "PriorLogProb" bottom: "z" bottom: "q" top: "p" }
layer { name: "l" type: "InnerProduct" bottom: "z" top: "l"
  inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 6 } } }
layer { name: "ll" type: "ObservationLogProb" bottom: "l" bottom: "x" top: "ll" }
layer { name: "b" type: "ImportanceBound" bottom: "ll" bottom: "p" bottom: "q" top: "loss" }
"""


def test_bounds_of_binary_data_are_ordered_up_to_that_of_the_empirical_distribution() -> None:
    """ELBO <= bound of K draws <= l <= l(G) = sum log(count / n)."""
    net = build(compile(spec.net(schema.parse_net(BINARY, "b.prototxt"), "TEST")), seed=1).double()
    model = Latent(net.requires_grad_(False))
    torch.manual_seed(0)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 6)
    x = latent.sample(model, 60)  # of the model itself: the hardest case for the upper bound
    _, counts = torch.unique(x, dim=0, return_counts=True)
    upper = float((counts * (counts / 60).log()).sum())
    line = torch.linspace(-6, 6, 97).double()
    grid = torch.cartesian_prod(line, line)
    weighed = model.weigh(every, len(grid), grid.repeat_interleave(64, 0))
    exact = (weighed.observed + weighed.prior).logsumexp(0) + 2 * log(12 / 96)
    assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-3)
    places = (x * 2.0 ** torch.arange(5, -1, -1)).sum(1).long()
    one, many = (float(latent.bound(model, x.repeat(20, 1), k).sum()) / 20 for k in (1, 50))
    assert one < many < float(exact[places].sum())
    assert float(exact[places].sum()) < upper < 0
