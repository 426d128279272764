"""Initialisation from data with holes: clusters of the true parameters, what is unknown said and completed as NaN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import DataError
from netspec.layers.simnets.latent_tree import LatentTree
from netspec.net.graph import compile
from netspec.net.net import Net, build
from netspec.queries import likelihood, marginals, most_probable, sampling
from netspec.queries.tree import Tree
from netspec.run import clusters
from netspec.run.initialise import initialise
from netspec.run.leaf_learning import mutual_information
from netspec.schema import spec

nan = float("nan")
COLUMNS = 30
INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 200 dim: %s } } }'
HEAD = INPUT % f"{COLUMNS} dim: 1 dim: 1"
TOP = """layer { name: "root" type: "MEX" bottom: "leaf" top: "root" mex_param { num_instances: 2
  block_param { block_size: 1 } softmax_mode: true normalize_offsets: true offsets_filler { type: "gaussian" } } }"""


def similarity(fit: str, more: str = "") -> str:
    return f"""layer {{ name: "leaf" type: "Similarity" bottom: "x" top: "leaf" similarity_param {{ num_instances: 2
        block_param {{ block_size: 1 stride: 1 }} normalization_term: true ignore_nan_input: true {more}
        template_filler {{ type: "gaussian" std: 50 }} weight_filler {{ type: "constant" value: 1 }}
        unsupervised_init {{ {fit} }} }} }}"""


def net_of(text: str, phase: str = "TEST") -> Net:
    return build(compile(spec.net(schema.parse_net(text, "holes.prototxt"), phase)), seed=1)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer mini-batches for the centres that a mixture starts from: these data need no more."""
    monkeypatch.setattr(clusters, "KMEANS_BATCHES", 60)


MEANS = torch.linspace(-2, 2, COLUMNS).repeat(2, 1) * torch.tensor([[1.0], [-1.0]])


