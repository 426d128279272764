"""Draws, priors, observations and bounds against torch.distributions, brute force and factor analysis."""

from __future__ import annotations

from math import log, pi

import pytest
import torch
from torch import distributions

from netspec.errors import SpecError
from tests.layers.latent.one_layer import net_of, normal, tops_of

NAN = float("nan")


def test_draws_have_the_mean_deviation_and_density_they_claim() -> None:
    mu, logvar = normal(3, 4), normal(3, 4, seed=1)
    torch.manual_seed(0)
    z, logq = tops_of("GaussianSample", "latent_sample_param { num_samples: 20000 }", "z q", mu=mu, v=logvar)
    z = z.reshape(20000, 3, 4)
    sigma = (0.5 * logvar).exp()
    assert ((z.mean(0) - mu).abs() < 4.5 * sigma / 20000**0.5).all()
    torch.testing.assert_close(z.std(0), sigma, rtol=0.03, atol=0)
    expected = distributions.Normal(mu, sigma).log_prob(z).sum(2)
    torch.testing.assert_close(logq, expected)


def test_draws_of_student_t_follow_its_distribution_function() -> None:
    from scipy import stats

    location, scale = torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0, 0.3]])
    df = torch.tensor([[3.5, 12.0]])
    torch.manual_seed(0)
    z, logq = tops_of(
        "StudentTSample", "latent_sample_param { num_samples: 5000 }", "z q", l=location, s=scale, df=df
    )
    for i in range(2):
        law = stats.t(float(df[0, i]), float(location[0, i]), float(scale[0, i]))
        assert stats.kstest(z[:, i].numpy(), law.cdf).pvalue > 1e-3
    expected = distributions.StudentT(df.double(), location.double(), scale.double()).log_prob(z)
    torch.testing.assert_close(logq, expected.sum(1, keepdim=True))


@pytest.mark.parametrize("kind", ["GaussianSample", "StudentTSample"])
def test_gradients_of_draws_are_those_of_their_expectation(kind: str) -> None:
    """d/d(parameter) of E[z^2], estimated through draws, against its formula."""
    given = {"l": torch.tensor([[0.4]]), "s": torch.tensor([[0.8]])}
    wanted = {"l": 0.8, "s": 1.6}
    param = "latent_sample_param { num_samples: 400000 %s }"
    if kind == "StudentTSample":  # E z^2 = l^2 + s^2 v / (v - 2)
        given["df"] = torch.tensor([[9.0]])
        wanted |= {"s": 1.6 * 9 / 7, "df": -0.64 * 2 / 49}
        param %= ""
    else:
        param %= "spread: DEVIATION"
    leaves = {name: value.double().requires_grad_() for name, value in given.items()}
    torch.manual_seed(0)
    net = net_of(kind, param, "z", **given)
    net.blobs(*leaves.values())["z"].square().mean().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert float(leaf.grad) == pytest.approx(wanted[name], abs=0.02), name


def test_samples_without_spread_are_the_mean() -> None:
    mu = normal(2, 3)
    (z,) = tops_of(
        "GaussianSample",
        "latent_sample_param { num_samples: 5 spread: DEVIATION }",
        "z",
        mu=mu,
        s=torch.zeros(2, 3),
    )
    (mean,) = tops_of("GaussianSample", "latent_sample_param { num_samples: 5 mode: MEAN }", "z", mu=mu, s=mu)
    assert torch.equal(z, mean)
    assert torch.equal(z, mu.repeat(5, 1))


def test_divergences_are_those_of_torch() -> None:
    m1, v1, m2, v2 = (normal(5, 3, seed=i) for i in range(4))
    (loss,) = tops_of("KLGaussian", "", "loss", m=m1, v=v1)
    first = distributions.Normal(m1, (0.5 * v1).exp())
    standard = distributions.Normal(torch.zeros(()).double(), 1.0)
    torch.testing.assert_close(loss, distributions.kl_divergence(first, standard).sum() / 5)
    (loss,) = tops_of("GaussianKLLoss", "gaussian_kl_param { unit: BITS }", "loss", a=m1, b=v1, c=m2, d=v2)
    second = distributions.Normal(m2, (0.5 * v2).exp())
    torch.testing.assert_close(loss, distributions.kl_divergence(first, second).sum() / 5 / log(2))


def test_priors_are_those_of_torch() -> None:
    z = normal(6, 4)
    (y,) = tops_of("PriorLogProb", "prior_log_prob_param { num_samples: 3 }", z=z)
    torch.testing.assert_close(y, distributions.Normal(0.0, 1.0).log_prob(z).sum(1).reshape(3, 2))
    net = net_of("PriorLogProb", "prior_log_prob_param { family: MIXTURE components: 5 num_samples: 3 }", z=z)
    shares, means, spreads = net.weights().values()
    with torch.no_grad():
        shares.copy_(normal(5)), spreads.copy_(normal(5, 4, seed=2))
    parts = distributions.Independent(distributions.Normal(means, (0.5 * spreads).exp()), 1)
    mixture = distributions.MixtureSameFamily(distributions.Categorical(logits=shares), parts)
    torch.testing.assert_close(net.blobs(z)["y"], mixture.log_prob(z).reshape(3, 2))


