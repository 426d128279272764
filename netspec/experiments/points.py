"""From a plan to its runs: the points of each stage, in order, each with a name and values of its own."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netspec.errors import SpecError
from netspec.experiments.parameters import MOST
from netspec.experiments.plan_reading import read_plan
from netspec.experiments.plans import ADAPTIVE, Group, Plan, Stage
from netspec.run.settings import settable
from netspec.schema.templates import Rendered, rendered

Values = dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan."""

    id: str
    """Its name, which is also the name of its folder."""
    stage: Stage
    values: Mapping[str, Any]
    """Values of its parameters and of those of the stages before it."""
    indices: tuple[int, ...]
    """Number of its point in each group, from 1."""
    seed: int | None = None
    """None: the solver's own."""
    parent: PlannedRun | None = field(default=None, repr=False)

    def folder(self, plan: Plan) -> Path:
        return plan.folder / self.id


def runs_of(plan: Plan) -> list[PlannedRun]:
    """All runs of a plan; runs that others wait for come first. Adaptive searches add theirs one by one."""
    if plan.search in ADAPTIVE:
        raise SpecError(f"search {plan.search!r} finds its runs one by one")
    runs: list[PlannedRun] = []
    for stage in plan.stages:
        parents: list[PlannedRun | None] = [run for run in runs if run.stage.name == stage.after]
        for parent in parents if stage.after else [None]:
            for indices, values in itertools.islice(points_of(stage, plan), plan.points):
                runs += repeats(plan, stage, indices, values, parent)
            if len(runs) > MOST:
                raise SpecError(f"{plan.file}: more than {MOST} runs")
    return runs


def repeats(
    plan: Plan, stage: Stage, indices: tuple[int, ...], values: Values, parent: PlannedRun | None
) -> Iterator[PlannedRun]:
    """The runs of a point: one per seed."""
    number = "_".join(map(str, indices))
    inherited = dict(parent.values) if parent else {}
    for seed in stage.seeds or (None,):
        base = (
            f"{parent.id}_{stage.name}" if parent else "_".join(filter(None, (base_name(plan), stage.name)))
        )
        ending = f"_s{seed}" if seed is not None else ""
        own = seed if seed is not None else parent.seed if parent else None
        yield PlannedRun(f"{base}_{number}{ending}", stage, {**inherited, **values}, indices, own, parent)


def base_name(plan: Plan) -> str:
    """The plan's name as the beginning of its runs' names."""
    return "_".join(part for part in Path(plan.name).parts if part not in ("/", ".", ".."))


def points_of(stage: Stage, plan: Plan) -> Iterator[tuple[tuple[int, ...], Values]]:
    """(indices, values) of each point: the product of the groups, the last fastest."""
    listed = [
        list(enumerate(points_of_group(group, plan, f"{stage.name}/{i}"), 1))
        for i, group in enumerate(stage.groups)
    ]
    for combination in itertools.product(*listed):
        values: Values = {}
        for _, point in combination:
            values |= point
        yield tuple(index for index, _ in combination), values


def points_of_group(group: Group, plan: Plan, what: str) -> Iterable[Values]:
    """Values of each point of a group: the product in the listed order, the last fastest; or one draw of each parameter
    per point.
    """
    seed = zlib.crc32(f"{plan.seed} {what}".encode())
    if group.search == "random":
        draws = {parameter.name: parameter.draws(seed) for parameter in group.parameters}
        for _ in range(plan.points or 0):
            drawn = {name: next(values) for name, values in draws.items()}
            yield applying(group, drawn)
        return
    grids = [parameter.grid(seed) for parameter in group.parameters]
    size = 1
    for grid in grids:
        size *= len(grid)
    if size > MOST:
        raise SpecError(f"{plan.file}: a grid of {size} points; at most {MOST} are allowed")
    names = [parameter.name for parameter in group.parameters]
    conditional = any(parameter.when for parameter in group.parameters)
    seen: list[Values] = []
    for combination in itertools.product(*grids):
        point = dict(zip(names, combination, strict=True))
        if conditional:
            point = applying(group, point)
            if point in seen:
                continue
            seen.append(point)
        yield point


def applying(group: Group, drawn: Mapping[str, Any]) -> Values:
    """The values whose conditions hold."""
    values: Values = {}
    for parameter in group.parameters:
        if parameter.applies(values):
            values[parameter.name] = drawn[parameter.name]
    return values


# What a run is made from


def variables(run: PlannedRun, plan: Plan) -> Values:
    """The variables of a template: the values, `name` (the prefix of Caffe's snapshots), a seed, and the indices of the
    point.
    """
    own: Values = {f"run_idx_{i}": index for i, index in enumerate(run.indices, 1)}
    name = str((plan.folder / run.id).absolute())
    seed = run.seed if run.seed is not None else zlib.crc32(f"{plan.seed} {run.id}".encode())
    own |= {"name": name, "caffe_random_seed": seed}
    if run.seed is not None:
        own["seed"] = run.seed
    return {**own, **run.values, "name": name} if plan.original else {**own, **run.values}


def values_of_point(path: Path, template: Path, number: int) -> tuple[Values, str | None]:
    """(what the template of a plan's run is given, its engine); runs count from 1. Raises SpecError."""
    plan = read_plan(path, template)
    runs = runs_of(plan)
    if number > len(runs):
        raise SpecError(f"{path}: has {len(runs)} points, found {number}")
    return variables(runs[number - 1], plan), plan.engine


def text_of(run: PlannedRun, plan: Plan) -> Rendered | None:
    """The rendered template of a run; None where it is made from a file."""
    stage = run.stage
    return None if stage.template is None else rendered(stage.template, variables(run, plan), plan.engine)


def settings_of(run: PlannedRun) -> dict[str, str]:
    """The run's settings, as for --set: the plan's own, and the values where no template takes them."""
    values = dict(run.stage.settings)
    if run.stage.file is not None:
        values |= run.values
    return {name: settable(value) for name, value in values.items()}


def differing(runs: Iterable[PlannedRun]) -> list[str]:
    """Names of the values that differ between runs, in the order of the plan."""
    listed = [run.values for run in runs]
    names = dict.fromkeys(name for values in listed for name in values)
    return [name for name in names if any(values.get(name) != listed[0].get(name) for values in listed)]
