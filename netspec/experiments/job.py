"""Makes one run of a sweep in this process: trains or tests it, and writes its result."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netspec import schema
from netspec.errors import NetspecError, did_you_mean
from netspec.experiments import ledger
from netspec.experiments.ledger import DONE, FAILED, PRUNED, Result
from netspec.experiments.nets import own_folder
from netspec.experiments.plans import Metric
from netspec.interchange import save_weights, snapshot_files
from netspec.run import experiment
from netspec.run.evaluate import evaluate
from netspec.run.fit import Run, fit
from netspec.run.folder import METRICS, Metrics
from netspec.run.stopping import BEST, Aim, value_of
from netspec.schema.regular import append_regular


@dataclass(frozen=True)
class Job:
    """A run as plain data, sent to the process that makes it."""

    run: str
    folder: str
    source: str
    """The prototxt to run: the rendered template, or the plan's file."""
    beside: str
    """The file in whose folder its nets are sought."""
    settings: dict[str, str] = field(default_factory=dict)
    stop: dict[str, Any] = field(default_factory=dict)
    metric: dict[str, Any] = field(default_factory=dict)
    task: str = "train"
    iterations: int | None = None
    weights: str | None = None
    seed: int | None = None
    device: str | None = None
    keep: str = "last"
    caffemodel: str = ""
    """Where Caffe's weights go at the end, less `_iter_N.caffemodel`; "" for nowhere."""

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def aim(self) -> Aim:
        """The plan's metric."""
        return Aim(self.metric["output"], self.metric["net"], self.metric["mode"] == "min")


def make(job: Job, told_to_prune: Any) -> Result | None:
    """Make a run, or the rest of it; None where it was interrupted and can be continued.

    told_to_prune: asked after the run was stopped, whether it was pruned and is therefore over.
    """
    count = ledger.count_attempt(job.path)
    try:
        result = tested(job) if job.task == "test" else trained(job, told_to_prune)
    except KeyboardInterrupt:
        result = Result(job.run, PRUNED) if told_to_prune() else None
    except MemoryError as error:
        result = Result(job.run, FAILED, f"out of memory: {error}")
    except Exception as error:  # whatever a run runs into is its result, and the others go on
        text = str(error).splitlines()[0] if str(error) else ""
        kind = "" if isinstance(error, NetspecError) else f"{type(error).__name__}: "
        result = Result(job.run, FAILED, kind + text)
    if result is None:
        return None
    result.attempts = count
    complete(result, job)
    if result.status != FAILED:
        tidy(job)
    result.write(job.path)
    return result


def loaded(job: Job) -> experiment.Experiment:
    """The experiment that the job trains, with the plan's settings and stopping rules."""
    document = schema.read(job.source)
    own_folder(document, Path(job.beside))
    plan = experiment.load(document, job.settings)
    stop = plan.solver.early_stop
    if job.stop.get("patience") and not stop.patience:
        aim = job.aim
        stop.output, stop.test_net, stop.lower, stop.patience = (
            aim.output,
            aim.net,
            aim.lower,
            job.stop["patience"],
        )
    if job.stop.get("plateau") and not stop.plateau:
        stop.plateau = job.stop["plateau"]
    if job.stop.get("delta") is not None and not stop.HasField("delta"):
        stop.delta = job.stop["delta"]
    if job.stop.get("nan") is False and not stop.HasField("nan"):
        stop.nan = False
    if job.keep == "best" and not plan.solver.keep_best:
        plan.solver.keep_best, plan.solver.keep_best_net = job.aim.output, job.aim.net
    return plan


