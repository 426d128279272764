"""What public scripts do with pycaffe, on small nets: folding, surgery, ascent on images, loaders, training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netspec import pycaffe as caffe
from netspec.errors import NetspecError
from netspec.pycaffe import __main__ as command
from netspec.pycaffe import glog
from netspec.pycaffe import layers as L
from netspec.pycaffe import params as P
from netspec.pycaffe.proto import caffe_pb2


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glog, "threshold", glog.SILENT)


def built(tmp_path: Path, n: caffe.NetSpec, phase: int = caffe.TEST, head: str = "") -> caffe.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(head + str(n.to_proto()))
    return caffe.Net(str(path), phase)


def filled(net: caffe.Net, seed: int = 1) -> caffe.Net:
    generator = np.random.default_rng(seed)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = generator.uniform(0.5, 1.5, size=blob.shape)
    return net


def test_batch_norm_is_folded_into_the_convolution_before_it(tmp_path: Path) -> None:
    """Such scripts choose layers by the type of their list of blobs."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [2, 3, 5, 5]})
    n.conv = L.Convolution(n.data, num_output=4, kernel_size=3, bias_term=False)
    plain = n.to_proto()
    n["conv/bn"] = L.BatchNorm(n.conv, in_place=True)
    n["conv/scale"] = L.Scale(n["conv/bn"], bias_term=True, in_place=True)
    net = filled(built(tmp_path, n))
    plain.layer[1].convolution_param.bias_term = True
    (tmp_path / "folded.prototxt").write_text(str(plain))
    folded = caffe.Net(str(tmp_path / "folded.prototxt"), caffe.TEST)
    for key in net.params:
        assert type(net.params[key]) is caffe._caffe.BlobVec
        if key.endswith(("/bn", "/scale")):
            continue
        mean, variance, factor = (blob.data / net.params["conv/bn"][2].data for blob in net.params["conv/bn"])
        scale, shift = (blob.data for blob in net.params["conv/scale"])
        gain = scale / np.sqrt(variance + 1e-5)
        folded.params[key][0].data[...] = net.params[key][0].data * gain.reshape(-1, 1, 1, 1)
        folded.params[key][1].data[...] = shift - mean * gain
        assert factor == 1
    for each in (net, folded):
        each.blobs["data"].data[...] = np.random.default_rng(2).normal(size=(2, 3, 5, 5))
    np.testing.assert_allclose(folded.forward()["conv"], net.forward()["conv"], rtol=1e-4, atol=1e-4)
    assert isinstance(net.layers[1].blobs, caffe._caffe.BlobVec)
    assert isinstance(net.params["conv"][0], caffe._caffe.Blob)


def test_a_classifier_becomes_convolutional(tmp_path: Path) -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 2, 4, 4]})
    n.fc = L.InnerProduct(n.data, num_output=3)
    dense = filled(built(tmp_path, n))
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 2, 4, 4]})
    n["fc-conv"] = L.Convolution(n.data, num_output=3, kernel_size=4)
    sliding = built(tmp_path, n)
    weights, bias = (blob.data for blob in dense.params["fc"])
    sliding.params["fc-conv"][0].data.flat = weights.flat
    sliding.params["fc-conv"][1].data[...] = bias
    sliding.save(str(tmp_path / "sliding.caffemodel"))
    image = np.random.default_rng(3).normal(size=(1, 2, 6, 6)).astype(np.float32)
    sliding.blobs["data"].reshape(*image.shape)
    scores = sliding.forward_all(data=image)["fc-conv"]
    assert scores.shape == (1, 3, 3, 3)
    corner = dense.forward(data=np.ascontiguousarray(image[:, :, :4, 2:]))["fc"]
    np.testing.assert_allclose(scores[0, :, 0, 2], corner[0], rtol=1e-4, atol=1e-4)


