"""A run folder from somebody else: pipes, devices and links in the place of its files, and files of odd content."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from netspec.draw.plots import read_metrics
from netspec.errors import NetspecError, SnapshotError
from netspec.experiments import ledger
from netspec.experiments.index import CHILDREN, FILE, TABLES, Index
from netspec.experiments.report import report as write_report
from netspec.interchange import safetensors
from netspec.run.evaluate import evaluate
from netspec.run.fit import fit
from netspec.run.stopping import BEST, read_best
from netspec.schema.regular import SPECIAL, append_regular
from tests.experiments.folders import write_run
from tests.run.test_resume import solver, train

__all__ = ["solver"]

FILES = (
    "metrics.jsonl", "run.json", ".lock", "net.prototxt", "solver.prototxt", "best.safetensors", "loss.png",
    "snapshots/iter_8.state.safetensors", "snapshots/iter_8.safetensors", "snapshots/iter_12.safetensors",
    "snapshots/iter_10.state.safetensors",
)  # fmt: skip
"""Of a run that ended at iteration 8."""


@pytest.fixture
def run(solver: Path) -> Path:
    return train(solver, "run", overrides=["max_iter=8"]).folder


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that waits at a pipe fails."""

    def waits(number: int, frame: FrameType | None) -> None:
        raise AssertionError("waits, or reads without end")

    monkeypatch.delenv(SPECIAL, raising=False)
    before = signal.signal(signal.SIGALRM, waits)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def put(path: Path, kind: str, victim: Path) -> None:
    """A pipe, a device without end, or a link to `victim`, in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else victim)


def go_on(solver: Path, run: Path) -> None:
    fit(solver, resume=run, overrides=["max_iter=10"], progress=False)


def report(run: Path) -> Path:
    """The page of the run; the index takes it in as well."""
    with Index(run.parent) as index:
        assert index.ask("select count(*) from runs")[1][0][0] > 0
    return write_report([run])


def said(use: Callable[[], object]) -> str:
    """The error that a use of the run ends in, "" for none."""
    try:
        use()
    except (NetspecError, OSError) as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
@pytest.mark.parametrize("name", FILES)
def test_what_stands_for_a_file_of_the_run(name: str, kind: str, solver: Path, run: Path) -> None:
    """The run goes on, or one line says why not; nothing is written through a link."""
    victim = solver.parent / "victim"
    victim.write_text("mine\n")
    put(run / name, kind, victim)
    for use in (lambda: report(run), lambda: evaluate(run, iterations=1), lambda: go_on(solver, run)):
        text = said(use)
        assert len(text.splitlines()) <= 4, text  # a line for each snapshot that was tried
        assert victim.read_text() == "mine\n"
    if name in ("run.json", "net.prototxt", "best.safetensors", "loss.png"):
        assert (run / "snapshots" / "iter_10.state.safetensors").is_file()


@pytest.mark.parametrize("name", ["metrics.jsonl", ".lock"])
def test_a_link_is_named_as_such(name: str, solver: Path, run: Path) -> None:
    put(run / name, "link", solver)
    text = solver.read_text()
    with pytest.raises(NetspecError, match=rf"{name}: is a link"):
        append_regular(run / name)
    if name == ".lock":
        with pytest.raises(NetspecError, match=r"\.lock: is a link"):
            go_on(solver, run)
    assert solver.read_text() == text


def test_earlier_files_are_copied_aside_where_they_are_files(solver: Path, run: Path) -> None:
    os.mkfifo(run / "other.prototxt")
    (run / "endless.prototxt").symlink_to("/dev/zero")
    fit(
        solver,
        resume=run / "snapshots" / "iter_4.state.safetensors",
        overrides=["max_iter=6"],
        progress=False,
    )
    kept = {path.name for path in (run / "abandoned" / "1").iterdir()}
    assert {"net.prototxt", "solver.prototxt"} <= kept
    assert not {"other.prototxt", "endless.prototxt"} & kept


ODD: dict[str, Any] = {
    "notes of a number": {"notes": 3}, "notes of null": {"notes": None}, "notes of lists": {"notes": [[1], {}]},
    "a name of a list": {"name": [1]}, "versions of text": {"versions": "x"}, "resumed of text": {"resumed": "x"},
    "a seed of text": {"seed": "x"}, "parameters of a list": {"parameters": [1]}, "a device of a number": {"device": 1},
    "started of a list": {"started": [1]}, "huge numbers": {"seed": 10**400, "parameters": 10**400},
    "half a pair": {"device": "\ud800"}, "no number": {"started": float("nan")},
    "files of a number": {"data": [{"files": 3}]},
    "deep": {"notes": json.loads("[" * 500 + "]" * 500)},
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_facts_of_a_run(kind: str, solver: Path, run: Path) -> None:
    """A report shows them, and a resumed run goes on."""
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, **ODD[kind]}))
    assert "<script>alert" not in report(run).read_text()
    go_on(solver, run)


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "test", "iteration": 3, "net": 0, "outputs": {"accuracy": 10**400}},
        {"kind": "test", "iteration": 10**400, "net": 0, "outputs": {"accuracy": 1}},
        {"kind": "test", "iteration": 3, "net": 0, "outputs": {"\ud800": 1}},
        {"kind": "train", "iteration": 3, "gradient_norm": "x"},
    ],
)
def test_odd_lines_of_metrics(line: dict[str, Any], tmp_path: Path) -> None:
    with open(write_run(tmp_path / "root" / "a") / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    report(tmp_path / "root" / "a")


def test_names_in_a_report_are_no_markup(solver: Path, run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    text = "<script>alert(1)</script>"
    (run / "run.json").write_text(json.dumps({**facts, "notes": [text], "name": text, "device": text}))
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"kind": "train", "iteration": 9, "loss": 1, "outputs": {text: 1.0}}) + "\n")
    net = (run / "net.prototxt").read_text()
    (run / "net.prototxt").write_text(net.replace('name: "', f'name: "{text}', 1))
    assert text not in report(run).read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08" + bytes(7) + b'{"a":{}}',
        b"\x02" + bytes(7) + b"{}",
        b"\xff" * 64,
        b"\x04" + bytes(7) + b"null",
    ],
)
def test_a_damaged_best_is_an_error_in_words(content: bytes, tmp_path: Path) -> None:
    (tmp_path / BEST).write_bytes(content)
    with pytest.raises(SnapshotError, match=r"best\.safetensors"):
        read_best(tmp_path)
    safetensors.save(tmp_path / BEST, {"a": torch.ones(2)}, {})
    assert read_best(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 5000, b"3", b'{"state": 3}'])
def test_odd_results_of_a_sweep(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ledger.RESULT).write_bytes(content)
    with pytest.raises(NetspecError, match=f"{ledger.RESULT}: cannot be read"):
        ledger.read_result(tmp_path)


def test_a_sweeps_folder_leads_nowhere_else(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    for name in (ledger.LOCK, ledger.ATTEMPTS):
        (tmp_path / name).symlink_to(victim)
    with pytest.raises(NetspecError, match="is a link"):
        ledger.claim(tmp_path)
    with pytest.raises(NetspecError, match="is a link"):
        ledger.count_attempt(tmp_path)
    assert victim.read_text() == "mine\n"
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(NetspecError, match="FIFO"):
        read_metrics(tmp_path / "metrics.jsonl")
    shutil.rmtree(tmp_path)


def database(path: Path, script: str) -> bytes:
    base = sqlite3.connect(path)
    base.executescript(script)
    base.close()
    return path.read_bytes()


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize("kind", ["database", "runs", "text", "link", "link to nothing", "pipe", "folder"])
def test_what_stands_for_the_index(kind: str, rebuild: bool, tmp_path: Path) -> None:
    """Nothing but an index of runs is overwritten, emptied or removed."""
    write_run(tmp_path / "root" / "a")
    file, victim = tmp_path / "root" / FILE, tmp_path / "precious.db"
    precious = database(victim, "create table mine (x); insert into mine values (7)")
    if kind == "database":
        file.write_bytes(precious)
    elif kind == "runs":  # a table of this name alone does not make it ours
        precious = database(file, "create table runs (x); pragma user_version = 1")
    elif kind == "text":
        file.write_text("mine\n")
    elif kind.startswith("link"):
        file.symlink_to(victim if kind == "link" else tmp_path / "nothing")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    with pytest.raises(NetspecError, match=FILE):
        Index(tmp_path / "root", rebuild)
    assert file.is_symlink() == kind.startswith("link")
    assert not (tmp_path / "nothing").exists()
    if kind in ("database", "runs", "link"):
        assert file.read_bytes() == precious
    if kind == "text":
        assert file.read_text() == "mine\n"


def test_an_index_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    database(tmp_path / FILE, TABLES + "; insert into train (run) values (99); pragma user_version = 1")
    for _ in range(2):
        with Index(tmp_path) as index:
            assert index.ask("select path from runs") == (["path"], [("a",)])
            for table in CHILDREN:
                assert index.ask(f"select count(*) from {table} where run = 99")[1] == [(0,)]
