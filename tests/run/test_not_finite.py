"""Runs that go on past losses that are not finite: `early_stop { nan: false }`, and a plan's `stop: {nan: false}`."""

from __future__ import annotations

from pathlib import Path

import pytest

from netspec import fit
from netspec.experiments.plan_reading import read_plan
from netspec.experiments.sweep import Options, Sweep
from netspec.run.fit import Diverged
from netspec.run.folder import METRICS, Metrics
from tests.run.test_recording import LINEAR

FILLER = "ip.inner_product_param.weight_filler"
WILD = [f"{FILLER}.type=constant", f"{FILLER}.value=1e38", "max_iter=6", "snapshot=3"]


@pytest.fixture
def solver(tmp_path: Path) -> Path:
    path = tmp_path / "linear_solver.prototxt"
    path.write_text(LINEAR)
    return path


def test_a_loss_that_is_not_finite_ends_a_run(solver: Path) -> None:
    with pytest.raises(Diverged):
        fit(solver, overrides=WILD, out=solver.parent / "run", progress=False)


def test_unless_the_solver_says_otherwise(solver: Path) -> None:
    run = fit(solver, overrides=[*WILD, "early_stop.nan=false"], out=solver.parent / "run", progress=False)
    assert run.iteration == 6
    lines = Metrics(run.folder / METRICS).read()
    assert [line["iteration"] for line in lines if line["kind"] == "test"] == [0, 2, 4, 6]
    assert any(line["loss"] is None for line in lines if line["kind"] == "train")
    assert not list((run.folder / "snapshots").glob("*.safetensors"))  # no snapshot holds such weights


@pytest.mark.parametrize(
    ("stop", "status"), [("", "failed"), ("stop: {nan: false}", "done"), ("stop: {nan: true}", "failed")]
)
def test_in_a_sweep(solver: Path, stop: str, status: str) -> None:
    plan = solver.parent / "plan.yaml"
    values = f"values: {{{FILLER}.type: constant, {FILLER}.value: 1.0e38}}"
    plan.write_text(f"name: wild\nfile: {solver}\n{values}\nset: {{max_iter: 6}}\n{stop}\n")
    summary = Sweep(read_plan(plan, out=solver.parent / "sweep"), Options(1, "cpu")).run()
    (result,) = summary.results.values()
    assert result.status == status
    assert result.iteration == 6 if status == "done" else "not finite" in result.reason
