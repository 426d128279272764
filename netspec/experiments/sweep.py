"""A sweep makes the runs of a plan, several at a time; started again, it continues where it was stopped."""

from __future__ import annotations

import hashlib
import queue
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from netspec.errors import NetspecError
from netspec.experiments import ledger
from netspec.experiments.job import Job
from netspec.experiments.ledger import FAILED, Result
from netspec.experiments.plans import Plan
from netspec.experiments.points import PlannedRun, settings_of, text_of
from netspec.experiments.pool import Pool, Process
from netspec.experiments.sources import Listed, Source
from netspec.experiments.table import write_table
from netspec.experiments.weights import weights_of
from netspec.run.stopping import BEST
from netspec.schema.templates import Rendered

AGAIN = 3
"""How often a run whose process was killed from outside is begun again."""

LOOK = 0.5
"""Seconds between looks at the runs."""


@dataclass
class Options:
    """How a sweep is made."""

    jobs: int | None = None
    device: str | None = None
    retry: bool = False
    """Whether runs that failed are made again."""
    storage: str = ""
    """Of optuna: a file for a journal, or a URL of a database."""
    patience: float = 2.0
    """Seconds until a run that another process works on is looked at again."""


@dataclass
class Summary:
    """The outcome of a sweep."""

    results: dict[str, Result]
    skipped: dict[str, str] = field(default_factory=dict)
    """Why runs were not made."""
    interrupted: bool = False

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results.values() if result.status == FAILED]


