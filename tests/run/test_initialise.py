"""Unsupervised initialisation on data whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import Any

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from netspec import schema
from netspec.errors import DataError, SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.run.clusters import spread
from netspec.run.initialise import initialise

CENTRES = torch.tensor([[0.0, 0, 0, 0], [2, 2, 0, 0], [0, 2, -2, 1]])
SPREAD = torch.tensor([[0.1, 0.2, 0.1, 0.2], [0.3, 0.1, 0.1, 0.1], [0.2, 0.2, 0.3, 0.1]])


def net(layers: str, shape: tuple[int, ...]) -> Net:
    dims = " ".join(f"dim: {n}" for n in shape)
    text = f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }} {layers}'
    return make_net(schema.parse_net(text, "test.prototxt"), phase="TRAIN", seed=1)


def similarity(fit: str, more: str = "", block: str = "block_size: 2 stride: 2") -> str:
    return f"""layer {{ name: "s" type: "Similarity" bottom: "x" top: "y" similarity_param {{
        num_instances: 3 {more} weight_filler {{ type: "constant" value: 7 }}
        block_param {{ {block} }} unsupervised_init {{ {fit} }} }} }}"""


def images(seed: int, count: int = 64) -> Callable[[], tuple[Tensor]]:
    """Batches of 4x4 images whose four 2x2 patches are of the three clusters, with odds 1/4, 1/4, 1/2."""
    generator = torch.Generator().manual_seed(seed)

    def following() -> tuple[Tensor]:
        cluster = torch.tensor([0, 1, 2, 2])[torch.randint(4, (count, 2, 2), generator=generator)]
        noise = torch.randn(count, 2, 2, 4, generator=generator)
        patches = (CENTRES[cluster] + SPREAD[cluster] * noise).unflatten(3, (2, 2))
        return (patches.permute(0, 1, 3, 2, 4).reshape(count, 1, 4, 4),)

    return following


def ordered(made: Net) -> tuple[Tensor, list[Tensor]]:
    """Which instance stands for each centre, and the blobs in that order."""
    blobs = [
        blob.detach().flatten(1) if blob.shape[0] > 1 else blob.detach().flatten()
        for blob in made.layer("s").blobs
    ]
    order = torch.cdist(CENTRES, blobs[0]).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    return order, [blob[order] for blob in blobs]


GMM = 'type: "gmm" max_iterations: 4 num_batches: 20 fudge_factor: 1e-4'


@pytest.mark.parametrize("strided", [True, False])
def test_mixture_finds_means_and_precisions(strided: bool) -> None:
    """On the net's own grid of patches, also when it strides."""
    more = "normalization_term: true ignore_nan_input: true bias_term: true"
    block = (
        "block_size: 2 stride: 2" if strided else "block_size: 2 stride: 2 pad: 2 out_of_bounds_value: nan"
    )
    made = net(similarity(GMM, more, block), (64, 1, 4, 4))
    assert initialise(made, images(1), seed=2) == ["s"]
    _, (means, precisions, bias) = ordered(made)
    torch.testing.assert_close(means, CENTRES, rtol=0, atol=0.02)
    torch.testing.assert_close(precisions.rsqrt(), SPREAD, rtol=0.05, atol=0.0)
    torch.testing.assert_close(bias.exp(), torch.tensor([0.25, 0.25, 0.5]), rtol=0.05, atol=0.0)


def test_mixture_without_normalisation_halves_the_precision() -> None:
    made = net(similarity(GMM), (64, 1, 4, 4))
    initialise(made, images(1), seed=2)
    _, (_, weights) = ordered(made)
    torch.testing.assert_close((2 * weights).rsqrt(), SPREAD, rtol=0.05, atol=0.0)


def test_log_space_weights_are_logarithms() -> None:
    plain, logs = (
        net(similarity(GMM, f"normalization_term: true use_log_space_weight_param: {flag}"), (64, 1, 4, 4))
        for flag in ("false", "true")
    )
    for made in (plain, logs):
        initialise(made, images(1), seed=2)
    expected = (
        plain.layer("s").blobs[1] + 1e-3
    ).log()  # normalization_term_fudge is added first, as in the fork
    torch.testing.assert_close(logs.layer("s").blobs[1], expected)


@pytest.mark.parametrize("plus_plus", ["true", "false"])
def test_kmeans_finds_the_centres(plus_plus: str) -> None:
    fit = f'type: "kmeans" max_iterations: 60 use_kmeans_plus_plus: {plus_plus}'
    for seed in range(20):  # random seeds may start two centres in one cluster
        made = net(similarity(fit), (64, 1, 4, 4))
        initialise(made, images(1), seed=seed)
        templates, weights = (blob.detach().flatten(1) for blob in made.layer("s").blobs)
        assert (weights == 7).all()
        if (torch.cdist(CENTRES, templates).amin(1) < 0.05).all():
            return
    raise AssertionError("no start of 20 found the clusters")


def test_kmeans_variance_is_each_clusters_own() -> None:
    fit = 'type: "kmeans" max_iterations: 60 num_batches: 30 use_kmeans_plus_plus: true'
    made = net(
        similarity(f"{fit} use_centroids_variance: true fudge_factor: 0.001", "normalization_term: true"),
        (64, 1, 4, 4),
    )
    initialise(made, images(1), seed=3)
    _, (_, weights) = ordered(made)
    torch.testing.assert_close((1 / weights - 0.001).sqrt(), SPREAD, rtol=0.1, atol=0.0)


