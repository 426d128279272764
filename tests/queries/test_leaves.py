"""Every query with every kind of leaf equals enumeration with scipy's distributions, in both precisions."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.special import log_softmax, logsumexp

from netspec import schema
from netspec.errors import DataError, NetspecError, SpecError
from netspec.layers.simnets.leaves import Leaves
from netspec.model.model import load
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.queries import likelihood, marginals, most_probable, sampling
from netspec.queries.tree import Tree

Array = NDArray[np.float64]
nan = float("nan")
COLUMNS = 4
PARENTS = (1, -1, 1, 0)
KINDS = {
    "gaussian": "",
    "student_t": "degrees_of_freedom: 3.5",
    "discretised_logistic": "levels: 6 low: -1 step: 0.5 log_scale_filler { type: 'constant' value: -1 }",
    "categorical": "levels: 4",
    "bernoulli": "",
    "binomial": "levels: 5 low: 1 step: 2",
    "poisson": "",
}


def text(leaves: str, components: int = 2, columns: int = COLUMNS, parents: tuple[int, ...] = PARENTS) -> str:
    named = " ".join(f"parent: {i}" for i in parents)
    return f"""
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 3 dim: 1 dim: 1 dim: {columns} }} }} }}
layer {{ name: "leaf" type: "Leaves" bottom: "x" top: "leaf"
  leaves_param {{ num_instances: {components} {leaves} }} }}
layer {{ name: "tree" type: "LatentTree" bottom: "leaf" top: "tree" latent_tree_param {{ {named} }} }}
layer {{ name: "root" type: "MEX" bottom: "tree" top: "root" mex_param {{ num_instances: 2
  block_param {{ block_size: 1 }} softmax_mode: true normalize_offsets: true offsets_filler {{ type: "gaussian" }} }} }}
"""


def net_of(leaves: str, **more: Any) -> Net:
    net = make_net(schema.parse_net(text(leaves, **more), "leaves.prototxt"), seed=3)
    return net.requires_grad_(False)


def leaves(tree: Tree) -> Leaves:
    """The tree's leaf layer."""
    assert isinstance(tree.leaf, Leaves)
    return tree.leaf


def one_kind(kind: str) -> str:
    return f'distribution {{ kind: "{kind}" {KINDS[kind]} }}'


MIXED = " ".join(
    f'distribution {{ kind: "{kind}" {KINDS[kind]} {"column: " + str(i) if i < 3 else ""} }}'
    for i, kind in enumerate(("categorical", "student_t", "poisson", "discretised_logistic"))
)
MODELS = {kind: one_kind(kind) for kind in KINDS} | {"mixed": MIXED}


@dataclass
class Frozen:
    """One value's distribution under one component, by scipy."""

    log_prob: Any
    mean: float
    variance: float
    mode: float
    levels: tuple[float, ...] = ()


def frozen(layer: Any, column: int, m: int) -> Frozen:
    """The distribution of a column's value under component m, from the layer's blobs."""
    group = next(group for group in layer.groups if column in group.columns)
    d, i = group.distribution, group.columns.index(column)
    blobs = [layer.blobs[k].detach().double().numpy() for k in range(group.blobs.start, group.blobs.stop)]
    if d.kind == "gaussian":
        one = stats.norm(blobs[0][i, m, 0], np.exp(blobs[1][i, m, 0]))
        return Frozen(one.logpdf, one.mean(), one.var(), one.mean())
    if d.kind == "student_t":
        one = stats.t(3.5, blobs[0][i, m, 0], np.exp(blobs[1][i, m, 0]))
        return Frozen(one.logpdf, one.mean(), one.var(), one.mean())
    if d.kind == "poisson":
        one = stats.poisson(np.exp(blobs[0][i, m, 0]))
        return Frozen(one.logpmf, one.mean(), one.var(), float(np.argmax(one.pmf(np.arange(100)))))
    if d.kind == "categorical":
        masses = np.exp(log_softmax(blobs[0][i, 0, :, m]))
    elif d.kind == "discretised_logistic":
        one = stats.logistic(blobs[0][i, m, 0], np.exp(blobs[1][i, m, 0]))
        edges = one.cdf(d.low + d.step * (np.arange(d.levels - 1) + 0.5))
        masses = np.diff(np.concatenate([[0], edges, [1]]))
    else:
        masses = stats.binom(d.levels - 1, 1 / (1 + np.exp(-blobs[0][i, m, 0]))).pmf(np.arange(d.levels))
    values = d.low + d.step * np.arange(d.levels)
    mean = float(masses @ values)
    table = dict(zip(np.round(values, 9), np.log(masses), strict=True))
    return Frozen(
        lambda x: table[round(float(x), 9)], mean, float(masses @ (values - mean) ** 2),
        float(values[masses.argmax()]), tuple(masses),
    )  # fmt: skip


