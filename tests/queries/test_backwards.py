"""Nets of additive couplings run backwards: inverse, log determinant by the Jacobian, samples, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.queries import backwards
from netspec.queries.backwards import Flow

ANY = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" }'


def dense(width: int) -> str:
    return f"inner_product_param {{ num_output: {width} {ANY} }}"


def coupling(i: int, below: str) -> str:
    """(a, b) -> reversed (a, b + m(a)), m with a hidden layer."""
    return f"""
layer {{ name: "cut{i}" type: "Slice" bottom: "{below}" top: "a{i}" top: "b{i}" }}
layer {{ name: "m{i}" type: "InnerProduct" bottom: "a{i}" top: "m{i}" {dense(6)} }}
layer {{ name: "relu{i}" type: "ReLU" bottom: "m{i}" top: "m{i}" }}
layer {{ name: "o{i}" type: "InnerProduct" bottom: "m{i}" top: "o{i}" {dense(4)} }}
layer {{ name: "add{i}" type: "Eltwise" bottom: "b{i}" bottom: "o{i}" top: "c{i}" }}
layer {{ name: "join{i}" type: "Concat" bottom: "a{i}" bottom: "c{i}" top: "j{i}" }}
layer {{ name: "turn{i}" type: "Reverse" bottom: "j{i}" top: "r{i}" reverse_param {{ axis: 1 }} }}
"""


HEAD = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 1 dim: 2 dim: 4 } } }
layer { name: "line" type: "Power" bottom: "x" top: "line" power_param { scale: 2 shift: -0.5 } }
layer { name: "mix" type: "Permutation" bottom: "line" top: "mix" }
layer { name: "flat" type: "Flatten" bottom: "mix" top: "flat" }
layer { name: "pairs" type: "Reshape" bottom: "flat" top: "pairs" reshape_param { shape { dim: 0 dim: 4 dim: 2 } } }
layer { name: "even" type: "Permute" bottom: "pairs" top: "even" permute_param { order: 0 order: 2 order: 1 } }
layer { name: "tiled" type: "Flatten" bottom: "even" top: "tiled" }
"""
TAIL = """
layer { name: "scale" type: "DiagonalScale" bottom: "r2" top: "z" top: "logdet"
  diagonal_scale_param { filler { type: "gaussian" std: 0.3 } } }
layer { name: "prior" type: "LogisticPriorLoss" bottom: "z" bottom: "logdet" top: "loss" }
"""


def net(text: str = HEAD + coupling(1, "tiled") + coupling(2, "r1") + TAIL) -> Net:
    made = make_net(schema.parse_net(text, "nice.prototxt"), seed=1)
    return made.double().requires_grad_(False)


def data() -> Tensor:
    return torch.randn(3, 1, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_backwards_undoes_forwards() -> None:
    made, x = net(), data()
    slots = made.slots(x)
    z = made.graph.find("z")
    assert z is not None
    values = backwards.backwards(made, {z: slots[z]})
    torch.testing.assert_close(values[made.graph.inputs[0]], x)


def test_the_log_likelihood_is_that_of_the_change_of_variables() -> None:
    made, x = net(), data()
    flow = Flow(made)
    logp = backwards.log_likelihood(flow, x)

    def to_z(row: Tensor) -> Tensor:
        return made.blobs(row.reshape(1, 1, 2, 4))["z"].flatten()

    line = 8 * torch.tensor(2.0).log()  # the Power layer's own, which is no part of the net's likelihood
    for row, value in zip(x, logp, strict=True):
        jacobian = torch.autograd.functional.jacobian(to_z, row)
        z = to_z(row)
        prior = (-z - 2 * torch.log1p((-z).exp())).sum()
        expected = prior + torch.linalg.slogdet(jacobian.reshape(8, 8)).logabsdet - line
        torch.testing.assert_close(value, expected)


def test_samples_are_what_the_prior_is_turned_into() -> None:
    flow = Flow(net())
    torch.manual_seed(0)
    x = backwards.sample(flow, 20000)
    assert x.shape == (20000, 1, 2, 4)
    z = flow.net.blobs(x)["z"]
    assert float(z.mean().abs()) < 0.02
    assert float(z.var()) == pytest.approx(torch.pi**2 / 3, rel=0.02)


def test_a_layer_without_inverse_is_named() -> None:
    text = HEAD + 'layer { name: "relu" type: "ReLU" bottom: "tiled" top: "r2" }' + TAIL
    with pytest.raises(SpecError, match=r"layer 'relu' \(ReLU\): has no inverse"):
        backwards.sample(Flow(net(text)), 2)


def test_dequantised_levels_come_back() -> None:
    text = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "noise" type: "Dequantize" bottom: "x" top: "noisy" dequantize_param { levels: 16 } }
layer { name: "prior" type: "LogisticPriorLoss" bottom: "noisy" top: "loss" }
"""
    made = net(text)
    x = torch.tensor([[0, 3, 15], [7, 1, 14]]).double() / 15
    slot = made.graph.find("noisy")
    assert slot is not None
    values = backwards.backwards(made, {slot: made.slots(x)[slot]})
    torch.testing.assert_close(values[made.graph.inputs[0]], x)


def test_other_nets_are_refused() -> None:
    text = HEAD + 'layer { name: "relu" type: "ReLU" bottom: "tiled" top: "y" }'
    with pytest.raises(SpecError, match="one LogisticPriorLoss; this one has 0"):
        Flow(net(text))
