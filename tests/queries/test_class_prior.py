"""Shares of classes at the top of a tree: every query against Bayes' rule over an enumerated table of probabilities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.queries import likelihood, marginals, most_probable, sampling
from netspec.queries.tree import Tree
from netspec.solver.em import EMSolver

LEVELS, CLASSES = 3, 4
TEXT = f"""
layer {{ name: "x" type: "Input" top: "x" top: "label"
  input_param {{ shape {{ dim: 40 dim: 1 dim: 1 dim: 2 }} shape {{ dim: 40 }} }} }}
layer {{ name: "leaf" type: "Leaves" bottom: "x" top: "leaf"
  leaves_param {{ num_instances: 2 distribution {{ kind: "categorical" levels: {LEVELS} }} }} }}
layer {{ name: "tree" type: "LatentTree" bottom: "leaf" top: "tree" }}
layer {{ name: "given" type: "MEX" bottom: "tree" top: "given" param {{ lr_mult: 0 }} mex_param {{
  num_instances: {CLASSES} offsets_filler {{ type: "gaussian" }}
  block_param {{ block_size: 1 }} softmax_mode: true normalize_offsets: true }} }}
layer {{ name: "prior" type: "ClassPrior" bottom: "given" top: "joint"
  class_prior_param {{ logit_filler {{ type: "gaussian" std: 2 }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "joint" bottom: "label" top: "loss"
  loss_param {{ normalization: BATCH_SIZE }} }}
layer {{ name: "nll" type: "LogLikelihoodLoss" bottom: "joint" bottom: "label" top: "nll" }}
"""
EVERY = torch.tensor(list(itertools.product(range(LEVELS), repeat=2)), dtype=torch.float64)[:, None, None]


def net_of(phase: str = "TEST", seed: int = 5) -> Net:
    return make_net(schema.parse_net(TEXT, "prior.prototxt"), phase, seed=seed).double()


@pytest.fixture
def tree() -> Tree:
    return Tree(net_of().requires_grad_(False))


@pytest.fixture
def joint(tree: Tree) -> np.ndarray:
    """p(y, a, b) (CLASSES, LEVELS, LEVELS), summed over the states of the two hidden variables."""
    leaf, (latent, given, prior) = tree.leaf, tree.inner
    table = np.zeros((CLASSES, LEVELS, LEVELS))
    own = torch.softmax(given.blob(1).view(CLASSES, 2), 1).numpy()
    rows = torch.softmax(latent.blob(1).view(2, 2, 2), 2).numpy()
    shares = torch.softmax(prior.blob(0).flatten(), 0).numpy()
    for y, a, b, root, child in itertools.product(
        range(CLASSES), range(LEVELS), range(LEVELS), range(2), range(2)
    ):
        density = leaf(torch.tensor([[[[a, b]]]], dtype=torch.float64))[0, :, 0]
        emitted = float((density[root, 0] + density[child, 1]).exp())
        table[y, a, b] += shares[y] * own[y, root] * rows[1, root, child] * emitted
    return table


def test_likelihoods_and_posteriors(tree: Tree, joint: np.ndarray) -> None:
    assert joint.sum() == pytest.approx(1)
    flat = joint.reshape(CLASSES, -1)
    np.testing.assert_allclose(likelihood.log_likelihood(tree, EVERY), np.log(flat.sum(0)), atol=1e-9)
    np.testing.assert_allclose(likelihood.posterior(tree, EVERY), (flat / flat.sum(0)).T, atol=1e-9)
    given = flat / flat.sum(1, keepdims=True)
    np.testing.assert_allclose(likelihood.class_log_likelihood(tree, EVERY), np.log(given).T, atol=1e-9)
    hidden = EVERY.clone()
    hidden[..., 0] = torch.nan
    seen = joint.sum(1)[:, EVERY[:, 0, 0, 1].long()]
    np.testing.assert_allclose(likelihood.log_likelihood(tree, hidden), np.log(seen.sum(0)), atol=1e-9)
    np.testing.assert_allclose(likelihood.posterior(tree, hidden), (seen / seen.sum(0)).T, atol=1e-9)
    nothing = torch.full((1, 1, 1, 2), torch.nan, dtype=torch.float64)
    np.testing.assert_allclose(likelihood.posterior(tree, nothing)[0], flat.sum(1), atol=1e-9)


def test_marginals_maxima_and_samples(tree: Tree, joint: np.ndarray) -> None:
    half = torch.tensor([[[[2.0, torch.nan]]]], dtype=torch.float64)
    posteriors = marginals.marginals(tree, half)
    expected = joint[:, 2].sum(1) / joint[:, 2].sum()
    np.testing.assert_allclose(posteriors[-1].flatten(), expected, atol=1e-9)
    np.testing.assert_allclose(posteriors[-2].flatten(), expected, atol=1e-9)
    levels = marginals.level_probabilities(tree, half)[1][0, 0, 0, 1]
    np.testing.assert_allclose(levels, joint[:, 2].sum(0) / joint[:, 2].sum(), atol=1e-9)
    # The most probable class, state and value together: not the class alone.
    nothing = torch.full((1, 1, 1, 2), torch.nan, dtype=torch.float64)
    states, value = most_probable.most_probable_states(tree, nothing)
    every = tree.up_max(nothing)[-1].flatten()
    assert float(value) == pytest.approx(float(every.max()))
    assert int(states[-1]) == int(every.argmax()) == int(states[-2])
    draws = sampling.sample_states(
        tree, nothing.expand(20_000, -1, -1, -1), generator=torch.Generator().manual_seed(0)
    )
    shares = np.bincount(draws[-1].flatten().numpy(), minlength=CLASSES) / 20_000
    np.testing.assert_allclose(shares, joint.sum((1, 2)), atol=4 * np.sqrt(0.25 / 20_000))


def test_em_learns_the_shares_and_the_likelihood_never_falls() -> None:
    net = net_of("TRAIN")
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(0, LEVELS, (40, 1, 1, 2)).astype(float))
    label = torch.from_numpy(rng.choice(CLASSES, 40, p=[0.6, 0.2, 0.15, 0.05]).astype(float))
    message = schema.parse_solver(
        'type: "EM" base_lr: 1 lr_policy: "fixed" em_param { prior_states: 0 prior_values: 0 }', "s.prototxt"
    ).message
    solver = EMSolver(net, message)
    solver.gather()
    losses = []
    for _ in range(12):
        total = sum(top for top in net(x, label))
        total.backward()
        losses.append(float(total.detach()))
        solver.step()
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(losses))
    assert losses[-1] < losses[0] - 0.1
    shares = torch.softmax(net.layer("prior").blob(0).detach().flatten(), 0)
    np.testing.assert_allclose(shares, np.bincount(label.long(), minlength=CLASSES) / 40, atol=1e-9)


def test_shares_below_the_top_are_no_tree() -> None:
    more = """layer { name: "again" type: "MEX" bottom: "joint" top: "again" mex_param { num_instances: 2
      block_param { block_size: 1 } softmax_mode: true normalize_offsets: true } }"""
    text = TEXT[: TEXT.index('layer { name: "loss"')] + more
    with pytest.raises(SpecError, match="not the last of the latent tree"):
        Tree(make_net(schema.parse_net(text, "prior.prototxt"), "TEST"))
    with pytest.raises(SpecError, match=r"needs scores of classes \(N, K, 1, 1\)"):
        make_net(
            schema.parse_net("""
                layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 1 } } }
                layer { name: "p" type: "ClassPrior" bottom: "x" top: "y" }""")
        )
