"""MisConv, PartialConvolution, LowRankGaussianNLL and LearnableFill against Monte Carlo, convolutions, torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, distributions
from torch.nn import functional

from netspec.errors import SpecError
from netspec.layers.latent.expected import expected_relu
from netspec.net.net import Net
from tests.layers.latent.one_layer import net_of, normal, tops_of

FILTERS = 'convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }'
NAN = float("nan")


def density(n: int = 2, c: int = 2, factors: int = 2) -> dict[str, Tensor]:
    """data, mask, mu, A and d of images 5 x 6."""
    return {
        "x": normal(n, c, 5, 6),
        "m": (normal(n, 1, 5, 6, seed=1) > 0).double(),
        "mu": normal(n, c, 5, 6, seed=2),
        "a": 0.7 * normal(n, factors * c, 5, 6, seed=3),
        "d": normal(n, c, 5, 6, seed=4).square(),
    }


def misconv(given: dict[str, Tensor], legacy: bool = False, factors: int = 2) -> tuple[Net, Tensor]:
    param = f"{FILTERS} low_rank_gaussian_param {{ factors: {factors} }}"
    if legacy:
        param += " misconv_param { legacy: true }"
    net = net_of("MisConv", param, **given)
    with torch.no_grad():
        net.weights()["l/1"].copy_(normal(3, seed=9))
    return net, net.blobs(*given.values())["y"]


def filters(net: Net) -> tuple[Tensor, Tensor]:
    weights = net.weights()
    return weights["l/0"], weights["l/1"]


def test_misconv_without_uncertainty_is_the_rectified_response_to_the_filled_image() -> None:
    given = density()
    given["a"], given["d"] = torch.zeros_like(given["a"]), torch.zeros_like(given["d"])
    net, y = misconv(given)
    filled = torch.where(given["m"] > 0, given["x"], given["mu"])
    torch.testing.assert_close(y, functional.conv2d(filled, *filters(net), padding=1).relu())


def test_misconv_with_nothing_missing_is_the_ordinary_layer() -> None:
    given = density()
    given["m"] = torch.ones_like(given["m"])
    net, y = misconv(given)
    torch.testing.assert_close(y, functional.conv2d(given["x"], *filters(net), padding=1).relu())


def test_misconv_is_the_mean_over_drawn_images() -> None:
    given = density(n=1)
    net, y = misconv(given)
    generator, total, count = torch.Generator().manual_seed(5), torch.zeros_like(y), 8
    for _ in range(count):
        e = torch.randn(5000, 2, 1, 1, 1, generator=generator, dtype=torch.float64)
        noise = torch.randn(5000, 2, 5, 6, generator=generator, dtype=torch.float64)
        drawn = given["mu"] + (e * given["a"].reshape(1, 2, 2, 5, 6)).sum(1) + given["d"].sqrt() * noise
        image = torch.where(given["m"] > 0, given["x"], drawn)
        total += functional.conv2d(image, *filters(net), padding=1).relu().mean(0, keepdim=True)
    torch.testing.assert_close(y, total / count, rtol=0, atol=0.03)


def test_misconv_of_a_mixture_is_the_mixture_of_misconvs() -> None:
    one, two = density(), {name: value.flip(0) for name, value in density().items()}
    shares = torch.tensor([[0.2, 0.8], [1.0, 0.0]]).double()
    given = {"x": one["x"], "m": one["m"]}
    for name in ("mu", "a", "d"):
        given[name] = torch.cat([one[name], two[name]], 1)
    param = f"{FILTERS} low_rank_gaussian_param {{ factors: 2 components: 2 }}"
    (y,) = tops_of("MisConv", param, **given, p=shares)
    alone = f"{FILTERS} low_rank_gaussian_param {{ factors: 2 }}"
    seen = {"x": one["x"], "m": one["m"]}
    parts = [tops_of("MisConv", alone, **(part | seen))[0] for part in (one, two)]
    expected = sum(shares[:, i, None, None, None] * parts[i] for i in range(2))
    torch.testing.assert_close(y, expected)


def test_legacy_misconv_takes_the_response_to_the_data_at_observed_centres() -> None:
    given = density()
    net, y = misconv(given, legacy=True)
    weight, bias = filters(net)
    seen = (given["m"] > 0).expand_as(y)
    known = functional.conv2d(given["x"] * given["m"], weight, bias, padding=1).relu()
    torch.testing.assert_close(y[seen], known[seen])
    mean = functional.conv2d(given["mu"], weight, bias, padding=1)
    variance = functional.conv2d(given["d"], weight**2, bias**2, padding=1)
    for k in range(2):
        response = functional.conv2d(given["a"][:, 2 * k : 2 * k + 2], weight, bias, padding=1)
        variance = variance + response.square()
    torch.testing.assert_close(y[~seen], expected_relu(mean, variance)[~seen])


def test_the_expected_activation_lies_above_that_of_the_mean_and_grows_with_the_variance() -> None:
    mean = torch.linspace(-4, 4, 81, dtype=torch.float64)
    before = mean.relu()
    for variance in (1e-14, 1e-6, 0.1, 1.0, 5.0):
        now = expected_relu(mean, torch.full_like(mean, variance))
        assert (now >= before - 1e-15).all()
        before = now


def test_gradients_stay_finite_and_right_as_the_variance_vanishes() -> None:
    for variance in (1e-4, 1e-8, 1e-11, 1e-13, 0.0):
        mean = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
        v = torch.full((3,), variance, dtype=torch.float64, requires_grad=True)
        expected_relu(mean, v).sum().backward()
        assert mean.grad is not None
        assert v.grad is not None
        assert mean.grad.isfinite().all()
        assert v.grad.isfinite().all()
        torch.testing.assert_close(mean.grad[[0, 2]], torch.tensor([0.0, 1.0]).double())
        step = 1e-7
        slope = (expected_relu(mean + step, v) - expected_relu(mean - step, v)) / (2 * step)
        torch.testing.assert_close(mean.grad[[0, 2]], slope[[0, 2]].detach(), rtol=0, atol=1e-6)


def test_low_rank_likelihood_is_that_of_the_full_covariance() -> None:
    given = density()
    given["d"] = given["d"] + 0.1
    given["x"][0, 0, 0, 0] = NAN  # not scored, whatever the mask says
    loss, rows = tops_of("LowRankGaussianNLL", "low_rank_gaussian_param { factors: 2 }", "loss rows", **given)
    for i in range(2):
        scored = (given["m"][i].expand(2, 5, 6) > 0).flatten() & ~given["x"][i].flatten().isnan()
        law = distributions.LowRankMultivariateNormal(
            given["mu"][i].flatten()[scored],
            given["a"][i].reshape(2, -1)[:, scored].T,
            given["d"][i].flatten()[scored],
        )
        torch.testing.assert_close(rows[i], -law.log_prob(given["x"][i].flatten()[scored]))
        full = law.covariance_matrix
        same = distributions.MultivariateNormal(law.mean, full).log_prob(given["x"][i].flatten()[scored])
        torch.testing.assert_close(rows[i], -same)
    torch.testing.assert_close(loss, rows.mean())


def test_low_rank_likelihood_of_a_mixture_and_of_nothing() -> None:
    one, two = density(), {name: value.flip(0) for name, value in density().items()}
    mask = one["m"].clone()
    mask[1] = 0
    shares = torch.tensor([[0.2, 0.8], [0.5, 0.5]]).double()
    given = {"x": one["x"], "m": mask}
    for name in ("mu", "a", "d"):
        given[name] = torch.cat([one[name], two[name]], 1) + (0.1 if name == "d" else 0)
    param = "low_rank_gaussian_param { factors: 2 components: 2 }"
    _, rows = tops_of("LowRankGaussianNLL", param, "loss rows", **given, p=shares)
    parts = []
    for part in (one, two):
        alone = part | {"x": one["x"], "m": mask, "d": part["d"] + 0.1}
        parts.append(
            tops_of("LowRankGaussianNLL", "low_rank_gaussian_param { factors: 2 }", "loss rows", **alone)[1]
        )
    expected = -(0.2 * (-parts[0][0]).exp() + 0.8 * (-parts[1][0]).exp()).log()
    torch.testing.assert_close(rows[0], expected)
    assert float(rows[1]) == 0


def test_partial_convolution_with_all_pixels_is_a_convolution() -> None:
    x = normal(2, 2, 5, 6)
    param = FILTERS.replace("pad: 1", "pad: 0")
    net = net_of("PartialConvolution", param, "y n", x=x, m=torch.ones(2, 1, 5, 6))
    blobs = net.blobs(x, torch.ones(2, 1, 5, 6).double())
    torch.testing.assert_close(blobs["y"], functional.conv2d(x, *filters(net)))
    assert (blobs["n"] == 1).all()


def test_partial_convolution_by_hand() -> None:
    x, mask = normal(1, 2, 4, 4), torch.zeros(1, 1, 4, 4).double()
    mask[0, 0, 0, 0] = mask[0, 0, 1, 1] = 1
    given = {"x": torch.where(mask > 0, x, NAN), "m": torch.ones(1, 2, 4, 4)}  # NaN says the same as a mask
    param = 'convolution_param { num_output: 3 kernel_size: 2 weight_filler { type: "xavier" } }'
    net = net_of("PartialConvolution", param, "y n", **given)
    blobs = net.blobs(given["x"], given["m"].double())
    weight, bias = filters(net)
    y, new = blobs["y"], blobs["n"]
    at00 = bias + 8 / 4 * (weight[:, :, 0, 0] @ x[0, :, 0, 0] + weight[:, :, 1, 1] @ x[0, :, 1, 1])
    torch.testing.assert_close(y[0, :, 0, 0], at00)
    torch.testing.assert_close(y[0, :, 1, 1], bias + 8 / 2 * weight[:, :, 0, 0] @ x[0, :, 1, 1])
    assert (y[0, :, 2, 2] == 0).all()
    assert new[0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_learnable_fill_learns_what_it_fills_in() -> None:
    x = torch.tensor([[1.0, NAN], [NAN, NAN]]).double()
    net = net_of("LearnableFill", tops="y", x=x)
    (parameter,) = net.parameters()
    parameter.requires_grad_()  # no loss here asks for it
    with torch.no_grad():
        net.weights()["l/0"].copy_(torch.tensor([5.0, 6.0]))
    y = net.blobs(x)["y"]
    assert y.tolist() == [[1, 6], [5, 6]]
    y.sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mu": torch.zeros(2, 3, 5, 6)}, r"mu must have shape \(2, 2, 5, 6\), found \(2, 3, 5, 6\)"),
        ({"a": torch.zeros(2, 2, 5, 6)}, r"A must have shape \(2, 4, 5, 6\)"),
        ({"m": torch.zeros(2, 1, 4, 6)}, "mask"),
    ],
)
def test_misconv_says_what_does_not_fit(change: dict[str, Tensor], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        net_of("MisConv", f"{FILTERS} low_rank_gaussian_param {{ factors: 2 }}", **(density() | change))
