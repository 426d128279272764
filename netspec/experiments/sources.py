"""Where the runs of a sweep come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from netspec.experiments.ledger import Result
from netspec.experiments.plans import Plan
from netspec.experiments.points import PlannedRun, runs_of

Ready = Callable[[PlannedRun], "bool | None"]
"""Whether a run can begin now; None where it is over or will never begin."""


class Source(Protocol):
    """Hands out runs, and is told their results."""

    def next(self, ready: Ready) -> PlannedRun | None:
        """A run that can begin; None where there is none now."""

    def again(self, run: PlannedRun) -> None:
        """Hand out a run once more: the process that had it has let go of it."""

    def finished(self, run: PlannedRun, result: Result) -> None:
        """Hear of a result."""

    def prune(self, run: PlannedRun, folder: Path) -> bool:
        """Whether a running run should be given up."""

    def known(self) -> list[PlannedRun]:
        """All runs so far."""


class Listed:
    """The runs of a plan in order; a run that waits for another comes after that one is over."""

    def __init__(self, plan: Plan):
        self.runs = runs_of(plan)
        self.open = list(self.runs)

    def next(self, ready: Ready) -> PlannedRun | None:
        for run in list(self.open):
            can = ready(run)
            if can is None and run in self.open:
                self.open.remove(run)
            if can:
                return run
        return None

    def again(self, run: PlannedRun) -> None:
        self.open.insert(0, run)

    def finished(self, run: PlannedRun, result: Result) -> None:
        return

    def prune(self, run: PlannedRun, folder: Path) -> bool:
        return False

    def known(self) -> list[PlannedRun]:
        return self.runs
