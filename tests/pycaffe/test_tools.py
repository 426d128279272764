"""What pycaffe offers around nets: NetSpec, messages, images, coordinates, drawing, Classifier, Detector."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from netspec import pycaffe as caffe
from netspec import schema
from netspec.errors import DataError
from netspec.pycaffe import coord_map, io
from netspec.pycaffe import layers as L
from netspec.pycaffe import params as P
from netspec.pycaffe.proto import caffe_pb2

# NetSpec


def test_a_net_in_python() -> None:
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(shape=[{"dim": [2, 3]}, {"dim": 2}], ntop=2)
    n.ip = L.InnerProduct(n.data, num_output=4, weight_filler={"type": "xavier"}, param=[{"lr_mult": 2}, {}])
    n.relu = L.ReLU(n.ip, in_place=True)
    n["loss"] = L.SoftmaxWithLoss(n.relu, n.label, loss_weight=3, include={"phase": caffe.TRAIN})
    expected = """
    layer { name: "data" type: "DummyData" top: "data" top: "label"
      dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" param { lr_mult: 2 } param { }
      inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
    layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 3
      include { phase: TRAIN } }
    """
    assert n.to_proto() == text_format.Parse(expected, caffe_pb2.NetParameter())
    assert "ip" in n
    assert n["ip"] is n.ip
    del n.loss
    assert len(n.to_proto().layer) == 3


def test_names_are_made_up() -> None:
    data, label = L.DummyData(shape={"dim": 2}, ntop=2)
    pool = L.Pooling(data, pool=P.Pooling.AVE, kernel_size=2, name="mine")
    loss = L.EuclideanLoss(L.Eltwise(pool, L.ReLU(pool), operation=P.Eltwise.SUM), label)
    layers = [(layer.name, list(layer.bottom), list(layer.top)) for layer in loss.to_proto().layer]
    assert layers == [
        ("DummyData1", [], ["DummyData1", "DummyData2"]),
        ("mine", ["DummyData1"], ["Pooling1"]),
        ("ReLU1", ["Pooling1"], ["ReLU1"]),
        ("Eltwise1", ["Pooling1", "ReLU1"], ["Eltwise1"]),
        ("EuclideanLoss1", ["Eltwise1", "DummyData2"], ["EuclideanLoss1"]),
    ]


def test_long_chains_need_no_recursion() -> None:
    top = L.Input(shape={"dim": 1})
    for _ in range(3000):
        top = L.ReLU(top)
    assert len(caffe.to_proto(top).layer) == 3001


def test_mistakes_in_python_nets() -> None:
    data = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"^Silence input 0 is not a Top \(type is <class 'tuple'>\)$"):
        L.Silence(data, ntop=0)
    L.Silence(*data, ntop=0)
    with pytest.raises(AttributeError, match="no field 'kernel'"):
        L.Convolution(data[0], kernel=3).to_proto()
    with pytest.raises(AttributeError, match="NothingParameter"):
        _ = P.Nothing
    with pytest.raises(AttributeError, match="no blob 'conv'"):
        _ = caffe.NetSpec().conv
    assert caffe.net_spec.param_name_dict()["ReLU"] == "relu"


# Messages


def test_messages_and_enums() -> None:
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (0, 1)
    assert caffe_pb2.Phase.Name(1) == "TEST"
    assert caffe_pb2.PoolingParameter.AVE == caffe_pb2.PoolingParameter.PoolMethod.Value("AVE") == 1
    assert caffe_pb2._LAYERPARAMETER.name == "LayerParameter"
    assert {"NetParameter", "TEST", "Phase"} <= set(dir(caffe_pb2))
    with pytest.raises(AttributeError, match="'NoParameter'"):
        _ = caffe_pb2.NoParameter
    layer = caffe_pb2.LayerParameter(name="a", type="Clip")
    layer.clip_param.min, layer.clip_param.max = 2, 3
    assert caffe_pb2.LayerParameter.FromString(layer.SerializeToString()) == layer


# Arrays and images


def test_blob_protos() -> None:
    values = np.arange(6.0).reshape(2, 3)
    blob = io.array_to_blobproto(values, diff=-values)
    assert np.array_equal(io.blobproto_to_array(blob), values)
    assert np.array_equal(io.blobproto_to_array(blob, return_diff=True), -values)
    old = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    assert io.blobproto_to_array(old).shape == (1, 2, 1, 3)
    double = caffe_pb2.BlobProto(double_data=[1, 2])
    double.shape.dim.append(2)
    assert io.blobproto_to_array(double).tolist() == [1, 2]
    with pytest.raises(ValueError):
        io.blobproto_to_array(caffe_pb2.BlobProto(data=range(6)))
    text = io.arraylist_to_blobprotovector_str([values, values[0]])
    assert [array.shape for array in io.blobprotovector_str_to_arraylist(text)] == [(2, 3), (3,)]


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_datums(kind: Any) -> None:
    values = np.arange(12).reshape(3, 2, 2).astype(kind)
    datum = io.array_to_datum(values, label=4)
    assert datum.label == 4
    assert bool(datum.data) == (kind is np.uint8)
    assert np.array_equal(io.datum_to_array(datum), values)
    assert not io.array_to_datum(values).HasField("label")
    with pytest.raises(ValueError, match="shape"):
        io.array_to_datum(values[0])


def transformer() -> io.Transformer:
    made = io.Transformer({"data": (1, 3, 4, 5)})
    made.set_transpose("data", (2, 0, 1))
    made.set_channel_swap("data", (2, 1, 0))
    made.set_raw_scale("data", 255)
    made.set_mean("data", np.array([10.0, 20.0, 30.0]))
    made.set_input_scale("data", 0.5)
    return made


def test_images_become_inputs_and_come_back() -> None:
    image = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    kept = image.copy()
    values = transformer().preprocess("data", image)
    mean = np.array([10, 20, 30])[:, None, None]
    np.testing.assert_allclose(values, (image.transpose(2, 0, 1)[::-1] * 255 - mean) * 0.5, rtol=1e-5)
    assert values.dtype == np.float32
    assert np.array_equal(image, kept)
    np.testing.assert_allclose(transformer().deprocess("data", values[None]), image, atol=1e-6)
    assert transformer().preprocess("data", np.ones((8, 9, 3))).shape == (3, 4, 5)


def test_transformers_check_their_settings() -> None:
    made = io.Transformer({"data": (1, 3, 4, 5)})
    with pytest.raises(Exception, match="not one of the net inputs"):
        made.set_raw_scale("image", 1)
    with pytest.raises(Exception, match="Transpose order"):
        made.set_transpose("data", (1, 0))
    with pytest.raises(Exception, match="Channel swap"):
        made.set_channel_swap("data", (1, 0))
    with pytest.raises(ValueError, match="channels"):
        made.set_mean("data", np.zeros(2))
    with pytest.raises(ValueError, match="shape"):
        made.set_mean("data", np.zeros((1, 1, 3, 4)))
    made.set_mean("data", np.full((3, 8, 9), 7.0))
    assert made.mean["data"].shape == (3, 4, 5)
    assert (made.mean["data"] == 7).all()


def test_image_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    colour = io.load_image(tmp_path / "colour.png")
    assert colour.dtype == np.float32
    np.testing.assert_allclose(colour, pixels / 255, rtol=1e-6)
    grey = io.load_image(str(tmp_path / "colour.png"), color=False)
    np.testing.assert_allclose(grey[:, :, 0], pixels / 255 @ [0.2125, 0.7154, 0.0721], rtol=1e-5)
    assert io.load_image(tmp_path / "grey.png").shape == (4, 6, 3)
    assert io.load_image(tmp_path / "grey.png", color=False).shape == (4, 6, 1)
    with pytest.raises(DataError, match=r"none\.png"):
        io.load_image(tmp_path / "none.png")


@pytest.mark.parametrize("size", [(3, 4), (5, 7), (12, 9), (6, 8)])
def test_resizing_samples_at_pixel_centres(size: tuple[int, int]) -> None:
    """Bilinear by hand: sample (i + 1/2) old / new - 1/2, with 0 (the lowest value) beyond the border."""
    image = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
    image[0, 0] = image.min()
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=image.min())
    expected = np.zeros((*size, 3))
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = (i + 0.5) * 6 / size[0] + 0.5, (j + 0.5) * 8 / size[1] + 0.5
            top, left = int(y), int(x)
            for dy in (0, 1):
                for dx in (0, 1):
                    weight = (1 - abs(y - top - dy)) * (1 - abs(x - left - dx))
                    if weight:
                        expected[i, j] += weight * padded[top + dy, left + dx]
    np.testing.assert_allclose(io.resize_image(image, size), expected, atol=1e-5)


def test_resizing_of_other_images() -> None:
    assert io.resize_image(np.full((3, 4, 1), 5.0), (2, 2)).tolist() == np.full((2, 2, 1), 5.0).tolist()
    ramp = np.arange(8.0).reshape(2, 4, 1).repeat(2, axis=2)
    np.testing.assert_allclose(io.resize_image(ramp, (2, 7))[0, :, 0], np.arange(0, 3.1, 0.5), atol=1e-6)


def test_ten_crops() -> None:
    image = np.arange(5 * 7.0).reshape(5, 7, 1)
    crops = io.oversample([image, image + 100], (2, 3))
    assert crops.shape == (20, 2, 3, 1)
    corners = [image[:2, :3], image[:2, 4:], image[3:, :3], image[3:, 4:], image[1:3, 2:5]]
    assert np.array_equal(crops[:5], corners)
    assert np.array_equal(crops[5:10], np.array(corners)[:, :, ::-1])
    assert np.array_equal(crops[10:], crops[:10] + 100)


# Coordinates


def fcn(**conv: Any) -> Any:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 40, 40]})
    n.conv = L.Convolution(n.data, num_output=1, **{"kernel_size": 3, "pad": 5, **conv})
    n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.up = L.Deconvolution(n.pool, num_output=1, kernel_size=4, stride=2)
    return n


def test_positions_through_layers() -> None:
    """The centre of the receptive field of `up` at position x lies at a x + b of the data."""
    n = fcn()
    axis, a, b = coord_map.coord_map_from_to(n.up, n.data)
    # conv: x - 5 + 1 in the data; pool 2x + 1/2; deconvolution: position (x - 3/2) / 2 of the pool.
    assert (axis, a, b) == (1, 1, -5)
    assert coord_map.coord_map_from_to(n.data, n.up) == (1, 1, 5)
    crop = coord_map.crop(n.up, n.data)
    assert crop.fn.params["crop_param"] == {"axis": 2, "offset": [5]}
    n.crop = crop
    assert coord_map.coord_map_from_to(n.crop, n.data) == (1, 1, 0)


def test_positions_that_cannot_be_mapped() -> None:
    n = fcn()
    n.ip = L.InnerProduct(n.up, num_output=2)
    with pytest.raises(RuntimeError, match="spatial layers"):
        coord_map.coord_map_from_to(n.ip, n.data)
    with pytest.raises(AssertionError, match="scale mismatch"):
        coord_map.crop(n.pool, n.data)
    n = fcn(pad=0)
    n.up = L.Deconvolution(n.pool, num_output=1, kernel_size=4, stride=2, pad=3)
    with pytest.raises(AssertionError, match="negative offset"):
        coord_map.crop(n.up, n.data)
    n = fcn()
    n.up = L.Deconvolution(n.pool, num_output=1, kernel_size=5, stride=2)
    with pytest.raises(AssertionError, match="noninteger"):
        coord_map.crop(n.up, n.data)
    with pytest.raises(AssertionError, match="pad_h"):
        coord_map.crop(fcn(pad_h=1).up, n.data)


# Drawing


@pytest.mark.parametrize("layer", ['layer { name: "a" type: "ReLU"', 'layers { name: "a" type: RELU'])
def test_drawings(tmp_path: Path, layer: str) -> None:
    text = f'name: "n" {layer} bottom: "x" top: "y" include {{ phase: TEST }} }}'
    net = text_format.Parse(text, caffe_pb2.NetParameter())
    assert caffe.draw.draw_net(net, "LR")[:4] == b"\x89PNG"
    source = caffe.draw.get_pydot_graph(net, "BT").to_string()
    assert "ReLU" in source
    assert "rankdir=BT" in source
    caffe.draw.draw_net_to_file(net, tmp_path / "net.svg", "TB")
    assert "<svg" in (tmp_path / "net.svg").read_text()
    assert b"ReLU" not in caffe.draw.draw_net(net, "TB", "raw", phase=caffe.TRAIN)


# Classifier and Detector

CLASSIFY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.fixture
def model(tmp_path: Path) -> tuple[str, str]:
    file, weights = tmp_path / "deploy.prototxt", tmp_path / "w.caffemodel"
    file.write_text(CLASSIFY)
    caffe.Net(file, caffe.TEST).save(weights)
    return str(file), str(weights)


def test_classifier(model: tuple[str, str]) -> None:
    swap, mean = (2, 1, 0), np.array([1.0, 2.0, 3.0])
    classifier = caffe.Classifier(*model, image_dims=(8, 8), mean=mean, raw_scale=255, channel_swap=swap)
    generator = np.random.default_rng(0)
    images = [generator.random((10, 12, 3)).astype(np.float32) for _ in range(3)]
    centre = classifier.predict(images, oversample=False)
    net = caffe.Net(*model, caffe.TEST)
    prepared = [io.resize_image(image, (8, 8)) for image in images]
    batch = [image[1:7, 1:7, ::-1].transpose(2, 0, 1) * 255 - mean[:, None, None] for image in prepared]
    expected = net.forward_all(data=np.array(batch, np.float32))["prob"]
    np.testing.assert_allclose(centre, expected, rtol=1e-4)
    crops = io.oversample(prepared[1:2], (6, 6))
    batch = [crop[:, :, ::-1].transpose(2, 0, 1) * 255 - mean[:, None, None] for crop in crops]
    expected = net.forward_all(data=np.array(batch, np.float32))["prob"].mean(0)
    np.testing.assert_allclose(classifier.predict(images)[1], expected, rtol=1e-4)


def test_detector(model: tuple[str, str], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    file = str(tmp_path / "image.png")
    windows = [(0, 0, 20, 24), (3, 4, 9, 10)]
    detections = caffe.Detector(*model).detect_windows([(file, windows)])
    assert [(entry["filename"], entry["window"]) for entry in detections] == [
        (file, window) for window in windows
    ]
    net = caffe.Net(*model, caffe.TEST)
    batch = np.zeros((4, 3, 6, 6), np.float32)
    batch[0] = pixels[3:9, 4:10].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(detections[1]["prediction"], net.forward(data=batch)["prob"][0], rtol=1e-4)
    assert caffe.Detector(*model).detect_windows([(file, [])]) == []


def test_context_around_windows(model: tuple[str, str]) -> None:
    detector = caffe.Detector(*model, mean=np.array([51.0, 102.0, 153.0]), raw_scale=255, context_pad=1)
    image = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None] / 20, (20, 20, 3))
    inside = detector.crop(image, (8, 8, 11, 11))
    assert inside.shape == (6, 6, 3)
    # Four pixels of window take four of six, so six pixels of the image are seen, from row 7 on.
    np.testing.assert_allclose(inside.mean((1, 2))[[0, -1]], [7 / 20, 12 / 20], atol=0.04)
    corner = detector.crop(image, (0, 0, 3, 3))
    np.testing.assert_allclose(corner[0, 0], [0.2, 0.4, 0.6], rtol=1e-6)
    assert not np.allclose(corner[-1, -1], [0.2, 0.4, 0.6])


# The module as a whole


def test_scripts_that_import_caffe_run() -> None:
    """In a program of its own, where `caffe` becomes importable."""
    script = """
