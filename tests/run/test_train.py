"""The training loop: files in, run folder out; tests, weights, settings, blame for what is not finite."""

from __future__ import annotations

import errno
import functools
import io
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from netspec import schema
from netspec.check import shaped_net
from netspec.data.files import whole
from netspec.errors import DataError, NetspecError, SnapshotError, SpecError
from netspec.interchange import snapshot_files
from netspec.run import experiment
from netspec.run.fit import Run, fit
from netspec.run.folder import Metrics
from netspec.run.progress import Progress
from netspec.run.settings import override
from netspec.run.watch import Diverged

DATA = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
"""
IP = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "y"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss"
  include { phase: TRAIN } }
layer { name: "accuracy" type: "Accuracy" bottom: "y" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""
SOLVER = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 8 display: 2 random_seed: 1 solver_mode: CPU '


class Numbers:
    """A source whose batches are functions of their number."""

    def __init__(self, data: Tensor | None = None):
        self.count = 0
        self.data = data
        self.shapes = [(4, 3), (4,)]

    def next(self) -> tuple[Tensor, ...]:
        self.count += 1
        generator = torch.Generator().manual_seed(self.count)
        x = torch.randn(4, 3, generator=generator) if self.data is None else self.data
        return x, (x.sum(1) > 0).float()

    def state(self) -> dict[str, int | Tensor]:
        return {"count": self.count}

    def load_state(self, state: Mapping[str, int | Tensor]) -> None:
        self.count = int(state["count"])

    def close(self) -> None:
        self.count = -1


def run(folder: Path, net: str, solver: str = SOLVER, data: Tensor | None = None, **settings: Any) -> Run:
    (folder / "small.prototxt").write_text(net)
    (folder / "small_solver.prototxt").write_text(solver)
    settings = {"out": folder / "run", "progress": False, "given": {"data": Numbers(data)}, **settings}
    return fit(folder / "small.prototxt", **settings)


# Loop


def test_loss_falls_and_metrics_tell(tmp_path: Path) -> None:
    tests = "test_iter: 3 test_interval: 4 average_loss: 2 test_initialization: false"
    finished = run(tmp_path, DATA + IP + LOSS, SOLVER + tests)
    lines = Metrics(finished.folder / "metrics.jsonl").read()
    trained = [line for line in lines if line["kind"] == "train"]
    tested = [line for line in lines if line["kind"] == "test"]
    assert [line["iteration"] for line in trained] == [0, 2, 4, 6]
    assert [line["iteration"] for line in tested] == [4, 8]
    assert trained[0]["lr"] == pytest.approx(0.1)
    assert trained[0]["outputs"]["loss"] == pytest.approx(trained[0]["loss"])
    assert trained[2]["loss"] != trained[2]["outputs"]["loss"]
    assert finished.results == [tested[-1]["outputs"]]
    assert finished.iteration == 8
    assert not finished.interrupted
    names = ["loss.png", "metrics.jsonl", "net.prototxt", "run.json", "solver.prototxt"]
    assert sorted(path.name for path in finished.folder.glob("*.*")) == names
    facts = json.loads((finished.folder / "run.json").read_text())
    assert facts["seed"] == 1
    assert facts["versions"]["torch"] == torch.__version__


def test_every_test_sees_the_same_batches(tmp_path: Path) -> None:
    tests = "test_iter: 3 test_interval: 2"
    trained = run(tmp_path, DATA + IP + LOSS, SOLVER.replace("0.1", "0") + tests)
    outputs = [
        line["outputs"] for line in Metrics(trained.folder / "metrics.jsonl").read() if line["kind"] == "test"
    ]
    assert len(outputs) == 5
    assert all(output == outputs[0] for output in outputs)


def test_weights_are_taken_by_name(tmp_path: Path) -> None:
    first = run(tmp_path, DATA + IP + LOSS)
    saved = first.folder / "snapshots" / "iter_8.safetensors"
    state = saved.with_name("iter_8.state.safetensors")
    for weights in (saved, str(saved), [saved], first.net.weights(), first.folder, state):
        frozen = SOLVER.replace("0.1", "0")
        again = run(
            tmp_path, DATA + IP + LOSS, frozen, seed=5, out=tmp_path / f"{id(weights)}", weights=weights
        )
        assert torch.equal(again.net.weights()["ip/0"], first.net.weights()["ip/0"])
    with pytest.raises(SnapshotError, match="has no blob of this net; its first is 'other/0'"):
        run(tmp_path, DATA + IP + LOSS, out=tmp_path / "x", weights={"other/0": torch.ones(1)})
    with pytest.raises(SpecError, match=r"blob ip/0 has shape \(2, 3\), the given weights holds \(1,\)"):
        run(tmp_path, DATA + IP + LOSS, out=tmp_path / "y", weights={"ip/0": torch.ones(1)})


def test_solver_seed_decides_the_weights(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, DATA + IP + LOSS, SOLVER, out=tmp_path / str(i), seed=s)
        for i, s in enumerate((7, 7, 8))
    ]
    values = [trained.net.weights()["ip/0"] for trained in runs]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    run(tmp_path, DATA + IP + LOSS)
    with pytest.raises(NetspecError, match="already holds a run: resume it"):
        run(tmp_path, DATA + IP + LOSS)


def test_a_folder_of_a_run_without_snapshots_says_so(tmp_path: Path) -> None:
    run(tmp_path, DATA + IP + LOSS, SOLVER + "snapshot_after_train: false")
    with pytest.raises(NetspecError, match="already holds a run: remove it, it has no snapshot to resume or"):
        run(tmp_path, DATA + IP + LOSS)
    (tmp_path / "file").write_text("")
    with pytest.raises(NetspecError, match="file: is a file; a run needs a folder"):
        run(tmp_path, DATA + IP + LOSS, out=tmp_path / "file")


def test_what_cannot_start_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.caffemodel").write_bytes(b"\xff\xff no weights")
    for wrong in (
        {"weights": tmp_path / "none.caffemodel"},
        {"weights": tmp_path / "bad.caffemodel"},
        {"weights": {"other/0": torch.ones(1)}},
        {"weights": tmp_path},
        {"given": {}},
        {"resume": tmp_path / "none"},
        {"resume": tmp_path},
        {"device": "cuda:99"},
    ):
        for out in (tmp_path / "run", None):
            with pytest.raises(NetspecError):
                run(tmp_path, DATA + IP + LOSS, out=out, **wrong)
    monkeypatch.setattr("netspec.run.trainer.initialise", fails)  # when the folder is there already
    with pytest.raises(SpecError, match="no clusters"):
        run(tmp_path, DATA + IP + LOSS)
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob("runs/*"))


def fails(*arguments: object, **named: object) -> None:
    raise SpecError("no clusters")


def test_a_net_that_cannot_learn_is_said_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = run(tmp_path, DATA + IP, out=tmp_path / "a", progress=True, iterations=1)
    assert "warning: net 'small' has no loss (no layer with a loss_weight" in capsys.readouterr().err
    assert "has no loss" in json.loads((trained.folder / "run.json").read_text())["notes"][0]
    frozen = IP.replace(
        "inner_product_param", "param { lr_mult: 0 } param { lr_mult: 0 } inner_product_param"
    )
    run(tmp_path, DATA + frozen + LOSS, out=tmp_path / "b", progress=True, iterations=1)
    assert "warning: no weight of net 'small' reaches a loss" in capsys.readouterr().err
    run(tmp_path, DATA + IP + LOSS, out=tmp_path / "c", progress=True, iterations=1)
    assert not capsys.readouterr().err


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        whole.write_whole(tmp_path / "x", b"data")
    assert caught.value.filename == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_default_folders_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [run(tmp_path, DATA + IP + LOSS, out=None).folder for _ in range(2)]
    assert names == [Path("runs/small"), Path("runs/small-2")]


def test_the_run_folder_can_be_run(tmp_path: Path) -> None:
    first = run(
        tmp_path, DATA + IP + LOSS, SOLVER + "test_iter: 3 test_interval: 2", overrides=["base_lr=0.2"]
    )
    again = fit(
        first.folder / "solver.prototxt", out=tmp_path / "again", progress=False, given={"data": Numbers()}
    )
    assert torch.equal(first.net.weights()["ip/0"], again.net.weights()["ip/0"])


def test_iter_size_is_a_bigger_batch(tmp_path: Path) -> None:
    two = run(tmp_path, DATA + IP + LOSS, SOLVER.replace("max_iter: 8", "max_iter: 1 iter_size: 2"))
    start = run(tmp_path, DATA + IP + LOSS, SOLVER.replace("0.1", "0"), out=tmp_path / "start")
    source = Numbers()
    halves = [source.next(), source.next()]
    w = start.net.weights()["ip/0"].clone().requires_grad_()
    b = start.net.weights()["ip/1"].clone().requires_grad_()
    x, label = (torch.cat([half[i] for half in halves]) for i in (0, 1))
    torch.nn.functional.cross_entropy(x @ w.t() + b, label.long()).backward()
    assert w.grad is not None
    torch.testing.assert_close(two.net.weights()["ip/0"], (w - 0.1 * w.grad).detach())


def test_bounds_hold_from_the_start(tmp_path: Path) -> None:
    bounded = IP.replace(
        "inner_product_param", "param { lr_mult: 0 max_value: 0.125 } inner_product_param", 1
    )
    trained = run(tmp_path, DATA + bounded + LOSS)
    assert float(trained.net.weights()["ip/0"].max()) <= 0.125


def test_snapshot_settings(tmp_path: Path) -> None:
    prefix = 'snapshot: 3 snapshot_after_train: false snapshot_prefix: "examples/mnist/lenet"'
    trained = run(tmp_path, DATA + IP + LOSS, SOLVER + prefix)
    names = sorted(path.name for path in (trained.folder / "snapshots").iterdir())
    assert names == [f"lenet_iter_{n}{end}" for n in (3, 6) for end in (".safetensors", ".state.safetensors")]


def test_debug_info_describes_each_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, DATA + IP + LOSS, SOLVER + "debug_info: true", progress=True, iterations=1)
    out = capsys.readouterr().out
    assert "debug info of iteration 0" in out
    assert "ip: top y (4, 2) mean |x|" in out
    assert "parameter ip/0 (2, 3) mean |w|" in out


def test_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, DATA + IP + LOSS, SOLVER + "test_iter: 1 test_interval: 4", progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("iteration 2/8 (") and "left): loss 0." in line for line in lines)
    assert any(line.startswith("test at iteration 8, accuracy ") for line in lines)


def test_missing_data_is_an_error_of_its_layer(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"small.prototxt:2:1: layer 'data' \(Input\): has no data of its own"
    ):
        run(tmp_path, DATA + IP + LOSS, given={})


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_compiled_run_equals_plain_one_and_resumes(tmp_path: Path) -> None:
    solver = SOLVER + 'type: "Nadam" momentum: 0.9 snapshot: 4 test_iter: 1 test_interval: 4'
    plain = run(tmp_path, DATA + IP + LOSS, solver)
    whole = run(tmp_path, DATA + IP + LOSS, solver, out=tmp_path / "compiled", compiled=True)
    torch.testing.assert_close(whole.net.weights(), plain.net.weights(), rtol=1e-4, atol=1e-5)
    state = whole.folder / "snapshots" / "iter_4.state.safetensors"
    assert snapshot_files.load_pair(state).info["compiled"]
    resumed = run(tmp_path, DATA + IP + LOSS, solver, out=tmp_path / "resumed", resume=state)
    assert torch.equal(resumed.net.weights()["ip/0"], whole.net.weights()["ip/0"])


def test_many_compiled_runs_in_one_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch keeps at most 8 variants of a function: different nets must not share that room."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    solver = SOLVER.replace("max_iter: 8", "max_iter: 1") + "test_iter: 1 test_interval: 1"
    for width in range(2, 13):
        net = DATA + IP.replace("num_output: 2", f"num_output: {width}") + LOSS
        run(tmp_path, net, solver, out=tmp_path / str(width), compiled=True)
        assert "not compiled" not in capsys.readouterr().out


def test_bar_on_a_terminal() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, legacy_windows=False)
    with Progress(total=20, done=10, console=console) as progress:
        assert not progress.plain
        progress.show({"loss": 0.5, "accuracy": 0.875})
        time.sleep(0.11)
        progress.advance(15)
        progress.line("a line [of its own]")
    assert "15/20" in screen.getvalue()
    assert "it/s, 0:0" in screen.getvalue()
    assert "loss 0.5, accuracy 0.875" in screen.getvalue()
    assert "a line [of its own]" in screen.getvalue()


def test_weights_named_by_the_solver(tmp_path: Path) -> None:
    first = run(tmp_path, DATA + IP + LOSS)
    frozen = SOLVER.replace("0.1", "0") + 'weights: "run/snapshots/iter_8.safetensors"'
    again = run(tmp_path, DATA + IP + LOSS, frozen, seed=5, out=tmp_path / "again")
    assert torch.equal(again.net.weights()["ip/0"], first.net.weights()["ip/0"])


# Not finite


def test_blame_for_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    log = 'layer { name: "log" type: "Log" bottom: "y" top: "z" }'
    net = DATA + IP + log + LOSS.replace('bottom: "y"', 'bottom: "z"')
    with pytest.raises(
        Diverged, match=r"in iteration 0: .*layer 'log' \(Log\): is the first whose output 'z'"
    ) as caught:
        run(tmp_path, net)
    assert "NaN" in str(caught.value)
    assert "small.prototxt:" in str(caught.value)


def test_missing_values_are_not_blamed(tmp_path: Path) -> None:
    marker = """
