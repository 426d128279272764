"""The runs of a plan before any of them is made: what `netspec sweep --dry-run` shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from netspec.errors import NetspecError
from netspec.experiments.cost import Stopwatch, seconds
from netspec.experiments.nets import own_folder
from netspec.experiments.plans import ADAPTIVE, Plan
from netspec.experiments.points import PlannedRun, differing, runs_of, settings_of, text_of
from netspec.experiments.weights import pattern_of
from netspec.run import experiment
from netspec.run.progress import clock


@dataclass
class Preview:
    """A run that would be made."""

    run: str
    values: dict[str, Any]
    iterations: int | None = None
    step: float | None = None
    """Seconds of one step."""
    seconds: float | None = None
    """An estimate for all of it."""
    after: str = ""
    weights: str = ""
    error: str = ""
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def loaded(run: PlannedRun, plan: Plan) -> experiment.Experiment:
    """The experiment that a run trains, with its settings applied. Raises SpecError."""
    text = text_of(run, plan)
    source: Any = run.stage.file if text is None else text.parse(f"{run.id}.prototxt")
    if text is not None:
        own_folder(source, run.stage.source)
    return experiment.load(source, settings_of(run))


def previews(plan: Plan, timing: bool = True) -> Iterator[Preview]:
    """A preview of each run of the plan: reads its file and times one step."""
    watch = Stopwatch()
    for run in runs_of(plan):
        preview = Preview(run.id, dict(run.values), after=run.parent.id if run.parent else "")
        try:
            planned = loaded(run, plan)
            preview.iterations = planned.solver.max_iter if run.stage.task == "train" else 0
            preview.weights, missing = pattern_of(run, plan)
            if missing:
                preview.notes.append(f"{preview.weights} is not there yet")
            step = watch.step(planned) if timing else None
            if step is not None:
                preview.step, preview.seconds = step.train, seconds(planned, step, run.stage.task)
        except NetspecError as error:
            preview.error = str(error).splitlines()[0]
        yield preview


def lines(plan: Plan, runs: list[Preview], jobs: int, timing: bool = True) -> Iterator[str]:
    """The previews as text: a line per run, then the sum."""
    names = differing(runs_of(plan))
    for run in runs:
        parts = [run.run, *(f"{name}={run.values[name]}" for name in names if name in run.values)]
        parts += [f"{run.iterations} iterations"] if run.iterations else []
        parts += [f"{run.step * 1000:.3g} ms a step, about {clock(run.seconds or 0)}"] if run.step else []
        parts += [f"after {run.after}"] if run.after else []
        parts += run.notes
        yield "  ".join(parts) + (f"  error: {run.error}" if run.error else "")
    total = sum(run.seconds or 0 for run in runs)
    unknown = sum(run.seconds is None and not run.error for run in runs) if timing else 0
    cost = (
        f", about {clock(total)} of one process, {clock(total / jobs)} with {jobs} at a time" if total else ""
    )
    lack = f"; what {unknown} of them cost cannot be told, as their data is not here" if unknown else ""
    yield f"{len(runs)} runs in {plan.folder}{cost}{lack}"


def adaptive_lines(plan: Plan) -> Iterator[str]:
    """Lines about a plan whose runs are found one by one."""
    group = plan.stages[0].groups[0]
    aim = f"{plan.metric.mode} {plan.metric.output}"
    yield f"{plan.points} runs in {plan.folder}, found one by one by {plan.search} for {aim}"
    for parameter in group.parameters:
        yield f"  {parameter.name}: {describe(parameter)}"


def describe(parameter: Any) -> str:
    """A parameter's range in words."""
    if parameter.values:
        text = ", ".join(map(str, parameter.values))
    else:
        text = f"{parameter.low:g} to {parameter.high:g}"
    when = " and ".join(f"{name} is {' or '.join(map(str, allowed))}" for name, allowed in parameter.when)
    return f"{parameter.kind} {text}" + (f", where {when}" if when else "")


def is_adaptive(plan: Plan) -> bool:
    return plan.search in ADAPTIVE