def rows(
    shift: float = 0.0, empty: int | None = None, share: float = 0.2, scale: float = 0.5
) -> Callable[[], tuple[Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def following() -> tuple[Tensor]:
        cluster = torch.randint(2, (200,), generator=generator)
        x = shift + scale * (
            2 * MEANS[cluster].double() + torch.randn(200, COLUMNS, generator=generator).double()
        )
        x[torch.rand(x.shape, generator=generator) < share] = nan
        if empty is not None:
            x[:, empty] = nan
        return (x.view(200, COLUMNS, 1, 1),)

    return following


FITS = {
    "kmeans": 'type: "kmeans" max_iterations: 60 num_batches: 20 use_kmeans_plus_plus: true '
    "use_centroids_variance: true fudge_factor: 1e-12",
    "gmm": 'type: "gmm" max_iterations: 3 num_batches: 20 fudge_factor: 1e-12',
}


@pytest.mark.parametrize("fit", list(FITS))
@pytest.mark.parametrize("log", ["true", "false"])
def test_a_fifth_of_the_cells_missing_and_a_column_empty(fit: str, log: str) -> None:
    net = net_of(HEAD + similarity(FITS[fit], f"use_log_space_weight_param: {log}") + TOP)
    said: list[str] = []
    initialise(net, rows(empty=7), seed=1, progress=said.append)
    whole = "\n".join(said)
    assert "learned from" in whole
    assert "of them incomplete" in whole
    assert "never observed: value 7 of a patch; completions there are unknown (NaN)" in whole
    templates, weights = (blob.detach().flatten(1).double() for blob in net.layer("leaf").blobs)
    order = [0, 1] if templates[0, 0] < 0 else [1, 0]
    seen = torch.arange(COLUMNS) != 7
    torch.testing.assert_close(templates[order][:, seen], MEANS.double()[:, seen], rtol=0, atol=0.08)
    deviations = weights.exp().rsqrt() if log == "true" else weights.rsqrt()
    torch.testing.assert_close(deviations[:, seen], torch.full((2, 29), 0.5).double(), rtol=0.1, atol=0)
    (x,) = rows(empty=7)()
    tree, x = Tree(net.requires_grad_(False)), x[:5].float()
    mean, deviation = marginals.expected_completion(tree, x)
    for completed in (
        mean,
        deviation,
        most_probable.most_probable_completion(tree, x),
        sampling.complete(tree, x),
    ):
        assert bool(completed[:, 7].isnan().all())
        assert bool(completed[:, seen].isfinite().all())
    told = x.clone()
    told[:, 7] = 3.0  # a value where nothing is known says nothing
    torch.testing.assert_close(
        likelihood.posterior(tree, told), likelihood.posterior(tree, x), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("fit", list(FITS))
@pytest.mark.parametrize(("shift", "scale"), [(1e4, 0.05), (-1e9, 10.0), (0.0, 1e-4)])
def test_values_far_from_0_beside_their_spread(fit: str, shift: float, scale: float) -> None:
    net = net_of(HEAD + similarity(FITS[fit], "use_log_space_weight_param: true") + TOP).double()
    initialise(net, rows(shift=shift, scale=scale), seed=1)
    templates = net.layer("leaf").blobs[0].detach().flatten(1)
    want = shift + 2 * scale * MEANS.double()
    order = [0, 1] if templates[0, 0] < templates[1, 0] else [1, 0]
    torch.testing.assert_close(templates[order], want, rtol=0, atol=0.2 * scale)
    tree = Tree(net.requires_grad_(False))
    (x,) = rows(shift=shift, scale=scale)()
    _, deviation = marginals.expected_completion(tree, x[:50])
    missing = x[:50].isnan()
    torch.testing.assert_close(
        deviation[missing], torch.full_like(deviation[missing], scale), rtol=0.15, atol=0
    )


def test_patches_without_any_value_are_no_help() -> None:
    net = net_of(HEAD + similarity(FITS["kmeans"]) + TOP)
    with pytest.raises(DataError, match="needs patches with an observed value; 20000 in a row are none"):
        initialise(net, lambda: (torch.full((200, COLUMNS, 1, 1), nan),))


def leaves(
    kind: str, fit: str, columns: int = COLUMNS, tree: str = 'unsupervised_init { type: "chow_liu" }'
) -> str:
    return f"""{INPUT % f"1 dim: 1 dim: {columns}"}
        layer {{ name: "leaf" type: "Leaves" bottom: "x" top: "leaf" leaves_param {{ num_instances: 2 {fit}
          distribution {{ kind: {kind} }} }} }}
        layer {{ name: "tree" type: "LatentTree" bottom: "leaf" top: "tree" latent_tree_param {{ {tree} }} }}
        layer {{ name: "root" type: "MEX" bottom: "tree" top: "root" mex_param {{ num_instances: 1
          block_param {{ block_size: 1 }} softmax_mode: true normalize_offsets: true }} }}"""


ROWS = 'radius: -1 unsupervised_init { type: "neighbourhood" max_iterations: 10 num_batches: 10 }'


@pytest.mark.parametrize("kind", ['"gaussian"', '"student_t"'])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_leaves_learn_from_rows_with_holes(kind: str, shift: float) -> None:
    net = net_of(leaves(kind, ROWS)).double()
    said: list[str] = []
    of = rows(shift=shift, empty=7)
    initialise(net, lambda: (of()[0].view(200, 1, 1, COLUMNS),), seed=1, progress=said.append)
    assert "learned from 2000 images, 2000 of them with missing values" in "\n".join(said)
    assert "never observed: column 7; completions there are unknown (NaN)" in "\n".join(said)
    blobs = [blob.detach() for blob in net.layer("leaf").blobs]
    seen = torch.arange(COLUMNS) != 7
    assert blobs[0].flatten().tolist() == seen.double().tolist()
    location = blobs[1][:, :, 0].t() - shift
    order = [0, 1] if location[0, 0] < 0 else [1, 0]
    torch.testing.assert_close(location[order][:, seen], MEANS.double()[:, seen], rtol=0, atol=0.1)
    if kind == '"gaussian"':
        torch.testing.assert_close(
            blobs[2][seen].exp(), torch.full((29, 2, 1), 0.5).double(), rtol=0.1, atol=0
        )
    tree, x = Tree(net.requires_grad_(False)), of()[0][:5].view(5, 1, 1, COLUMNS)
    mean, _ = marginals.expected_completion(tree, x)
    assert bool(mean[..., 7].isnan().all())
    assert bool(mean[..., seen].isfinite().all())


def chain(n: int, missing: float) -> Tensor:
    """Four levels that walk along columns 3, 1, 0, 2, 4."""
    random = np.random.default_rng(0)
    table = np.zeros((n, 5))
    table[:, 3] = random.integers(0, 4, n)
    for before, after in ((3, 1), (1, 0), (0, 2), (2, 4)):
        table[:, after] = np.where(random.random(n) < 0.7, table[:, before], random.integers(0, 4, n))
    table[random.random(table.shape) < missing] = nan
    return torch.tensor(table).view(n, 1, 1, 5)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_tree_is_that_of_mutual_information(missing: float) -> None:
    net = net_of(leaves('"categorical" levels: 4', ROWS.replace("num_batches: 10", "num_batches: 1"), 5))
    initialise(net, lambda: (chain(4000, missing).float(),), seed=1)
    tree = net.layer("tree")
    assert isinstance(tree, LatentTree)
    edges = {tuple(sorted((i, parent))) for i, parent in enumerate(tree.parents) if parent >= 0}
    assert edges == {(1, 3), (0, 1), (0, 2), (2, 4)}
    assert tree.parents[0] == -1  # the middle of the chain


def test_mutual_information_of_dependent_and_independent_columns() -> None:
    x = chain(20000, 0.2).view(-1, 5).t().unsqueeze(2)
    nats = mutual_information(x)
    joint = 0.7 * np.eye(4) / 4 + 0.3 / 16
    want = float((joint * np.log(joint * 16)).sum())
    assert float(nats[3, 1]) == pytest.approx(want, rel=0.05)
    x[4] = torch.randint(0, 4, x[4].shape, generator=torch.Generator().manual_seed(1)).double()
    assert float(mutual_information(x)[3, 4]) < 1e-3


VALUES = {
    "discretised_logistic": ('"discretised_logistic" levels: 10', 9),
    "categorical": ('"categorical" levels: 10', 9),
    "binomial": ('"binomial" levels: 10', 9),
    "bernoulli": ('"bernoulli"', 1),
    "poisson": ('"poisson"', 9),
    "gaussian": ('"gaussian"', 9),
}


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize(
    "fit",
    [
        ROWS,
        'unsupervised_init { type: "kmeans" max_iterations: 5 num_batches: 3 }',
        'shared: true unsupervised_init { type: "kmeans" max_iterations: 5 num_batches: 3 }',
    ],
    ids=["rows", "kmeans", "shared"],
)
def test_every_kind_learns_the_columns_of_its_data(kind: str, fit: str) -> None:
    """The mean that is expected of a missing column is that of the data, whatever the clusters are."""
    written, top = VALUES[kind]
    net = net_of(leaves(written, fit, 4, tree="unsupervised_init { }"))
    random = np.random.default_rng(1)
    x = random.binomial(top, [0.1, 0.5, 0.8, 0.5], size=(400, 4)).astype(np.float32)
    mean = x.mean(0)
    x[random.random(x.shape) < 0.3] = nan
    x[:, 3] = nan
    initialise(net, lambda: (torch.from_numpy(x).view(400, 1, 1, 4),), seed=1)
    tree = Tree(net.requires_grad_(False))
    expected, _ = marginals.expected_completion(tree, torch.full((1, 1, 1, 4), nan))
    assert bool(expected[..., 3].isnan().all())
    if "shared" not in fit:
        # Clusters of rows that hold the missing column themselves are a little biased; training mends it.
        np.testing.assert_allclose(expected[0, 0, 0, :3], mean[:3], atol=0.05 * top + 0.12)
    assert bool(likelihood.log_likelihood(tree, torch.from_numpy(x).view(400, 1, 1, 4)).isfinite().all())