layer { name: "nan" type: "Power" bottom: "data" top: "holes" power_param { power: 0.5 } }
layer { name: "image" type: "Reshape" bottom: "holes" top: "image"
  reshape_param { shape { dim: 4 dim: 1 dim: 1 dim: 3 } } }
layer { name: "sim" type: "Similarity" bottom: "image" top: "sim"
  similarity_param { num_instances: 2 normalization_term: true ignore_nan_input: true
    block_param { block_h: 1 block_w: 3 } weight_filler { type: "constant" value: 1 } } }
layer { name: "flat" type: "Flatten" bottom: "sim" top: "y" }
"""
    data = torch.tensor([[-1.0, 4.0, 1.0], [1.0, 1.0, -2.0], [0.0, 1.0, 4.0], [9.0, -1.0, 1.0]])
    run(tmp_path, DATA + marker + LOSS, SOLVER.replace("0.1", "0.001"), data)
    log = 'layer { name: "log" type: "Log" bottom: "y" top: "z" }'
    net = DATA + marker + log + LOSS.replace('bottom: "y"', 'bottom: "z"')
    with pytest.raises(Diverged, match=r"layer 'log' \(Log\): is the first whose output 'z'"):
        run(tmp_path, net, data=data, out=tmp_path / "log")


def test_blame_for_a_gradient_that_is_not_finite(tmp_path: Path) -> None:
    root = 'layer { name: "root" type: "Power" bottom: "y" top: "z" power_param { power: 0.5 } }'
    net = (
        DATA
        + IP.replace('weight_filler { type: "xavier" }', "")
        + root
        + LOSS.replace('bottom: "y"', 'bottom: "z"')
    )
    with pytest.raises(
        Diverged, match=r"layer 'root' \(Power\): is the first in the backward pass"
    ) as caught:
        run(tmp_path, net)
    assert "gradient of its bottom 'y'" in str(caught.value)
    assert "first parameter with such a gradient: ip/0" in str(caught.value)


def test_nothing_bad_is_saved(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="parameter ip/0 is not finite after iteration 1; no snapshot taken"):
        run(tmp_path, DATA + IP + LOSS, SOLVER.replace("0.1", "inf") + "snapshot: 1")
    assert not list((tmp_path / "run" / "snapshots").iterdir())


# Experiments


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.prototxt").write_text(text)


def test_solver_names_its_net(tmp_path: Path) -> None:
    write(tmp_path, net=DATA + IP + LOSS, solver='net: "somewhere/net.prototxt" test_iter: 2 ' + SOLVER)
    plan = experiment.load(tmp_path / "solver.prototxt")
    assert [layer.name for layer in plan.train.layers] == ["data", "ip", "loss"]
    assert [layer.name for layer in plan.tests[0].spec.layers] == ["data", "ip", "accuracy"]
    assert plan.tests[0].iterations == 2


def test_inline_net_with_test_states(tmp_path: Path) -> None:
    staged = LOSS.replace("phase: TEST", 'phase: TEST stage: "exact"')
    states = 'test_iter: 1 test_iter: 5 test_state { stage: "exact" } test_state { stage: "other" } '
    write(tmp_path, whole=f"net_param {{ {DATA + IP + staged} }} {states} {SOLVER}")
    plan = experiment.load(tmp_path / "whole.prototxt")
    assert [[layer.name for layer in test.spec.layers] for test in plan.tests] == [
        ["data", "ip", "accuracy"], ["data", "ip"],
    ]  # fmt: skip
    assert [test.iterations for test in plan.tests] == [1, 5]
    assert str(plan.train.layers[1].at("inner_product_param")).startswith(f"{tmp_path}/whole.prototxt:6:")


def test_stages_from_outside_come_to_those_of_the_solver(tmp_path: Path) -> None:
    staged = LOSS.replace("phase: TEST", 'phase: TEST stage: "exact" min_level: 2')
    write(tmp_path, whole=f"net_param {{ {DATA + IP + staged} }} test_iter: 1 {SOLVER}")
    path = tmp_path / "whole.prototxt"
    assert len(experiment.load(path).tests[0].spec.layers) == 2
    assert len(experiment.load(path, stages=["exact"], level=2).tests[0].spec.layers) == 3
    assert len(shaped_net(path, "test", ["exact"], 2).layers) == 3
    assert len(shaped_net(path, "Train", ["exact"], 2).layers) == 3
    with pytest.raises(SpecError, match="no phase 'EXAM'"):
        shaped_net(path, "exam")


def test_equal_test_nets_are_built_once(tmp_path: Path) -> None:
    exam = (
        DATA
        + 'layer { name: "own" type: "InnerProduct" bottom: "data" top: "y" inner_product_param { num_output: 2 } }'
    )
    (tmp_path / "exam.prototxt").write_text(exam)
    nets = 'train_net: "small.prototxt" test_net: "exam.prototxt" test_net: "exam.prototxt" test_net: "exam.prototxt" '
    tests = "test_iter: 2 test_iter: 3 test_iter: 2 test_interval: 4 "
    tests += "test_state {} test_state {} test_state { level: 1 } "
    (tmp_path / "small.prototxt").write_text(DATA + IP + LOSS)
    (tmp_path / "s.prototxt").write_text(nets + tests + SOLVER)
    settings: Any = {"progress": False, "given": {"data": Numbers(None)}}
    trained = fit(tmp_path / "s.prototxt", out=tmp_path / "run", **settings)
    assert trained.tests[0] is trained.tests[1]
    assert trained.tests[1] is not trained.tests[2]
    assert trained.results[0] == trained.results[2] != trained.results[1]
    again = fit(tmp_path / "run" / "solver.prototxt", resume=tmp_path / "run", **settings)
    assert again.iteration == 8


def test_a_thousand_test_nets_in_a_second(tmp_path: Path) -> None:
    """Found by tools/fuzz/run.py: a short text asks for them."""
    (tmp_path / "small.prototxt").write_text(DATA + IP + LOSS)
    text = 'net: "small.prototxt" ' + "test_iter: 1 " * 1000 + "test_interval: 4 " + SOLVER
    (tmp_path / "s.prototxt").write_text(text)
    started = time.process_time()
    trained = fit(
        tmp_path / "s.prototxt", out=tmp_path / "run", progress=False, given={"data": Numbers(None)}
    )
    assert len(trained.results) == 1000
    assert len({id(net) for net in trained.tests}) == 1
    assert time.process_time() - started < 20  # a test of each, twice


def test_train_and_test_nets_in_files_of_their_own(tmp_path: Path) -> None:
    nets = 'train_net: "train.prototxt" test_net: "exam.prototxt" test_iter: 2 test_interval: 4 '
    write(tmp_path, train=DATA + IP + LOSS, exam=DATA + IP + LOSS, solver=nets + SOLVER)
    settings = {"progress": False, "given": {"data": Numbers()}}
    first = fit(tmp_path / "solver.prototxt", out=tmp_path / "run", **settings)  # type: ignore[arg-type]
    assert first.tests[0].layer("ip").blobs[0] is first.net.layer("ip").blobs[0]
    assert (tmp_path / "run" / "test_net_1.prototxt").exists()
    plan = experiment.load(tmp_path / "run" / "solver.prototxt")
    assert [layer.name for layer in plan.tests[0].spec.layers] == ["data", "ip", "accuracy"]


@pytest.mark.parametrize(
    ("solver", "complaint"),
    [
        ("", "the solver names no net"),
        ('net: "net.prototxt" train_net: "net.prototxt"', "names its net 2 times: train_net, net"),
        ('net: "nothing.prototxt"', "net file 'nothing.prototxt' is not there"),
        (
            'net: "net.prototxt" test_iter: 1 test_state {} test_state {}',
            "2 test_state entries for 1 test nets",
        ),
        ('train_net: "net.prototxt" test_iter: 1', "1 test_iter values for 0 test nets"),
        ('train_net: "net.prototxt" test_net: "net.prototxt"', "0 test_iter values for 1 test nets"),
    ],
)
def test_mistakes_in_naming_nets(tmp_path: Path, solver: str, complaint: str) -> None:
    write(tmp_path, net=DATA + IP + LOSS, solver=SOLVER + solver)
    with pytest.raises(SpecError, match=complaint) as caught:
        experiment.load(tmp_path / "solver.prototxt")
    assert str(caught.value).startswith(f"{tmp_path}/solver.prototxt:1:")


def test_a_net_without_solver_says_where_it_looked(tmp_path: Path) -> None:
    write(tmp_path, net=DATA + IP + LOSS)
    with pytest.raises(
        SpecError, match=r"its solver is looked for in .*net_solver.prototxt, which is not there"
    ):
        experiment.load(tmp_path / "net.prototxt")


# Settings


def overridden(*settings: str) -> tuple[Any, Any]:
    solver = schema.parse_solver(SOLVER + "stepvalue: 3 stepvalue: 4").message
    net = schema.parse_net(DATA + IP).message
    override(solver, [net], settings)
    return solver, net


def test_settings_reach_solver_and_layers() -> None:
    solver, net = overridden(
        "base_lr=0.5", "type=Adam", 'regularization_type="L1"', "stepvalue=7,8,9", "stepvalue[1]=10",
        "ip.inner_product_param.num_output=9", "ip.inner_product_param.weight_filler.type=constant",
        "data.input_param.shape[1].dim=6", "solver_mode=GPU", "clip_gradients=inf",
    )  # fmt: skip
    assert solver.base_lr == 0.5
    assert (solver.type, solver.regularization_type) == ("Adam", "L1")
    assert list(solver.stepvalue) == [7, 10, 9]
    assert solver.clip_gradients == math.inf
    assert solver.solver_mode == solver.GPU
    assert net.layer[1].inner_product_param.num_output == 9
    assert net.layer[1].inner_product_param.weight_filler.type == "constant"
    assert list(net.layer[0].input_param.shape[1].dim) == [6]


def test_settings_add_the_next_entry() -> None:
    solver, net = overridden(
        "ip.include[0].phase=TEST", "ip.include[0].stage[0]=late", "ip.include[1].phase=TRAIN",
        "ip.param[0].lr_mult=0", "stepvalue[2]=5", "ip.exclude[0]=phase: TEST",
    )  # fmt: skip
    rules = net.layer[1].include
    assert [(rule.phase, list(rule.stage)) for rule in rules] == [(1, ["late"]), (0, [])]
    assert [param.lr_mult for param in net.layer[1].param] == [0]
    assert [rule.phase for rule in net.layer[1].exclude] == [1]
    assert list(solver.stepvalue) == [3, 4, 5]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("ip.include.phase=TEST", "include has no entries, and include[0] would add the first"),
        ("ip.include[2].phase=TEST", "include has no entries, and include[0] would add the first"),
        ("ip.include[0].phase=LATE", "no value named LATE"),
        ("base_lr", "expected field=value"),
        ("bas_lr=1", "'bas_lr' is no solver field and no layer; did you mean 'base_lr'?"),
        ("ipp.name=x", "'ipp' is no solver field and no layer; did you mean 'ip'?"),
        ("max_iter=many", "Couldn't parse integer: many"),
        ("ip.inner_product_param.num_outputs=3", "has no field 'num_outputs'; did you mean 'num_output'?"),
        ("stepvalue[5]=3", "stepvalue has entries 0 to 1; stepvalue[2] would add one"),
        ("base_lr[0]=3", "is no entry of a repeated field"),
        ("base_lr.x=3", "base_lr holds no fields"),
        ("data.input_param.shape.dim=6", "shape has entries 0 to 1; say which, as in shape[0]"),
    ],
)
def test_settings_that_do_not_fit(setting: str, complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        overridden(setting)
    assert str(caught.value).startswith(f"--set {setting}")
    assert complaint in str(caught.value)