@dataclass
class Brute:
    """Every configuration of the hidden states of a net made by `text`, for one row."""

    net: Net
    row: Array
    components: int = 2
    parents: tuple[int, ...] = PARENTS

    def __post_init__(self) -> None:
        layer, tree = self.net.layer("leaf"), self.net.layer("tree")
        n, k = len(self.parents), self.components
        self.leaf = [[frozen(layer, i, m) for m in range(k)] for i in range(n)]
        steps = log_softmax(tree.blobs[1].detach().double().numpy()[:, 0], axis=2)
        first = log_softmax(self.net.layer("root").blobs[1].detach().double().numpy()[0, 0], axis=1)
        root = self.parents.index(-1)
        self.states = list(itertools.product(range(k), repeat=n))
        self.prior = np.array([
            [first[y, z[root]] + sum(steps[i, z[p], z[i]] for i, p in enumerate(self.parents) if p >= 0)
             for z in self.states] for y in range(2)
        ])  # fmt: skip
        seen = [i for i in range(n) if not np.isnan(self.row[i])]
        value = [
            [float(self.leaf[i][m].log_prob(self.row[i])) if i in seen else 0.0 for m in range(k)]
            for i in range(n)
        ]
        peak = [[0.0 if i in seen else float(self.leaf[i][m].log_prob(self.leaf[i][m].mode)) for m in range(k)]
                for i in range(n)]  # fmt: skip
        self.log_joint = self.prior + [sum(value[i][z[i]] for i in range(n)) for z in self.states]
        self.log_best = self.log_joint + [sum(peak[i][z[i]] for i in range(n)) for z in self.states]

    def scores(self) -> Array:
        sums: Array = logsumexp(self.log_joint, axis=1)
        return sums

    def q(self, column: int) -> Array:
        """p(state of a column | row)."""
        weights = np.exp(self.log_joint - logsumexp(self.log_joint)).sum(0)
        return np.array([sum(w for w, z in zip(weights, self.states, strict=True) if z[column] == m)
                         for m in range(self.components)])  # fmt: skip


ROWS = {
    "gaussian": [0.3, -1.0, 2.0, 0.1],
    "student_t": [0.3, -9.0, 2.0, 0.1],
    "discretised_logistic": [-1.0, 1.5, 0.5, 0.0],
    "categorical": [0, 3, 1, 2],
    "bernoulli": [1, 0, 0, 1],
    "binomial": [1, 9, 3, 5],
    "poisson": [0, 2, 7, 1],
    "mixed": [3, -0.4, 4, 1.5],
}
MASKS = [(), (0,), (1, 3), (0, 1, 2, 3)]
each = pytest.mark.parametrize(
    ("model", "dtype"), list(itertools.product(MODELS, (torch.float32, torch.float64)))
)


@functools.cache
def solved(model: str, dtype: torch.dtype) -> tuple[Tree, torch.Tensor, list[Brute]]:
    """A tree, rows with a mask for each, and the enumeration of every row."""
    net = net_of(MODELS[model])
    rows = np.array([ROWS[model]] * len(MASKS), float)
    for row, mask in zip(rows, MASKS, strict=True):
        row[list(mask)] = nan
    brutes = [Brute(net, row) for row in rows]
    net = net.to(dtype)
    return Tree(net), torch.tensor(rows, dtype=dtype).view(-1, 1, 1, COLUMNS), brutes


def close(ours: torch.Tensor, theirs: Any, dtype: torch.dtype) -> None:
    assert ours.dtype == dtype
    tolerance = 2e-5 if dtype == torch.float32 else 1e-6  # blobs are float32 either way
    np.testing.assert_allclose(
        ours.double().numpy(), np.asarray(theirs, float), rtol=tolerance, atol=tolerance
    )


