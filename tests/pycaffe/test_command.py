"""`netspec caffe`: verbs, flags, and the log as the usual parsers read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from netspec import pycaffe as caffe
from netspec.pycaffe import glog
from netspec.pycaffe.command import Flags, main, parse
from netspec.run.signals import Requests

NET = """
name: "tiny"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 8 dim: 6 } shape { dim: 8 } data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST not_stage: "plain" } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def solver(tmp_path: Path) -> str:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 6 display: 2 test_iter: 2 '
        f'test_interval: 3 snapshot: 4 snapshot_prefix: "{tmp_path}/tiny" solver_mode: CPU'
    )
    return str(tmp_path / "solver.prototxt")


@pytest.fixture(autouse=True)
def _loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glog, "threshold", 0)


def run(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[str]]:
    """Exit status, and the text of each line of the log."""
    capfd.readouterr()
    status = main(argv)
    return status, [
        re.sub(r"^[IWEF]\d{4} \S+ \d+ \S+\] ", "", line) for line in capfd.readouterr().err.splitlines()
    ]


def test_flags_in_every_form() -> None:
    flags = Flags(solver="s", iterations=3, gpu="0,1", stage="a,b", level=-1)
    for argv in (
        [
            "train",
            "-solver",
            "s",
            "--iterations=3",
            "-gpu=0,1",
            "--stage",
            "a,b",
            "-level",
            "-1",
            "--logtostderr",
        ],
        ["--solver=s", "-iterations", "3", "train", "-level=-1", "-gpu", "0,1", "-stage=a,b"],
    ):
        assert parse(argv) == ("train", flags)
    assert flags.stages == ["a", "b"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["train"], "Need a solver definition"),
        (["test", "-weights", "w"], "Need a model definition"),
        (["test", "-model", "m"], "Need model weights"),
        (["time"], "Need a model definition"),
        (["trian"], "did you mean 'train'"),
        (["train", "-slover", "x"], "did you mean 'solver'"),
        (["train", "-solver"], "needs a value"),
        (["train", "test"], "one command at a time"),
        (["test", "-iterations", "many"], "whole number"),
        (["train", "-solver", "s", "-snapshot", "a", "-weights", "b"], "not both"),
        (["train", "-solver", "s", "-sigint_effect", "die"], "'die'"),
        (["time", "-model", "m", "-phase", "BOTH"], "'BOTH'"),
        (["train", "-solver", "nowhere"], "Could not open file nowhere"),
        (["train", "-solver", "{solver}", "-gpu", "99"], "no GPU 99"),
        (["time", "-model", "{solver}"], "base_lr"),
        ([], "usage: caffe"),
        (["--help"], "usage: caffe"),
    ],
)
def test_mistakes_are_told(
    solver: str, capfd: pytest.CaptureFixture[str], argv: list[str], text: str
) -> None:
    status, lines = run(capfd, *(word.format(solver=solver) for word in argv))
    assert status in (1, 2)
    assert text in "\n".join(lines)


def test_train(solver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capfd, "train", "--solver", solver, "-log_dir", str(tmp_path / "logs"))
    assert status == 0
    log = "\n".join(lines)
    iterations = re.findall(r"^Iteration (\d+) \(\S+ iter/s, \S+s/2 iters\), loss = (\S+)$", log, re.M)
    assert [int(number) for number, _ in iterations] == [0, 2, 4]
    train = re.findall(
        r"^    Train net output #(\d+): (\S+) = ([\.\deE+-]+) \(\* 1 = (\S+) loss\)$", log, re.M
    )
    assert [name for _, name, _, _ in train] == ["loss"] * 3
    tests = re.findall(r"^    Test net output #(\d+): (\S+) = ([\.\deE+-]+)", log, re.M)
    assert [(number, name) for number, name, _ in tests] == [("0", "accuracy"), ("1", "loss")] * 3
    assert re.findall(r"^Iteration (\d+), Testing net \(#0\)$", log, re.M) == ["0", "3", "6"]
    assert re.findall(r"lr = ([-+]?[0-9]*\.?[0-9]+)", log) == ["0.1"] * 3
    order = ["Use CPU.", "Starting Optimization", "Solving tiny", "Optimization Done."]
    assert [line for line in lines if line in order] == [*order, "Optimization Done."]
    assert sorted(path.name for path in tmp_path.glob("tiny_iter_*")) == [
        f"tiny_iter_{n}.{kind}" for n in (4, 6) for kind in ("caffemodel", "solverstate")
    ]
    kept = (tmp_path / "logs" / "caffe.INFO").read_text().splitlines()
    assert len(kept) == len(lines)
    assert re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ solver\.cpp:\d+\] Solving tiny", kept[2])


