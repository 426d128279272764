"""BN, a name of three forks' layers: where the text does not tell which, the blobs of the weights do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import netspec
import netspec.pycaffe as caffe
from netspec import schema
from netspec.check import check
from netspec.errors import SpecError
from netspec.interchange import convert, load_weights, read_net_from_caffe, save_weights
from netspec.interchange.comparison import compare_files, open_net
from netspec.interchange.dialects import told
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.pycaffe.command import main as caffe_main
from netspec.run.evaluate import evaluate
from netspec.run.fit import fit
from netspec.schema import spec

DATA = """layer { name: "data" type: "HDF5Data" top: "x" top: "y" hdf5_data_param { source: "%s" batch_size: 4 } }
"""
INPUT = (
    'layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 5 dim: 5 } } }\n'
)
BN = 'layer { name: "bn" type: "BN" bottom: "x" top: "b" %s }\n'
TAIL = """layer { name: "ip" type: "InnerProduct" bottom: "b" top: "s" inner_product_param { num_output: 2
  weight_filler { type: "xavier" } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "y" top: "loss" }\n'
SOLVER = """net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 2 test_iter: 1 test_interval: 2
snapshot_prefix: "%s" solver_mode: CPU random_seed: 1 """
KINDS = ("segnet", "pspnet", "yjxiong")
ENDINGS = (".caffemodel", ".caffemodel.h5", ".safetensors")


def net_of(text: str, phase: str = "TEST") -> Net:
    return make_net(text, phase, seed=3)


def weights_of(kind: str, folder: Path, ending: str = ".caffemodel") -> Path:
    """Weights of the net as a fork's Caffe would have written them, every blob with values of its own."""
    net = net_of(f'dialect: "{kind}" {INPUT}{BN % ""}{TAIL}')
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for param in net.params:
            param.value.copy_(torch.rand(param.value.shape, generator=generator) + 0.5)
    path = folder / f"{kind}{ending}"
    save_weights(net, path)
    return path


def bn(net: Net) -> Any:
    return next(layer for layer in net.made if layer.spec.type == "BN")


def expected(kind: str, weights: Path, x: torch.Tensor) -> torch.Tensor:
    net = net_of(f'dialect: "{kind}" {INPUT}{BN % ""}{TAIL}')
    load_weights(net, weights)
    with torch.no_grad():
        return net(x)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deploy.prototxt").write_text(INPUT + BN % "" + TAIL)
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).normal(size=(8, 3, 5, 5)).astype(np.float32)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"], file["y"] = values, np.arange(8, dtype=np.float32) % 2
    (tmp_path / "list.txt").write_text(str(tmp_path / "data.h5"))
    (tmp_path / "net.prototxt").write_text(DATA % (tmp_path / "list.txt") + BN % "" + TAIL + LOSS)
    (tmp_path / "net_solver.prototxt").write_text(SOLVER % (tmp_path / "s"))
    return tmp_path


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_tells(kind: str, ending: str, folder: Path) -> None:
    weights, x = weights_of(kind, folder, ending), torch.randn(4, 3, 5, 5)
    net = open_net(folder / "deploy.prototxt", weights)
    assert bn(net).spec.dialect == kind
    with torch.no_grad():
        assert torch.equal(net(x)[0], expected(kind, weights, x))


def test_fields_and_dialect_go_before_weights(folder: Path) -> None:
    weights = weights_of("yjxiong", folder)
    net = spec.net(schema.parse_net(INPUT + BN % "bn_param { momentum: 0.9 }" + TAIL), "TEST")
    assert told(net, weights) is net
    net = spec.net(schema.parse_net(f'dialect: "pspnet" {INPUT}{BN % ""}{TAIL}'), "TEST")
    assert told(net, weights) is net
    # Fillers fit two of the forks, so that these weights tell.
    net = spec.net(schema.parse_net(INPUT + BN % "bn_param { scale_filler { value: 1 } }" + TAIL), "TEST")
    assert told(net, weights).layers[1].dialect == "yjxiong"


def test_a_layer_that_is_not_in_the_file_is_as_the_others(folder: Path) -> None:
    more = BN % "" + BN.replace('"bn"', '"new"').replace('"x"', '"b"').replace('top: "b"', 'top: "c"') % ""
    net = told(spec.net(schema.parse_net(INPUT + more), "TEST"), weights_of("segnet", folder))
    assert [layer.dialect for layer in net.layers] == ["", "segnet", "segnet"]


