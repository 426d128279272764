"""pycaffe's solvers: training as netspec's own solver does, Caffe's snapshots, callbacks and log lines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from netspec import pycaffe as caffe
from netspec import schema
from netspec.net.make import make_net
from netspec.pycaffe import glog
from netspec.pycaffe.solver import Solver
from netspec.solver import Solver as Core

NET = """
name: "tiny"
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 8 dim: 6 } shape { dim: 8 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" param { lr_mult: 1 } param { lr_mult: 2 }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "{net}" base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 4 momentum: 0.9 weight_decay: 0.01
max_iter: 10 display: 2 test_iter: 3 test_interval: 5 snapshot_prefix: "{folder}/tiny" random_seed: 3
"""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glog, "threshold", glog.SILENT)


def solver_file(tmp_path: Path, extra: str = "", **replaced: str) -> str:
    (tmp_path / "net.prototxt").write_text(NET)
    text = SOLVER.format(net=tmp_path / "net.prototxt", folder=tmp_path) + extra
    for old, new in replaced.items():
        text = re.sub(rf"{old}: \S+", new, text)
    (tmp_path / "tiny_solver.prototxt").write_text(text)
    return str(tmp_path / "tiny_solver.prototxt")


def fed(solver: Solver) -> Solver:
    """The solver with a batch in the inputs of all its nets."""
    generator = np.random.default_rng(1)
    data, label = generator.normal(size=(8, 6)), generator.integers(3, size=8)
    for net in (solver.net, *solver.test_nets):
        net.blobs["data"].data[...], net.blobs["label"].data[...] = data, label
    return solver


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_steps_equal_the_solver(tmp_path: Path, kind: str) -> None:
    extra = {"RMSProp": " rms_decay: 0.9", "AdaDelta": " delta: 1e-6", "Adam": " momentum2: 0.99"}
    file = solver_file(
        tmp_path,
        extra.get(kind, "") + f' type: "{kind}" iter_size: 2 clip_gradients: 1',
        momentum="momentum: 0.95" if kind in ("SGD", "Nesterov", "AdaDelta", "Adam") else "momentum: 0",
    )
    ours = fed(caffe.get_solver(file))
    assert type(ours).type == kind
    message = schema.read_solver(file).message
    core = make_net(NET, "TRAIN", seed=1)
    pairs = [(f"{layer}/{i}", blobs[i]) for layer, blobs in ours.net.params.items() for i in range(2)]
    start = {name: torch.from_numpy(blob.data.copy()) for name, blob in pairs}
    core.load_weights(start)
    rule = Core(core, message)
    batch = [torch.from_numpy(ours.net.blobs[name].data.copy()) for name in ("data", "label")]
    for _ in range(10):
        for _ in range(2):
            core.objective(core(*batch)).backward()  # type: ignore[no-untyped-call]
        rule.step()
    ours.step(10)
    assert (ours.iter, ours.lr) == (10, pytest.approx(0.025))
    for name, blob in pairs:
        np.testing.assert_allclose(blob.data, core.weights()[name], rtol=1e-5, atol=1e-6)
        layer, i = name.split("/")
        assert np.shares_memory(blob.data, ours.test_nets[0].params[layer][int(i)].data)


@pytest.mark.parametrize("format", ["BINARYPROTO", "HDF5"])
def test_a_snapshot_goes_on_as_if_never_stopped(tmp_path: Path, format: str) -> None:
    file = solver_file(tmp_path, f" snapshot_format: {format} snapshot: 4")
    whole = fed(caffe.SGDSolver(file))
    whole.solve()
    ending = ".h5" if format == "HDF5" else ""
    assert {path.name.removesuffix(".h5") for path in tmp_path.glob("tiny_iter*")} == {
        f"tiny_iter_{n}.{kind}" for n in (4, 8, 10) for kind in ("caffemodel", "solverstate")
    }
    resumed = fed(caffe.SGDSolver(file))
    resumed.restore(str(tmp_path / f"tiny_iter_4.solverstate{ending}"))
    assert resumed.iter == 4
    resumed.step(6)
    for name, blobs in whole.net.params.items():
        for mine, theirs in zip(blobs, resumed.net.params[name], strict=True):
            assert np.array_equal(mine.data, theirs.data)
    again = fed(caffe.SGDSolver(file))
    again.solve(str(tmp_path / f"tiny_iter_8.solverstate{ending}"))
    assert np.array_equal(again.net.params["ip1"][0].data, whole.net.params["ip1"][0].data)


def test_an_update_from_diffs_of_the_program(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file(tmp_path))
    weights = solver.net.layers[list(solver.net._layer_names).index("ip1")].blobs[0]
    weights.data[...] = 0
    weights.diff[...] = 1
    solver.apply_update()
    np.testing.assert_allclose(weights.data, -0.1, rtol=1e-6)
    assert solver.iter == 1


def test_callbacks_run_around_the_gradients(tmp_path: Path) -> None:
    solver = fed(caffe.SGDSolver(solver_file(tmp_path)))
    seen: list[tuple[str, bool]] = []
    diff = solver.net.params["ip2"][0]
    solver.add_callback(
        lambda: seen.append(("start", bool(diff.diff.any()))),
        lambda: seen.append(("gradients", bool(diff.diff.any()))),
    )
    solver.step(2)
    assert seen == [("start", False), ("gradients", True)] * 2


def test_lines_of_caffes_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(glog, "threshold", 0)
    solver = fed(caffe.SGDSolver(solver_file(tmp_path, " test_compute_loss: true")))
    solver.solve()
    lines = capfd.readouterr().err.splitlines()
    assert all(re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+\] ", line) for line in lines)
    texts = [line.split("] ", 1)[1] for line in lines]
    number = r"[-+.\de]+"
    shapes = [
        r"Solving tiny",
        r"Learning Rate Policy: step",
        r"Iteration 0, Testing net \(#0\)",
        rf"Test loss: {number}",
        rf"    Test net output #0: accuracy = {number}",
        rf"    Test net output #1: loss = {number} \(\* 1 = {number} loss\)",
        rf"Iteration 0 \({number} iter/s, {number}s/2 iters\), loss = {number}",
        rf"    Train net output #0: loss = {number} \(\* 1 = {number} loss\)",
        r"Iteration 0, lr = 0.1",
    ]
    for text, shape in zip(texts, shapes, strict=False):
        assert re.fullmatch(shape, text), text
    assert "Iteration 4, lr = 0.05" in texts
    assert "Iteration 5, Testing net (#0)" in texts
    assert f"Snapshotting to binary proto file {tmp_path}/tiny_iter_10.caffemodel" in texts
    assert f"Snapshotting solver state to binary proto file {tmp_path}/tiny_iter_10.solverstate" in texts
    assert re.fullmatch(rf"Iteration 10, loss = {number}", texts[-6])
    assert texts[-1] == "Optimization Done."


def test_tests_average_over_their_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = fed(caffe.SGDSolver(solver_file(tmp_path)))
    logged: dict[str, float] = {}
    monkeypatch.setattr(
        solver._log, "outputs", lambda phase, outputs: logged.update({name: v for name, v, _ in outputs})
    )
    solver._test_all()
    out = solver.test_nets[0].forward()
    assert logged == {name: pytest.approx(float(value), rel=1e-6) for name, value in out.items()}


def test_snapshots_are_named_after_the_file_without_a_prefix(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file(tmp_path, snapshot_prefix=""))
    solver.snapshot()
    assert (tmp_path / "tiny_solver_iter_0.caffemodel").is_file()
    (tmp_path / "in").mkdir()
    solver.param.snapshot_prefix = str(tmp_path / "in")
    solver.snapshot()
    assert (tmp_path / "in" / "tiny_solver_iter_0.solverstate").is_file()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Could not open file"):
        caffe.SGDSolver(str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match="Could not open file"):
        caffe.SGDSolver(solver_file(tmp_path)).restore("none")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_alike_and_arrays_follow(tmp_path: Path) -> None:
    file = solver_file(tmp_path)
    trained = []
    for gpu in (False, True):
        (caffe.set_mode_gpu if gpu else caffe.set_mode_cpu)()
        try:
            solver = fed(caffe.SGDSolver(file))
            solver.step(3)
            weights = solver.net.params["ip1"][0].data
            weights[...] *= 0.5
            solver.step(3)
            values = [blob.data.copy() for blobs in solver.net.params.values() for blob in blobs]
            values += [solver.net.blobs["ip2"].data.copy(), solver.net.params["ip2"][0].diff.copy()]
            caffe.set_mode_cpu()
            values.append(solver.test_nets[0].forward()["loss"].copy())
            trained.append(values)
        finally:
            caffe.set_mode_cpu()
    for mine, theirs in zip(*trained, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)