import netspec.pycaffe
netspec.pycaffe.install()
import caffe, caffe.io, caffe.draw
from caffe import layers as L, params as P
from caffe.proto import caffe_pb2
from caffe.net_spec import NetSpec
from caffe.pycaffe import Net
from caffe.coord_map import crop
assert caffe.Net is Net and caffe.NetSpec is NetSpec and caffe.layers is L
assert 'Convolution' in caffe.layer_type_list() and not caffe.has_nccl()
caffe.set_mode_cpu(); caffe.set_device(0); caffe.set_random_seed(1); caffe.log('said')
caffe.set_solver_rank(0); caffe.set_solver_count(1); caffe.set_multiprocess(False)
assert (caffe.solver_rank(), caffe.solver_count()) == (0, 1)
timer = caffe.Timer(); timer.start(); timer.stop(); assert timer.us == timer.ms * 1000
caffe.init_log(2); caffe.log('unsaid')
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [line.split("] ")[1] for line in done.stderr.splitlines()] == ["said"]


ALIASES = {
    "assigned": "import sys, netspec.pycaffe as ours; sys.modules[__name__] = ours",
    "installed": "import netspec.pycaffe; netspec.pycaffe.install()",
    "names": "from netspec.pycaffe import *",
    "link": None,
}
ONE_COPY = """
import netspec.pycaffe.net_spec
import caffe.io, caffe.draw, caffe.classifier, caffe.detector, caffe.pycaffe, caffe._caffe
import caffe.proto.caffe_pb2 as messages
from caffe.net_spec import NetSpec, Top
from caffe.proto import caffe_pb2
from caffe.coord_map import crop
assert caffe.net_spec is netspec.pycaffe.net_spec and NetSpec is caffe.NetSpec
assert netspec.pycaffe.net_spec.__spec__.name == "netspec.pycaffe.net_spec"
assert caffe._caffe.Net is caffe.pycaffe.Net is caffe.Net and messages is caffe_pb2
assert isinstance(caffe.layers.Input(), Top)
try:
    import caffe.model_zoo
except ModuleNotFoundError as error:
    assert error.name == "caffe.model_zoo"
"""