def test_same_seed_same_result() -> None:
    weights = []
    for seed in (5, 5, 6):
        made = net(similarity('type: "kmeans" max_iterations: 2'), (64, 1, 4, 4))
        initialise(made, images(1), seed=seed)
        weights.append(made.layer("s").blobs[0].detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_missing_pixels_and_marginalisation_are_left_out() -> None:
    """Patches with NaN take no part, and the Marginalize below drops nothing meanwhile."""
    drop = """layer { name: "drop" type: "Marginalize" bottom: "x" top: "kept"
        marginalize_param { keep_probability: 0 } }"""
    layers = drop + similarity(GMM, "normalization_term: true").replace('bottom: "x"', 'bottom: "kept"')
    made, whole = net(layers, (64, 1, 4, 4)), images(1)

    def holed() -> tuple[Tensor]:
        (x,) = whole()
        x[:, :, 0, 0] = nan
        return (x,)

    initialise(made, holed, seed=2)
    _, (means, _) = ordered(made)
    torch.testing.assert_close(means, CENTRES, rtol=0, atol=0.02)


def test_bounds_hold_afterwards_and_skipped_layers_stay() -> None:
    layers = similarity(GMM, "normalization_term: true").replace(
        'top: "y"', 'top: "y" param { max_value: 1 } param { max_value: 50 }'
    )
    made = net(layers, (64, 1, 4, 4))
    before = [blob.detach().clone() for blob in made.layer("s").blobs]
    assert initialise(made, images(1), skip={"s"}) == []
    assert all(torch.equal(a, b) for a, b in zip(before, made.layer("s").blobs, strict=True))
    initialise(made, images(1), seed=2)
    assert made.layer("s").blobs[0].max() == 1
    assert made.layer("s").blobs[1].max() == 50


def test_too_few_patches_are_an_error() -> None:
    made = net(similarity('type: "kmeans"'), (64, 1, 4, 4))
    with pytest.raises(DataError, match="fewer than 3 distinct"):
        initialise(made, lambda: (torch.zeros(64, 1, 4, 4),))


# PCA of Convolution


def convolution(fit: str, filters: int = 4, more: str = "") -> str:
    return f"""layer {{ name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {{
        num_output: {filters} kernel_size: 2 stride: 2 {more}
        unsupervised_init {{ type: "pca" num_batches: 20 {fit} }} }} }}"""


def all_patches(batches: int) -> Tensor:
    following = images(1)
    x = torch.cat([following()[0] for _ in range(2 * batches)][batches:])
    return torch.nn.functional.unfold(x, 2, stride=2).transpose(1, 2).flatten(0, 1)


def test_pca_is_that_of_the_patches() -> None:
    made = net(convolution("apply_whitening: false"), (64, 1, 4, 4))
    initialise(made, images(1))
    rows = made.layer("c").blobs[0].detach().flatten(1)
    theirs = torch.from_numpy(PCA(4).fit(all_patches(20).numpy()).components_)
    torch.testing.assert_close((rows * theirs).sum(1).abs(), torch.ones(4), rtol=0, atol=2e-3)


@pytest.mark.parametrize("zca", ["true", "false"])
def test_whitened_filters_give_unit_covariance(zca: str) -> None:
    made = net(convolution(f"fudge_factor: 0 zca_whitening: {zca}"), (64, 1, 4, 4))
    initialise(made, images(1))
    following = images(9)
    with torch.no_grad():
        y = torch.cat([made(*following())[0] for _ in range(100)]).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(y.t().cov(), torch.eye(4), rtol=0, atol=0.05)
    torch.testing.assert_close(y.mean(0), torch.zeros(4), rtol=0, atol=0.05)
    if zca == "true":
        filters = made.layer("c").blobs[0].detach().flatten(1)
        torch.testing.assert_close(filters, filters.t())


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (convolution("", 5), "at most 4 filters, not 5"),
        (convolution("zca_whitening: true", 3), "just 4 filters, not 3"),
        (convolution("", 4, "bias_term: false"), "needs bias_term"),
        (convolution("").replace('"pca"', '"ica"'), "knows no unsupervised_init of type 'ica'"),
    ],
)
def test_what_pca_cannot_do_is_named(layers: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        initialise(net(layers, (64, 1, 4, 4)), images(1))


def test_a_cluster_of_one_patch_has_the_spread_of_all() -> None:
    """One patch says nothing of its spread, which would be 0; the fork divides all by one number, less 1."""
    centres = torch.tensor([[0.0], [100.0]])
    stream: Any = lambda: torch.tensor([[-1.0], [1.0], [3.0], [102.0]])  # noqa: E731
    own, overall = (1 + 1 + 9) / 3, (1 + 1 + 9 + 4) / 4
    torch.testing.assert_close(spread(stream, centres, 1, False), torch.tensor([[own], [overall]]))
    torch.testing.assert_close(spread(stream, centres, 2, False), torch.tensor([[own], [4.0]]))
    torch.testing.assert_close(spread(stream, centres, 1, True), torch.tensor([[11 / 3], [4 / 3]]))
