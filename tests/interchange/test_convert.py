"""convert: every kind of file to every other, the way back to the byte, reports and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from netspec import interchange, schema
from netspec.errors import NetspecError, SnapshotError
from netspec.interchange import convert
from netspec.interchange.caffemodel import read_caffemodel
from netspec.interchange.comparison import open_net
from netspec.interchange.onnx import quiet
from netspec.run.fit import fit
from tests.interchange.test_weights import SHARED, TEXT, net_of, old_file, same
from tests.places import VECTORS as GOLDEN


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(TEXT)
    interchange.save_weights(net_of(TEXT), tmp_path / "net.caffemodel")
    return tmp_path


def recorded(name: str) -> bytes:
    with np.load(GOLDEN / f"{name}.npz") as archive:
        return bytes(archive["caffemodel_bytes"].tobytes())


@pytest.mark.parametrize("form", ["recorded", "recorded_fork", "v0", "v1", "double", "shared"])
def test_to_safetensors_and_back_is_the_same_file(form: str, tmp_path: Path) -> None:
    data = {
        "recorded": lambda: recorded("bvlc__solver_adam_l2"),
        "recorded_fork": lambda: recorded("simnets__solver_adam_l2"),
        "v0": lambda: old_file(net_of(TEXT), "v0"),
        "v1": lambda: old_file(net_of(TEXT), "v1"),
        "double": lambda: old_file(net_of(TEXT), "v1", double=True),
        "shared": lambda: saved(SHARED, tmp_path),
    }[form]()
    (tmp_path / "a.caffemodel").write_bytes(data)
    there = convert(tmp_path / "a.caffemodel", tmp_path / "a.safetensors")
    back = convert(tmp_path / "a.safetensors", tmp_path / "b.caffemodel")
    assert there.equal
    assert back.equal
    assert there.largest == back.largest == 0
    assert (tmp_path / "b.caffemodel").read_bytes() == data


def saved(text: str, folder: Path) -> bytes:
    interchange.save_weights(net_of(text), folder / "saved.caffemodel")
    return (folder / "saved.caffemodel").read_bytes()


@pytest.mark.parametrize("first", [".caffemodel", ".h5", ".safetensors"])
@pytest.mark.parametrize("second", [".caffemodel", ".h5", ".safetensors"])
def test_weights_with_their_net(first: str, second: str, files: Path) -> None:
    convert(files / "net.caffemodel", files / f"one{first}", net=files / "net.prototxt")
    report = convert(files / f"one{first}", files / f"two{second}", net=files / "net.prototxt")
    assert report.equal
    assert report.largest == 0
    assert same(open_net(files / "net.prototxt", files / f"two{second}"), net_of(TEXT))


def test_old_files_are_brought_up_to_date(tmp_path: Path) -> None:
    text = TEXT.replace('type: "BatchNorm"', 'type: "ReLU"')
    net = net_of(text)
    (tmp_path / "old.caffemodel").write_bytes(old_file(net, "v1"))
    for name in ("new.caffemodel", "new.h5", "new.safetensors"):
        convert(tmp_path / "old.caffemodel", tmp_path / name)
    assert [blob.shape for blob in read_caffemodel(tmp_path / "new.caffemodel").layers[3].blobs] == [
        (5, 64),
        (5,),
    ]
    for name in ("new.h5", "new.safetensors"):
        assert interchange.read_weights(tmp_path / name)["ip/1"].shape == (5,)
    other = net_of(text, 2)
    interchange.load_weights(other, tmp_path / "new.h5")
    assert same(other, net)


def test_a_net_goes_everywhere(files: Path) -> None:
    net = net_of(TEXT)
    x = torch.randn(2, 3, 6, 6)
    for name in ("a.onnx", "a.pt2", "a.safetensors", "a.caffemodel", "a.prototxt"):
        report = convert(files / "net.prototxt", files / name, weights=files / "net.caffemodel")
        assert report.departs is None
        assert (files / name).stat().st_size
    with quiet():
        program = torch.export.load(files / "a.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(x)[0], net(x)[0])
    assert convert(files / "net.caffemodel", files / "c.onnx").equal


def test_the_net_inside_a_caffemodel(files: Path) -> None:
    convert(files / "net.caffemodel", files / "inside.prototxt")
    layers = schema.read_net(files / "inside.prototxt").message.layer
    assert [layer.name for layer in layers] == ["in", "conv", "bn", "ip"]
    assert not any(layer.blobs for layer in layers)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(36, 2))


def test_modules_by_name(tmp_path: Path) -> None:
    report = convert("tests.interchange.test_convert:small", tmp_path / "s.caffemodel", inputs=[(2, 3, 9, 9)])
    assert report.equal
    net = open_net(tmp_path / "s.prototxt", tmp_path / "s.caffemodel")
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[0], small()(x))
    convert("tests.interchange.test_convert:small", tmp_path / "s.safetensors", inputs=[(2, 3, 9, 9)])
    assert set(interchange.read_weights(tmp_path / "s.safetensors")) == {"0/0", "0/1", "4/0", "4/1"}


def test_refusals(files: Path) -> None:
    with pytest.raises(NetspecError, match=r"cannot write \.bin; there are \.caffemodel"):
        convert(files / "net.prototxt", files / "a.bin")
    interchange.save_weights(net_of(TEXT), files / "w.safetensors")
    with pytest.raises(SnapshotError, match="give the net's prototxt"):
        convert(files / "w.safetensors", files / "b.caffemodel")
    with pytest.raises(NetspecError, match="holds weights alone"):
        convert(files / "w.safetensors", files / "b.onnx")
    with pytest.raises(NetspecError, match="give the shapes of its inputs"):
        convert("tests.interchange.test_convert:small", files / "b.caffemodel")
    with pytest.raises(NetspecError, match="no_such_home"):
        convert("no_such_home:small", files / "b.caffemodel", inputs=[(1, 2)])
    with pytest.raises(NetspecError, match=r"only a \.caffemodel describes its net"):
        convert(files / "w.safetensors", files / "b.prototxt")


def test_a_run_folder_is_a_source(tmp_path: Path) -> None:
    """Its newest snapshot and its test net, which may lie in a file of its own; whatever the target."""
    data = """layer { name: "d" type: "Dataset" top: "x" top: "label"
      dataset_param { name: "digits" split: "train" batch_size: 8 } }
    """
    ip = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" inner_product_param { num_output: 10 } }\n'
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" top: "loss" }\n'
    (tmp_path / "net.prototxt").write_text(data + ip + loss)
    (tmp_path / "exam.prototxt").write_text(data + ip)
    solver = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 3 snapshot: 2 solver_mode: CPU random_seed: 1 test_interval: 3 '
    nets = {
        "one": 'net: "net.prototxt"',
        "two": 'train_net: "net.prototxt" test_net: "exam.prototxt" test_iter: 1',
    }
    for name, text in nets.items():
        (tmp_path / f"{name}_solver.prototxt").write_text(f"{solver} {text}")
        run = fit(tmp_path / f"{name}_solver.prototxt", out=tmp_path / name, progress=False)
        net = open_net(run.folder)
        assert len(net.made) == (3 if name == "one" else 2)
        for ending in (".caffemodel", ".safetensors", ".h5", ".onnx", ".pt2"):
            with quiet():
                assert convert(run.folder, tmp_path / f"out{ending}").equal
        for param in net.params:
            assert torch.equal(param.value, run.net.weights()[param.name])
        assert interchange.compare_files(
            run.folder, tmp_path / "out.prototxt", None, tmp_path / "out.h5"
        ).equal
    older = next(run.folder.rglob("*iter_2.safetensors"))
    convert(run.folder, tmp_path / "older.safetensors", weights=older)
    assert not interchange.convert(older, tmp_path / "b.safetensors").largest
    assert not torch.equal(
        interchange.read_weights(tmp_path / "older.safetensors")["ip/0"], run.net.weights()["ip/0"]
    )
    with pytest.raises(NetspecError):
        convert(tmp_path, tmp_path / "c.onnx")