@pytest.mark.parametrize("kind", ALIASES)
def test_a_package_named_caffe_may_stand_for_ours(kind: str, tmp_path: Path) -> None:
    """Whatever puts the name there, each module exists once."""
    code = ALIASES[kind]
    if code is None:
        (tmp_path / "caffe").symlink_to(Path(caffe.__file__).parent, target_is_directory=True)
    else:
        (tmp_path / "caffe").mkdir()
        (tmp_path / "caffe" / "__init__.py").write_text(code)
    (tmp_path / "script.py").write_text(ONE_COPY)
    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True)


def test_programs_run_with_ours_as_caffe(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ONE_COPY + "import sys; print(sys.argv[1:], __name__)")

    root = str(Path(caffe.__file__).parent.parent.parent)

    def output(*words: str) -> str:
        command = [sys.executable, "-m", "netspec.pycaffe", *words]
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": root},
        )
        return done.stdout

    assert output("script.py", "a", "-b") == "['a', '-b'] __main__\n"
    assert output("-m", "script", "c") == "['c'] __main__\n"
    assert output("-c", "import caffe, sys; print(caffe.TEST, sys.argv)", "d") == "1 ['-c', 'd']\n"
    with pytest.raises(subprocess.CalledProcessError):
        output()


def test_every_message_of_the_schema_is_there() -> None:
    assert all(getattr(caffe_pb2, name) is schema.message_class(name) for name in schema.message_names())