def trained(job: Job, told_to_prune: Any) -> Result | None:
    """Train, from the newest snapshot where there is one."""
    begun = bool(snapshot_files.states(job.path))
    if not begun:  # it was killed before its first snapshot: from the start again
        (job.path / METRICS).unlink(missing_ok=True)
    how: dict[str, Any] = {"resume": job.path} if begun else {"out": job.path, "weights": job.weights}
    run = fit(loaded(job), seed=job.seed, device=job.device, **how)
    if run.interrupted:
        return (
            Result(job.run, PRUNED, seconds=run.seconds, iteration=run.iteration) if told_to_prune() else None
        )
    write_caffemodel(run, job)
    seed = run.folder / "run.json"
    facts = ledger.read_json(seed) or {}
    return Result(
        job.run,
        DONE,
        run.ended,
        run.results,
        iteration=run.iteration,
        seconds=run.seconds,
        seed=facts.get("seed"),
    )


def write_caffemodel(run: Run, job: Job) -> None:
    """The weights where hyper_train.py's plans look for them: <folder>/<run>_iter_N.caffemodel."""
    if job.caffemodel:
        save_weights(run.net, f"{job.caffemodel}_iter_{run.iteration}.caffemodel")


def tested(job: Job) -> Result:
    """Test the nets of the run with the weights of the run before it."""
    plan = loaded(job)
    folder = job.path / "solver.prototxt"
    for name, text in plan.texts().items():
        (job.path / name).write_text(text)
    results = evaluate(
        folder,
        job.weights,
        iterations=job.iterations,
        device=job.device,
        seed=1 if job.seed is None else job.seed,
    )
    metrics = Metrics(job.path / METRICS)
    metrics.path.unlink(missing_ok=True)
    for i, outputs in enumerate(results):
        metrics.write("test", 0, net=i, outputs=outputs, seconds=0.0)
    return Result(job.run, DONE, outputs=results, seed=job.seed)


def complete(result: Result, job: Job) -> None:
    """Complete a result from the run's metrics."""
    lines = Metrics(job.path / METRICS).read()
    aim = job.aim
    last: dict[int, dict[str, Any]] = {}
    for line in lines:
        result.iteration = max(result.iteration, line["iteration"])
        result.seconds = max(result.seconds, line.get("seconds") or 0.0)
        if line["kind"] == "test":
            last[line["net"]] = line["outputs"]
            value = value_of(line["outputs"], aim.output)
            if line["net"] == aim.net and aim.better(value):
                aim.take(value, line["iteration"])
    result.outputs = result.outputs or [last[net] for net in sorted(last)]
    if result.status == DONE and (lack := lacking(result.outputs, aim)):
        result.status, result.reason = FAILED, lack
    if aim.net < len(result.outputs):
        last_value = value_of(result.outputs[aim.net], aim.output)
        result.value = None if last_value != last_value else last_value
    if aim.at >= 0:
        result.best = {"value": aim.best, "iteration": aim.at}


def lacking(outputs: Sequence[Mapping[str, Any]], aim: Aim) -> str:
    """What is wrong with the plan's metric, in words; "" where the tests have it, or the plan names none."""
    if not outputs or aim.output == Metric().output:
        return ""
    if aim.net >= len(outputs):
        return f"metric: test net {aim.net}: the solver has {len(outputs)} test nets"
    names = list(outputs[aim.net])
    if aim.output in names:
        return ""
    return f"metric: test net {aim.net} has no output {aim.output!r}{did_you_mean(aim.output, names)}"


def tidy(job: Job) -> None:
    """Remove the snapshots that the plan does not keep."""
    if job.keep == "all" or job.task == "test":
        return
    folder = job.path / "snapshots"
    kept: set[str] = set()
    if job.keep == "last" and (states := snapshot_files.states(job.path)):
        newest = states[0]
        kept = {newest.name, newest.name.replace(snapshot_files.STATE, snapshot_files.WEIGHTS)}
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.name not in kept and path.is_file():
            path.unlink()
    if job.keep == "none":
        (job.path / BEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Within, all printed output is appended to a file, including that of C libraries."""
    import os
    import sys

    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with append_regular(path) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, own in enumerate(saved, 1):
                os.dup2(own, number)
                os.close(own)


def as_job(data: Mapping[str, Any]) -> Job:
    """A job from the data that came through a pipe."""
    return Job(**data)