@each
def test_likelihoods(model: str, dtype: torch.dtype) -> None:
    tree, x, brutes = solved(model, dtype)
    scores = np.array([brute.scores() for brute in brutes])
    close(likelihood.class_log_likelihood(tree, x), scores, dtype)
    close(likelihood.log_likelihood(tree, x), logsumexp(scores, axis=1) - np.log(2), dtype)
    close(likelihood.posterior(tree, x), np.exp(log_softmax(scores, axis=1)), dtype)


@each
def test_marginals_and_expected_completion(model: str, dtype: torch.dtype) -> None:
    tree, x, brutes = solved(model, dtype)
    q = np.array([[brute.q(i) for i in range(COLUMNS)] for brute in brutes])
    close(marginals.marginals(tree, x)[0][:, :, 0], q.transpose(0, 2, 1), dtype)
    mean, deviation = marginals.expected_completion(tree, x)
    for row, (brute, ours, spread) in enumerate(zip(brutes, mean, deviation, strict=True)):
        for i in range(COLUMNS):
            if not np.isnan(brute.row[i]):
                assert float(ours[0, 0, i]) == pytest.approx(brute.row[i])
                assert spread[0, 0, i] == 0
                continue
            parts = brute.leaf[i]
            want = sum(w * part.mean for w, part in zip(q[row, i], parts, strict=True))
            square = sum(
                w * (part.variance + (part.mean - want) ** 2)
                for w, part in zip(q[row, i], parts, strict=True)
            )
            assert float(ours[0, 0, i]) == pytest.approx(want, rel=1e-4, abs=1e-4)
            assert float(spread[0, 0, i]) == pytest.approx(square**0.5, rel=1e-4)


@each
def test_probabilities_of_levels(model: str, dtype: torch.dtype) -> None:
    tree, x, brutes = solved(model, dtype)
    if model in ("gaussian", "student_t", "poisson"):
        with pytest.raises(NetspecError, match="no list of them"):
            marginals.level_probabilities(tree, x)
        return
    values, p = marginals.level_probabilities(tree, x)
    assert p.dtype == dtype
    for brute, ours in zip(brutes, p[:, 0, 0].double().numpy(), strict=True):
        for i in range(COLUMNS):
            if not brute.leaf[i][0].levels:
                assert not ours[i].any()
                assert bool(values[0, 0, i].isnan().all())
            elif np.isnan(brute.row[i]):
                want = sum(
                    w * np.array(part.levels) for w, part in zip(brute.q(i), brute.leaf[i], strict=True)
                )
                np.testing.assert_allclose(ours[i][: len(want)], want, atol=1e-5)
                assert not ours[i][len(want) :].any()
            else:
                assert float(values[0, 0, i][ours[i].argmax()]) == pytest.approx(brute.row[i])
                assert ours[i].max() == 1


@each
def test_most_probable_completion(model: str, dtype: torch.dtype) -> None:
    tree, x, brutes = solved(model, dtype)
    states, value = most_probable.most_probable_states(tree, x)
    completed = most_probable.most_probable_completion(tree, x)
    for row, brute in enumerate(brutes):
        y, best = np.unravel_index(int(brute.log_best.argmax()), brute.log_best.shape)
        assert float(value[row]) == pytest.approx(brute.log_best[y, best], rel=1e-5, abs=1e-5)
        assert tuple(states[0][row, 0].tolist()) == brute.states[best]
        assert int(states[-1][row]) == y
        for i in range(COLUMNS):
            want = brute.leaf[i][brute.states[best][i]].mode if np.isnan(brute.row[i]) else brute.row[i]
            assert float(completed[row, 0, 0, i]) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("model", list(MODELS))