@pytest.mark.parametrize("kind", KINDS)
def test_train_test_and_resume(kind: str, folder: Path) -> None:
    weights = weights_of(kind, folder)
    run = fit(folder / "net_solver.prototxt", weights=weights, out=folder / "run", progress=False)
    assert bn(run.net).spec.dialect == bn(run.tests[0]).spec.dialect == kind
    assert f'dialect: "{kind}"' in (run.folder / "net.prototxt").read_text()
    again = fit(folder / "net_solver.prototxt", resume=run.folder, iterations=3, progress=False)
    assert again.iteration == 3
    assert bn(again.net).spec.dialect == kind
    assert evaluate(folder / "net_solver.prototxt", weights)
    assert evaluate(run.folder)
    assert len(bn(netspec.load(run.folder).net).blobs) == len(bn(run.net).blobs)


@pytest.mark.parametrize("kind", KINDS)
def test_convert_compare_and_opencv(kind: str, folder: Path) -> None:
    weights, deploy = weights_of(kind, folder), folder / "deploy.prototxt"
    assert convert(deploy, folder / "out.safetensors", weights=weights).equal
    assert convert(weights, folder / "out.h5", net=deploy).equal
    assert compare_files(deploy, deploy, weights, weights_of(kind, folder, ".safetensors")).equal
    x = torch.randn(4, 3, 5, 5)
    for given in (weights, weights.read_bytes()):
        net = read_net_from_caffe(deploy, given)
        net.setInput(x.numpy())
        assert np.array_equal(net.forward(), expected(kind, weights, x).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_pycaffe_and_its_command(kind: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    weights, x = weights_of(kind, folder), torch.randn(4, 3, 5, 5)
    net = caffe.Net(str(folder / "deploy.prototxt"), str(weights), caffe.TEST)
    net.blobs["x"].data[...] = x.numpy()
    assert np.array_equal(net.forward()["s"], expected(kind, weights, x).numpy())
    solver = str(folder / "net_solver.prototxt")
    assert caffe_main(["train", f"-solver={solver}", f"-weights={weights}"]) == 0
    state = folder / "s_iter_2.solverstate"
    assert state.exists()
    (folder / "net_solver.prototxt").write_text(
        (SOLVER % (folder / "s")).replace("max_iter: 2", "max_iter: 3")
    )
    assert caffe_main(["train", f"-solver={solver}", f"-snapshot={state}"]) == 0
    model = str(folder / "net.prototxt")
    assert caffe_main(["test", f"-model={model}", f"-weights={weights}", "-iterations=1"]) == 0
    resumed = fit(solver, resume=state, out=folder / "r", progress=False)
    assert bn(resumed.net).spec.dialect == kind


def test_check_with_weights(folder: Path) -> None:
    deploy = folder / "deploy.prototxt"
    for kind, told_as in zip(KINDS, KINDS, strict=True):
        report = check(deploy, weights=weights_of(kind, folder))
        assert report.ok, str(report)
        assert report.dialects == [told_as]
        assert report.phases["TEST"]["weights"] == {
            "taken": 4 if kind == "segnet" else 6,
            "missing": [],
            "unused": [],
        }
        assert "blobs fit, 0 of the net's not there" in str(report)
    assert check(folder / "net_solver.prototxt", weights=weights_of("segnet", folder)).dialects == ["segnet"]
    deploy.write_text(INPUT + BN % "bn_param { bn_mode: INFERENCE }" + TAIL)
    report = check(deploy, weights=weights_of("pspnet", folder))
    assert not report.ok
    assert "layer 'bn' (BN): has 2 blobs" in str(report)
    assert 'those of a net with dialect: "pspnet"' in str(report)
    (folder / "bad.caffemodel").write_bytes(b"nothing")
    assert "bad.caffemodel" in str(check(deploy, weights=folder / "bad.caffemodel").problems[0])


def test_weights_that_come_later_say_what_to_write(folder: Path) -> None:
    net = net_of(INPUT + BN % "" + TAIL)
    with pytest.raises(SpecError, match='those of a net with dialect: "segnet"'):
        load_weights(net, weights_of("segnet", folder))
