"""A run that was interrupted and resumed ends with the very bits of one that never stopped."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from netspec.errors import NetspecError, SnapshotError
from netspec.interchange import safetensors, snapshot_files
from netspec.run import trainer
from netspec.run.fit import Run, fit
from netspec.run.folder import Metrics
from netspec.run.signals import Requests
from tests.places import ROOT

NET = """
name: "tiny"
layer { name: "data" type: "Dataset" top: "data" top: "label"
  transform_param { scale: 0.0625 mirror: true }
  dataset_param { name: "digits" split: "train" batch_size: 7 shuffle: true } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "h"
  inner_product_param { num_output: 12 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "h" top: "b" }
layer { name: "drop" type: "Dropout" bottom: "b" top: "d" }
layer { name: "ip2" type: "InnerProduct" bottom: "d" top: "y"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "y" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""

SOLVER = """
net: "tiny.prototxt"
type: "Nadam" momentum: 0.9 base_lr: 0.01 lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 20
weight_decay: 1e-4 max_iter: 30 display: 2 average_loss: 3 iter_size: 2
test_iter: 2 test_interval: 6 snapshot: 4 random_seed: 3 solver_mode: CPU
"""


@pytest.fixture
def solver(tmp_path: Path) -> Path:
    (tmp_path / "tiny.prototxt").write_text(NET)
    path = tmp_path / "tiny_solver.prototxt"
    path.write_text(SOLVER)
    return path


def train(solver: Path, name: str, **settings: object) -> Run:
    return fit(solver, out=solver.parent / name, progress=False, **settings)  # type: ignore[arg-type]


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items()
    )


def comparable(run: Path) -> list[dict[str, object]]:
    lines = Metrics(run / "metrics.jsonl").read()
    for line in lines:
        line.pop("seconds")
    return lines


LATENT = """
name: "latent"
layer { name: "data" type: "Dataset" top: "data" top: "label"
  dataset_param { name: "digits" split: "train" batch_size: 50 shuffle: true } }
layer { name: "leaf" type: "Leaves" bottom: "data" top: "leaf" leaves_param { num_instances: 3 radius: 1
  distribution { kind: "categorical" levels: 256 } unsupervised_init { type: "neighbourhood" num_batches: 3 } } }
layer { name: "tree" type: "LatentTree" bottom: "leaf" top: "tree"
  latent_tree_param { unsupervised_init { type: "chow_liu" } } }
layer { name: "score" type: "MEX" bottom: "tree" top: "score" mex_param { num_instances: 1
  block_param { block_size: 1 } softmax_mode: true normalize_offsets: true } }
layer { name: "loss" type: "LogLikelihoodLoss" bottom: "score" top: "loss" }
"""
LATENT_SOLVER = """net: "latent.prototxt" type: "EM" base_lr: 0.1 lr_policy: "fixed" max_iter: 4
em_param { prior_values: 1 images: 1217 } snapshot: 10 random_seed: 1 solver_mode: CPU"""


def test_an_initialisation_is_not_done_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run is stopped in its first iteration: what was fitted to the data before it is in a snapshot."""
    (tmp_path / "latent.prototxt").write_text(LATENT)
    solver = tmp_path / "latent_solver.prototxt"
    solver.write_text(LATENT_SOLVER)
    whole = train(solver, "whole")
    first = tmp_path / "whole" / "snapshots" / "iter_0.state.safetensors"
    part = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", part)
    for path in (part / "snapshots").iterdir():
        if "iter_0." not in path.name:
            path.unlink()
    assert first.is_file()
    capsys.readouterr()
    resumed = fit(solver, resume=part)
    assert "neighbourhood" not in capsys.readouterr().out
    assert resumed.iteration == 4
    assert equal(resumed.net.weights(), whole.net.weights())
    for name, value in whole.solver.state_dict().items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(resumed.solver.state_dict()[name])), name


def test_resumed_run_is_bit_identical(solver: Path) -> None:
    whole = train(solver, "whole")
    part = train(solver, "part", overrides=["max_iter=14"])
    assert part.iteration == 14
    resumed = train(solver, "part", resume=solver.parent / "part")
    assert resumed.iteration == 30
    assert equal(resumed.net.weights(), whole.net.weights())
    for key, value in whole.solver.state_dict().items():
        other = resumed.solver.state_dict()[key]
        assert (
            torch.equal(value, other)
            if isinstance(value, Tensor) and isinstance(other, Tensor)
            else value == other
        )
    assert comparable(resumed.folder) == comparable(whole.folder)


def test_tests_and_display_leave_training_alone(solver: Path) -> None:
    plain = train(solver, "plain")
    other = train(solver, "other", overrides=["test_interval=3", "display=5", "snapshot=0"])
    assert equal(plain.net.weights(), other.net.weights())


def test_resume_from_a_state_file(solver: Path) -> None:
    whole = train(solver, "whole")
    state = whole.folder / "snapshots" / "iter_12.state.safetensors"
    resumed = train(solver, "again", resume=state)
    assert equal(resumed.net.weights(), whole.net.weights())


def test_a_resumed_run_keeps_its_seed(solver: Path) -> None:
    part = train(solver, "part", overrides=["max_iter=4"])
    again = train(solver, "part", resume=part.folder, seed=3, overrides=["max_iter=6"])
    assert again.iteration == 6
    with pytest.raises(
        NetspecError, match="keeps its seed 3, found seed 4; leave it out, or start a new run"
    ):
        train(solver, "part", resume=part.folder, seed=4)
    with pytest.raises(NetspecError, match="keeps its seed 3, found random_seed 5"):
        train(solver, "part", resume=part.folder, overrides=["random_seed=5"])
    with pytest.raises(NetspecError, match="a resumed run has its weights"):
        train(solver, "part", resume=part.folder, weights=part.folder)


def test_compilation_asked_for_on_resumption(solver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = train(solver, "part", overrides=["max_iter=4"])
    asked: dict[str, object] = {"resume": part.folder, "overrides": ["max_iter=5"], "out": part.folder}
    fit(solver, compiled=False, **asked)  # type: ignore[arg-type]
    assert "to the bit" not in capsys.readouterr().out
    state = part.folder / "snapshots" / "iter_5.state.safetensors"
    tensors, info, _ = safetensors.load(state)
    safetensors.save(state, tensors, {**info, "compiled": True})
    fit(solver, compiled=False, **{**asked, "overrides": ["max_iter=6"]})  # type: ignore[arg-type]
    assert "the step was compiled, now is not: equal to rounding, not to the bit" in capsys.readouterr().out


SHARPENING = """
name: "sharpening"
layer { name: "data" type: "Dataset" top: "data" top: "label"
  transform_param { scale: 0.0625 } dataset_param { name: "digits" split: "train" batch_size: 7 shuffle: true } }
layer { name: "sim" type: "Similarity" bottom: "data" top: "d" param { decay_mult: 0 }
  similarity_param { num_instances: 4 normalization_term: true block_param { block_size: 2 stride: 2 }
    template_filler { type: "uniform" } weight_filler { type: "constant" value: 20000 } } }
layer { name: "shrink" type: "Power" bottom: "d" top: "e" power_param { scale: 1e-6 } }
layer { name: "ip" type: "InnerProduct" bottom: "e" top: "y"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }
"""


def test_gaussians_that_sharpen_under_compiled_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a compiled run resumes, it goes by what the uninterrupted one went by: looked at in its rhythm."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(trainer, "LOOK_EVERY", 8)
    (tmp_path / "tiny.prototxt").write_text(SHARPENING)
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        """net: "tiny.prototxt" base_lr: 0.05 lr_policy: "fixed" weight_decay: -4 max_iter: 12 display: 1
           random_seed: 3 snapshot: 2 solver_mode: CPU"""  # every step takes the precisions times 1.2
    )
    whole = train(solver, "whole", compiled=True)
    noted = [bool(snapshot_files.newest(whole.folder)[0].info["noted"]["1/needs_double"])]
    for stop in (2, 6, 8):
        part = train(solver, f"part{stop}", compiled=True, overrides=[f"max_iter={stop}"])
        noted.append(bool(snapshot_files.newest(part.folder)[0].info["noted"]["1/needs_double"]))
        resumed = train(solver, f"part{stop}", compiled=True, resume=part.folder)
        assert equal(resumed.net.weights(), whole.net.weights())
        assert comparable(resumed.folder) == comparable(whole.folder)
    assert noted == [True, False, False, False]  # the others crossed the bound after the look at the start


def test_another_branch_leaves_the_old_one_aside(solver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = train(solver, "run", overrides=["max_iter=14"])
    before = comparable(first.folder)
    state = first.folder / "snapshots" / "iter_8.state.safetensors"
    other = fit(solver, resume=state, overrides=["max_iter=10", "base_lr=0.5"])
    aside = first.folder / "abandoned" / "1"
    assert f"is another branch now: {aside}" in capsys.readouterr().out
    assert [path.name for path in snapshot_files.states(first.folder)][:2] == [
        "iter_10.state.safetensors", "iter_8.state.safetensors",
    ]  # fmt: skip
    assert [snapshot_files.iteration_of(path) for path in snapshot_files.states(aside)] == [14, 12]
    assert comparable(aside) == before
    again = fit(solver, resume=first.folder, overrides=["max_iter=10"], progress=False)
    assert equal(again.net.weights(), other.net.weights())
    assert not (first.folder / "abandoned" / "2").exists()
    # The old branch is a run folder of its own.
    old = fit(solver, resume=aside, overrides=["max_iter=14"], progress=False)
    assert equal(old.net.weights(), first.net.weights())


def test_layers_of_test_nets_alone_are_saved(solver: Path) -> None:
    extra = """
layer { name: "noise" type: "InnerProduct" bottom: "data" top: "n" include { phase: TEST }
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }
layer { name: "silence" type: "Silence" bottom: "n" include { phase: TEST stage: "quiet" } }
"""
    (solver.parent / "tiny.prototxt").write_text(NET + extra)
    states = ["test_iter=2,2", 'test_state[0]=stage: "quiet"', "test_state[1]="]
    whole = train(solver, "whole", overrides=states)
    mine = whole.tests[0].weights()["noise/0"]
    other = whole.tests[1].weights()["noise/0"]
    # Others than the seed would give: an older version of torch, say, or a net that was edited.
    state = whole.folder / "snapshots" / "iter_12.state.safetensors"
    tensors, info, _ = safetensors.load(state)
    assert torch.equal(tensors["test/0/noise/0"], mine)
    assert torch.equal(tensors["test/1/noise/0"], other)
    changed = tensors["test/1/noise/0"] + 1
    safetensors.save(state, {**tensors, "test/1/noise/0": changed}, info)
    resumed = train(solver, "again", resume=state, overrides=states)
    assert torch.equal(resumed.tests[0].weights()["noise/0"], mine)
    assert torch.equal(resumed.tests[1].weights()["noise/0"], changed)
    assert equal(resumed.net.weights(), whole.net.weights())
    # They go with the weights, to where those are used.
    weights = safetensors.load(whole.folder / "snapshots" / "iter_12.safetensors")[0]
    assert torch.equal(weights["noise/0"], mine)
    fine = train(solver, "fine", weights=whole.folder, seed=9, overrides=[*states, "max_iter=1"])
    assert torch.equal(fine.tests[0].weights()["noise/0"], mine)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing", "swapped"])
@pytest.mark.parametrize("kind", [".state.safetensors", ".safetensors"])
def test_damaged_snapshots_are_refused_and_the_last_good_one_is_used(
    solver: Path, damage: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(solver, "whole", overrides=["max_iter=20"])
    newest = whole.folder / "snapshots" / f"iter_20{kind}"
    data = newest.read_bytes()
    reason = {
        "truncated": "is truncated",
        "flipped": "is damaged",
        "empty": "is truncated",
        "missing": "cannot be read",
        "swapped": "is not the file that",
    }[damage]
    if damage == "truncated":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        newest.write_bytes(data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "missing":
        newest.unlink()
    else:
        newest = newest.with_name("iter_20.safetensors")
        newest.write_bytes(newest.with_name("iter_16.safetensors").read_bytes())
    with pytest.raises(SnapshotError, match=reason) as caught:
        fit(solver, resume=whole.folder / "snapshots" / "iter_20.state.safetensors", progress=False)
    assert str(newest) in str(caught.value)
    resumed = fit(solver, resume=whole.folder, overrides=["max_iter=20"])
    assert resumed.iteration == 20
    assert "resumed from" in (out := capsys.readouterr().out)
    assert "iter_16.state.safetensors" in out
    assert damage == "missing" or f"passed over: {newest}" in out


def test_folder_without_a_good_snapshot(tmp_path: Path) -> None:
    (tmp_path / "iter_3.state.safetensors").write_bytes(b"nonsense")
    with pytest.raises(
        SnapshotError, match=r"holds no good snapshot:\n.*iter_3.state.safetensors: is truncated"
    ):
        snapshot_files.newest(tmp_path)


def test_state_of_another_net(solver: Path) -> None:
    whole = train(solver, "whole", overrides=["max_iter=4"])
    with pytest.raises(SnapshotError, match="which solver 'SMORMS3' needs"):
        fit(solver, resume=whole.folder, progress=False, overrides=["type=SMORMS3", "momentum=0"])


NURSERY = """
import json, os, sys, traceback
from netspec.run.fit import fit
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        log = os.open(order.pop("log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            fit(**order)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """A process that has everything imported and forks a training run for each order: each starts fast."""

    def __init__(self, folder: Path):
        self.log = folder / "log.txt"
        self.child: int | None = None
        """The run that is going on."""
        root = ROOT
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, solver: Path, out: Path, *settings: str) -> int:
        """Begin a run, resumed if the folder has a snapshot; gives its process id."""
        resume = str(out) if snapshot_files.states(out) else None
        if resume is None and out.exists():  # killed before the first snapshot: begin anew
            shutil.rmtree(out)
        order = {"source": str(solver), "out": str(out), "resume": resume, "overrides": settings}
        self.log.unlink(missing_ok=True)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**order, "log": str(self.log)}) + "\n")
        self.process.stdin.flush()
        self.child = int(self.line())
        return self.child

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def wait_for(self, text: str) -> None:
        """Until the run has printed `text`."""
        end = time.monotonic() + 300
        while not self.log.exists() or text not in self.log.read_text():
            assert time.monotonic() < end, f"no {text!r} after five minutes: {self.log.read_text()}"
            time.sleep(0.005)

    def status(self) -> int:
        """Exit status of the run, which ends."""
        status = int(self.line())
        self.child = None
        return status

    def close(self) -> None:
        """End the process, and the run that a failed test left in it."""
        if self.child is not None:
            os.kill(self.child, signal.SIGKILL)
        self.process.communicate()

    def finish(self, solver: Path, out: Path, *settings: str) -> None:
        self.start(solver, out, *settings)
        assert self.status() == 0, self.log.read_text()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    running = Nursery(tmp_path)
    yield running
    running.close()


def weights_of(run: Path, iteration: int) -> dict[str, Tensor]:
    return snapshot_files.load_pair(run / "snapshots" / f"iter_{iteration}.state.safetensors").weights


def test_twenty_kills(solver: Path, tmp_path: Path, nursery: Nursery) -> None:
    settings = ["max_iter=100000", "snapshot=5", "test_interval=50", "compile=false"]
    random.seed(1)
    broken = tmp_path / "broken"
    for _ in range(20):
        child = nursery.start(solver, broken, *settings)
        nursery.wait_for("snapshot")
        time.sleep(random.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        assert nursery.status() == -signal.SIGKILL
    stop = (snapshot_files.newest(broken)[0].iteration // 5 + 2) * 5
    settings[0] = f"max_iter={stop}"
    nursery.finish(solver, broken, *settings)
    nursery.finish(solver, tmp_path / "whole", *settings)
    assert equal(weights_of(broken, stop), weights_of(tmp_path / "whole", stop))
    assert comparable(broken) == comparable(tmp_path / "whole")


def test_signals_to_a_run(solver: Path, tmp_path: Path, nursery: Nursery) -> None:
    child = nursery.start(
        solver, tmp_path / "run", "max_iter=1000000", "snapshot=0", "display=1", "compile=false"
    )
    nursery.wait_for("iteration 3/")
    os.kill(child, signal.SIGHUP)
    nursery.wait_for("snapshot")
    os.kill(child, signal.SIGTERM)
    assert nursery.status() == 0
    assert "stopped at iteration" in nursery.log.read_text()
    assert len(snapshot_files.states(tmp_path / "run")) == 2
    saved, refused = snapshot_files.newest(tmp_path / "run")
    assert saved.iteration > 4
    assert not refused


def test_requests() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Requests() as requests:
        signal.raise_signal(signal.SIGHUP)
        assert requests.take() == (True, False)
        assert requests.take() == (False, False)
        signal.raise_signal(signal.SIGINT)
        assert requests.take() == (False, True)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with Requests(sigint="snapshot", sighup="none") as requests:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert requests.take() == (True, False)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(NetspecError, match="'halt' is none of stop, snapshot, none"):
        Requests(sigint="halt")


def test_before_the_first_iteration_a_stop_is_immediate() -> None:
    with Requests(patient=False) as requests:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        requests.patient = True
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.take() == (False, True)


def test_states_of_another_batch_size_are_refused_in_words(tmp_path: Path) -> None:
    net = tmp_path / "lstm.prototxt"
    net.write_text("""
      layer { name: "x" type: "DummyData" top: "x" top: "clip" top: "label" dummy_data_param {
        shape { dim: 8 dim: 5 } shape { dim: 8 } shape { dim: 8 } } }
      layer { name: "lstm" type: "Lstm" bottom: "x" bottom: "clip" top: "y"
        lstm_param { num_output: 3 batch_size: 4 weight_filler { type: "xavier" } } }
      layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }""")
    solver = tmp_path / "lstm_solver.prototxt"
    solver.write_text('net: "lstm.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2')
    train(solver, "run")
    net.write_text(net.read_text().replace("batch_size: 4", "batch_size: 2"))
    with pytest.raises(SnapshotError, match=r"_state has shape \(4, 3\), the net's is \(2, 3\)"):
        train(solver, "run", resume=tmp_path / "run", iterations=4)
