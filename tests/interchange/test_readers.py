"""The reader of OpenCV's scripts, held to what OpenCV itself gave (tests/opencv/recorded.npz)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from netspec.errors import NetspecError, SnapshotError
from netspec.interchange.readers import DnnNet, blob_from_image, blob_from_images, read_net_from_caffe
from tests.places import OPENCV

with np.load(OPENCV / "recorded.npz") as archive:
    RECORD = {name: archive[name] for name in archive.files}
META = json.loads(str(RECORD["meta"]))
CASES = json.loads(str(RECORD["cases"]))


def opened() -> DnnNet:
    return read_net_from_caffe(str(RECORD["prototxt"]).encode(), RECORD["caffemodel"].tobytes())


def test_outputs_are_opencvs() -> None:
    net = opened()
    net.setInput(RECORD["x"])
    for key in (key for key in RECORD if key.startswith("out/")):
        np.testing.assert_allclose(net.forward(key[4:]), RECORD[key], atol=2e-5)
    assert np.array_equal(net.forward(), net.forward("prob"))
    up, prob = net.forward(["up", "prob"])
    assert up.shape == (2, 4, 8, 8)
    np.testing.assert_allclose(prob.sum(1), 1, rtol=1e-6)


def test_names_are_opencvs() -> None:
    net = opened()
    assert list(net.getLayerNames()) == META["names"]
    assert list(net.getUnconnectedOutLayersNames()) == META["unconnected"]
    names = net.getLayerNames()
    assert [names[i - 1] for i in net.getUnconnectedOutLayers()] == META["unconnected"]
    assert net.getLayerId("nothing") == -1
    assert not net.empty()
    assert net.getLayersCount("Convolution") == 2
    assert "Softmax" in net.getLayerTypes()
    assert net.getParam("ip", 1).shape == (7,)


def test_files_and_their_mistakes(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(str(RECORD["prototxt"]))
    (tmp_path / "net.caffemodel").write_bytes(RECORD["caffemodel"].tobytes())
    net = read_net_from_caffe(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    with pytest.raises(NetspecError, match="has no values; call setInput"):
        net.forward()
    with pytest.raises(NetspecError, match=r"no input 'dat'; did you mean 'data'"):
        net.setInput(RECORD["x"], "dat")
    net.setInput(RECORD["x"])
    with pytest.raises(NetspecError, match=r"no layer 'conv2'; did you mean 'conv1'"):
        net.forward("conv2")
    (tmp_path / "net.prototxt").write_text(str(RECORD["prototxt"]).replace('"ip"', '"ip_new"'))
    with pytest.raises(SnapshotError, match="has no blob ip_new/0, ip_new/1 of the net"):
        read_net_from_caffe(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")


def test_parameters_and_scaling_of_inputs() -> None:
    net = opened()
    net.setInput(RECORD["x"])
    before = net.forward()
    net.setInput(RECORD["x"] / 2 + np.array([1, 2, 3]).reshape(1, 3, 1, 1), scalefactor=2.0, mean=(1, 2, 3))
    np.testing.assert_allclose(net.forward(), before, atol=1e-6)
    net.setParam("ip", 1, net.getParam("ip", 1) + 5 * np.eye(7)[0])
    assert (net.forward().argmax(1) == 0).all()


@pytest.mark.parametrize("i", range(len(CASES)))
def test_blobs_are_opencvs(i: int) -> None:
    case = dict(CASES[i])
    size = tuple(case.pop("size") or ()) or None
    blob = blob_from_image(RECORD[f"image/{i}"], size=size, **case)
    np.testing.assert_allclose(blob, RECORD[f"blob/{i}"], rtol=1e-5, atol=1e-4)


def test_several_images_and_bytes() -> None:
    a, b = np.full((4, 6, 3), 7, np.uint8), np.full((8, 12, 3), 9, np.uint8)
    blob = blob_from_images([a, b])
    assert blob.shape == (2, 3, 4, 6)
    assert (blob[1] == 9).all()
    raw = blob_from_image(a, ddepth=np.uint8)
    assert raw.dtype == np.uint8
    for wrong in (np.zeros((0, 4, 3)), np.zeros(3)):
        with pytest.raises(NetspecError, match=r"an image is \(H, W\)"):
            blob_from_image(wrong)
    with pytest.raises(NetspecError, match="takes no mean"):
        blob_from_image(a, 2.0, ddepth=np.uint8)
