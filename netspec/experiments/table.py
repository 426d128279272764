"""The table of a sweep as CSV, with the columns of the SimNets fork's hyper_train.py."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netspec.data.files.whole import write_whole
from netspec.experiments.ledger import DONE, Result, read_json
from netspec.experiments.plans import Plan
from netspec.experiments.points import PlannedRun, base_name
from netspec.run.folder import METRICS, Metrics
from netspec.run.stopping import Aim, value_of


def table_path(plan: Plan) -> Path:
    """The table's file in the sweep's folder."""
    return plan.folder / f"{base_name(plan)}.csv"


def write_table(plan: Plan, results: Mapping[str, Result], runs: Sequence[PlannedRun]) -> None:
    """Write the table anew: a row per run that is over."""
    rows = [row(plan, run, results[run.id]) for run in runs if run.id in results]
    if not rows:
        return
    names = dict.fromkeys(name for cells in rows for name in cells)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(names), restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(table_path(plan), out.getvalue().encode())


def row(plan: Plan, run: PlannedRun, result: Result) -> dict[str, Any]:
    """The cells of one run: its values (hyper__...), its outcome, and its last test (test_results<net>_<i>_<name>)."""
    folder = run.folder(plan)
    facts = read_json(folder / "run.json") or {}
    lines = Metrics(folder / METRICS).read()
    shown = [line for line in lines if line["kind"] == "train"]
    cells: dict[str, Any] = {f"hyper__{name}": value for name, value in run.values.items()}
    cells |= {
        "run_id": "_".join(map(str, run.indices)) if plan.original else run.id,
        "seed": result.seed,
        "computer_name": platform.node(),
        "iterations": result.iteration,
        "last_lr": shown[-1]["lr"] if shown else "",
        "last_minibatch_loss": shown[-1]["loss"] if shown else "",
        "optimization_done": result.status == DONE and not result.reason,
        "status": result.status,
        "reason": result.reason,
        "start_time": facts.get("started", ""),
        "total_time": round(result.seconds, 3),
    }
    for net, outputs in enumerate(result.outputs):
        for i, (name, value) in enumerate(outputs.items()):
            cells[f"test_results{net}_{i}_{name}"] = value
    return cells | of_tests(plan, run, lines)


def of_tests(plan: Plan, run: PlannedRun, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """best_<metric> and moving_avg of the metric's test net, over the tests after the first."""
    metric = plan.metric
    aim = Aim(metric.output, metric.net, metric.mode == "min")
    tests = [line for line in lines if line["kind"] == "test" and line["net"] == metric.net]
    values = [value_of(line["outputs"], metric.output) for line in tests]
    for line, value in zip(tests, values, strict=True):
        if aim.better(value):
            aim.take(value, line["iteration"])
    recent = values[1:][-run.stage.stop.window :]
    cells: dict[str, Any] = {} if aim.at < 0 else {f"best_{metric.output}": aim.best}
    return cells | ({"moving_avg": sum(recent) / len(recent)} if recent else {})
