"""Queries on the original's nets, with their norm, tile and mask layers, against the original and enumeration."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from netspec import schema
from netspec.errors import SpecError
from netspec.model import model
from netspec.net.graph import compile
from netspec.net.net import Net, build
from netspec.queries.likelihood import class_log_likelihood, log_likelihood
from netspec.queries.marginals import expected_completion, marginals
from netspec.queries.most_probable import most_probable_states
from netspec.queries.sampling import complete
from netspec.queries.tree import Tree
from netspec.schema import spec
from tests.oracle import Enumeration, Level, Model
from tests.places import GOLDEN

FIXED = "param { lr_mult: 0 } param { lr_mult: 0 }"
PLAIN = Model(4, 2, 3, (Level(2, region=1, pool=2), Level(3)))


def mask(name: str, below: str, top: str, channels: int, side: int, nan: bool = False) -> str:
    """A mask of ones as the original writes it: drawn, made NaN or not, tiled, added or multiplied."""
    power = "power_param { power: 0.5 shift: -1 }" if nan else ""
    return f"""
        layer {{ name: "{name}_mask" type: "DummyData" top: "{name}_mask" dummy_data_param {{
          data_filler {{ type: "constant" value: 1 }} shape {{ dim: 3 dim: 1 dim: {side} dim: {side} }} }} }}
        layer {{ name: "{name}_nan" type: "Power" bottom: "{name}_mask" top: "{name}_nan" {power} }}
        layer {{ name: "{name}_tile" type: "Tile" bottom: "{name}_nan" top: "{name}_tile"
                 tile_param {{ axis: 1 tiles: {channels} }} }}
        layer {{ name: "{name}" type: "Eltwise" bottom: "{below}" bottom: "{name}_tile" top: "{top}"
                 eltwise_param {{ operation: {"SUM" if nan else "PROD"} }} }}"""


def norm(name: str, below: str, top: str, channels: int) -> str:
    """log-sum-exp over the channels, tiled, taken off."""
    return f"""
        layer {{ name: "{name}" type: "MEX" bottom: "{below}" top: "{name}" {FIXED} mex_param {{
          num_instances: 1 softmax_mode: true block_param {{ block_size: 1 }}
          offsets_filler {{ type: "constant" }} }} }}
        layer {{ name: "{name}_tile" type: "Tile" bottom: "{name}" top: "{name}_tile"
                 tile_param {{ axis: 1 tiles: {channels} }} }}
        layer {{ name: "{name}_off" type: "Eltwise" bottom: "{below}" bottom: "{name}_tile" top: "{top}"
                 eltwise_param {{ operation: SUM coeff: 1 coeff: -1 }} }}"""


def helped(middle: str = "", scores_of: str = "back") -> str:
    """PLAIN in the manner of the original: mask pixels and activations, norm before each MEX, add it back once."""
    layers = re.split(r"\n(?=layer)", PLAIN.text())
    data, sim, mex0, pool0, mex1 = layers
    return "\n".join([
        data, mask("rm0", "x", "rm0", 1, 4, nan=True), sim.replace('bottom: "x"', 'bottom: "rm0"'),
        mask("rm1", "sim", "rm1", 3, 2), norm("n0", "rm1", "s0", 3), mex0.replace('bottom: "sim"', 'bottom: "s0"'),
        pool0, middle,
        """layer { name: "n0_pool" type: "Pooling" bottom: "n0" top: "n0_pool"
             pooling_param { pool: SUM kernel_size: 2 stride: 2 } }
           layer { name: "n0_back" type: "Tile" bottom: "n0_pool" top: "n0_back" tile_param { axis: 1 tiles: 2 } }
           layer { name: "back" type: "Eltwise" bottom: "pool0" bottom: "n0_back" top: "back" }""",
        norm("n1", scores_of, "s1", 2), mex1.replace('bottom: "pool0"', 'bottom: "s1"'),
        f"""layer {{ name: "whole" type: "Pooling" bottom: "mex1" top: "whole"
             pooling_param {{ pool: SUM global_pooling: true }} }}
           layer {{ name: "prob" type: "MEX" bottom: "whole" top: "prob" {FIXED} mex_param {{
             num_instances: 1 softmax_mode: true normalize_offsets: true block_param {{ block_size: 1 }}
             offsets_filler {{ type: "constant" }} }} }}
           layer {{ name: "likelihood" type: "Eltwise" bottom: "prob" bottom: "n1" top: "likelihood" }}""",
    ])  # fmt: skip


def made(text: str, seed: int = 3) -> Net:
    net = build(compile(spec.net(schema.parse_net(text, "original.prototxt"), "TEST")), seed=seed).double()
    return net.requires_grad_(False)


def copied(net: Net, plain: Net) -> Net:
    for name in ("sim", "mex0", "mex1"):
        for ours, theirs in zip(net.layer(name).blobs, plain.layer(name).blobs, strict=True):
            ours.copy_(theirs)
        net.layer(name).fill((), torch.Generator())
    return net


def test_helper_layers_are_seen_through() -> None:
    plain = PLAIN.net(5).requires_grad_(False)
    with torch.no_grad():
        net = copied(made(helped()), plain)
    tree = Tree(net)
    assert tree.names == ["sim", "mex0", "pool0", "mex1", "whole"]
    image = np.random.default_rng(5).normal(size=(1, 4, 4))
    image[0, :2, 1:] = np.nan
    x = torch.from_numpy(image)[None]
    oracle = Enumeration(PLAIN, plain, image)
    same = {"rtol": 0, "atol": 1e-10}
    scores = torch.from_numpy(np.asarray(oracle.class_log_likelihood()))
    torch.testing.assert_close(class_log_likelihood(tree, x)[0], scores, **same)
    values = dict(zip(tree.names, marginals(tree, x), strict=True))
    for name, level, states in (("sim", 0, 3), ("pool0", 1, 2)):
        wanted = torch.from_numpy(np.asarray(oracle.marginal(level, states, oracle.posterior)))
        torch.testing.assert_close(values[name][0], wanted, **same)
    states, best = most_probable_states(tree, x)
    assert float(best[0]) == pytest.approx(float(oracle.log_mode.max()), abs=1e-10)
    first, _ = oracle.moments(oracle.posterior)
    missing = np.isnan(image)
    np.testing.assert_allclose(
        expected_completion(tree, x)[0][0].numpy()[missing], first[missing], atol=1e-10
    )
    assert not complete(tree, x, None, torch.Generator().manual_seed(1)).isnan().any()
    # The net itself says the same, as its makers wrote it.
    outputs = net.outputs(net(x.repeat(3, 1, 1, 1)))
    torch.testing.assert_close(outputs["likelihood"].flatten()[:1], log_likelihood(tree, x), **same)


def spread(normalised: bool) -> str:
    """The norm of pool0 through two mixtures, one for each channel, added to pool0."""
    return f"""
        layer {{ name: "n9" type: "MEX" bottom: "pool0" top: "n9" {FIXED} mex_param {{
          num_instances: 1 softmax_mode: true block_param {{ block_size: 1 }}
          offsets_filler {{ type: "constant" }} }} }}
        layer {{ name: "two" type: "MEX" bottom: "n9" top: "two" mex_param {{
          num_instances: 2 softmax_mode: true normalize_offsets: {str(normalised).lower()}
          block_param {{ block_size: 1 }} offsets_filler {{ type: "gaussian" std: 1 }} }} }}
        layer {{ name: "moved" type: "Eltwise" bottom: "pool0" bottom: "two" top: "moved" }}"""


@pytest.mark.parametrize(
    ("middle", "reads", "words"),
    [
        ('layer { name: "half" type: "Power" bottom: "pool0" top: "half" power_param { scale: 0.5 } }', "half",
         r"'half' \(Power\): reads 'pool0'"),
        ('layer { name: "twice" type: "Eltwise" bottom: "pool0" bottom: "pool0" top: "twice" }', "twice",
         r"'twice' \(Eltwise\): reads 'pool0'"),
        (mask("rm2", "pool0", "rm2", 2, 1).replace('"constant" value: 1', '"bernoulli"'), "rm2",
         r"'rm2' \(Eltwise\): reads 'pool0'"),
        (spread(normalised=False), "moved", r"'moved' \(Eltwise\): reads 'pool0'"),
    ],
)  # fmt: skip
def test_what_changes_activations_otherwise_is_named(middle: str, reads: str, words: str) -> None:
    with pytest.raises(SpecError, match=rf"original.prototxt:\d+:\d+: layer {words}"):
        Tree(made(helped(middle, reads)))


def test_normalised_mixtures_of_a_common_term_leave_it_common() -> None:
    assert Tree(made(helped(spread(normalised=True), "moved"))).names[-1] == "whole"


def test_two_tops_of_a_tree_are_no_tree() -> None:
    other = PLAIN.text().split("\n")[-1].replace('"mex1"', '"other"')
    with pytest.raises(SpecError, match=r"layer '(mex1|other)' .*is no part of a latent tree"):
        Tree(made(f"{PLAIN.text()}\n{other}"))


@pytest.mark.parametrize("name", ["net_htcac_small", "net_gcp_small"])
def test_the_originals_own_nets(name: str, tmp_path: Path) -> None:
    path = GOLDEN / f"simnets__{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there; NETSPEC_GOLDEN names the folder of golden vectors")
    with np.load(path) as archive:
        golden = {key: archive[key] for key in archive.files if key not in ("meta", "prototxt")}
        text = str(archive["prototxt"]).replace("phase: TRAIN", "phase: TEST")
    text = text[text.index("layer {", text.index('name: "label"')) :]
    file = tmp_path / f"{name}.prototxt"
    file.write_text(
        """layer { name: "data" type: "Input" top: "data" top: "label" input_param {
             shape { dim: 4 dim: 1 dim: 28 dim: 28 } shape { dim: 4 } } }
        """
        + text
    )
    net = build(compile(spec.net(schema.read_net(file), "TEST")), seed=1).requires_grad_(False)
    layers = sorted({key.split("/")[1] for key in golden if key.startswith("param/")})
    for layer in layers:
        for j, blob in enumerate(net.layer(layer).blobs):
            blob.copy_(torch.from_numpy(golden[f"param/{layer}/{j}"]))
        net.layer(layer).fill((), torch.Generator())
    tree = Tree(net)
    x = torch.from_numpy(golden["in/data"])
    wanted = torch.from_numpy(golden["blob/unnormalized" if "ht" in name else "blob/final_layer"]).flatten(1)
    if "ht" in name:
        wanted = wanted + torch.from_numpy(golden["blob/total_norm"]).flatten(1)
    torch.testing.assert_close(class_log_likelihood(tree, x), wanted, rtol=1e-5, atol=1e-3)
    total = torch.from_numpy(golden["blob/likelihood"]).flatten()
    torch.testing.assert_close(log_likelihood(tree, x), total, rtol=1e-5, atol=1e-3)
    # As a user asks it: from the file, any number of images, whatever batch the masks were made for.
    loaded = model.load(file, net.weights())
    assert loaded.tree.names == tree.names
    half = x[:3].clone()
    half[:, :, ::2] = torch.nan
    assert torch.equal(loaded.posterior(half).argmax(1), loaded.predict(half))
    assert not loaded.complete(half, seed=1).isnan().any()