def test_conditional_samples(model: str) -> None:
    """Frequencies of levels, or means and quantiles of continuous values, given what is observed."""
    tree, x, brutes = solved(model, torch.float32)
    n, row = 8000, 2
    brute = brutes[row]
    drawn = sampling.complete(
        tree, x[row : row + 1].expand(n, -1, -1, -1), None, torch.Generator().manual_seed(5)
    )
    for i in range(COLUMNS):
        ours = drawn[:, 0, 0, i].double().numpy()
        if not np.isnan(brute.row[i]):
            assert (ours == np.float32(brute.row[i])).all()
            continue
        w = brute.q(i)
        if brute.leaf[i][0].levels:
            group = next(g for g in leaves(tree).groups if i in g.columns)
            want = sum(a * np.array(part.levels) for a, part in zip(w, brute.leaf[i], strict=True))
            levels = np.round((ours - group.distribution.low) / group.distribution.step).astype(int)
            assert stats.chisquare(np.bincount(levels, minlength=len(want)), want * n).pvalue > 1e-4
        else:
            mean = sum(a * part.mean for a, part in zip(w, brute.leaf[i], strict=True))
            spread = sum(
                a * (part.variance + (part.mean - mean) ** 2)
                for a, part in zip(w, brute.leaf[i], strict=True)
            )
            assert abs(ours.mean() - mean) < 4.5 * (spread / n) ** 0.5


@pytest.mark.parametrize("kind", ["gaussian", "student_t"])
def test_draws_follow_the_distribution(kind: str) -> None:
    tree, _, brutes = solved(kind, torch.float64)
    states = torch.zeros(5000, 1, COLUMNS, dtype=torch.long)
    drawn = tree.leaf.sample_image(states, torch.Generator().manual_seed(1))[:, 0, 0, 1].numpy()
    part = brutes[0].leaf[1][0]
    own = part.log_prob.__self__
    assert stats.kstest(drawn, own.cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["categorical", "discretised_logistic", "binomial", "bernoulli"])
def test_masses_of_all_levels_sum_to_1(kind: str) -> None:
    tree, x, _ = solved(kind, torch.float32)
    group = leaves(tree).groups[0].distribution
    base = x[1:2].repeat(group.levels, 1, 1, 1)
    base[:, 0, 0, 0] = group.low + group.step * torch.arange(group.levels)
    joint = likelihood.log_likelihood(tree, base).double().logsumexp(0)
    alone = likelihood.log_likelihood(tree, x[1:2]).double()
    assert float((joint - alone).exp()) == pytest.approx(1, abs=1e-6)


def test_a_grey_level_of_256_has_masses_that_sum_to_1_however_narrow_the_scale() -> None:
    for log_scale in (-12.0, -3.0, 0.0, 8.0):
        filler = f'log_scale_filler {{ type: "constant" value: {log_scale} }}'
        wide = 'location_filler { type: "uniform" min: -50 max: 300 }'
        net = net_of(
            f'distribution {{ kind: "discretised_logistic" levels: 256 min_scale: 1e-6 {filler} {wide} }}'
        )
        x = torch.full((256, 1, 1, COLUMNS), nan)
        x[:, 0, 0, 2] = torch.arange(256)
        assert float(likelihood.log_likelihood(Tree(net), x).double().exp().sum()) == pytest.approx(
            1, abs=1e-6
        )


QUERIES = [
    likelihood.class_log_likelihood,
    likelihood.log_likelihood,
    likelihood.posterior,
    likelihood.log_posterior,
    likelihood.bits_per_dimension,
    marginals.marginals,
    marginals.expected_completion,
    most_probable.most_probable_states,
    most_probable.most_probable_completion,
    sampling.sample_states,
    sampling.complete,
]
each_query = pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.__name__)


@each_query
@pytest.mark.parametrize(
    ("model", "value", "words"),
    [
        (
            "categorical",
            4.0,
            r"image 1, channel 0, row 0, column 2: the value 4 is impossible.*0 to 3, whole numbers",
        ),
        ("categorical", 0.5, "the value 0.5 is impossible"),
        ("bernoulli", -1.0, "takes 0 to 1"),
        ("binomial", 2.0, "takes 1 to 9 in steps of 2"),
        ("poisson", -1.0, "takes 0 and above"),
        ("poisson", float("inf"), "the value inf is impossible"),
        ("gaussian", float("inf"), "the value inf is impossible.*any finite number"),
        ("student_t", -float("inf"), "the value -inf is impossible"),
    ],
)
def test_impossible_values_are_refused(query: Any, model: str, value: float, words: str) -> None:
    tree, x, _ = solved(model, torch.float32)
    x = x[:2].clone()
    x[1, 0, 0, 2] = value
    with pytest.raises(DataError, match=words):
        query(tree, x)


