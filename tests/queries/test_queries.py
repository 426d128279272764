"""Every query equals enumeration of all latent configurations, in float64."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from netspec.layers.simnets import logsumexp
from netspec.queries import explain, likelihood, marginals, most_probable, sampling
from netspec.queries.tree import Tree
from tests.oracle import Enumeration, Level, Model

MODELS = [
    Model(2, 1, 2, (Level(3, pool=2),)),  # CP: classes right above the leaves
    Model(2, 1, 3, (Level(2, region=1, pool=2),)),
    Model(4, 2, 3, (Level(2, region=1, pool=2),)),
    Model(2, 1, 3, (Level(2, unshared=True, region=2, pool=2),), channels=2),
    Model(3, 2, 3, (Level(2, unshared=True, region=2, pool=2),), pad=1),
    Model(2, 2, 4, (Level(3), Level(2))),
    Model(4, 2, 2, (Level(3, pool=2), Level(2))),
    Model(4, 2, 2, (Level(3, region=1, pool=2), Level(3))),
    Model(4, 2, 3, (Level(2, unshared=True, region=2, pool=2), Level(2))),
    Model(2, 1, 2, (Level(2, unshared=True, region=1, pool=2), Level(3, region=1))),
    Model(2, 1, 2, (Level(2), Level(2, region=1, pool=2))),
]
CASES = [
    (model, seed, hidden)
    for model, (seed, hidden) in itertools.product(MODELS, [(1, 0.0), (2, 0.4), (3, 0.8)])
]
each_case = pytest.mark.parametrize(("model", "seed", "hidden"), CASES)


@functools.cache
def solved(model: Model, seed: int, hidden: float) -> tuple[Tree, torch.Tensor, Enumeration]:
    """A random model, a random image with missing pixels, and its enumeration."""
    net = model.net(seed).requires_grad_(False)
    random = np.random.default_rng(seed)
    image = random.normal(size=(model.channels, model.side, model.side))
    image[random.random(image.shape) < hidden] = np.nan
    return Tree(net), torch.from_numpy(image)[None], Enumeration(model, net, image)


def same(ours: torch.Tensor, theirs: object) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), np.asarray(theirs), rtol=0, atol=1e-10)


@each_case
def test_likelihoods(model: Model, seed: int, hidden: float) -> None:
    tree, x, oracle = solved(model, seed, hidden)
    scores = oracle.class_log_likelihood()
    same(likelihood.class_log_likelihood(tree, x)[0], scores)
    total = np.logaddexp.reduce(scores) - np.log(len(scores))
    same(likelihood.log_likelihood(tree, x)[0], total)
    same(likelihood.posterior(tree, x)[0], np.exp(scores - np.logaddexp.reduce(scores)))
    observed = int((~x.isnan()).sum())
    if observed:
        same(likelihood.bits_per_dimension(tree, x)[0], -total / observed / np.log(2))


@each_case
def test_marginals(model: Model, seed: int, hidden: float) -> None:
    tree, x, oracle = solved(model, seed, hidden)
    posteriors = dict(zip(tree.names, marginals.marginals(tree, x), strict=True))
    same(posteriors["sim"][0], oracle.marginal(0, model.components, oracle.posterior))
    top = len(model.levels) - 1
    for i, level in enumerate(model.levels):
        spread = posteriors[f"pool{i}"] if level.pool > 1 else posteriors[f"mex{i}"]
        same(spread[0], oracle.marginal(i + 1, level.states, oracle.posterior))
    y = torch.tensor([1])
    classes = np.array([int(states[-1].item()) for states in oracle.configurations])
    given = oracle.posterior * (classes == 1)
    posteriors = dict(zip(tree.names, marginals.marginals(tree, x, y), strict=True))
    same(posteriors["sim"][0], oracle.marginal(0, model.components, given / given.sum()))
    assert top >= 0


@each_case
def test_expected_completion(model: Model, seed: int, hidden: float) -> None:
    tree, x, oracle = solved(model, seed, hidden)
    mean, deviation = marginals.expected_completion(tree, x)
    first, second = oracle.moments(oracle.posterior)
    missing = np.isnan(oracle.image)
    same(mean[0], np.where(missing, first, oracle.image))
    same(deviation[0], np.where(missing, np.sqrt(np.maximum(second - first**2, 0)), 0))


@each_case
def test_most_probable(model: Model, seed: int, hidden: float) -> None:
    tree, x, oracle = solved(model, seed, hidden)
    states, value = most_probable.most_probable_states(tree, x)
    best = int(oracle.log_mode.argmax())
    same(value[0], oracle.log_mode[best])
    assert np.array_equal(states[0][0].numpy(), oracle.configurations[best][0])
    y = torch.tensor([1])
    classes = np.array([int(states[-1].item()) for states in oracle.configurations])
    masked = np.where(classes == 1, oracle.log_mode, -np.inf)
    states, value = most_probable.most_probable_states(tree, x, y)
    same(value[0], masked.max())
    assert np.array_equal(states[0][0].numpy(), oracle.configurations[int(masked.argmax())][0])


@pytest.mark.parametrize(("model", "seed"), [(MODELS[0], 1), (MODELS[4], 2), (MODELS[6], 3), (MODELS[9], 4)])
def test_sampled_trees_have_their_frequencies(model: Model, seed: int) -> None:
    tree, x, oracle = solved(model, seed, 0.4)
    n = 20_000
    states = sampling.sample_states(tree, x.expand(n, -1, -1, -1), None, torch.Generator().manual_seed(seed))
    leaves, root = states[0].flatten(1).numpy(), states[-1].flatten().numpy()
    keys = [tuple(row) for row in np.column_stack([leaves, root])]
    counts: dict[tuple[int, ...], int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    expected: dict[tuple[int, ...], float] = {}
    for weight, configuration in zip(oracle.posterior, oracle.configurations, strict=True):
        key = (*configuration[0].flatten(), int(configuration[-1].item()))
        expected[key] = expected.get(key, 0.0) + weight * n
    common = [key for key, value in expected.items() if value >= 5]
    rest = n - sum(expected[key] for key in common)
    seen = [counts.get(key, 0) for key in common]
    observed, wanted = np.array([*seen, n - sum(seen)]), np.array([*(expected[key] for key in common), rest])
    kept = wanted > 0
    assert (
        stats.chisquare(observed[kept], wanted[kept] * observed[kept].sum() / wanted[kept].sum()).pvalue
        > 1e-3
    )


@each_case
def test_states_that_are_given(model: Model, seed: int, hidden: float) -> None:
    """log p(x, a state) = log p(x) + log p(state | x), of every leaf state, and of the variables above."""
    tree, x, oracle = solved(model, seed, hidden)
    total = np.logaddexp.reduce(oracle.class_log_likelihood())
    for number, spread in enumerate(marginals.marginals(tree, x)):
        states, height, width = tree.sizes[number]
        for state, row, column in itertools.product(range(states), range(height), range(width)):
            given = tree.given([(tree.names[number], row, column, state)])
            joint = tree.up(x, given=given)[-1].logsumexp(1)
            if share := spread[0, state, row, column].item():
                same(joint.flatten(), [total + np.log(share)])
                drawn = sampling.sample_states(tree, x, None, torch.Generator().manual_seed(1), given)
                assert drawn[number][0, row, column] == state


def test_completion_against_numeric_integration() -> None:
    tree, x, _ = solved(MODELS[0], 5, 0.0)
    x = x.clone()
    x[0, 0, 0, 1] = torch.nan

    def density(value: float, power: int) -> float:
        filled = x.clone()
        filled[0, 0, 0, 1] = value
        return float(likelihood.log_likelihood(tree, filled).exp()) * value**power

    mass, first, second = (integrate.quad(density, -12, 12, args=(k,), limit=200)[0] for k in range(3))
    assert mass == pytest.approx(float(likelihood.log_likelihood(tree, x).exp()), rel=1e-8)
    mean, deviation = marginals.expected_completion(tree, x)
    assert float(mean[0, 0, 0, 1]) == pytest.approx(first / mass, abs=1e-7)
    assert float(deviation[0, 0, 0, 1]) == pytest.approx(
        (second / mass - (first / mass) ** 2) ** 0.5, abs=1e-7
    )


def test_sampled_completions_have_the_expected_moments() -> None:
    tree, x, _ = solved(MODELS[6], 3, 0.8)
    n = 40_000
    drawn = sampling.complete(tree, x.expand(n, -1, -1, -1), None, torch.Generator().manual_seed(1))
    mean, deviation = marginals.expected_completion(tree, x)
    missing = x[0].isnan()
    assert torch.equal(drawn[:, ~missing], x.expand(n, -1, -1, -1)[:, ~missing])
    error = (drawn.mean(0) - mean[0])[missing] / (deviation[0][missing] / n**0.5)
    assert float(error.abs().max()) < 4.5
    torch.testing.assert_close(drawn.std(0)[missing], deviation[0][missing], rtol=0.03, atol=0)


def test_contributions_are_differences_of_exact_posteriors() -> None:
    tree, x, _ = solved(MODELS[2], 1, 0.0)
    y = torch.tensor([0])
    explained = explain.contributions(tree, x, y, size=2)
    without = x.clone()
    without[:, :, :2, 2:] = torch.nan
    wanted = likelihood.posterior(tree, x).log()[0, 0] - likelihood.posterior(tree, without).log()[0, 0]
    same(explained[0, 0, 1], wanted.detach())


def test_information_gain_against_numeric_integration() -> None:
    tree, x, _ = solved(MODELS[0], 2, 0.0)
    x = x.clone()
    x[0, 0, 0, 1] = torch.nan
    base = marginals.entropy(likelihood.posterior(tree, x))[0]
    total = likelihood.log_likelihood(tree, x)

    def after(value: float) -> float:
        filled = x.clone()
        filled[0, 0, 0, 1] = value
        p = (likelihood.log_likelihood(tree, filled) - total).exp()
        return float(p * marginals.entropy(likelihood.posterior(tree, filled)))

    wanted = float(base) - integrate.quad(after, -12, 12, limit=200)[0]
    explained = explain.information_gain(tree, x, draws=4000, generator=torch.Generator().manual_seed(0))
    assert float(explained[0, 0, 1]) == pytest.approx(wanted, abs=0.01)
    assert bool(explained[0, 0, 0].isnan())


def test_information_gain_is_never_negative_and_settles_soon() -> None:
    """Few draws: the estimate lies within their spread of that of many, at every patch."""
    tree, x, _ = solved(MODELS[8], 3, 0.0)
    x = x.clone()
    x[0, 0, 1:3] = torch.nan
    few, many = (
        explain.information_gain(tree, x, draws, 2, torch.Generator().manual_seed(1)) for draws in (8, 2000)
    )
    assert bool((few >= 0).all())
    assert float((few - many).abs().max()) < 0.1


def test_max_plus_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, b = (
        torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in ((3, 7, 5), (3, 4, 5))
    )
    wanted = (x.unsqueeze(2) + b.unsqueeze(1)).amax(3)
    for block in (1, 8, 12, 40, 1 << 17):
        monkeypatch.setattr(logsumexp, "BLOCK", block)
        assert torch.equal(logsumexp.max_plus(x, b), wanted)
    leaf = b.clone().requires_grad_()
    torch.testing.assert_close(logsumexp.max_plus(x, leaf), wanted)
    assert torch.autograd.grad(logsumexp.max_plus(x, leaf).sum(), leaf)[0].sum() == x.shape[1] * 3 * 4


def test_everything_missing_has_probability_one() -> None:
    tree, x, _ = solved(MODELS[7], 1, 0.0)
    same(likelihood.class_log_likelihood(tree, torch.full_like(x, torch.nan))[0], np.zeros(tree.classes))


@pytest.mark.parametrize(
    "query",
    [
        likelihood.log_likelihood,
        likelihood.posterior,
        marginals.marginals,
        marginals.expected_completion,
        most_probable.most_probable_completion,
        functools.partial(sampling.complete, noise=False, y=None),
        lambda tree, x: explain.contributions(tree, x, x.new_zeros(len(x), dtype=torch.long), 2),
    ],
    ids=[
        "log_likelihood",
        "posterior",
        "marginals",
        "expected",
        "most_probable",
        "complete",
        "contributions",
    ],
)
def test_queries_compile_in_one_graph(query: Callable[..., object]) -> None:
    tree, x, _ = solved(MODELS[8], 2, 0.4)
    compiled = torch.compile(functools.partial(query, tree), fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    traced = {"trace_autograd_ops": True} if hasattr(torch._dynamo.config, "trace_autograd_ops") else {}
    with torch._dynamo.config.patch(traced):  # marginals are derivatives
        answer = compiled(x)
    torch.manual_seed(0)
    wanted = query(tree, x)
    torch.testing.assert_close(answer, wanted, rtol=0, atol=1e-12)