def test_resume_and_finetune(solver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(capfd, "train", "-solver", solver)
    status, lines = run(capfd, "train", "-solver", solver, "-snapshot", f"{tmp_path}/tiny_iter_4.solverstate")
    assert status == 0
    assert f"Resuming from {tmp_path}/tiny_iter_4.solverstate" in lines
    assert any(line.startswith("Iteration 4 (0 iter/s") for line in lines)
    assert not any(line.startswith("Iteration 2") for line in lines)
    status, lines = run(capfd, "train", "-solver", solver, "-weights", f"{tmp_path}/tiny_iter_4.caffemodel")
    assert status == 0
    assert f"Finetuning from {tmp_path}/tiny_iter_4.caffemodel" in lines
    assert any(line.startswith("Iteration 0 (") for line in lines)


def test_score(solver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(capfd, "train", "-solver", solver)
    weights = f"{tmp_path}/tiny_iter_6.caffemodel"
    status, lines = run(
        capfd, "test", "-model", f"{tmp_path}/net.prototxt", "-weights", weights, "-iterations", "3"
    )
    assert status == 0
    assert lines[1] == "Running for 3 iterations."
    batches = [float(line.split(" = ")[1]) for line in lines if re.match(r"Batch \d, loss", line)]
    mean = re.fullmatch(r"loss = (\S+) \(\* 1 = (\S+) loss\)", lines[-1])
    assert mean is not None
    assert float(mean[1]) == pytest.approx(sum(batches) / 3, rel=1e-4)
    assert lines[-3] == f"Loss: {mean[1]}"
    assert lines[-2].startswith("accuracy = ")
    _, lines = run(
        capfd, "test", "-model", f"{tmp_path}/net.prototxt", "-weights", weights, "-stage", "plain"
    )
    assert not any("accuracy" in line for line in lines)


def test_time(solver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, lines = run(
        capfd, "time", "-model", f"{tmp_path}/net.prototxt", "-iterations=2", "-phase", "TEST"
    )
    assert status == 0
    log = "\n".join(lines)
    assert re.findall(r"^ *(\S+)\tforward: \S+ ms\.$", log, re.M)[-1] == "loss"
    assert len(re.findall(r"\tbackward: ", log)) == log.count("\tforward: ")
    assert re.search(r"^Iteration: 2 forward-backward time: \S+ ms\.$", log, re.M)
    for line in ("Average Forward pass", "Average Backward pass", "Average Forward-Backward", "Total Time"):
        assert re.search(rf"^{line}: \S+ ms\.$", log, re.M)


def test_device_query(capfd: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capfd, "device_query", "-minloglevel", "0")
    assert status == 0
    assert lines[0] == "Querying GPUs all"
    assert run(capfd, "device_query", "-minloglevel", "2") == (0, [])


def test_a_signal_stops_with_a_snapshot(
    solver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = caffe.get_solver(solver)
    requests = Requests()
    made.add_callback(lambda: setattr(requests, "stop", made.iter == 2), lambda: None)
    made.solve_with(requests)
    assert made.iter == 3
    assert (tmp_path / "tiny_iter_3.solverstate").is_file()
    assert capfd.readouterr().err.splitlines()[-1].endswith("Optimization stopped early.")
