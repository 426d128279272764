"""Bounds, imputations, chains and samples of a factor analyser against their closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from netspec.errors import SpecError
from netspec.queries import chains, latent
from netspec.queries.latent import Latent
from tests.layers.latent.one_layer import net_of
from tests.queries import factor_analysis as fa


def test_the_bound_is_tight_where_the_proposal_is_the_posterior() -> None:
    x = fa.data(6)
    torch.manual_seed(0)
    model = Latent(fa.net())
    torch.testing.assert_close(latent.bound(model, x, 1), fa.log_density(x))
    torch.testing.assert_close(model.weigh(x, 3).log_weights, fa.log_density(x).expand(3, 6))


def test_the_bound_rises_with_the_number_of_draws_to_the_likelihood() -> None:
    x = fa.data(150, missing=0.3)
    exact = fa.log_density(x).mean()
    torch.manual_seed(0)
    means = [float(latent.bound(Latent(fa.net(worse=2.5)), x, k).mean()) for k in (1, 5, 50, 1000)]
    assert means == sorted(means)
    assert means[0] < float(exact) - 0.2
    assert means[-1] == pytest.approx(float(exact), abs=0.02)


def test_the_prior_is_the_standard_normal() -> None:
    z = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = torch.distributions.Normal(0, 1).log_prob(z).flatten(1).sum(1)
    model = Latent(fa.net())
    torch.testing.assert_close(model.log_prior(z), expected)
    model.prior = None  # as in a net without a PriorLogProb
    torch.testing.assert_close(model.log_prior(z), expected)


def test_the_nets_own_loss_is_the_bound() -> None:
    x = fa.data(4, missing=0.3)
    torch.manual_seed(3)
    tops = fa.net(k=7).blobs(x)
    torch.manual_seed(3)
    torch.testing.assert_close(tops["b"], latent.bound(Latent(fa.net(k=1)), x, 7))


def test_draws_in_several_passes_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = fa.data(3, missing=0.4)
    model = Latent(fa.net(worse=0.5))
    monkeypatch.setattr(latent, "AT_ONCE", 20 * x.numel())
    assert model.passes(x, 50) == [20, 20, 10]
    torch.manual_seed(0)
    parts = [model.weigh(x, count) for count in (20, 20, 10)]
    torch.manual_seed(0)
    torch.testing.assert_close(
        latent.bound(model, x, 50), torch.cat([p.log_weights for p in parts]).exp().mean(0).log()
    )
    torch.manual_seed(0)
    means = torch.cat([p.parameters[0].reshape(-1, *x.shape) for p in parts])
    shares = torch.cat([p.log_weights for p in parts]).softmax(0)
    expected = torch.where(x.isnan(), (shares[..., None] * means).sum(0), x)
    torch.testing.assert_close(latent.expected_completion(model, x, 50), expected)


def test_expected_completion_is_the_conditional_mean() -> None:
    x = fa.data(12, missing=0.5)
    torch.manual_seed(0)
    done = latent.expected_completion(Latent(fa.net(worse=2.5)), x, 40000)
    assert torch.equal(done[~x.isnan()], x[~x.isnan()])
    for row, filled in zip(x, done, strict=True):
        mean, _ = fa.conditional(row)
        torch.testing.assert_close(filled[row.isnan()], mean, rtol=0, atol=0.05)


def test_completions_are_drawn_from_the_conditional() -> None:
    x = fa.data(1, missing=0.5, seed=4)
    assert int(x.isnan().sum()) >= 2
    torch.manual_seed(0)
    drawn = latent.complete(Latent(fa.net(worse=2.5)), x.repeat(3000, 1), 1, 200)[0]
    mean, covariance = fa.conditional(x[0])
    missing = drawn[:, x[0].isnan()]
    torch.testing.assert_close(missing.mean(0), mean, rtol=0, atol=0.06)
    torch.testing.assert_close(missing.T.cov(), covariance, rtol=0, atol=0.08)
    assert torch.equal(drawn[:, ~x[0].isnan()], x[:, ~x[0].isnan()].repeat(3000, 1))


def test_metropolis_accepts_every_proposal_of_the_posterior() -> None:
    x = fa.data(20, missing=0.4)
    torch.manual_seed(0)
    model = Latent(fa.net())
    chain = chains.metropolis_within_gibbs(model, chains.start(model, x), 30)
    # But for the first proposal: the chain starts at another x.
    assert min(chain.accepted[1:]) == 1.0
    assert len(chain.accepted) == 30


def test_metropolis_has_the_right_limit_where_pseudo_gibbs_has_not() -> None:
    """With a posterior too wide, the values that pseudo-Gibbs draws scatter too far."""
    row = fa.data(1, missing=0.5, seed=4)
    x = row.repeat(400, 1)
    mean, covariance = fa.conditional(row[0])
    model = Latent(fa.net(worse=1.5))
    spread = {}
    for name, walk in (("gibbs", chains.pseudo_gibbs), ("metropolis", chains.metropolis_within_gibbs)):
        torch.manual_seed(0)
        seen: list[Tensor] = []

        def look(number: int, now: Tensor, seen: list[Tensor] = seen) -> None:
            if number > 60:
                seen.append(now)

        walk(model, chains.start(model, x), 120, look)
        missing = torch.cat(seen)[:, row[0].isnan()]
        if name == "metropolis":
            torch.testing.assert_close(missing.mean(0), mean, rtol=0, atol=0.12)
        spread[name] = missing.T.cov().diagonal()
    torch.testing.assert_close(spread["metropolis"], covariance.diagonal(), rtol=0.15, atol=0)
    assert (spread["gibbs"] > 1.3 * covariance.diagonal()).any()


def test_samples_have_the_models_mean_and_covariance() -> None:
    torch.manual_seed(0)
    x = latent.sample(Latent(fa.net()), 20000)
    torch.testing.assert_close(x.mean(0), fa.MEAN, rtol=0, atol=0.05)
    torch.testing.assert_close(x.T.cov(), fa.covariance(), rtol=0, atol=0.08)
    means = latent.sample(Latent(fa.net()), 20000, noise=False)
    torch.testing.assert_close(means.T.cov(), fa.covariance() - torch.diag(fa.NOISE), rtol=0, atol=0.08)


def test_the_mean_over_imputations_settles_as_one_over_the_root_of_their_number() -> None:
    x = fa.data(1, missing=0.5, seed=4)
    model = Latent(fa.net(worse=2.5))
    torch.manual_seed(0)
    drawn = latent.complete(model, x.repeat(200, 1), 16, 1000)[..., x[0].isnan()][..., 0]
    ratio = drawn.mean(0).std() / drawn[0].std()
    assert float(ratio) == pytest.approx(1 / 4, rel=0.25)


def test_other_nets_are_refused() -> None:
    with pytest.raises(SpecError, match="one layer that draws a latent variable; this one has 0"):
        Latent(net_of("ReLU", x=torch.zeros(2, 3)))
