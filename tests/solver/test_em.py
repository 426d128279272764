"""Expectation maximisation: exact counts, a likelihood that never falls, the closed forms where there are some."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from netspec import schema
from netspec.errors import SpecError
from netspec.layers.simnets.latent_tree import Structure, passed
from netspec.layers.simnets.leaves import Leaves
from netspec.layers.tree import TreeLayer
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.queries.marginals import marginals
from netspec.queries.tree import Tree
from netspec.solver.em import EMSolver
from tests.queries.test_leaves import MODELS, ROWS, text

nan = float("nan")
LOSS = 'layer { name: "loss" type: "LogLikelihoodLoss" bottom: "root" top: "loss" }'
ROOT = """
layer { name: "pool" type: "Pooling" bottom: "mid" top: "pool"
  pooling_param { pool: SUM kernel_h: 1 kernel_w: 4 stride_h: 1 stride_w: 4 } }
layer { name: "root" type: "MEX" bottom: "pool" top: "root" mex_param { num_instances: 2
  block_param { block_size: 1 } softmax_mode: true normalize_offsets: true offsets_filler { type: "gaussian" } } }
"""
SIMILARITY = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 1 dim: 1 dim: 4 } } }
layer { name: "leaf" type: "Similarity" bottom: "x" top: "leaf" similarity_param { num_instances: 3
  block_param { block_size: 1 stride: 1 } normalization_term: true normalization_term_fudge: 0 ignore_nan_input: true
  template_filler { type: "gaussian" } weight_filler { type: "constant" value: 1 } %s } }
layer { name: "mid" type: "MEX" bottom: "leaf" top: "mid" mex_param { num_instances: 2 shared_offsets_region_size: 1
  block_param { block_size: 1 } softmax_mode: true normalize_offsets: true offsets_filler { type: "gaussian" } } }
"""


def net_of(message: str, seed: int = 1) -> Net:
    return make_net(schema.parse_net(message, "em.prototxt"), "TRAIN", seed=seed).double()


def solver_of(net: Net, more: str = "") -> EMSolver:
    message = schema.parse_solver(f'type: "EM" base_lr: 1 lr_policy: "fixed" {more}', "s.prototxt").message
    solver = EMSolver(net, message)
    solver.clip()
    return solver


def data(model: str, n: int = 40, seed: int = 0) -> torch.Tensor:
    """Rows like those of ROWS, shuffled column by column, a fifth of the cells missing."""
    random = np.random.default_rng(seed)
    if model in ("gaussian", "student_t", "similarity"):
        x = random.standard_t(3, size=(n, 4)) + 3 * random.integers(0, 2, size=(n, 1))
    elif model == "mixed":
        pools: list[list[float]] = [[0, 1, 2, 3], [-0.4, 2.0, 9.0], [0, 1, 4, 7], [-1, 0, 0.5, 1.5]]
        x = np.stack([random.choice(pool, n) for pool in pools], 1)
    else:
        x = random.choice(np.array(ROWS[model]), size=(n, 4))
    x = x.astype(float)
    x[random.random(x.shape) < 0.2] = nan
    return torch.tensor(x, dtype=torch.float64).view(n, 1, 1, 4)


def losses(net: Net, solver: EMSolver, x: torch.Tensor, rounds: int) -> list[float]:
    history = []
    for _ in range(rounds):
        loss = net.objective(net(x))
        loss.backward()  # type: ignore[no-untyped-call]
        history.append(float(loss.detach()))
        solver.step()
    return history


@pytest.mark.parametrize("model", [*MODELS, "similarity", "similarity_log"])
def test_full_batch_never_falls(model: str) -> None:
    log = "use_log_space_weight_param: true" if model == "similarity_log" else ""
    message = SIMILARITY % log + ROOT if "similarity" in model else text(MODELS[model])
    net = net_of(message + LOSS)
    history = losses(net, solver_of(net), data(model.removesuffix("_log")), 15)
    assert all(after <= before + 1e-9 for before, after in pairwise(history)), history
    assert history[-1] < history[0] - 0.05


def test_states_that_round_to_nothing_beside_impossible_ones() -> None:
    """The states that fit a value best cannot be reached, the others are thousands of nats worse: single precision."""
    torch.manual_seed(0)
    structure = Structure([-1, 0, 0])
    x = torch.randn(3, 5, 4)
    x[1, :, 2] = 500.0  # cannot be
    x[1, :, :2] -= 3000 * torch.arange(1.0, 3)
    rows = torch.randn(3, 4, 4).log_softmax(2)
    rows[1, :, 2] = -torch.inf
    rows[1, 0] = torch.tensor(
        [0.0, -torch.inf, -torch.inf, -torch.inf]
    )  # and one parent leads to the worst alone
    rows[1] = rows[1].log_softmax(1)
    top = passed(x, rows, structure)[0]
    double = x.double()
    below = sum(torch.logsumexp(double[i].unsqueeze(1) + rows[i].double(), 2) for i in (1, 2))
    torch.testing.assert_close(top.double(), double[0] + below, rtol=1e-5, atol=1e-3)


def test_counts_are_exact_posteriors() -> None:
    """The gradient of a level's log probability is the sum of the posteriors of its component where it occurs."""
    net = net_of(text(MODELS["categorical"]) + LOSS)
    x = data("categorical")
    q = marginals(Tree(build_test(net)), x)[0][:, :, 0]  # B M 4
    solver = solver_of(net)
    net.objective(net(x)).backward()  # type: ignore[no-untyped-call]
    leaf = net.layer("leaf")
    assert isinstance(leaf, TreeLayer)
    assert leaf.evidence
    counts = -leaf.evidence[0].grad * len(x)  # type: ignore[operator]
    for column in range(4):
        for level in range(4):
            want = q[(x[:, 0, 0, column] == level), :, column].sum(0)
            torch.testing.assert_close(counts[column, 0, level], want, rtol=0, atol=1e-9)
    assert solver.iteration == 0