def test_an_image_climbs_towards_a_layer(tmp_path: Path) -> None:
    """The net is written out with force_backward, and run from and to a layer in its middle."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 8, 8]})
    n.conv = L.Convolution(n.data, num_output=4, kernel_size=3, pad=1, weight_filler={"type": "xavier"})
    n.relu = L.ReLU(n.conv, in_place=True)
    n.pool = L.Pooling(n.relu, pool=P.Pooling.AVE, global_pooling=True)
    model = caffe.io.caffe_pb2.NetParameter()
    text_format.Merge(str(n.to_proto()), model)
    model.force_backward = True
    (tmp_path / "tmp.prototxt").write_text(str(model))
    caffe.Net(str(tmp_path / "tmp.prototxt"), caffe.TEST).save(str(tmp_path / "w.caffemodel"))
    net = caffe.Classifier(
        str(tmp_path / "tmp.prototxt"),
        str(tmp_path / "w.caffemodel"),
        mean=np.float32([104.0, 116.0, 122.0]),  # type: ignore[arg-type]
        channel_swap=(2, 1, 0),
    )
    source, target = net.blobs["data"], net.blobs["conv"]
    source.reshape(1, 3, 6, 10)
    source.data[0] = np.random.default_rng(4).normal(size=(3, 6, 10)) - net.transformer.mean["data"] / 100
    heights = []
    for _ in range(4):
        net.forward(end="relu")
        heights.append(float((target.data**2).sum()))
        target.diff[:] = target.data
        net.backward(start="relu")
        step = source.diff[0]
        source.data[:] += 0.5 / np.abs(step).mean() * step
    assert heights == sorted(heights)
    assert heights[0] < heights[-1]


def test_upsampling_weights_are_set_where_they_lie(tmp_path: Path) -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 2, 4, 4]})
    n.score_up = L.Deconvolution(
        n.data, convolution_param={"num_output": 2, "kernel_size": 4, "stride": 2, "bias_term": False}
    )
    net = built(tmp_path, n)
    place = 1 - abs(np.arange(4) - 1.5) / 2
    for name in [key for key in net.params if "up" in key]:
        m, k, h, w = net.params[name][0].data.shape
        assert (m, k, h, w) == (2, 2, 4, 4)
        net.params[name][0].data[range(m), range(k), :, :] = np.outer(place, place)
    net.blobs["data"].data[...] = 1
    scores = net.forward()["score_up"]
    np.testing.assert_allclose(scores[0, :, 3:-3, 3:-3], 1, rtol=1e-6)


class Boxes(caffe.Layer):
    """Feeds batches of any size, as loaders of detection toolkits do."""

    def set_rows(self, rows: Any) -> None:
        self.rows = rows

    def setup(self, bottom: Any, top: Any) -> None:
        self.tops = {"data": 0, "rois": 1}
        top[0].reshape(1, 3, 4, 4)
        top[1].reshape(1, 5)

    def reshape(self, bottom: Any, top: Any) -> None:
        """Done in forward."""

    def forward(self, bottom: Any, top: Any) -> None:
        for name, blob in self.rows.pop(0).items():
            top[self.tops[name]].reshape(*blob.shape)
            top[self.tops[name]].data[...] = blob.astype(np.float32, copy=False)

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Nothing to do."""


def test_loaders_in_python_change_the_shape_from_batch_to_batch(tmp_path: Path) -> None:
    n = caffe.NetSpec()
    n.data, n.rois = L.Python(module="tests.pycaffe.test_scripts", layer="Boxes", ntop=2)
    n.pool = L.ROIPooling(n.data, n.rois, pooled_h=2, pooled_w=2, spatial_scale=1.0)
    n.score = L.InnerProduct(n.pool, num_output=2)
    net = built(tmp_path, n, caffe.TRAIN)
    net.name = "renamed"
    box = np.array([[0, 0, 0, 3, 3]])
    net.layers[0].set_rows(
        [{"data": np.ones((1, 3, 4 + i, 6)), "rois": np.repeat(box, i, axis=0)} for i in (1, 3, 2)]
    )
    assert [net.forward()["score"].shape for _ in range(3)] == [(1, 2), (3, 2), (2, 2)]
    assert net.blobs["data"].data.shape == (1, 3, 6, 6)


def test_spec_of_a_detector_is_changed_after_the_fact() -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 8, 8]})
    n.conv = L.Convolution(n.data, num_output=4, kernel_size=3)
    assert n.keys() == ["data", "conv"]
    assert n.vals() == [n.data, n.conv]
    n.update("conv", {"pad": 1, "name": "first"})
    layer = n.to_proto().layer[1]
    assert (layer.name, list(layer.convolution_param.pad)) == ("first", [1])
    labels = caffe_pb2.LabelMap()
    text_format.Merge('item { name: "none_of_the_above" label: 0 display_name: "background" }', labels)
    assert labels.item[0].display_name == "background"


def test_messages_have_the_names_of_compiled_ones() -> None:
    names: dict[str, Any] = {}
    exec("from netspec.pycaffe.proto.caffe_pb2 import *", names)
    assert names["NetParameter"] is caffe_pb2.NetParameter
    assert names["Phase"].Value("TEST") == names["TEST"] == 1
    assert caffe_pb2._POOLINGPARAMETER_POOLMETHOD.values_by_number[0].name == "MAX"
    assert caffe_pb2._V1LAYERPARAMETER_LAYERTYPE.values_by_name["CONVOLUTION"].number == 4
    assert caffe_pb2._PHASE.name == "Phase"
    for name in ("RawBlobVec", "IntVec", "StringVec", "LayerParameter", "layer_type_list"):
        assert hasattr(caffe._caffe, name)


