"""pycaffe's Net: every layer case against netspec's executor, and what scripts do with blobs and passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import pycaffe as caffe
from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.pycaffe.running import Running
from netspec.pycaffe.splits import insert_splits
from netspec.schema import spec
from tests.cases import Case, all_cases

CASES = [case for case in all_cases() if not case.random]
SMALL = """
name: "small" force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
LOSS = """
name: "loss"
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2 }
"""


def written(tmp_path: Path, text: str, name: str = "net.prototxt") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def made(tmp_path: Path, text: str, phase: int = caffe.TEST) -> caffe.Net:
    return caffe.Net(written(tmp_path, text), phase)


def values(case: Case, net: Net) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [
        case.inputs[name].float()
        if name in case.inputs
        else torch.randn(net.shape(name), generator=generator)
        for name in net.input_names
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_passes_equal_the_executor(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward values and all gradients, for random diffs of the outputs, layer by layer and as one graph."""
    monkeypatch.chdir(tmp_path)  # HDF5Output writes where it runs
    document = schema.parse_net(case.text, f"{case.name}.prototxt")
    forced = replace(spec.net(document, case.phase), force_backward=True)
    core = make_net(forced, seed=1)
    running = Running(forced)
    for name, value in core.weights().items():
        mine = {param.name: param.value for param in running.core.params}[name]
        mine.detach().copy_(value)
    inputs = values(case, core)
    for name, value in zip(core.input_names, inputs, strict=True):
        blob(running, name).data[...] = value.numpy()
    inputs = [value.clone().requires_grad_() for value in inputs]

    torch.manual_seed(3)
    tops = core(*inputs)[: len(core.graph.outputs)]
    torch.manual_seed(3)
    last = len(running.steps) - 1
    running.forward(0, last)
    for name, top in zip(core.output_names, tops, strict=True):
        np.testing.assert_allclose(blob(running, name).data, top.detach(), rtol=1e-5, atol=1e-6)

    diffs = [torch.randn(top.shape) for top in tops]
    for name, diff in zip(core.output_names, diffs, strict=True):
        blob(running, name).diff[...] = diff.numpy()
    running.backward(last, 0)
    wanted = [*inputs, *(param.value for param in core.params)]
    pairs = [(top, diff) for top, diff in zip(tops, diffs, strict=True) if top.requires_grad]
    gradients: Any = [None] * len(wanted)
    if pairs:
        outputs, seeds = zip(*pairs, strict=True)
        gradients = torch.autograd.grad(outputs, wanted, seeds, allow_unused=True)
    blobs = [blob(running, name) for name in core.input_names]
    blobs += [running.diffs[id(param.value)] for param in running.core.params]
    for mine, gradient, value in zip(blobs, gradients, wanted, strict=True):
        gradient = torch.zeros_like(value) if gradient is None else gradient
        np.testing.assert_allclose(mine.diff, gradient, rtol=1e-4, atol=1e-5)


def blob(running: Running, name: str) -> Any:
    return next(known for known in reversed(running.blobs) if known.name == name)


def test_blobs_are_the_memory_that_layers_use(tmp_path: Path) -> None:
    net = made(tmp_path, SMALL)
    data, prob, weights = net.blobs["data"].data, net.blobs["prob"].data, net.params["conv"][0].data
    data[...] = 1
    net.forward()
    first = prob.copy()
    weights[...] *= 2
    net.blobs["data"].data[0] = 3
    again = net.forward()["prob"]
    assert again is not prob
    assert np.shares_memory(again, prob)
    assert not np.allclose(first, prob)
    assert data[0, 0, 0, 0] == 3
    np.testing.assert_allclose(prob.sum(1), 1, rtol=1e-6)


def test_blobs_that_nobody_has_seen_are_not_copied_but_stay_apart(tmp_path: Path) -> None:
    """Results become the memory themselves, except where two blobs would be one."""
    text = """
    force_backward: true
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "double" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }
    layer { name: "drop" type: "Dropout" bottom: "y" top: "same" }
    layer { name: "flat" type: "Flatten" bottom: "same" top: "flat" }
    layer { name: "sum" type: "Eltwise" bottom: "flat" bottom: "flat" top: "sum" }
    """
    net = made(tmp_path, text)
    net.blobs["x"].data[...] = 1
    memory = net.blobs["y"].values
    for _ in range(2):
        net.forward()
        assert not memory.seen
    kept = {name: net.blobs[name].data for name in ("y", "same", "flat")}
    kept["same"][...] = 5
    kept["flat"][...] = 6
    assert (kept["y"] == 2).all()
    assert (net.blobs["same"].data == 5).all()
    net.blobs["x"].data[...] = 3
    net.forward()
    assert all((array == 6).all() for array in kept.values())
    assert all(np.shares_memory(array, net.blobs[name].data) for name, array in kept.items())
    net.blobs["sum"].diff[...] = 1
    net.backward()
    net.blobs["same"].diff[...] = 9
    assert (net.blobs["flat"].diff == 2).all()
    assert (net.blobs["x"].diff == 4).all()


def test_shapes_follow_the_inputs(tmp_path: Path) -> None:
    net = made(tmp_path, SMALL)
    net.blobs["data"].reshape(5, 3, 6, 6)
    net.reshape()
    assert net.blobs["prob"].shape == (5, 5)
    assert net.blobs["conv"].data.shape == (5, 4, 4, 4)
    net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(5, 3, 6, 6))
    net.forward()
    alone = net.blobs["prob"].data[2].copy()
    image = net.blobs["data"].data[2].copy()
    net.blobs["data"].reshape(1, 3, 6, 6)
    net.blobs["data"].data[...] = image
    np.testing.assert_allclose(net.forward()["prob"][0], alone, rtol=1e-5)
    net.blobs["data"].reshape(1, 3, 8, 8)
    with pytest.raises(SpecError, match=r"'ip'.*need blobs"):
        net.forward()


def test_start_and_end(tmp_path: Path) -> None:
    net = made(tmp_path, SMALL)
    net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(2, 3, 6, 6))
    assert list(net.forward(end="relu")) == ["conv"]
    assert not net.blobs["ip"].data.any()
    net.blobs["conv"].data[...] = 0
    net.params["ip"][1].data[...] = [0, 1, 2, 3, 4]
    out = net.forward(start="ip", blobs=["ip"])
    np.testing.assert_allclose(out["ip"], [[0, 1, 2, 3, 4]] * 2)
    net.forward()
    diffs = net.backward(start="ip", end="ip", diffs=["conv"])
    assert set(diffs) == {"conv"}
    assert not net.blobs["data"].diff.any()


def test_diffs_of_parameters_add_up(tmp_path: Path) -> None:
    net = made(tmp_path, LOSS, caffe.TRAIN)
    net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(4, 3))
    net.blobs["label"].data[...] = [0, 1, 2, 3]
    net.forward()
    assert net.blobs["loss"].diff == 2 or net.blob_loss_weights["loss_loss_0_split_0"] == 2
    net.backward()
    once = net.params["ip"][0].diff.copy()
    assert once.any()
    net.backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, 2 * once, rtol=1e-5)
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()


def test_arrays_of_any_length(tmp_path: Path) -> None:
    net = made(tmp_path, SMALL)
    images = np.random.default_rng(0).normal(size=(5, 3, 6, 6)).astype(np.float32)
    out = net.forward_all(data=images, blobs=["ip"])
    assert out["prob"].shape == out["ip"].shape == (5, 5)
    np.testing.assert_allclose(net.forward(data=images[3:5])["prob"], out["prob"][3:5], rtol=1e-5)
    outs, diffs = net.forward_backward_all(data=images, prob=np.ones((5, 5), np.float32))
    assert outs["prob"].shape == (5, 5)
    assert diffs["data"].shape == images.shape
    with pytest.raises(Exception, match="do not match"):
        net.forward(image=images[:2])
    with pytest.raises(Exception, match="batch sized"):
        net.forward(data=images)
    with pytest.raises(Exception, match="do not match"):
        net.backward(data=images)


def test_splits_have_caffes_names(tmp_path: Path) -> None:
    net = made(tmp_path, LOSS, caffe.TRAIN)
    assert net._layer_names == [
        "data", "label_data_1_split", "ip", "ip_ip_0_split", "accuracy", "loss",
    ]  # fmt: skip
    assert list(net.blobs)[:4] == ["data", "label", "label_data_1_split_0", "label_data_1_split_1"]
    assert net.bottom_names["loss"] == ["ip_ip_0_split_1", "label_data_1_split_1"]
    assert net.layers[1].type == "Split"
    assert (net.inputs, net.outputs) == (["data", "label"], ["accuracy", "loss"])
    assert [net._blob_names[i] for i in net._top_ids(0)] == ["data", "label"]
    assert net._bottom_ids(2) == [0]
    assert net.blob_loss_weights["loss"] == 2
    assert net.name == "loss"


def test_a_weighted_blob_that_is_read_splits() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }
    layer { name: "a" type: "Power" bottom: "x" top: "a" loss_weight: 3 }
    layer { name: "b" type: "Power" bottom: "a" top: "b" }
    """
    split = insert_splits(spec.net(schema.parse_net(text), "TRAIN"))
    assert [layer.name for layer in split.layers] == ["x", "a", "a_a_0_split", "b"]
    assert list(split.layers[2].message.loss_weight) == [3, 0]
    assert list(split.layers[1].message.loss_weight) == [0]
    assert split.layers[3].bottoms == ("a_a_0_split_1",)


def test_in_place_beside_another_reader() -> None:
    """Caffe refuses such a net; here the layer in place works on its own copy."""
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }
    layer { name: "copy" type: "Power" bottom: "x" top: "copy" }
    layer { name: "twice" type: "Power" bottom: "x" top: "x" power_param { scale: 2 } }
    layer { name: "last" type: "Power" bottom: "x" top: "last" }
    """
    running = Running(spec.net(schema.parse_net(text), "TEST"))
    blob(running, "x").data[...] = [1, 2]
    running.forward(0, len(running.steps) - 1)
    assert blob(running, "copy").data.tolist() == [1, 2]
    assert blob(running, "last").data.tolist() == [2, 4]


def test_callbacks_see_every_layer(tmp_path: Path) -> None:
    net = made(tmp_path, SMALL)
    seen: list[tuple[str, int]] = []
    net.before_forward(lambda i: seen.append(("before", i)))
    net.after_forward(lambda i: seen.append(("after", i)))
    net.before_backward(lambda i: seen.append(("back", i)))
    net.after_backward(lambda i: seen.append(("done", i)))
    net.forward(start="ip", end="prob")
    net.backward(start="prob", end="ip")
    assert seen == [
        ("before", 3), ("after", 3), ("before", 4), ("after", 4),
        ("back", 4), ("done", 4), ("back", 3), ("done", 3),
    ]  # fmt: skip


def test_shared_nets_have_one_memory(tmp_path: Path) -> None:
    one, other = made(tmp_path, SMALL), made(tmp_path, SMALL)
    assert not np.allclose(one.params["conv"][0].data, other.params["conv"][0].data)
    other.share_with(one)
    one.params["conv"][0].data[...] = 7
    assert (other.params["conv"][0].data == 7).all()
    image = np.random.default_rng(0).normal(size=(2, 3, 6, 6))
    np.testing.assert_allclose(one.forward(data=image)["prob"], other.forward(data=image)["prob"])


@pytest.mark.parametrize("method", ["save", "save_hdf5"])
def test_weights_come_back(tmp_path: Path, method: str) -> None:
    net, file = made(tmp_path, SMALL), str(tmp_path / "weights")
    net.params["ip"][1].data[...] = 3
    getattr(net, method)(file)
    for other in (
        caffe.Net(written(tmp_path, SMALL), file, caffe.TEST),
        caffe.Net(written(tmp_path, SMALL), caffe.TEST, weights=file),
    ):
        for name, blobs in net.params.items():
            for mine, theirs in zip(blobs, other.params[name], strict=True):
                assert np.array_equal(mine.data, theirs.data)


def test_saved_nets_have_their_splits(tmp_path: Path) -> None:
    net = made(tmp_path, LOSS, caffe.TRAIN)
    net.save(tmp_path / "w.caffemodel")
    message = caffe.proto.caffe_pb2.NetParameter()
    message.ParseFromString((tmp_path / "w.caffemodel").read_bytes())
    assert [layer.name for layer in message.layer] == net._layer_names
    assert list(message.layer[-1].bottom) == ["ip_ip_0_split_1", "label_data_1_split_1"]
    assert message.layer[2].blobs[0].shape.dim == [5, 3]


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Could not open file nowhere"):
        caffe.Net("nowhere", caffe.TEST)
    with pytest.raises(RuntimeError, match="Could not open file nowhere"):
        caffe.Net(written(tmp_path, SMALL), "nowhere", caffe.TEST)
    with pytest.raises(TypeError, match="takes"):
        caffe.Net(written(tmp_path, SMALL))
    net = made(tmp_path, SMALL)
    with pytest.raises(RuntimeError, match="MemoryDataLayer"):
        net.set_input_arrays(np.zeros((2, 1, 1, 1), np.float32), np.zeros(2, np.float32))
    with pytest.raises(AttributeError, match="'weight'"):
        _ = net.layers[1].weight
    with pytest.raises(AttributeError, match="Convolution"):
        net.layers[1].weight = 1


def test_memory_data(tmp_path: Path) -> None:
    text = """
    layer { name: "d" type: "MemoryData" top: "data" top: "label"
      memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } }
    layer { name: "twice" type: "Power" bottom: "data" top: "twice" power_param { scale: 2 } }
    layer { name: "quiet" type: "Silence" bottom: "label" }
    """
    net = made(tmp_path, text)
    data = np.arange(24, dtype=np.float32).reshape(4, 1, 2, 3)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32))
    np.testing.assert_allclose(net.forward()["twice"], 2 * data[:2])
    np.testing.assert_allclose(net.forward(blobs=["label"])["label"], [2, 3])
    with pytest.raises(RuntimeError, match="same first dimension"):
        net.set_input_arrays(data, np.zeros(3, np.float32))
    with pytest.raises(RuntimeError, match="float32"):
        net.set_input_arrays(data.astype(float), np.zeros(4, np.float32))


def test_constants_of_dummy_data_can_be_replaced(tmp_path: Path) -> None:
    text = """
    layer { name: "d" type: "DummyData" top: "noise" top: "label" dummy_data_param {
      shape { dim: 3 } shape { dim: 3 }
      data_filler { type: "gaussian" } data_filler { type: "constant" value: 2 } } }
    """
    net = made(tmp_path, text)
    assert (net.blobs["label"].data == 2).all()
    net.blobs["label"].data[...] = [1, 5, 6]
    first = net.forward()["noise"].copy()
    assert not np.allclose(net.forward()["noise"], first)
    assert net.blobs["label"].data.tolist() == [1, 5, 6]


def test_seeds_make_nets_equal(tmp_path: Path) -> None:
    weights = []
    for _ in range(2):
        caffe.set_random_seed(5)
        weights.append(made(tmp_path, SMALL).params["conv"][0].data)
    assert np.array_equal(*weights)


def test_split_blobs_are_one_memory(tmp_path: Path) -> None:
    net = made(tmp_path, LOSS, caffe.TRAIN)
    net.forward()
    first, second = (net.blobs[f"label_data_1_split_{i}"] for i in range(2))
    assert np.shares_memory(first.data, net.blobs["label"].data)
    assert not np.shares_memory(first.diff, second.diff)
    net.blobs["label"].reshape(4, 1)
    net.blobs["label"].data[...] = [[1], [2], [3], [4]]
    net.forward()
    assert second.data.tolist() == [[1], [2], [3], [4]]
    assert second.diff.shape == (4, 1)


def test_hdf5_output(tmp_path: Path) -> None:
    text = f"""
    layer {{ name: "x" type: "Input" top: "x" top: "y" input_param {{ shape {{ dim: 2 dim: 3 }} shape {{ dim: 2 }} }} }}
    layer {{ name: "out" type: "HDF5Output" bottom: "x" bottom: "y"
      hdf5_output_param {{ file_name: "{tmp_path}/out.h5" }} }}
    """
    h5py = pytest.importorskip("h5py")
    net = made(tmp_path, text)
    for k in range(3):
        net.forward(x=np.full((2, 3), k), y=np.arange(2))
    del net
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["data"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
        assert file["label"][:].tolist() == [0, 1] * 3


class Rows(caffe.Layer):
    """Gives more rows from forward to forward, and keeps the object that a program can reach."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.rows = int(self.param_str)
        top[0].reshape(self.rows, 3)

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].reshape(self.rows, 3)
        top[0].data[...] = self.rows
        self.rows += 1

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        pass