@each_query
def test_evidence_of_probability_0_is_refused(query: Any) -> None:
    """Both components hold the second column's first level for impossible, or the root does."""
    net = net_of(one_kind("bernoulli"))
    net.layer("leaf").blobs[1].fill_(float("inf"))
    x = torch.zeros(2, 1, 1, COLUMNS)
    with pytest.raises(
        DataError, match=r"image 0, position 0,0 of layer 'leaf' .*: the evidence is impossible"
    ):
        query(Tree(net), x)
    net = net_of(one_kind("bernoulli"))
    net.layer("leaf").blobs[1].copy_(torch.tensor([[[-torch.inf], [torch.inf]]] * COLUMNS))
    net.layer("tree").blobs[1].copy_(torch.eye(2).log().expand(COLUMNS, 1, 2, 2))
    x[1, 0, 0, 0] = 1
    with pytest.raises(DataError, match="image 1: the evidence is impossible: its probability is 0"):
        query(Tree(net), x)


def test_evidence_that_excludes_the_given_class_is_refused() -> None:
    net = net_of(one_kind("bernoulli"))
    net.layer("leaf").blobs[1].copy_(torch.tensor([[[-torch.inf], [torch.inf]]] * COLUMNS))
    net.layer("tree").blobs[1].copy_(torch.eye(2).log().expand(COLUMNS, 1, 2, 2))
    net.layer("root").blobs[1].copy_(torch.eye(2).log().view(1, 1, 2, 2))
    tree, x, y = Tree(net), torch.zeros(1, 1, 1, COLUMNS), torch.tensor([1])
    assert likelihood.posterior(tree, x)[0].tolist() == [1, 0]
    for query in (marginals.marginals, marginals.expected_completion, most_probable.most_probable_states,
                  sampling.sample_states, sampling.complete):  # fmt: skip
        with pytest.raises(DataError, match="impossible given class 1"):
            query(tree, x, y)


def test_evidence_far_outside_is_answered_or_refused() -> None:
    tree, x, _ = solved("gaussian", torch.float32)
    far = x[:1].clone()
    far[0, 0, 0, 1] = 4e4
    posterior = likelihood.posterior(tree, far)
    brute = Brute(tree.net.float(), far[0].flatten().double().numpy())
    np.testing.assert_allclose(posterior[0], np.exp(log_softmax(brute.scores())), atol=1e-3)
    far[0, 0, 0, 1] = 1e20  # its square overflows single precision
    assert float(likelihood.log_likelihood(tree, far)) < -1e38
    with pytest.raises(DataError, match="image 0 lies so far from all components"):
        likelihood.posterior(tree, far)


def test_the_greedy_way_fails() -> None:
    """The likeliest state of each column alone is not part of the likeliest explanation."""
    net = net_of(one_kind("bernoulli"), columns=2, parents=(-1, 0))
    net.layer("leaf").blobs[1].copy_(torch.tensor([[[0.0], [0.0]], [[0.0], [4.0]]]))
    net.layer("tree").blobs[1][1, 0] = torch.log(torch.tensor([[0.5, 0.5], [0.01, 0.99]]))
    net.layer("root").blobs[1].copy_(torch.log(torch.tensor([[0.6, 0.4], [0.6, 0.4]])).view(1, 1, 2, 2))
    x = torch.full((1, 1, 1, 2), nan)
    tree, brute = Tree(net), Brute(net, np.full(2, nan), parents=(-1, 0))
    states, value = most_probable.most_probable_states(tree, x)
    assert marginals.marginals(tree, x)[0][0, :, 0, 0].argmax() == 0
    assert states[0][0, 0].tolist() == [1, 1]
    assert float(value) == pytest.approx(brute.log_best.max(), abs=1e-5)