def solver_file(tmp_path: Path, extra: str = "") -> str:
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(
        shape=[{"dim": [4, 5]}, {"dim": [4]}],
        data_filler=[{"type": "gaussian"}, {"type": "constant"}],
        ntop=2,
    )
    n.ip = L.InnerProduct(n.data, num_output=3, weight_filler={"type": "xavier"}, param=[{"name": "w"}, {}])
    n.loss = L.SoftmaxWithLoss(n.ip, n.label)
    (tmp_path / "train.prototxt").write_text(str(n.to_proto()))
    message = caffe_pb2.SolverParameter()
    message.train_net = str(tmp_path / "train.prototxt")
    message.test_net.append(message.train_net)
    message.test_iter.append(2)
    message.test_interval, message.max_iter, message.display = 10, 4, 2
    message.base_lr, message.lr_policy, message.momentum, message.type = 0.1, "fixed", 0.9, "SGD"
    message.snapshot_after_train = False
    message.solver_mode = caffe_pb2.SolverParameter.CPU
    path = tmp_path / "solver.prototxt"
    path.write_text(str(message) + extra)
    return str(path)


def test_the_script_for_several_gpus_trains_with_one_solver(tmp_path: Path) -> None:
    uid = caffe.NCCL.new_uid()
    assert isinstance(uid, bytes)
    solver = caffe.SGDSolver(solver_file(tmp_path))
    nccl = caffe.NCCL(solver, uid)
    nccl.bcast()
    seen: list[int] = []
    solver.add_callback(lambda: seen.append(solver.iter), lambda: None)
    solver.add_callback(nccl)
    if solver.param.layer_wise_reduce:
        solver.net.after_backward(nccl)
    solver.step(solver.param.max_iter)
    assert seen == [0, 1, 2, 3]
    caffe.set_solver_count(2)
    try:
        with pytest.raises(NetspecError, match="2 solvers"):
            caffe.NCCL(solver, uid)
    finally:
        caffe.set_solver_count(1)


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaDelta", "Adam"])
def test_after_a_step_the_diffs_are_what_was_subtracted(tmp_path: Path, kind: str) -> None:
    text = f'type: "{kind}"' + (" momentum2: 0.99" if kind == "Adam" else " delta: 1e-6")
    path = Path(solver_file(tmp_path))
    path.write_text(path.read_text().replace('type: "SGD"', text))
    solver = caffe.get_solver(str(path))
    weights, bias = solver.net.params["ip"]
    for _ in range(3):
        before = weights.data.copy(), bias.data.copy()
        solver.step(1)
        for blob, old in zip((weights, bias), before, strict=True):
            np.testing.assert_allclose(blob.diff, old - blob.data, rtol=1e-4, atol=1e-7)
            assert np.array_equal(old - blob.diff, blob.data)


def test_debug_info_logs_what_every_layer_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = solver_file(tmp_path, "debug_info: true test_initialization: false")
    monkeypatch.setattr(glog, "threshold", 0)
    solver = caffe.SGDSolver(path)
    capfd.readouterr()
    weights = solver.net.params["ip"][0]
    w = float(np.abs(weights.data).mean())
    diffs: list[Any] = []
    solver.add_callback(lambda: None, lambda: diffs.append([b.diff.copy() for b in solver.net.params["ip"]]))
    solver.step(2)
    lines = [line for line in capfd.readouterr().err.splitlines() if "net.cpp" in line]
    texts = [line.split("] ", 1)[1] for line in lines]
    starts = [text.rpartition(" ")[0] for text in texts[:-1]]
    assert starts == [
        "    [Forward] Layer data, top blob data data:",
        "    [Forward] Layer data, top blob label data:",
        "    [Forward] Layer ip, top blob ip data:",
        "    [Forward] Layer ip, param blob w data:",
        "    [Forward] Layer ip, param blob 1 data:",
        "    [Forward] Layer loss, top blob loss data:",
        "    [Backward] Layer loss, bottom blob ip diff:",
        "    [Backward] Layer ip, param blob 0 diff:",
        "    [Backward] Layer ip, param blob 1 diff:",
    ], "only the first iteration is displayed"
    assert texts[3].endswith(f" {w:.6g}")
    assert texts[7].endswith(f" {np.abs(diffs[0][0]).mean():.6g}")
    assert texts[-1].startswith("    [Backward] All net params (data, diff): L1 norm = (")
    norm = np.sqrt(sum(float((d**2).sum()) for d in diffs[0]))
    assert float(texts[-1].rstrip(")").split()[-1]) == pytest.approx(norm, rel=1e-4)
    assert lines[-1].startswith("E")

    net = tmp_path / "train.prototxt"
    net.write_text("debug_info: true\n" + net.read_text())
    caffe.Net(str(net), caffe.TEST).forward()
    assert "[Forward] Layer loss, top blob loss data: " in capfd.readouterr().err


def test_the_command_helps_and_names_what_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pycaffe", "--help"])
    command.main()
    assert "SCRIPT" in capsys.readouterr().out
    for words, message in ((["nothing.py"], "nothing.py: no such script"), (["-m"], "usage")):
        monkeypatch.setattr(sys, "argv", ["pycaffe", *words])
        with pytest.raises(SystemExit, match=message):
            command.main()