class Sweep:
    """The runs of a plan, the processes that make them, and who is told of it."""

    def __init__(
        self, plan: Plan, options: Options, tell: Callable[[Sweep, str], None] = lambda sweep, text: None
    ):
        self.plan, self.options, self.tell = plan, options, tell
        self.source = source_of(plan, options)
        self.pool = Pool(options.jobs, options.device)
        self.running: dict[str, PlannedRun] = {}
        self.elsewhere: dict[str, tuple[PlannedRun, float]] = {}
        """Runs that another process works on, and when to look again."""
        self.results: dict[str, Result] = {}
        self.skipped: dict[str, str] = {}
        self.deaths: dict[str, int] = {}
        """How often the process of a run was ended from outside, in this sweep."""
        self.begun = time.monotonic()

    def run(self) -> Summary:
        """Make all runs. A KeyboardInterrupt lets the runs at hand take a snapshot, and ends the sweep."""
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        interrupted = False
        try:
            while self.step():
                pass
        except KeyboardInterrupt:
            interrupted = True
            self.tell(self, "stopping: each run takes a snapshot")
        finally:
            self.pool.close()
            write_table(self.plan, self.results, self.source.known())
        return Summary(self.results, self.skipped, interrupted)

    def step(self) -> bool:
        """Begin the runs that can begin, and take note of those that have ended; returns whether there is more
        to do.
        """
        self.look_elsewhere()
        while self.pool.free() and (run := self.source.next(self.ready)) is not None:
            self.begin(run)
        if not self.pool.busy and not self.elsewhere:
            return False
        try:
            self.heard(*self.pool.replies.get(timeout=LOOK))
        except queue.Empty:
            self.tell(self, "")
        for process in self.pool.busy:
            self.watch(process)
        return True

    # Beginning

    def ready(self, run: PlannedRun) -> bool | None:
        """Whether a run can begin: None where it is over, or will never be."""
        if (
            run.id in self.results
            or run.id in self.skipped
            or run.id in self.running
            or run.id in self.elsewhere
        ):
            return None
        folder = run.folder(self.plan)
        result = ledger.read_result(folder)
        if result is not None and result.status == FAILED and self.options.retry:
            ledger.forget(folder)
            result = None
        if result is not None:
            ledger.check_point(folder, *self.described(run)[:2])
            self.over(run, result, "was made before")
            return None
        parent = run.parent
        if parent is not None and parent.id in self.skipped:
            self.skip(run, f"the run before it was not made: {parent.id}")
            return None
        if parent is not None:
            before = self.results.get(parent.id)
            if before is None:
                return False
            if before.status == FAILED:
                self.skip(run, f"the run before it failed: {parent.id}")
                return None
        if run.stage.weights and weights_of(run, self.plan) is None:
            self.skip(run, f"its weights are not there: {run.stage.weights}")
            return None
        return True

    def skip(self, run: PlannedRun, reason: str) -> None:
        """Never make a run in this sweep."""
        self.skipped[run.id] = reason
        self.tell(self, f"{run.id}: not made, as {reason}")

    def begin(self, run: PlannedRun) -> None:
        try:
            job = self.job(run)
        except NetspecError as error:
            result = Result(run.id, FAILED, str(error).splitlines()[0])
            run.folder(self.plan).mkdir(parents=True, exist_ok=True)
            result.write(run.folder(self.plan))
            self.over(run, result)
            return
        self.running[run.id] = run
        self.pool.give(job)
        self.tell(self, "")

    def described(self, run: PlannedRun) -> tuple[dict[str, Any], str | None, Rendered | None]:
        """(what point.json says of a run, the text of rendered.prototxt or None, the same with its template's lines)"""
        plan, stage, settings = self.plan, run.stage, settings_of(run)
        point = {
            "run": run.id, "plan": plan.file, "stage": stage.name, "values": dict(run.values), "seed": run.seed,
            "settings": settings, "source": str(stage.source), "parent": run.parent.id if run.parent else "",
            "set": " ".join(f"--set {name}={value}" for name, value in settings.items()), "metric": asdict(plan.metric),
        }  # fmt: skip
        if stage.file is not None:  # a template's text lies in the folder as it was filled in
            point["sha256"] = hashlib.sha256(stage.file.read_bytes()).hexdigest()
        made = text_of(run, plan)
        return point, made.text if made else None, made

    def job(self, run: PlannedRun) -> Job:
        """The job that a process needs to make a run; also writes the run's point.json."""
        plan, stage, folder = self.plan, run.stage, run.folder(self.plan)
        settings = settings_of(run)
        point, text, made = self.described(run)
        if made is not None:
            made.parse(str(folder / ledger.RENDERED))  # mistakes name the template's line
        ledger.write_point(folder, point, text)
        weights = weights_of(run, plan)
        if weights is not None and weights.is_dir() and plan.keep == "best" and (weights / BEST).is_file():
            weights = weights / BEST
        return Job(
            run=run.id,
            folder=str(folder),
            source=str(folder / ledger.RENDERED if text else stage.source),
            beside=str(stage.source),
            settings=settings,
            stop=asdict(stage.stop),
            metric=asdict(plan.metric),
            task=stage.task,
            iterations=stage.iterations,
            weights=str(weights) if weights else None,
            seed=run.seed,
            device=self.options.device,
            keep=plan.keep,
            caffemodel=str(plan.folder / run.id) if plan.original and plan.keep != "none" else "",
        )

    # Watching

    def watch(self, process: Process) -> None:
        """End a run that takes too long or too much memory, and one that the search has given up."""
        job, limits = process.job, self.plan.limits
        if job is None or job.run not in self.running:
            return
        seconds = time.monotonic() - process.since
        if "seconds" in limits and seconds > limits["seconds"]:
            self.end(process, f"took more than {limits['seconds']:g} s")
        elif "memory" in limits and (taken := process.memory()) > limits["memory"]:
            self.end(process, f"took {taken:.3g} GB of memory, more than {limits['memory']:g} GB")
        elif self.source.prune(self.running[job.run], job.path):
            process.send({"prune": job.run})

    def end(self, process: Process, reason: str) -> None:
        job = process.job
        if job is None:
            return
        process.kill()
        process.wait(5)
        self.fail(self.running.pop(job.run), reason)

    def fail(self, run: PlannedRun, reason: str) -> None:
        folder = run.folder(self.plan)
        result = Result(run.id, FAILED, reason, attempts=ledger.attempts(folder))
        result.write(folder)
        self.over(run, result)

    def heard(self, process: Process, reply: dict[str, Any]) -> None:
        """Take note of what a process says."""
        job = process.job
        if reply["state"] == "ended":
            self.pool.forget(process)
            process.job = None
            if job is not None and job.run in self.running:
                self.died(process, self.running.pop(job.run))
            return
        if reply["state"] == "begun":
            process.begun()
            return
        process.job = None
        if job is None or job.run not in self.running:
            return
        run = self.running.pop(job.run)
        result = ledger.read_result(run.folder(self.plan))
        if result is not None:
            self.over(run, result)
        elif reply["state"] == "taken":
            self.elsewhere[run.id] = (run, time.monotonic() + self.options.patience)

    def died(self, process: Process, run: PlannedRun) -> None:
        """Handle a process that ended with its run unfinished. A run killed from outside is begun again, up to a limit;
        otherwise the death is its result.
        """
        result = ledger.read_result(run.folder(self.plan))
        if result is not None:
            self.over(run, result)
            return
        self.deaths[run.id] = self.deaths.get(run.id, 0) + 1
        if not process.by_signal or self.deaths[run.id] >= AGAIN:
            self.fail(run, process.reason())
        else:
            self.source.again(run)

    def look_elsewhere(self) -> None:
        """See whether runs of other processes are over, or were released."""
        now = time.monotonic()
        for id, (run, when) in list(self.elsewhere.items()):
            if now < when:
                continue
            folder = run.folder(self.plan)
            result = ledger.read_result(folder)
            lock = ledger.claim(folder) if result is None else None
            if lock is not None:
                lock.close()
            if result is None and lock is None:
                self.elsewhere[id] = (run, now + self.options.patience)
                continue
            del self.elsewhere[id]
            if result is not None:
                self.over(run, result)
            else:
                self.source.again(run)

    def over(self, run: PlannedRun, result: Result, how: str = "") -> None:
        """Take note of a result."""
        self.results[run.id] = result
        self.source.finished(run, result)
        what = result.status + (f" ({result.reason})" if result.reason else "")
        value = f", {self.plan.metric.output} {result.value:.6g}" if result.value is not None else ""
        self.tell(self, f"{run.id}: {how or what}{value}")
        if not how:
            write_table(self.plan, self.results, self.source.known())


def source_of(plan: Plan, options: Options) -> Source:
    """Where the runs come from: a list, or a study of optuna's."""
    if plan.search == "grid" and not options.storage:
        return Listed(plan)
    from netspec.experiments.study import Study

    return Study(plan, options.storage)


def sweep(plan: Plan, options: Options | None = None) -> Summary:
    """Make the runs of a plan; see `Sweep`."""
    return Sweep(plan, options or Options()).run()
