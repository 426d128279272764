"""The live table of a sweep on a terminal; elsewhere one line per finished run."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from netspec.errors import NetspecError
from netspec.experiments.ledger import Result
from netspec.experiments.points import PlannedRun, differing
from netspec.experiments.sweep import Sweep
from netspec.run.folder import METRICS, Metrics
from netspec.run.progress import clock

ROWS = 30
"""Most runs that the table shows: the running ones, and the last finished ones."""


class Board:
    """Shows the runs of a sweep, which tells it what happens."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.live: Live | None = None

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=2, transient=False)
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def tell(self, sweep: Sweep, text: str) -> None:
        """Take note of an event; without a text, only redraw."""
        if self.live is None:
            if text:
                self.console.print(f"{text}  {counts(sweep)}", markup=False)
            return
        if text and not any(text.startswith(f"{run}:") for run in sweep.results):
            self.live.console.print(text, markup=False)
        self.live.update(table(sweep))


def counts(sweep: Sweep) -> str:
    """`[3 of 24 over, 2 running]`"""
    total = max(len(sweep.source.known()), len(sweep.results))
    return f"[{len(sweep.results)} of {total} over, {len(sweep.running)} running]"


def table(sweep: Sweep) -> Table:
    """The running runs, then the finished ones, the latest first."""
    known = {run.id: run for run in sweep.source.known()}
    names = differing(known.values()) if known else []
    metric = sweep.plan.metric.output
    shown = Table(title=f"{sweep.plan.name} {counts(sweep)}, {clock(time.monotonic() - sweep.begun)}")
    for name in ("run", *names, "state", "iteration", "loss", metric, "time"):
        shown.add_column(name, overflow="fold")
    running = list(sweep.running.values())
    for run in running[:ROWS]:
        shown.add_row(run.id, *values(run, names), "running", *now(sweep, run))
    for id, result in list(reversed(sweep.results.items()))[: max(0, ROWS - len(running))]:
        if id in known:
            shown.add_row(id, *values(known[id], names), *finished(result))
    return shown


def values(run: PlannedRun, names: list[str]) -> list[str]:
    return [str(run.values.get(name, "")) for name in names]


def now(sweep: Sweep, run: PlannedRun) -> list[str]:
    """Iteration, loss, metric and time of a running run."""
    try:
        lines = Metrics(run.folder(sweep.plan) / METRICS).read()
    except (NetspecError, OSError):
        lines = []
    shown: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "train"), {})
    metric = sweep.plan.metric
    tests = [line for line in lines if line["kind"] == "test" and line["net"] == metric.net]
    value = tests[-1]["outputs"].get(metric.output) if tests else None
    return [
        str(shown.get("iteration", "")),
        number(shown.get("loss")),
        number(value),
        clock(shown.get("seconds") or 0),
    ]


def finished(result: Result) -> list[str]:
    state = result.status + (f": {result.reason}" if result.reason else "")
    return [state, str(result.iteration), "", number(result.value), clock(result.seconds)]


def number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""