@pytest.mark.parametrize(
    ("leaves", "words"),
    [
        ("", r"needs a distribution \{ kind: \.\.\. \}"),
        ('distribution { kind: "gausian" }', "unknown kind 'gausian' of leaf; did you mean 'gaussian'"),
        ('distribution { kind: "categorical" }', "categorical: needs levels of at least 2, found 0"),
        ('distribution { kind: "student_t" degrees_of_freedom: 2 }', "must be above 2"),
        ('distribution { kind: "bernoulli" levels: 3 }', "bernoulli: has 2 levels, found 3"),
        ('distribution { kind: "poisson" step: 0 }', "step must be > 0"),
        ('distribution { kind: "gaussian" column: 4 }', "column 4: the bottom has positions 0 to 3"),
        ('distribution { kind: "gaussian" column: 1 column: 1 }', "column 1 is named twice"),
        ('distribution { kind: "gaussian" column: 1 }', "no distribution names column 0"),
        (
            'distribution { kind: "gaussian" } distribution { kind: "poisson" }',
            "two distributions without `column`",
        ),
    ],
)
def test_leaves_that_cannot_be_are_refused(leaves: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        net_of(leaves)


@pytest.mark.parametrize(
    ("parents", "words"),
    [((1, 0, 1, 0), "0 roots"), ((-1, -1, 0, 0), "2 roots"), ((-1, 0, 3, 2), "their own ancestors"),
     ((-1, 0, 9, 0), "position 2 has parent 9"), ((-1, 0), "names 2 parents for 4 positions")],
)  # fmt: skip
def test_parents_that_are_no_tree_are_refused(parents: tuple[int, ...], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        net_of(one_kind("gaussian"), parents=parents)


FAR = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 1 dim: 1 } } }
layer { name: "leaf" type: "Similarity" bottom: "x" top: "leaf" similarity_param { num_instances: 4
  block_param { block_size: 1 } normalization_term: true normalization_term_fudge: 0 ignore_nan_input: true } }
layer { name: "root" type: "MEX" bottom: "leaf" top: "root" mex_param { num_instances: 2
  block_param { block_size: 1 } softmax_mode: true normalize_offsets: true offsets_filler { type: "gaussian" } } }
"""


def test_gaussians_far_apart_beside_their_spread() -> None:
    """Deviations and posteriors of clusters of 1e-4 around -1e7 and 1e7: term by term, in double precision."""
    net = make_net(FAR, seed=2).double()
    net.requires_grad_(False)
    means, spread = np.array([-1e7, -1e7 + 3e-4, 1e7, 1e7 + 2e-4]), 1e-4
    leaf, root = net.layer("leaf"), net.layer("root")
    leaf.blobs[0].copy_(torch.tensor(means).view(4, 1, 1, 1))
    leaf.blobs[1].fill_(spread**-2)
    offsets = log_softmax(root.blobs[1].numpy()[0, 0], axis=1)
    value = 1e7 + 0.7e-4
    x = torch.tensor([value, nan], dtype=torch.float64).view(2, 1, 1, 1)
    tree = Tree(net)
    want = logsumexp(offsets + stats.norm(means, spread).logpdf(value), axis=1)
    np.testing.assert_allclose(likelihood.class_log_likelihood(tree, x)[0], want, atol=1e-3)
    want_p = np.exp(log_softmax(want))
    np.testing.assert_allclose(likelihood.posterior(tree, x)[0], want_p, atol=1e-3)
    leaf.blobs[0].copy_(torch.full((4,), 1e7, dtype=torch.float64).view(4, 1, 1, 1))
    _, deviation = marginals.expected_completion(tree, x)
    assert float(deviation[1]) == pytest.approx(spread, rel=1e-6)


def test_a_model_in_both_precisions(tmp_path: Path) -> None:
    """load(dtype=), and classes told apart where log p is -7e7; impossible evidence refused by scores too."""
    file = tmp_path / "net.prototxt"
    file.write_text(text(one_kind("gaussian")))
    for dtype in (torch.float32, torch.float64):
        model = load(file, dtype=dtype)
        x = torch.tensor([[0.3, nan, 1.0, 2e4]]).view(1, 1, 1, 4)
        assert model.posterior(x).dtype == dtype
        brute = Brute(model.net, x.flatten().double().numpy())
        want = np.exp(log_softmax(brute.scores()))
        np.testing.assert_allclose(model.posterior(x)[0], want, atol=1e-3)
        np.testing.assert_allclose(model.scores(x).double().log_softmax(1).exp()[0], want, atol=1e-3)
        with pytest.raises(DataError, match="the value inf is impossible"):
            model.scores(torch.full((1, 1, 1, 4), float("inf")))
    with pytest.raises(NetspecError, match=r"a model has torch\.float32 or torch\.float64"):
        load(file, dtype=torch.float16)
