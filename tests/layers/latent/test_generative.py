"""Dequantisation, scaling, orderless masks and diffusion against what they are defined by."""

from __future__ import annotations

from math import log, sqrt

import pytest
import torch
from torch import Tensor

from netspec.layers.latent.diffusion import betas
from netspec.net.make import make_net
from netspec.schema.spec import TRAIN
from tests.layers.latent.one_layer import net_of, normal, tops_of
from tests.places import NETS


def test_dequantisation_fills_each_level_evenly() -> None:
    levels = torch.tensor([0.0, 3.0, 255.0]).repeat(4000, 1)
    torch.manual_seed(0)
    (y,) = tops_of("Dequantize", x=levels / 255)
    low, high = y.min(0).values * 256, y.max(0).values * 256
    assert ((low >= levels[0] - 1e-6) & (low < levels[0] + 0.01)).all()
    assert ((high < levels[0] + 1) & (high > levels[0] + 0.99)).all()
    (middle,) = tops_of(
        "Dequantize", "dequantize_param { raw: true centre: true levels: 4 }", x=levels[:, :2]
    )
    assert middle[0].tolist() == [0.125, 0.875]


def test_log_determinant_and_likelihood_of_a_scale() -> None:
    x = normal(3, 2, 2)
    net = net_of("DiagonalScale", 'diagonal_scale_param { filler { type: "gaussian" } }', "y d", x=x)
    blobs = net.blobs(x)
    jacobian = torch.autograd.functional.jacobian(lambda row: net.blobs(row)["y"], x[:1]).reshape(4, 4)
    torch.testing.assert_close(blobs["d"], torch.linalg.slogdet(jacobian).logabsdet.expand(3))
    loss, rows = tops_of("LogisticPriorLoss", "", "loss rows", z=blobs["y"].detach(), d=blobs["d"].detach())
    z = blobs["y"].flatten(1)
    expected = (-z - 2 * torch.log1p((-z).exp())).sum(1) + blobs["d"]
    torch.testing.assert_close(rows, expected.detach())
    torch.testing.assert_close(loss, -expected.detach().mean())


def test_salt_pepper_and_bernoulli_have_their_shares() -> None:
    x = torch.full((200, 200), 0.5)
    torch.manual_seed(0)
    (y,) = tops_of("SaltPepper", "salt_and_pepper_param { probability: 0.4 salt: 0.25 }", x=x)
    assert float((y == 0.5).double().mean()) == pytest.approx(0.6, abs=0.01)
    assert float((y == 1).double().mean()) == pytest.approx(0.1, abs=0.01)
    (y,) = tops_of("BernoulliSample", x=torch.full((200, 200), 0.3))
    assert float(y.mean()) == pytest.approx(0.3, abs=0.01)
    assert set(y.unique().tolist()) == {0, 1}


def test_straight_through_gradient_is_that_of_the_probability() -> None:
    x = normal(3, 4).requires_grad_()
    net = net_of("BernoulliSample", "bernoulli_sample_param { logits: true straight_through: true }", x=x)
    net.blobs(x)["y"].sum().backward()
    p = x.detach().sigmoid()
    torch.testing.assert_close(x.grad, p * (1 - p))


def test_orderless_masks_have_every_size_alike_and_weights_that_even_out() -> None:
    x = torch.zeros(20000, 5)
    torch.manual_seed(0)
    mask, weight = tops_of("OrderlessMask", "", "m w", x=x)
    sizes = torch.bincount(mask.sum(1).long(), minlength=5) / 20000
    torch.testing.assert_close(sizes, torch.full((5,), 0.2), rtol=0, atol=0.015)
    torch.testing.assert_close(mask.mean(0), torch.full((5,), 0.4).double(), rtol=0, atol=0.015)
    torch.testing.assert_close(weight.sum(1), torch.full((20000,), 5.0).double())
    assert (weight * mask == 0).all()


def test_orderless_masks_leave_missing_values_out() -> None:
    x = torch.zeros(500, 4)
    x[:, 2] = float("nan")
    torch.manual_seed(0)
    mask, weight = tops_of("OrderlessMask", "", "m w", x=x)
    assert (mask[:, 2] == 0).all()
    assert (weight[:, 2] == 0).all()
    torch.testing.assert_close(weight.sum(1), torch.full((500,), 3.0).double())
    assert sorted(mask.sum(1).unique().tolist()) == [0, 1, 2]


