"""The number of threads of a run: chosen by timings on a busy machine, kept by a resumed run, told in run.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import netspec
from netspec.run import threads

SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot: 1 compile: false'
NET = """layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param {
    shape { dim: 4 dim: 3 } shape { dim: 4 dim: 1 } data_filler { type: "gaussian" } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }"""


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Nobody has asked for a number of threads, and torch takes four."""
    for name in threads.ASKED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "OWN", 4)
    own = torch.get_num_threads()
    torch.set_num_threads(4)
    yield monkeypatch
    torch.set_num_threads(own)


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        ({4: [1.0], 2: [2.0], 1: [4.0]}, 4),
        ({4: [1.0], 2: [1.05], 1: [2.0]}, 2),
        ({4: [6.0], 2: [3.0], 1: [1.0]}, 1),
        ({4: [1.0, 1.0, 9.0], 1: [2.0, 2.0, 2.0]}, 4),
    ],
)
def test_the_fewest_that_are_about_as_fast(seconds: dict[int, list[float]], number: int) -> None:
    assert threads.fewest(seconds) == number


def test_candidates() -> None:
    assert threads.candidates(12) == [12, 6, 3, 1]
    assert threads.candidates(1) == [1]


def test_timing_leaves_torch_as_it_was(free: pytest.MonkeyPatch) -> None:
    seconds = threads.timed([2, 1])
    assert torch.get_num_threads() == 4
    assert {len(times) for times in seconds.values()} == {threads.ROUNDS}


def test_a_busy_machine_is_measured_and_one_at_rest_is_not(free: pytest.MonkeyPatch) -> None:
    free.setattr(threads, "timed", lambda numbers: {4: [3.0], 2: [2.0], 1: [1.0]})
    free.setattr(threads, "busy", lambda: False)
    assert threads.choose() == (4, "")
    free.setattr(threads, "busy", lambda: True)
    number, why = threads.choose()
    assert number == 1
    assert "1 of 4 threads" in why
    free.setenv("OMP_NUM_THREADS", "4")
    assert threads.choose() == (4, "")


def test_a_run_says_its_threads_and_a_resumed_one_keeps_them(
    free: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER.replace("net.prototxt", str(tmp_path / "net.prototxt")))
    free.setattr(threads, "busy", lambda: True)
    free.setattr(threads, "timed", lambda numbers: {4: [3.0], 2: [1.0], 1: [2.0]})
    run = netspec.fit(tmp_path / "solver.prototxt", out=tmp_path / "run", device="cpu", seed=1, iterations=1)
    assert "2 of 4 threads" in "".join(capsys.readouterr())
    assert torch.get_num_threads() == 4
    assert json.loads((run.folder / "run.json").read_text())["threads"] == 2
    free.setattr(threads, "timed", lambda numbers: {4: [1.0], 2: [2.0], 1: [3.0]})
    netspec.fit(tmp_path / "solver.prototxt", resume=run.folder, device="cpu")
    told = "".join(capsys.readouterr())
    assert "2 threads, as before the snapshot" in told
    assert "to rounding" not in told
    assert json.loads((run.folder / "run.json").read_text())["resumed"][0]["threads"] == 2