def test_python_layers_are_reached_and_may_change_shapes(tmp_path: Path) -> None:
    text = """
    layer { name: "rows" type: "Python" top: "rows"
      python_param { module: "tests.pycaffe.test_pycaffe" layer: "Rows" param_str: "2" } }
    layer { name: "ip" type: "InnerProduct" bottom: "rows" top: "ip" inner_product_param { num_output: 2 } }
    """
    net = made(tmp_path, text)
    assert [net.forward()["ip"].shape for _ in range(3)] == [(2, 2), (3, 2), (4, 2)]
    net.layers[0].rows = 7
    assert net.forward()["ip"].shape == (7, 2)
    assert (net.layers[0].rows, net.layers[0].type) == (8, "Python")


class Overwriting(caffe.Layer):
    """Doubles its bottom where it stands, and replaces the diff of its blob at each backward."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.kept = self.blobs.add_blob(2)

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        bottom[0].data[...] *= 2
        top[0].data[...] = bottom[0].data + self.kept.data.sum()

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        self.seen = (self.blobs[0].diff.copy(), bottom[0].diff.copy(), propagate_down)
        self.blobs[0].diff[...] = 5


def test_python_layers_work_on_the_blobs_themselves(tmp_path: Path) -> None:
    text = """
    force_backward: true
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 } } }
    layer { name: "own" type: "Python" bottom: "x" top: "y" loss_weight: 1
      python_param { module: "tests.pycaffe.test_pycaffe" layer: "Overwriting" } }
    """
    net = made(tmp_path, text)
    net.blobs["x"].data[...] = 1
    net.params["own"][0].data[...] = 3
    assert net.forward()["y"].tolist() == [8, 8, 8]
    assert net.blobs["x"].data.tolist() == [2, 2, 2]
    net.blobs["x"].diff[...] = 9  # the layer leaves it alone
    for before in (0, 5):
        assert net.backward()["x"].tolist() == [9, 9, 9]
        assert net.layers[1].seen[0].tolist() == [before] * 2
        assert net.layers[1].blobs[0].diff.tolist() == [5, 5]
    assert net.layers[1].seen[2] == [True]
    twin = made(tmp_path, text)
    twin.share_with(net)
    net.layers[1].blobs[0].data[...] = 7
    assert twin.forward()["y"].tolist() == [14, 14, 14]


def test_errors_of_python_layers_keep_their_type(tmp_path: Path) -> None:
    text = SMALL.replace(
        'type: "Softmax"',
        """type: "Python"
      python_param { module: "tests.pycaffe.test_pycaffe" layer: "Rows" param_str: "two" } """,
    )
    with pytest.raises(ValueError, match="'two'") as caught:
        made(tmp_path, text)
    assert "'prob' (Python)" in caught.value.__notes__[0]
