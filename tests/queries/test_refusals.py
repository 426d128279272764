"""A net that is no latent tree is refused when a query is made: layer, line, and what to change."""

from __future__ import annotations

import pytest
import torch

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.queries import explain, likelihood, marginals, sampling
from netspec.queries.tree import Tree
from tests.oracle import Level, Model

PLAIN = Model(4, 2, 3, (Level(2, region=1, pool=2), Level(3)))
PADDED = Model(3, 2, 3, (Level(2, pool=2),), pad=1)


def net(text: str, phase: str = "TEST") -> Net:
    ours = make_net(schema.parse_net(text, "net.prototxt"), phase, seed=1)
    return ours.double().requires_grad_(False)


@pytest.mark.parametrize(
    ("model", "old", "new", "message"),
    [
        (PLAIN, "normalization_term: true", "", r":2:\d+: layer 'sim' .*set normalization_term: true"),
        (PLAIN, "ignore_nan_input: true", "", r":2:\d+: layer 'sim' .*set ignore_nan_input: true"),
        (PLAIN, "block_size: 2 stride: 2", "block_size: 2 stride: 1", r":2:\d+: layer 'sim' .*set stride to"),
        (PLAIN, "ignore_nan_input", "normalize_patches: true ignore_nan_input", r":2:\d+: .*normalize_patches"),
        (PADDED, "out_of_bounds_value: nan", "", r":2:\d+: layer 'sim' .*set out_of_bounds_value: nan"),
        (PLAIN, "softmax_mode: true", "", r":3:\d+: layer 'mex0' .*set softmax_mode: true"),
        (PLAIN, "normalize_offsets: true", "", r":3:\d+: layer 'mex0' .*set normalize_offsets: true"),
        (PLAIN, "pool: SUM", "pool: AVE", r":4:\d+: layer 'pool0' .*use pool: SUM"),
        (PLAIN, "kernel_size: 2 stride: 2", "kernel_size: 2 stride: 1", r":4:\d+: layer 'pool0' .*stride equal"),
        (Model(5, 1, 2, (Level(2, pool=2), Level(2, pool=2))), "pool: SUM", "pool: SUM round_mode: FLOOR",
         r":4:\d+: layer 'pool0' .*leaves out 1 of 5 rows.*round_mode: CEIL"),
        (Model(4, 2, 3, (Level(2),)), "", "", r":3:\d+: layer 'mex0' .*class scores need one position"),
    ],
)  # fmt: skip
def test_the_layer_that_breaks_the_tree_is_named(model: Model, old: str, new: str, message: str) -> None:
    text = model.text()
    assert old in text
    with pytest.raises(SpecError, match=r"net\.prototxt" + message):
        Tree(net(text.replace(old, new)))


def test_a_net_in_training_is_refused() -> None:
    with pytest.raises(SpecError, match="queries need the TEST net"):
        Tree(net(PLAIN.text(), "TRAIN"))


def test_weights_below_zero_are_no_gaussians() -> None:
    broken = net(PLAIN.text())
    broken.layer("sim").blobs[1][0, 0, 0, 0] = -1
    with pytest.raises(SpecError, match=r":2:\d+: layer 'sim' .*weights below 0.*min_value: 0"):
        Tree(broken)


def test_without_a_leaf_the_reader_of_the_pixels_is_named() -> None:
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2 } }"""
    with pytest.raises(SpecError, match=r"net\.prototxt:3:\d+: layer 'ip' \(InnerProduct\): .*Similarity"):
        Tree(net(text))


def test_a_weight_of_zero_spoils_no_other_component() -> None:
    """Weights are clipped at 0 in training; with a fudge such a component has a density."""
    changed = net(PLAIN.text().replace("fudge: 0", "fudge: 1e-4"))
    changed.layer("sim").blobs[1][0] = 0
    tree, x = Tree(changed), torch.full((50, 1, 4, 4), torch.nan, dtype=torch.float64)
    assert sampling.complete(tree, x, None, torch.Generator().manual_seed(1)).isfinite().all()
    mean, deviation = marginals.expected_completion(tree, x)
    assert mean.isfinite().all()
    assert deviation.isfinite().all()


def test_bits_of_nothing_are_not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where log p of nothing is not 0 but its rounding error."""
    tree, x = Tree(net(PLAIN.text())), torch.full((2, 1, 4, 4), torch.nan, dtype=torch.float64)
    x[1, 0, 0, 0] = 0.3
    exact = likelihood.log_likelihood
    monkeypatch.setattr(likelihood, "log_likelihood", lambda tree, x: exact(tree, x) + 1e-15)
    assert likelihood.bits_per_dimension(tree, x).isnan().tolist() == [True, False]


def test_contributions_to_a_class_that_is_all_but_impossible() -> None:
    """Its probability rounds to 0; its logarithm does not."""
    changed = net(Model(4, 1, 2, (Level(2, region=1, pool=4),)).text())
    t, w, offsets = (
        changed.layer("sim").blobs[0],
        changed.layer("sim").blobs[1],
        changed.layer("mex0").blobs[1],
    )
    t[0], t[1], w[:] = -1, 1, 100
    offsets[:, 0, 0] = torch.tensor([0.0, -100.0], dtype=torch.float64)
    offsets[:, 0, 1] = torch.tensor([-100.0, 0.0], dtype=torch.float64)
    tree, x = Tree(changed), torch.full((1, 1, 4, 4), -1.0, dtype=torch.float64)
    assert likelihood.posterior(tree, x)[0, 1] == 0
    gain = explain.contributions(tree, x, torch.tensor([1]), size=2)
    torch.testing.assert_close(gain, torch.full_like(gain, -400.0), rtol=1e-6, atol=0)
