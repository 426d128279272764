"""Weight files and solver states of Caffe: recorded ones, old forms made by hand, there and back."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from netspec import interchange, schema
from netspec.errors import SnapshotError, SpecError
from netspec.interchange import caffemodel, hdf5, solverstate, weights
from netspec.interchange.blobs import encode_varint, field, number_field
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.solver.solver import Solver
from tests.golden_case import Case, blob_of
from tests.golden_runs import batch_shapes, make_solver, train_step
from tests.places import GOLDEN as ALL
from tests.places import VECTORS as GOLDEN

RECORDED = [
    f"{program}__solver_{kind}_l2" for program in ("bvlc", "simnets") for kind in ("sgd_momentum", "adam")
]
TEXT = """name: "small"
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3
  weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "b" }
layer { name: "ip" type: "InnerProduct" bottom: "b" top: "y" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
"""
SHARED = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "y" top: "z" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""


def net_of(text: str, seed: int = 1, phase: str = "TEST") -> Net:
    return make_net(schema.parse_net(text, "net.prototxt"), phase, seed=seed)


def same(ours: Net, theirs: Net) -> bool:
    return all(torch.equal(value, theirs.weights()[name]) for name, value in ours.weights().items())


# --- files that the originals wrote


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_goes_on_from_its_snapshot(name: str) -> None:
    case = Case(GOLDEN / f"{name}.npz")
    net = case.net("TRAIN", batch_shapes(case))
    solver = make_solver(case, net)
    model = caffemodel.parse_caffemodel(case.arrays["caffemodel_bytes"].tobytes())
    assert weights.load_caffemodel(net, model) == ([], [])
    state = solverstate.parse_solverstate(case.arrays["solverstate_bytes"].tobytes())
    assert state.iteration == case.meta["snapshot_after"]
    solver.load_state_dict(solverstate.to_state_dict(state, solver))
    for key, values in case.group("steps").items():
        assert np.array_equal(blob_of(net, key).detach().numpy(), values[state.iteration])
    for t in range(state.iteration, case.meta["steps"]):
        train_step(case, net, solver, t)
        for key, values in case.group("steps").items():
            np.testing.assert_allclose(
                blob_of(net, key).detach().numpy(), values[t + 1], rtol=1e-5, atol=1e-7
            )


@pytest.mark.parametrize("name", [name for name in RECORDED if name.startswith("bvlc")])
def test_files_are_the_originals_to_the_byte(name: str, tmp_path: Path) -> None:
    case = Case(GOLDEN / f"{name}.npz")
    net = case.net("TRAIN", batch_shapes(case))
    solver = make_solver(case, net)
    raw = case.arrays["caffemodel_bytes"].tobytes()
    model = caffemodel.parse_caffemodel(raw)
    weights.load_caffemodel(net, model)
    message = caffemodel.net_message(net)
    message.layer[0].hdf5_data_param.source = model.message().layer[0].hdf5_data_param.source
    assert caffemodel.encode_net(message, caffemodel.net_arrays(net)) == raw
    raw = case.arrays["solverstate_bytes"].tobytes()
    state = solverstate.parse_solverstate(raw)
    solver.load_state_dict(solverstate.to_state_dict(state, solver))
    solverstate.write_solverstate(solver, tmp_path / "s.solverstate", state.learned_net)
    assert (tmp_path / "s.solverstate").read_bytes() == raw


def test_lenet_as_caffe_saved_it() -> None:
    folder = ALL
    path = folder / "bvlc__net_lenet_small.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there; NETSPEC_GOLDEN names the folder of golden vectors")
    case = Case(path)
    raw = case.arrays["caffemodel_bytes"].tobytes()
    net, other = case.net(), case.net()
    assert weights.load_caffemodel(net, caffemodel.parse_caffemodel(raw)) == ([], [])
    stored = hdf5.read_weights(case.arrays["caffemodel_h5_bytes"].tobytes())
    assert weights.load_layers(other, stored.items(), "h5", partial=True) == ([], [])
    for name, values in case.parameters().items():
        assert torch.equal(net.weights()[name], values)
        assert torch.equal(other.weights()[name], values)
    assert caffemodel.encode_net(caffemodel.net_message(net), caffemodel.net_arrays(net)) == raw


# --- every form of file


def test_every_kind_of_file_brings_the_weights_back(tmp_path: Path) -> None:
    net = net_of(TEXT)
    for suffix in (".caffemodel", ".caffemodel.h5", ".safetensors"):
        path = tmp_path / f"net{suffix}"
        interchange.save_weights(net, path)
        other = net_of(TEXT, seed=2)
        assert not same(net, other)
        assert interchange.load_weights(other, path) == ([], [])
        assert same(net, other)
        named = interchange.read_weights(path)
        assert {name: tuple(v.shape) for name, v in named.items()} == {
            name: tuple(v.shape) for name, v in net.weights().items()
        }


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    net = net_of(TEXT)
    interchange.save_weights(net, tmp_path / "a.h5")
    (tmp_path / "a.h5").rename(tmp_path / "a.caffemodel")
    assert interchange.load_weights(net_of(TEXT, 2), tmp_path / "a.caffemodel") == ([], [])
    with pytest.raises(SnapshotError, match="written as"):
        interchange.save_weights(net, tmp_path / "a.bin")
    with pytest.raises(SnapshotError, match="cannot be read"):
        interchange.load_weights(net, tmp_path / "none.caffemodel")


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.h5", ".safetensors"])
def test_names_with_slashes(suffix: str, tmp_path: Path) -> None:
    text = TEXT.replace('"conv"', '"inception_3a/1x1"').replace('"ip"', '"inception_3a"')
    net, other = net_of(text), net_of(text, 2)
    interchange.save_weights(net, tmp_path / f"n{suffix}")
    assert interchange.load_weights(other, tmp_path / f"n{suffix}") == ([], [])
    assert same(net, other)


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.h5", ".safetensors"])
def test_shared_blobs(suffix: str, tmp_path: Path) -> None:
    net, other = net_of(SHARED), net_of(SHARED, 2)
    interchange.save_weights(net, tmp_path / f"n{suffix}")
    assert interchange.load_weights(other, tmp_path / f"n{suffix}") == ([], [])
    assert same(net, other)
    assert other.layer("a").blobs[0] is other.layer("b").blobs[0]


def old_blob(sizes: tuple[int, ...], values: np.ndarray, double: bool = False, packed: bool = True) -> bytes:
    """A BlobProto with the sizes of before 2014."""
    sizes = (1,) * (4 - len(sizes)) + sizes
    head = b"".join(number_field(i + 1, size) for i, size in enumerate(sizes))
    number, kind, wire = (8, "<f8", 1) if double else (5, "<f4", 5)
    flat = values.astype(kind).ravel()
    if packed:
        return head + field(number, flat.tobytes())
    return head + b"".join(encode_varint(number << 3 | wire) + value.tobytes() for value in flat)


def old_file(net: Net, layer: str, double: bool = False, packed: bool = True) -> bytes:
    """The net's weights in the V1 or V0 form."""
    out = b""
    for made, arrays in zip(net.made, caffemodel.net_arrays(net), strict=True):
        blobs = [old_blob(array.shape, array, double, packed) for array in arrays]
        name = made.spec.name.encode()
        if layer == "v1":
            content = (
                field(4, name)
                + number_field(5, {"Convolution": 4, "InnerProduct": 14}.get(made.spec.type, 0))
                + b"".join(field(6, blob) for blob in blobs)
            )
        else:
            content = field(
                1, field(1, name) + field(2, b"conv") + b"".join(field(50, blob) for blob in blobs)
            )
        out += field(2, content)
    return field(1, b"old") + out


@pytest.mark.parametrize("layer", ["v0", "v1"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_old_forms(layer: str, double: bool, packed: bool) -> None:
    net, other = net_of(TEXT), net_of(TEXT, 2)
    model = caffemodel.parse_caffemodel(old_file(net, layer, double, packed))
    assert model.layers[1].type == "Convolution"
    assert weights.load_caffemodel(other, model) == ([], [])
    assert same(net, other)
    again = caffemodel.fill(model.skeleton(), (a for one in model.layers for a in one.arrays()))
    assert again == model.data or not packed


def test_half_precision_of_nvidias_fork() -> None:
    net = net_of(TEXT)
    out = b""
    for made, arrays in zip(net.made, caffemodel.net_arrays(net), strict=True):
        content = field(1, made.spec.name.encode())
        for array in arrays:
            dims = b"".join(encode_varint(size) for size in array.shape)
            raw = array.astype("<f2").tobytes()
            content += field(7, field(7, field(1, dims)) + number_field(10, 2) + field(12, raw))
        out += field(100, content)
    model = caffemodel.parse_caffemodel(out)
    other = net_of(TEXT, 2)
    assert weights.load_caffemodel(other, model) == ([], [])
    for name, value in net.weights().items():
        assert torch.equal(value.half().float(), other.weights()[name])
    assert caffemodel.fill(model.skeleton(), (a for one in model.layers for a in one.arrays())) == out


def test_a_net_of_the_fork_is_written_with_its_numbers(tmp_path: Path) -> None:
    text = """layer { name: "in" type: "Input" top: "x"
      input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }
    layer { name: "sim" type: "Similarity" bottom: "x" top: "y" similarity_param { num_instances: 3
      block_param { block_size: 2 stride: 2 } template_filler { type: "gaussian" } } }"""
    net = net_of(text)
    interchange.save_weights(net, tmp_path / "f.caffemodel")
    data = (tmp_path / "f.caffemodel").read_bytes()
    assert field(2, b"Similarity") in data
    assert encode_varint(145 << 3 | 2) in data
    message = schema.read_binary_net(data)
    assert message.layer[1].similarity_param.num_instances == 3
    other = net_of(text, 2)
    interchange.load_weights(other, tmp_path / "f.caffemodel")
    assert same(net, other)


# --- what does not fit


def test_layers_without_a_place_are_left_out_and_ours_without_weights_are_named() -> None:
    net = net_of(TEXT)
    model = caffemodel.parse_caffemodel(
        caffemodel.encode_net(caffemodel.net_message(net), caffemodel.net_arrays(net))
    )
    other = net_of(TEXT.replace('"ip"', '"ip2"'), 2)
    assert weights.load_caffemodel(other, model) == (["ip2/0", "ip2/1"], ["ip/0", "ip/1"])


def test_mismatches_name_layer_blob_and_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "n.caffemodel"
    interchange.save_weights(net_of(TEXT), path)
    other = net_of(
        TEXT.replace("num_output: 5", "num_output: 7").replace("kernel_size: 3", "kernel_size: 1"), 2
    )
    before = {name: value.clone() for name, value in other.weights().items()}
    with pytest.raises(SpecError) as caught:
        interchange.load_weights(other, path)
    message = str(caught.value)
    assert "net.prototxt:3" in message
    assert "layer 'conv' (Convolution): blob 0 has shape (4, 3, 1, 1)" in message
    assert f"{path} holds (4, 3, 3, 3)" in message
    assert "layer 'ip' (InnerProduct)" in message
    assert all(torch.equal(value, before[name]) for name, value in other.weights().items())


def test_number_of_blobs() -> None:
    net = net_of(TEXT)
    data = caffemodel.encode_net(caffemodel.net_message(net), caffemodel.net_arrays(net))
    text = TEXT.replace("num_output: 5", "num_output: 5 bias_term: false")
    with pytest.raises(SpecError, match=r"layer 'ip' .*has 1 blobs, x holds 2 for it: \(5, 64\), \(5,\)"):
        weights.load_caffemodel(net_of(text), caffemodel.parse_caffemodel(data, "x"))


@pytest.mark.parametrize("outputs", [5, 64])
def test_a_transposed_inner_product_is_refused(outputs: int) -> None:
    text = TEXT.replace("num_output: 5", f"num_output: {outputs}")
    net = net_of(text.replace("inner_product_param {", "inner_product_param { transpose: true"))
    data = caffemodel.encode_net(caffemodel.net_message(net), caffemodel.net_arrays(net))
    with pytest.raises(SpecError, match="transpose"):
        weights.load_caffemodel(net_of(text), caffemodel.parse_caffemodel(data))


def test_new_sizes_are_compared_as_they_are() -> None:
    net = net_of(TEXT)
    arrays = caffemodel.net_arrays(net)
    arrays[3][1] = arrays[3][1].reshape(1, 1, 1, 5)
    data = caffemodel.encode_net(caffemodel.net_message(net), arrays)
    with pytest.raises(SpecError, match=r"blob 1 has shape \(5,\), <bytes> holds \(1, 1, 1, 5\)"):
        weights.load_caffemodel(net, caffemodel.parse_caffemodel(data))


# --- solver states

SOLVERS = {
    "SGD": "",
    "Adam": "",
    "AdaDelta": "",
    "Nadam": "",
    "SMORMS3": "momentum: 0",
    "RMSProp": "momentum: 0",
}


def solver_of(net: Net, kind: str, more: str = "") -> Solver:
    text = f'type: "{kind}" base_lr: 0.01 lr_policy: "fixed" {more or SOLVERS[kind] or "momentum: 0.9"}'
    return Solver(net, schema.parse_solver(text).message)


def step(net: Net, solver: Solver) -> None:
    torch.manual_seed(solver.iteration)
    net(torch.randn(2, 3, 6, 6))[0].square().sum().backward()
    solver.step()


@pytest.mark.parametrize("suffix", [".solverstate", ".solverstate.h5"])
@pytest.mark.parametrize("kind", SOLVERS)
def test_states_go_out_and_in(kind: str, suffix: str, tmp_path: Path) -> None:
    text = TEXT + 'layer { name: "loss" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }'
    net = net_of(text, phase="TRAIN")
    solver = solver_of(net, kind)
    for _ in range(3):
        step(net, solver)
    interchange.save_weights(net, tmp_path / "n.caffemodel")
    solverstate.write_solverstate(solver, tmp_path / f"n{suffix}", "elsewhere/n.caffemodel")
    other = net_of(text, 2, "TRAIN")
    twin = solver_of(other, kind)
    state = solverstate.restore(twin, tmp_path / f"n{suffix}")
    assert len(state.history) == len(net.params) * len(solver.rule.slots)
    assert [tuple(blob.shape) for blob in state.history[:2]] == [(4, 3, 3, 3), (4,)]
    assert state.weights() == tmp_path / "n.caffemodel"
    interchange.load_weights(other, state.weights())
    for _ in range(3):
        step(net, solver)
        step(other, twin)
    assert same(net, other)


def test_history_of_another_net_or_solver(tmp_path: Path) -> None:
    net = net_of(TEXT)
    path = tmp_path / "a.solverstate"
    solverstate.write_solverstate(solver_of(net, "SGD"), path, "")
    with pytest.raises(SnapshotError, match="holds 7 blobs of history, solver type 'Adam' needs 2 for each"):
        solverstate.restore(solver_of(net, "Adam"), path)
    other = net_of(TEXT.replace("num_output: 4", "num_output: 6"))
    with pytest.raises(
        SnapshotError, match=r"conv/0 has shape \(4, 3, 3, 3\), the parameter has \(6, 3, 3, 3\)"
    ):
        solverstate.restore(solver_of(other, "SGD"), path)
    with pytest.raises(SnapshotError, match="names no weights"):
        solverstate.read_solverstate(path).weights()


def test_stages_of_the_fork(tmp_path: Path) -> None:
    more = 'on_off_stage_name: ["a", "b"] on_off_stage_iter: [2, 3]'
    net = net_of(TEXT)
    solver = solver_of(net, "SGD", more)
    solver.stages.index, solver.stages.iteration, solver.iteration = 1, 2, 14
    for suffix in solverstate.SUFFIXES:
        solverstate.write_solverstate(solver, tmp_path / f"a{suffix}", "w")
        twin = solver_of(net, "SGD", more)
        solverstate.restore(twin, tmp_path / f"a{suffix}")
        assert (twin.iteration, twin.stages.index, twin.stages.iteration) == (14, 1, 2)


# --- hostile files


def test_declared_sizes_cost_nothing() -> None:
    blob = field(7, field(1, b"".join(encode_varint(n) for n in (1 << 40, 1 << 40)))) + field(5, b"\0" * 4)
    data = field(100, field(1, b"a") + field(7, blob))
    model = caffemodel.parse_caffemodel(data, "big")
    with pytest.raises(
        SnapshotError, match=r"big: layer 'a', blob 0: shape .* needs \d+ values, 1 are there"
    ):
        model.layers[0].arrays()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no layer"),
        (b"layer { name: 1 }", "is no protobuf message|truncated"),
        (field(1, b"only a name"), "holds no layer"),
        (field(100, b"\x0a\xff"), "truncated or damaged"),
        (field(100, field(7, field(7, field(1, encode_varint(2**64 - 5))))), "impossible sizes"),
        (field(100, field(7, field(7, field(1, b"\1" * 33)))), "axes"),
        (field(100, field(7, b"") * 100_001), "blobs"),
    ],
    ids=range(7),
)
def test_malformed_caffemodels(data: bytes, reason: str) -> None:
    with pytest.raises(SnapshotError, match=reason):
        caffemodel.parse_caffemodel(data, "f")


def bushy(file: h5py.File) -> None:
    """Few groups, but 20 ways down at each of twelve steps."""
    below = file.create_group("leaf")
    for depth in range(12):
        above = file.create_group("data" if depth == 11 else f"g{depth}")
        for k in range(20):
            above[f"l{k}"] = below
        below = above


def h5_bytes(make: object) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        make(file)  # type: ignore[operator]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda f: f.create_group("model"), "no group /data"),
        (lambda f: f.create_dataset("data", data=[1.0]), "is no group"),
        (lambda f: f.create_dataset("data/a/0", data=b"text"), "no array of numbers"),
        (lambda f: f.create_group("data").__setitem__("a", h5py.ExternalLink("/etc/x", "/")), "another file"),
        (lambda f: f.create_group("data").__setitem__("a", h5py.SoftLink("/data/a")), "damaged"),
        (lambda f: f.create_dataset("data/a/0", (1 << 40,), "f4", chunks=(1 << 10,)), "can hold"),
        (lambda f: f.create_dataset("data/a/w", data=[1.0]), "no number of a blob"),
        (lambda f: f.create_group("data/a").__setitem__("b", f["data/a"]), "without end"),
        (lambda f: bushy(f), "without end"),
    ],
    ids=range(9),
)
def test_malformed_hdf5(make: object, reason: str) -> None:
    with pytest.raises(SnapshotError, match=reason):
        hdf5.read_weights(h5_bytes(make), "f.h5")


@pytest.mark.parametrize(
    "data",
    [number_field(1, 2**40), number_field(1, 2**64 - 1), field(2, b"x"), field(3, b"\x2a\x05aaaa"), b"\x0f"],
    ids=range(5),
)
def test_malformed_states(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        solverstate.parse_solverstate(data)


def test_binaryproto(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    caffemodel.write_blob(tmp_path / "m.binaryproto", values)
    assert np.array_equal(caffemodel.read_blob_file(tmp_path / "m.binaryproto"), values)
    (tmp_path / "m.binaryproto").write_bytes(old_blob((1, 3, 2, 2), values, double=True))
    read = caffemodel.read_blob_file(tmp_path / "m.binaryproto")
    assert read.dtype == np.float64
    assert np.array_equal(read, values)
    (tmp_path / "m.binaryproto").write_bytes(struct.pack("<I", 0xFFFFFFFF))
    with pytest.raises(SnapshotError):
        caffemodel.read_blob_file(tmp_path / "m.binaryproto")
