"""A run folder, snapshots and weights that commit f5ed140 wrote: they load, and the run goes on.

from_f5ed140/ was made by that commit with `netspec train small_solver.prototxt --out run --device cpu`, and `netspec
convert run small.caffemodel`; of the run folder the pictures were left out, and the command's folder in run.json.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import netspec
from netspec.data.sets import datasets
from netspec.interchange import safetensors
from netspec.interchange.weights import read_weights
from netspec.run.evaluate import evaluate

OLD = Path(__file__).parent / "from_f5ed140"


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of a kind of a run's metrics."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_the_run_goes_on_to_where_that_commit_went(tmp_path: Path) -> None:
    """From iteration 4, with dropout, shuffled data, batch statistics and Adam's moments."""
    folder = tmp_path / "run"
    shutil.copytree(OLD / "run", folder)
    for path in folder.glob("snapshots/iter_8*"):
        path.unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["iteration"] < 4 or json.loads(line)["kind"] == "test"]
    (folder / "metrics.jsonl").write_text("".join(line for line in kept if json.loads(line)["iteration"] < 8))
    shutil.copy(OLD / "small.prototxt", tmp_path)
    shutil.copy(OLD / "small_solver.prototxt", tmp_path)
    run = netspec.fit(
        tmp_path / "small_solver.prototxt", resume=folder, out=folder, device="cpu", progress=False
    )
    assert run.solver.iteration == 8
    ours = [row["loss"] for row in rows(folder, "train")]
    theirs = [row["loss"] for row in rows(OLD / "run", "train")]
    assert ours == pytest.approx(theirs, rel=1e-5)
    weights = safetensors.load(OLD / "run" / "snapshots" / "iter_8.safetensors")[0]
    for name, value in run.net.weights().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-6)


def test_the_run_folder_tests_as_it_did() -> None:
    (outputs,) = evaluate(OLD / "small_solver.prototxt", weights=OLD / "run", device="cpu")
    (theirs,) = rows(OLD / "run", "test")[-1:]
    assert outputs["loss"] == pytest.approx(theirs["outputs"]["loss"], rel=1e-5)
    assert outputs["accuracy"] == pytest.approx(theirs["outputs"]["accuracy"])


def test_the_run_folder_loads_as_a_model() -> None:
    model = netspec.load(OLD / "run")
    weights = safetensors.load(OLD / "run" / "snapshots" / "iter_8.safetensors")[0]
    assert set(weights) == set(model.net.weights())
    for name, value in model.net.weights().items():
        assert torch.equal(value, weights[name])


def test_the_caffemodel_reads_as_the_snapshot() -> None:
    weights = safetensors.load(OLD / "run" / "snapshots" / "iter_8.safetensors")[0]
    for name, value in read_weights(OLD / "small.caffemodel").items():
        torch.testing.assert_close(value.view_as(weights[name]), weights[name], rtol=0, atol=0)


def test_data_sets_are_cached_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of files that an older netspec downloaded is found again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.cache() == tmp_path / "netspec" / "data"
