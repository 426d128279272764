"""Similarity and MEX against plain loops, at the edges of their range; short nets against the original's."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from math import ceil, exp, inf, log, nan, pi
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.interchange.onnx import program_of, to_onnx
from netspec.layers.base import Layer, as_tuple
from netspec.layers.simnets.distributions import Poisson
from netspec.layers.simnets.logsumexp import extremum, log_sum_exp, product
from netspec.layers.simnets.marginalize import Marginalize
from netspec.net.compiling import compile_net
from netspec.net.make import make_net
from netspec.net.net import Net
from tests.places import GOLDEN, NETS


def net(text: str, phase: str = "TRAIN", seed: int = 1) -> Net:
    return make_net(schema.parse_net(text, "test.prototxt"), phase, seed=seed)


def single(kind: str, field: str, options: str, shape: tuple[int, ...]) -> Net:
    dims = " ".join(f"dim: {n}" for n in shape)
    return net(
        f"""layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
            layer {{ name: "layer" type: "{kind}" bottom: "x" top: "y" {field} {{ {options} }} }}"""
    ).double()


# Plain loops over one sample


def loop_patches(x: np.ndarray, block: Mapping[str, Any], round_up: bool) -> np.ndarray:
    """(c, h, w, K) of one (C, H, W) array, cell by cell."""
    size, stride, pad, outside = block["size"], block["stride"], block["pad"], block["outside"]
    grid = []
    for n, k, s, p in zip(x.shape, size, stride, pad, strict=True):
        room = n + 2 * p - k
        grid.append((ceil(room / s) if round_up else room // s) + 1)
    out = np.empty((*grid, int(np.prod(size))))
    for cell in np.ndindex(*grid):
        values = []
        for offset in np.ndindex(*size):
            at = [i * s - p + d for i, s, p, d in zip(cell, stride, pad, offset, strict=True)]
            inside = all(0 <= a < n for a, n in zip(at, x.shape, strict=True))
            values.append(x[tuple(at)] if inside else outside)
        out[cell] = values
    return out


@st.composite
def blocks(draw: st.DrawFn) -> tuple[tuple[int, int, int], dict[str, Any], str]:
    """(shape of a blob, block geometry, the same as text)."""
    shape = tuple(draw(st.integers(1, 5)) for _ in range(3))
    pad = tuple(draw(st.integers(0, 2)) for _ in range(3))
    size = tuple(draw(st.integers(1, n)) for n in shape)
    stride = tuple(draw(st.integers(1, 3)) for _ in range(3))
    outside = draw(st.sampled_from([0.0, -1.5]))
    text = (
        f"block_param {{ block_c: {size[0]} block_h: {size[1]} block_w: {size[2]} stride_c: {stride[0]} "
        f"stride_h: {stride[1]} stride_w: {stride[2]} pad_c: {pad[0]} pad_h: {pad[1]} pad_w: {pad[2]} "
        f"out_of_bounds_value: {outside} "
    )
    return shape, {"size": size, "stride": stride, "pad": pad, "outside": outside}, text


quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(blocks(), st.booleans())
def test_similarity_is_the_loop(case: tuple[Any, ...], missing: bool) -> None:
    shape, block, text = case
    layer_net = single(
        "Similarity",
        "similarity_param",
        'num_instances: 3 template_filler { type: "gaussian" std: 1 } '
        'weight_filler { type: "uniform" min: 0.5 max: 3 } '
        f"normalization_term: true normalization_term_fudge: 0.01 ignore_nan_input: true {text} }}",
        (2, *shape),
    )
    generator = torch.Generator().manual_seed(3)
    x = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    if missing:
        x[torch.rand(x.shape, generator=generator) < 0.4] = nan
    t, w = (blob.detach().flatten(1).numpy() for blob in layer_net.layer("layer").blobs)
    (y,) = layer_net(x)
    for sample, ours in zip(x.numpy(), y.detach().numpy(), strict=True):
        patches = loop_patches(sample, block, False)
        expected = np.zeros((3, *patches.shape[:3]))
        for m, *cell in np.ndindex(3, *patches.shape[:3]):
            for k, value in enumerate(patches[tuple(cell)]):
                if not np.isnan(value):
                    density = -w[m, k] * (t[m, k] - value) ** 2 + log(w[m, k] + 0.01) - log(2 * pi)
                    expected[(m, *cell)] += 0.5 * density
        np.testing.assert_allclose(ours.reshape(expected.shape), expected, rtol=1e-9, atol=1e-9)


@quick
@given(
    blocks(),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1.0, 0.5, -2.0]),
)
def test_mex_is_the_loop(
    case: tuple[Any, ...],
    region: tuple[int, ...],
    unshared: bool,
    softmax: bool,
    normalised: bool,
    eps: float,
) -> None:
    shape, block, text = case
    kind = "unshared_offsets_region" if unshared else "shared_offsets_region"
    layer_net = single(
        "MEX",
        "mex_param",
        f'num_instances: 2 epsilon_filler {{ type: "constant" value: {eps} }} '
        'offsets_filler { type: "gaussian" std: 1 } '
        f"softmax_mode: {str(softmax).lower()} normalize_offsets: {str(normalised).lower()} "
        f"use_unshared_regions: {str(unshared).lower()} {kind}_c: {region[0]} {kind}_h: {region[1]} "
        f"{kind}_w: {region[2]} {text} round_down: false }}",
        (2, *shape),
    )
    x = torch.randn((2, *shape), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    blob = layer_net.layer("layer").blobs[1].detach().numpy()[:, 0]
    share = 0.0 if softmax else -log(blob.shape[2])
    if normalised:
        blob = blob - np.log(np.exp(eps * blob + share).sum(-1, keepdims=True)) / eps
    (y,) = layer_net(x)
    for sample, ours in zip(x.numpy(), y.detach().numpy(), strict=True):
        patches = loop_patches(sample, block, True)
        grid = patches.shape[:3]
        sizes = [min(r, n) for r, n in zip(region, grid, strict=True)]
        counts = sizes if unshared else [ceil(n / s) for n, s in zip(grid, sizes, strict=True)]
        expected = np.zeros((2, *grid))
        for m, *cell in np.ndindex(2, *grid):
            at = [i % s if unshared else i // s for i, s in zip(cell, sizes, strict=True)]
            row = blob[(at[0] * counts[1] + at[1]) * counts[2] + at[2], m]
            total = sum(exp(eps * (v + b) + share) for v, b in zip(patches[tuple(cell)], row, strict=True))
            expected[(m, *cell)] = log(total) / eps
        np.testing.assert_allclose(ours.reshape(expected.shape), expected, rtol=1e-9, atol=1e-9)


# The edges of the range


def exact(x: Tensor, b: Tensor, normalise: bool, log_k: float = 0.0) -> Tensor:
    if normalise:
        b = b - (log_sum_exp(b) - log_k).unsqueeze(-1)
    return log_sum_exp(x.unsqueeze(2) + b.unsqueeze(1)) - log_k


@pytest.mark.parametrize("log_k", [0.0, log(5)])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("spread", [1.0, 40.0, 300.0])
def test_product_is_exact_far_below_the_smallest_float(spread: float, normalise: bool, log_k: float) -> None:
    """Entries e^-300 and less beside the best, which underflow in the product, are mended; gradients too."""
    generator = torch.Generator().manual_seed(1)
    x = (spread * torch.randn(2, 6, 5, generator=generator)).requires_grad_()
    b = (spread * torch.randn(2, 4, 5, generator=generator)).requires_grad_()
    direction = torch.randn(2, 6, 4, generator=generator)
    ours = product(x, b, normalise, log_k)
    theirs = exact(x.double(), b.double(), normalise, log_k)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-4)
    mine = torch.autograd.grad(ours, [x, b], direction)
    oracle = torch.autograd.grad(theirs, [x, b], direction.double())
    for one, other in zip(mine, oracle, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spread", [1.0, 40.0, 300.0])
def test_compiled_product_keeps_the_best_instance_and_finite_gradients(spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (spread * torch.randn(2, 6, 5, generator=generator)).requires_grad_()
    b = (spread * torch.randn(2, 4, 5, generator=generator)).requires_grad_()
    compiled = torch.compile(product, fullgraph=True, backend="aot_eager")
    ours, theirs = compiled(x, b, False), exact(x.double(), b.double(), False).float()
    best = theirs.amax(2, keepdim=True)
    torch.testing.assert_close(ours.amax(2, keepdim=True), best, rtol=1e-5, atol=1e-4)
    near = theirs > best - 80
    torch.testing.assert_close(ours[near], theirs[near], rtol=1e-5, atol=1e-4)
    assert ((ours - best)[~near] < -70).all()
    for gradient in torch.autograd.grad(ours.sum(), [x, b]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("compiled", [False, True])
def test_product_with_infinities_and_nan(compiled: bool) -> None:
    x = torch.zeros(1, 4, 3)
    x[0, 0] = -inf  # nothing possible: -inf, without a gradient
    x[0, 1, 0] = -inf  # one value out
    x[0, 2, 1] = nan  # its cell only
    b = torch.zeros(1, 2, 3)
    b[0, :, 2] = -inf  # a value that no instance takes
    x, b = x.requires_grad_(), b.requires_grad_()
    run = torch.compile(product, fullgraph=True, backend="aot_eager") if compiled else product
    y = run(x, b, False)
    expected = torch.tensor([-inf, 0.0, nan, log(2)])
    torch.testing.assert_close(y[0, :, 0], expected, equal_nan=True)
    gradient = torch.autograd.grad(y[0, [0, 1, 3]].sum(), x)[0]
    torch.testing.assert_close(
        gradient[0, [0, 1, 3]], torch.tensor([[0, 0, 0], [0, 2, 0], [1, 1, 0]]).float()
    )


def test_extremum_gives_every_tie_the_gradient() -> None:
    z = torch.tensor([1.0, 3.0, 3.0], requires_grad=True)
    assert extremum(z, True, False) == 3
    torch.testing.assert_close(
        torch.autograd.grad(extremum(z, True, False), z)[0], torch.tensor([0.0, 1.0, 1.0])
    )


MEX = 'num_instances: 2 block_param { block_size: 1 } offsets_filler { type: "gaussian" std: 1 }'


def test_epsilon_zero_is_the_limit() -> None:
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    for options in (MEX, f"{MEX} normalize_offsets: true"):
        at_zero = single(
            "MEX", "mex_param", f'{options} epsilon_filler {{ type: "constant" value: 0 }}', (1, 4, 2, 2)
        )
        near = single(
            "MEX", "mex_param", f'{options} epsilon_filler {{ type: "constant" value: 1e-7 }}', (1, 4, 2, 2)
        )
        torch.testing.assert_close(at_zero(x)[0], near(x)[0], rtol=1e-5, atol=1e-5)


def test_large_epsilon_approaches_the_maximum() -> None:
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    for value, big in ((inf, 1e6), (-inf, -1e6)):
        limit, near = (
            single(
                "MEX", "mex_param", f'{MEX} epsilon_filler {{ type: "constant" value: {v} }}', (1, 4, 2, 2)
            )
            for v in (value, big)
        )
        torch.testing.assert_close(limit(x)[0], near(x)[0], rtol=1e-4, atol=1e-4)


def test_epsilon_read_from_a_file_counts() -> None:
    """Weights that change epsilon from 1 to infinity make the layer a maximum."""
    one = single("MEX", "mex_param", MEX, (1, 4, 2, 2))
    one.load_weights({"layer/0": torch.full((1, 1, 1, 1), inf, dtype=torch.float64)})
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    z = x.movedim(1, -1).unsqueeze(-2) + one.layer("layer").blobs[1][0, 0]
    torch.testing.assert_close(one(x)[0].movedim(1, -1), z.amax(-1))


@pytest.mark.parametrize("epsilon", [1.0, 3.0, inf])
def test_compiled_code_knows_the_epsilon_that_was_loaded(
    epsilon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filler's is 1: compiled code must not go by that."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    one, other = (single("MEX", "mex_param", MEX, (1, 4, 2, 2)) for _ in range(2))
    for each in (one, other):
        each.load_weights({"layer/0": torch.full((1, 1, 1, 1), epsilon, dtype=torch.float64)})
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    assert compile_net(one, [x]) is None
    torch.testing.assert_close(one(x), other(x))


@pytest.mark.parametrize("way", ["compile", "torch.compile", "export", "onnx", "loaded, torch.export"])
def test_no_way_to_compiled_code_misses_the_epsilon(way: str) -> None:
    one = single("MEX", "mex_param", MEX, (1, 4, 2, 2))
    infinite = torch.full((1, 1, 1, 1), inf, dtype=torch.float64)
    if way.startswith(("loaded", "torch")):
        one.load_weights({"layer/0": infinite})
    else:
        with torch.no_grad():
            one.layer("layer").blobs[0].copy_(infinite)
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    call: Any = one
    if way == "compile":
        one.compile(backend="eager")
    elif way == "torch.compile":
        call = torch.compile(one, backend="eager")
    elif way == "export":
        call = program_of(one, [x]).module()
    elif way == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(
            to_onnx(one, [x]).model_proto.SerializeToString()
        )
        call = lambda x: [torch.from_numpy(session.run(None, {"x": x.numpy()})[0])]  # noqa: E731
    else:
        call = torch.export.export(one, (x,)).module()
    z = x.movedim(1, -1).unsqueeze(-2) + one.layer("layer").blobs[1][0, 0]
    torch.testing.assert_close(call(x)[0].movedim(1, -1), z.amax(-1))


def test_compiled_code_knows_how_sharp_the_loaded_gaussians_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    sharp = net(
        """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } } }
           layer { name: "s" type: "Similarity" bottom: "x" top: "y" similarity_param { num_instances: 3
             normalization_term: true block_param { block_size: 2 }
             template_filler { type: "gaussian" std: 1 } weight_filler { type: "constant" value: 1 } } }"""
    )
    sharp.load_weights({"s/1": torch.full_like(sharp.weights()["s/1"], 1e8)})
    x = sharp.layer("s").blobs[0].detach()[1:2] + 1e-4
    assert compile_net(sharp, [x]) is None
    (y,) = sharp(x)
    t, w = (blob.detach().double() for blob in sharp.layer("s").blobs)
    expected = 0.5 * (-w * (x.double() - t) ** 2 + (w + 1e-3).log() - log(2 * pi)).flatten(1).sum(1)
    torch.testing.assert_close(y.flatten().double(), expected, rtol=1e-5, atol=1e-3)


def test_sharp_gaussians_are_compared_in_double_precision() -> None:
    """Precisions for which x^2 w rounds to more than the answer."""
    sharp = net(
        """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } } }
           layer { name: "s" type: "Similarity" bottom: "x" top: "y" similarity_param { num_instances: 3
             normalization_term: true block_param { block_size: 2 }
             template_filler { type: "gaussian" std: 1 }
             weight_filler { type: "constant" value: 1e8 } } }"""
    )
    x = sharp.layer("s").blobs[0].detach()[1:2] + 1e-4
    (y,) = sharp(x)
    t, w = (blob.detach().double() for blob in sharp.layer("s").blobs)
    expected = 0.5 * (-w * (x.double() - t) ** 2 + (w + 1e-3).log() - log(2 * pi)).flatten(1).sum(1)
    torch.testing.assert_close(y.flatten().double(), expected, rtol=1e-5, atol=1e-3)


def test_frozen_similarity_gets_no_gradient() -> None:
    layer_net = single(
        "Similarity", "similarity_param", "num_instances: 1 block_param { block_size: 1 }", (1, 1, 1, 1)
    )
    for blob in layer_net.layer("layer").blobs:
        blob.requires_grad_(False)
    assert not layer_net(torch.ones(1, 1, 1, 1, dtype=torch.float64))[0].requires_grad


# Marginalize


def test_marginalize_drops_positions_in_all_channels() -> None:
    text = """layer { name: "x" type: "Input" top: "x"
                input_param { shape { dim: 64 dim: 3 dim: 10 dim: 10 } } }
              layer { name: "drop" type: "Marginalize" bottom: "x" top: "y" marginalize_param { KEEP } }"""
    x = torch.randn(64, 3, 10, 10)
    torch.manual_seed(1)
    (y,) = net(text.replace("KEEP", "keep_probability: 0.75"))(x)
    gone = y.isnan()
    assert torch.equal(gone.any(1), gone.all(1))
    assert abs(float(gone[:, 0].double().mean()) - 0.25) < 5 * (0.25 * 0.75 / 6400) ** 0.5
    assert torch.equal(y[~gone], x[~gone])
    (z,) = net(text.replace("KEEP", "keep_probability: 0 value: ZERO"))(x)
    assert torch.equal(z, torch.zeros_like(x))
    assert torch.equal(net(text.replace("KEEP", ""), "TEST")(x)[0], x)


# Mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("block_param { block_size: 2 block_h: 2 }", "block_size, or block_h and block_w"),
        ("block_param { block_h: 2 }", "block_h and block_w go together"),
        ("block_param { block_size: 5 }", "a block of 5 rows does not fit into 4"),
        ("block_param { block_size: 1 block_c: 4 }", "block_c 4 exceeds the bottom's 3 channels"),
        ("block_param { block_size: 1 } shared_offsets_region_size: 0", "must not be 0"),
        ("block_param { block_size: 1 } shared_offsets_region_h: 1", "shared_offsets_region_h and"),
        ("block_param { block_size: 1 } num_instances: 0", "num_instances > 0"),
        ('block_param { block_size: 1 } unsupervised_init { type: "labeling_density" }', "not run, for MEX"),
    ],
)
def test_mistakes_in_mex_are_named(options: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        single("MEX", "mex_param", options, (1, 3, 4, 4))
    assert "layer 'layer' (MEX)" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("num_instances: 0", "num_instances > 0"),
        ("num_instances: 1 similarity_function: L1 normalization_term: true", "normalization_term needs L2"),
        ('num_instances: 1 unsupervised_init { type: "gnn" }', "there are kmeans and gmm"),
    ],
)
def test_mistakes_in_similarity_are_named(options: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        single("Similarity", "similarity_param", f"{options} block_param {{ block_size: 1 }}", (1, 3, 4, 4))


# The short nets and the original's


SMALL = {32: 6, 64: 8, 128: 7, 256: 10, 512: 9}
"""Channels of the plan's net, and of the small copy that golden/ holds."""
LAYERS = {"mex1": "lv1_mex", "mex2": "lv2_mex", "mex3": "lv3_mex", "mex4": "lv4_mex", "scores": "lv5_mex"}