def test_diffusion_posterior_is_the_conditional_of_the_joint_normal() -> None:
    """x_(t-1) and x_t given x are jointly normal: condition one on the other by hand."""
    steps, x = 12, normal(40, 3)
    param = f"diffusion_forward_param {{ steps: {steps} each_row: true first_beta: 0 }}"
    torch.manual_seed(0)
    noisy, mean, variance, t = tops_of("DiffusionForward", param, "x m v t", x=x)
    beta = betas(steps, 1e-6, 0.0)
    left = (1 - beta).cumprod(0)
    assert set(t.unique().tolist()) <= set(range(1, steps))
    for i in range(40):
        k = int(t[i])
        prior_mean, prior_variance = sqrt(left[k - 1]) * x[i], 1 - left[k - 1]
        slope = sqrt(1 - beta[k])  # x_t = slope x_(t-1) + noise of variance beta
        total = slope**2 * prior_variance + beta[k]
        gain = slope * prior_variance / total
        expected = prior_mean + gain * (noisy[i] - slope * prior_mean)
        torch.testing.assert_close(mean[i], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            float(variance[i].mean()),
            float(prior_variance - gain * slope * prior_variance),
            rtol=1e-3,
            atol=1e-6,
        )


def test_each_step_destroys_an_equal_share_of_the_signal() -> None:
    beta = betas(1000, 0.0, 0.0)
    left = (1 - beta).cumprod(0)
    assert float(left[-1]) < 2 / 1000
    shares = -left.diff()  # 1 / T each
    torch.testing.assert_close(shares, torch.full_like(shares, 1e-3), rtol=0.02, atol=1e-5)


def test_diffusion_of_standard_normal_data_costs_nothing() -> None:
    """With the forward process's own variances the bound on normal data is that of the normal density."""
    steps = 20
    param = f"diffusion_forward_param {{ steps: {steps} each_row: true }}"
    x = normal(60000, 1)
    torch.manual_seed(0)
    noisy, mean, variance, t = tops_of("DiffusionForward", param, "x m v t", x=x)
    zero = torch.zeros_like(noisy)
    model, spread = tops_of("DiffusionReverse", param, "m v", x=noisy, a=zero, b=zero, t=t)
    given = {"a": mean, "b": variance, "c": model, "d": spread}
    (divergence,) = tops_of("GaussianKLLoss", "gaussian_kl_param { spread: VARIANCE }", "loss", **given)
    beta = betas(steps, 1e-6, 1e-3)
    left = (1 - beta).cumprod(0)
    total = float(divergence) * (steps - 1) + 0.5 * log(beta[0]) - 0.5 * log(1 - left[-1])
    assert abs(total) < 0.03


def test_temporal_bumps_sum_to_one_and_move_on() -> None:
    t = torch.arange(0, 100.0, 9)
    x = torch.eye(5).reshape(1, 25).expand(len(t), 25)
    (y,) = tops_of("TemporalReadout", "temporal_readout_param { bumps: 5 steps: 100 }", x=x, t=t)
    torch.testing.assert_close(y.sum(1), torch.ones(len(t)).double())
    assert y.argmax(1).tolist() == sorted(y.argmax(1).tolist())
    assert int(y[0].argmax()) == 0
    assert int(y[-1].argmax()) == 4


def test_the_gradient_of_an_unrolled_chain_is_that_of_finite_differences() -> None:
    """nets/gsn_mnist with its noise held fixed; draws of pixels pass no gradient, and small steps turn none."""
    text = (NETS / "gsn_mnist.prototxt").read_text().replace("num_output: 500", "num_output: 6")
    net = make_net(text, TRAIN, seed=1).double()
    images = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values = [one.value for one in net.params]
    directions = [
        torch.randn(v.shape, generator=torch.Generator().manual_seed(3), dtype=v.dtype) for v in values
    ]

    def move(step: float) -> None:
        with torch.no_grad():
            for value, direction in zip(values, directions, strict=True):
                value.add_(direction, alpha=step)

    def loss() -> Tensor:
        torch.manual_seed(4)
        return net.objective(net(images, torch.zeros(5, dtype=torch.float64)))

    for value in values:
        value.requires_grad_()
    here = loss()
    gradients = torch.autograd.grad(here, values)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    step = 1e-6
    move(step)
    above = loss().detach()
    move(-2 * step)
    torch.testing.assert_close((above - loss().detach()) / (2 * step), slope, rtol=1e-5, atol=1e-5)