def build_test(net: Net) -> Net:
    """The same net in phase TEST, without its loss."""
    other = make_net(schema.parse_net(text(MODELS["categorical"]), "t.prototxt"), seed=1)
    other = other.double()
    other.load_weights(net.weights())
    return other


ONE = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 9 dim: 1 dim: 1 dim: 1 }} }} }}
layer {{ name: "leaf" type: "Leaves" bottom: "x" top: "leaf" leaves_param {{ num_instances: 1 {leaves} }} }}
layer {{ name: "root" type: "MEX" bottom: "leaf" top: "root" mex_param {{ num_instances: 1
  block_param {{ block_size: 1 }} softmax_mode: true normalize_offsets: true }} }}
"""


def fitted(leaves: str, values: list[float], rounds: int = 1) -> list[np.ndarray]:
    net = net_of(ONE.format(leaves=leaves) + LOSS)
    x = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)
    losses(net, solver_of(net), x, rounds)
    return [blob.detach().flatten().numpy() for blob in net.layer("leaf").blobs][1:]


def test_one_component_has_the_maximum_likelihood() -> None:
    x = [1.0, 2.0, 2.0, 5.0]
    location, log_scale = fitted('distribution { kind: "gaussian" }', [*x, nan])
    assert location[0] == pytest.approx(np.mean(x))
    assert np.exp(log_scale[0]) == pytest.approx(np.std(x))
    (logits,) = fitted('distribution { kind: "categorical" levels: 6 }', [*x, nan])
    np.testing.assert_allclose(np.exp(logits), [0, 0.25, 0.5, 0, 0, 0.25], atol=1e-12)
    (rate,) = fitted('distribution { kind: "poisson" }', [*x, nan])
    assert np.exp(rate[0]) == pytest.approx(2.5)
    (logit,) = fitted('distribution { kind: "binomial" levels: 6 }', [*x, nan])
    assert 1 / (1 + np.exp(-logit[0])) == pytest.approx(0.5)
    location, log_scale = fitted('distribution { kind: "student_t" degrees_of_freedom: 4 }', [*x, 90.0], 120)
    _, want_location, want_scale = stats.t.fit([*x, 90.0], fdf=4)
    assert location[0] == pytest.approx(want_location, abs=0.01)
    assert np.exp(log_scale[0]) == pytest.approx(want_scale, rel=0.01)


def test_values_far_from_0_beside_their_spread() -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=50) * 1e-2
    location, log_scale = fitted('distribution { kind: "gaussian" min_scale: 1e-9 }', list(values), 3)
    assert location[0] == pytest.approx(values.mean(), rel=1e-15)
    assert np.exp(log_scale[0]) == pytest.approx(values.std(), rel=1e-4)


def test_stepwise_learns_and_resumes_to_the_bit() -> None:
    def run(pause: int) -> list[torch.Tensor]:
        net = net_of(text(MODELS["mixed"]) + LOSS)
        solver = solver_of(net, "em_param { prior_states: 0.1 prior_values: 0.5 images: 40 }")
        solver.message.base_lr = 0.3
        x = data("mixed", 60)
        for i in range(8):
            if i == pause:
                state = {key: value.clone() if isinstance(value, torch.Tensor) else value
                         for key, value in solver.state_dict().items()}  # fmt: skip
                weights = {name: value.clone() for name, value in net.weights().items()}
                net = net_of(text(MODELS["mixed"]) + LOSS, seed=9)
                net.load_weights(weights)
                solver = solver_of(net, "em_param { prior_states: 0.1 prior_values: 0.5 images: 40 }")
                solver.message.base_lr = 0.3
                solver.load_state_dict(state)
            losses(net, solver, x[10 * (i % 6) : 10 * (i % 6) + 10], 1)
        return list(net.weights().values())

    for ours, theirs in zip(run(-1), run(4), strict=True):
        assert torch.equal(ours, theirs)


def test_a_prior_leaves_no_level_impossible() -> None:
    net = net_of(text(MODELS["categorical"]) + LOSS)
    losses(net, solver_of(net, "em_param { prior_values: 1 }"), data("categorical").clamp_max(2), 2)
    leaf = net.layer("leaf")
    assert isinstance(leaf, Leaves)
    assert bool(leaf.blobs[1].isfinite().all())


def test_what_cannot_learn_by_counts_is_refused() -> None:
    product = 'layer { name: "ip" type: "InnerProduct" bottom: "root" top: "ip" inner_product_param { num_output: 1 } }'
    loss = 'layer { name: "loss" type: "SumLoss" bottom: "ip" top: "loss" }'
    with pytest.raises(
        SpecError, match=r"layer 'ip' \(InnerProduct\): learns, and is no part of a latent tree"
    ):
        solver_of(net_of(text(MODELS["gaussian"]) + product + loss))
    labels = 'layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 3 } } }'
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "root" bottom: "y" top: "loss" }'
    net = net_of(labels + text(MODELS["gaussian"]) + loss)
    solver = solver_of(net)
    net.objective(net(torch.tensor([0.0, 1, 0]).double(), data("gaussian", 3))).backward()  # type: ignore[no-untyped-call]
    with pytest.raises(
        SpecError, match="gets negative counts: type 'EM' needs minus the mean log likelihood"
    ):
        solver.step()