def short_net(channels: Mapping[int, int], batch: int) -> Net:
    """nets/ht_cac_mnist.prototxt with other channel counts, and inputs in place of its data layers."""
    document = schema.read_net(NETS / "ht_cac_mnist.prototxt")
    message = document.message
    for layer in message.layer:
        if layer.type in ("Similarity", "MEX"):
            p = layer.similarity_param if layer.type == "Similarity" else layer.mex_param
            p.num_instances = channels.get(p.num_instances, p.num_instances)
        if layer.type == "MEX":
            filler = layer.mex_param.offsets_filler
            filler.primal_dim = channels.get(filler.primal_dim, filler.primal_dim)
    shapes = {"data": (batch, 1, 28, 28), "label": (batch,)}
    return make_net(document, "TRAIN", seed=1, input_shapes=shapes)


def test_short_net_equals_the_originals_71_layers() -> None:
    path = GOLDEN / "simnets__net_htcac_small_masked.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there; NETSPEC_GOLDEN names the folder of golden vectors")
    with np.load(path) as archive:
        golden = {
            name: torch.from_numpy(archive[name])
            for name in archive.files
            if archive[name].dtype != "U" and archive[name].dtype.kind in "fiu"
        }
        assert json.loads(str(archive["meta"]))["name"] == "net_htcac_small_masked"
    ours = short_net(SMALL, len(golden["in/data"]))
    with torch.no_grad():
        for j in (0, 1):
            ours.layer("gaussians").blobs[j].copy_(golden[f"param/sim1/{j}"])
        for mine, theirs in LAYERS.items():
            ours.layer(mine).blobs[1].copy_(golden[f"param/{theirs}/1"])
    masks = {"drop0": golden["in/rm0_margin_mask"], "drop1": golden["in/rm2_margin_mask"]}
    assert all((golden[f"in/rm{i}_margin_mask"] == 1).all() for i in (1, 3)), (
        "levels that the plan does not drop"
    )
    seen: dict[str, Tensor] = {}

    def call(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if isinstance(layer, Marginalize):
            kept = masks[layer.spec.name] == 1
            return (torch.where(kept, bottoms[0], layer.fill_value),)
        tops = as_tuple(layer(*bottoms))
        seen[layer.spec.name] = tops[0]
        return tops

    tops = ours.run(call, golden["in/data"], golden["in/label"])
    scores = golden["blob/unnormalized"] + golden["blob/total_norm"]
    torch.testing.assert_close(seen["gaussians"], golden["blob/sim1"], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(seen["scores"], scores, rtol=1e-5, atol=1e-3)
    for name in ("loss", "likelihood_loss"):
        torch.testing.assert_close(ours.outputs(tops)[name], golden[f"out/{name}"], rtol=1e-4, atol=1e-5)
    ours.objective(tops).backward()
    for mine, theirs in LAYERS.items():
        gradient, expected = ours.layer(mine).blobs[1].grad, golden[f"paramdiff/{theirs}/1"]
        assert gradient is not None
        torch.testing.assert_close(gradient, expected, rtol=0, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("stem", "parameters"),
    [("ht_cac_mnist", 1_586_432), ("cp_cac_mnist", 537_600), ("ht_cac_digits", 44_224)],
)
def test_nets_have_the_plans_size(stem: str, parameters: int) -> None:
    document = schema.read_net(NETS / f"{stem}.prototxt")
    side = 8 if "digits" in stem else 28
    shapes = {"data": (2, 1, side, side), "label": (2,)}
    made = make_net(document, "TRAIN", device="meta", input_shapes=shapes)
    epsilons = sum(layer.spec.type == "MEX" for layer in made.made)
    assert sum(param.value.numel() for param in made.params) - epsilons == parameters
    assert made.shape("scores") == (2, 10, 1, 1)


def test_a_normalised_net_integrates_to_one() -> None:
    """With every pixel missing the likelihood of every class is 1."""
    ours = short_net(SMALL, 2)
    ours.phase = "TEST"
    for layer in ours.made:
        layer.phase = "TEST"
    values = ours.slots(torch.full((2, 1, 28, 28), nan), torch.zeros(2))
    slot = ours.graph.find("scores")
    assert slot is not None
    torch.testing.assert_close(values[slot].detach(), torch.zeros(2, 10, 1, 1), rtol=0, atol=1e-5)


def test_projected_rows_are_clipped_after_they_are_used() -> None:
    """The fork's order is clip, log, normalise, use, exp, clip: what is used has mass 1, what is kept may have more."""
    layer = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 1 dim: 1 } } }
    layer { name: "m" type: "MEX" bottom: "x" top: "y" loss_weight: 1 mex_param { num_instances: 1 softmax_mode: true
      use_log_space_parameters: false linear_space_min_value: 0.1 normalize_offsets: true
      normalize_offsets_projected: true offsets_filler { type: "constant" value: 1 }
      block_param { block_c: 3 block_size: 1 } } }"""
    net = make_net(layer, "TRAIN")
    offsets = net.layer("m").blobs[1]
    with torch.no_grad():
        offsets.copy_(torch.tensor([0.02, 1.0, 0.5]).view_as(offsets))
    x = torch.zeros(1, 3, 1, 1)
    y = net.outputs(net(x))["y"]
    assert y.exp().item() == pytest.approx(1.0, abs=1e-6)
    clipped = torch.tensor([0.1, 1.0, 0.5]) / 1.6
    assert offsets.detach().flatten().tolist() == pytest.approx(clipped.clamp(min=0.1).tolist(), abs=1e-6)
    y.sum().backward()
    gradient = clipped / clipped.clamp(min=0.1)  # d y / d offset is the share, over the value that is kept
    assert offsets.grad is not None
    assert offsets.grad.flatten().tolist() == pytest.approx(gradient.tolist(), abs=1e-5)


def test_a_poisson_leaf_learns_rates_from_counts_and_a_prior() -> None:
    """rate = (total + prior m) / (n + prior), m the mean rate of all components of the position and value."""
    n = torch.tensor([[[4.0, 1.0], [2.0, 0.0]]], dtype=torch.float64)
    total = torch.tensor([[[8.0, 3.0], [1.0, 0.0]]], dtype=torch.float64)
    log_rate = torch.zeros(1, 2, 2, dtype=torch.float64)
    Poisson(schema.message_class("LeafDistribution")()).maximise([log_rate], [n, total], 0.5)
    mean = total.sum(1, keepdim=True) / n.sum(1, keepdim=True)
    torch.testing.assert_close(log_rate.exp(), (total + 0.5 * mean) / (n + 0.5))
