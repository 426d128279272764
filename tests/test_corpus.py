"""Texts as people have them: every syntax and trap gives a result, or a report with a place."""

from __future__ import annotations

from pathlib import Path

import pytest

from netspec.check import Report, check

CORPUS = Path(__file__).parent / "corpus"
RUNS = {
    "v0": ("v0", "input"),
    "v1_train_val": ("v1", "transform"),
    "input_dim": ("input",),
    "resnet_block": ("input", "batch_norm"),
    "mobile": (),
    "ssd_train": (),
    "segnet_train": (),
}
"""Files whose every layer runs, with the old syntaxes found in each."""


def report(name: str) -> Report:
    return check(CORPUS / f"{name}.prototxt", run=name in RUNS and name != "v1_train_val")


def test_every_file_is_expected() -> None:
    others = {"python_data", "unknown_fork", "old_solver", "duplicates"}
    assert {path.stem for path in CORPUS.glob("*.prototxt")} == set(RUNS) | others


@pytest.mark.parametrize("name", RUNS)
def test_runs(name: str) -> None:
    found = report(name)
    assert found.ok, str(found)
    assert set(RUNS[name]) >= set(found.legacy) - {"batch_norm"}
    assert found.phases["TRAIN"]["layers"] > 3


def test_what_is_assumed_is_said() -> None:
    found = report("v1_train_val")
    assert found.phases["TRAIN"]["assumed"]["data"] == [256, 3, 227, 227]
    assert "data/ilsvrc12/imagenet_mean.binaryproto" in str(found)
    assert found.needs
    found = report("ssd_train")
    assert any("is not for phase TEST" in warning.message for warning in found.warnings)
    assert report("segnet_train").phases["TRAIN"]["assumed"]["label"] == [4, 1, 360, 480]


def test_a_fork_that_nobody_knows() -> None:
    found = report("unknown_fork")
    lines = {(p.position.line if p.position else 0, p.message.split(": ")[-1][:24]) for p in found.problems}
    assert lines == {(2, "unknown layer type 'Vide"), (4, "unknown layer type 'Regi")}
    assert "unknown field 'weight_rand_scale'" in " ".join(warning.message for warning in found.warnings)
    strict = check(CORPUS / "unknown_fork.prototxt", strict=True)
    assert len(strict.problems) == 6


def test_python_layers_name_their_module() -> None:
    (problem,) = report("python_data").problems
    assert "roi_data_layer.layer" in problem.message
    assert problem.position is not None
    assert problem.position.line == 3


def test_solvers() -> None:
    found = report("old_solver")
    assert found.legacy == ("solver_type",)
    assert found.needs == ["models/x/train_val.prototxt"]


def test_duplicates_are_refused_at_the_second() -> None:
    (problem,) = report("duplicates").problems
    assert problem.position is not None
    assert (problem.position.line, problem.position.column) == (2, 97)