@pytest.mark.parametrize("family", ["BERNOULLI", "GAUSSIAN", "STUDENT_T"])
def test_observations_are_those_of_torch_where_observed(family: str) -> None:
    first, second, third = normal(6, 4), normal(6, 4, seed=1).exp(), 3 + normal(6, 4, seed=2).exp()
    x = normal(2, 4, seed=3)
    if family == "BERNOULLI":
        x = (x > 0).double()
        parameters = {"a": first}
        law = distributions.Bernoulli(logits=first.reshape(3, 2, 4))
    elif family == "GAUSSIAN":
        parameters = {"a": first, "b": second}
        law = distributions.Normal(first.reshape(3, 2, 4), (second.reshape(3, 2, 4) + 0.1).sqrt())
    else:
        parameters = {"a": first, "b": second, "c": third}
        law = distributions.StudentT(
            third.reshape(3, 2, 4), first.reshape(3, 2, 4), second.reshape(3, 2, 4) + 0.1
        )
    param = f"observation_log_prob_param {{ family: {family} spread: VARIANCE floor: 0.1 }}"
    expected = law.log_prob(x)
    (y,) = tops_of("ObservationLogProb", param, **parameters, x=x)
    torch.testing.assert_close(y, expected.sum(2))
    mask = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1.0]]).double()
    for given in ({"x": x, "m": mask}, {"x": torch.where(mask > 0, x, NAN)}):
        (y,) = tops_of("ObservationLogProb", param, **parameters, **given)
        torch.testing.assert_close(y, (mask * expected).sum(2))


def test_missing_values_give_no_gradient_that_is_not_finite() -> None:
    x = torch.tensor([[0.5, NAN, 1e300]]).double()
    scale = torch.tensor([[1.0, 0.0, 0.0]]).double().requires_grad_()
    mu = torch.zeros(1, 3).double().requires_grad_()
    mask = torch.tensor([[1.0, 1.0, 0.0]]).double()
    net = net_of(
        "ObservationLogProb",
        "observation_log_prob_param { family: GAUSSIAN spread: DEVIATION }",
        mu=mu,
        s=scale,
        x=x,
        m=mask,
    )
    net.blobs(mu, scale, x, mask)["y"].sum().backward()
    assert mu.grad is not None
    assert scale.grad is not None
    assert torch.equal(mu.grad, torch.tensor([[0.5, 0, 0]]).double())
    assert torch.equal(scale.grad, torch.tensor([[0.5**2 - 1, 0, 0]]).double())


def test_a_full_mask_changes_no_bit() -> None:
    logits, x = normal(6, 4).float(), (normal(2, 4, seed=1) > 0).float()
    parts = {"l": logits, "x": x}
    (without,) = tops_of("ObservationLogProb", **parts)
    (within,) = tops_of("ObservationLogProb", **parts, m=torch.ones(2, 4))
    assert torch.equal(without, within)


def test_the_floor_bounds_the_likelihood() -> None:
    """A density is at most (2 pi xi)^(-p/2) where all variances are at least xi."""
    xi, p = 0.01, 7
    x = normal(3, p)
    (y,) = tops_of(
        "ObservationLogProb",
        f"observation_log_prob_param {{ family: GAUSSIAN spread: VARIANCE floor: {xi} }}",
        mu=x,
        v=torch.zeros(3, p),
        x=x,
    )
    bound = -p / 2 * log(2 * pi * xi)
    assert float(y.max()) <= bound + 1e-6
    assert float(y.max()) == pytest.approx(bound, abs=1e-6)  # and it is reached


def test_the_bound_is_the_log_of_the_mean_weight() -> None:
    ll, lp, lq = (normal(7, 3, seed=i) for i in range(3))
    loss, logw, bound = tops_of("ImportanceBound", "", "loss w bound", a=ll, b=lp, c=lq)
    torch.testing.assert_close(logw, ll + lp - lq)
    torch.testing.assert_close(bound, (ll + lp - lq).exp().mean(0).log())
    torch.testing.assert_close(loss, -bound.mean())


def test_weighted_means_and_resampling() -> None:
    logw, x = normal(4, 3), normal(12, 2, seed=1)
    (mean,) = tops_of("SelfNormalisedMean", w=logw, x=x)
    shares = logw.exp() / logw.exp().sum(0)
    expected = torch.stack([sum(shares[k, i] * x[3 * k + i] for k in range(4)) for i in range(3)])
    torch.testing.assert_close(mean, expected)
    torch.manual_seed(0)
    (drawn,) = tops_of("ImportanceResample", "importance_resample_param { num_samples: 20000 }", w=logw, x=x)
    drawn = drawn.reshape(20000, 3, 2)
    for i in range(3):
        often = torch.stack([(drawn[:, i] == x[3 * k + i]).all(1).double().mean() for k in range(4)])
        torch.testing.assert_close(often, shares[:, i], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("kind", "param", "shapes", "said"),
    [
        ("GaussianSample", "latent_sample_param { num_samples: 0 }", ["2 3", "2 3"], "num_samples must be"),
        ("GaussianSample", "", ["2 3", "2 4"], r"one shape, found \(2, 3\) and \(2, 4\)"),
        ("PriorLogProb", "prior_log_prob_param { num_samples: 4 }", ["6 2"], "4 does not divide the 6 rows"),
        ("ObservationLogProb", "", ["6 4", "2 4", "2 4", "2 4"], "BERNOULLI takes 1 bottoms"),
        ("ObservationLogProb", "", ["5 4", "2 4"], "do not fit data"),
        ("ObservationLogProb", "", ["4 4", "2 4", "2 3"], "mask"),
        ("ImportanceBound", "", ["2 3", "2 3"], "1 or 3 bottoms"),
        ("SelfNormalisedMean", "", ["2 3", "5 1"], "needs 6 rows"),
        ("KLGaussian", "", ["2 3", "3 2"], "one shape"),
        ("LearnableFill", "", ["2 3", "2 4"], "does not fit data"),
    ],
)
def test_what_does_not_fit_is_said(kind: str, param: str, shapes: list[str], said: str) -> None:
    bottoms = {f"b{i}": torch.zeros(*map(int, shape.split())) for i, shape in enumerate(shapes)}
    with pytest.raises(SpecError, match=said):
        net_of(kind, param, **bottoms)
