"""read_plan: a plan from its file of YAML or JSON; `netspec.experiments.plans` describes the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from netspec.errors import SpecError, did_you_mean
from netspec.experiments.original_plans import OriginalPlan
from netspec.experiments.parameters import Parameter, from_short
from netspec.experiments.places import Places
from netspec.experiments.plan_fields import PlanFields
from netspec.experiments.plans import ADAPTIVE, KEEP, SEARCHES, TASKS, Group, Plan, Stage
from netspec.experiments.values import read_mapping
from netspec.schema.read import load_text

PLAN_KEYS = ("name", "points", "metric", "seed", "limits", "keep", "stages", "out")
STAGE_KEYS = (
    "template", "file", "search", "values", "groups", "seeds", "set", "stop", "weights", "after", "task", "iterations",
)  # fmt: skip


def read_plan(
    path: str | Path,
    template: str | Path | None = None,
    out: str | Path | None = None,
    keep: str | None = None,
) -> Plan:
    """Read a plan. `template` is the file of its runs where the plan names none; `out` and `keep` replace the plan's
    own.

    Raises SpecError with the place of the mistake.
    """
    file = Path(path)
    if file.suffix in (".prototmp", ".prototxt"):
        raise SpecError(f"{file}: is a template or a spec; a plan is .yaml or .json, and names its template")
    text = load_text(file)
    data = read_mapping(file, text)
    kind = OriginalPlan if "hyper_params" in data else OwnPlan
    reader = kind(file, data, Places(text, str(file)))
    plan = reader.plan(template, out)
    plan = plan if keep is None else replace(plan, keep=reader.one_of(keep, KEEP, "keep"))
    if plan.keep == "none" and (needy := [stage.name for stage in plan.stages if stage.after]):
        raise reader.fail(f"keep: none, but stage {needy[0]!r} starts from the weights of another", "keep")
    return plan


def both(key: str, one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    """Whether an entry is a mapping in both."""
    return isinstance(one.get(key), Mapping) and isinstance(other.get(key), Mapping)


class OwnPlan(PlanFields):
    """Reads a plan of netspec."""

    def plan(self, template: str | Path | None, out: str | Path | None) -> Plan:
        data = self.data
        self.known(data, (*PLAN_KEYS, *STAGE_KEYS))
        entries = data.get("stages")
        if entries is None:
            stages = [self.stage("", data, template)]
        elif isinstance(entries, list) and entries and all(isinstance(entry, Mapping) for entry in entries):
            stages = [self.named_stage(i, entry, template) for i, entry in enumerate(entries)]
        else:
            raise self.fail("stages: needs a list of mappings", "stages")
        self.order(stages)
        name = str(data.get("name") or self.file.stem)
        plan = Plan(
            file=str(self.file),
            name=name,
            folder=Path(out) if out is not None else Path(str(data.get("out") or Path("runs") / name)),
            stages=tuple(stages),
            metric=self.metric(data.get("metric")),
            points=self.points(data.get("points")),
            seed=self.number(data.get("seed", 0), "seed"),
            limits=self.limits(data.get("limits")),
            keep=self.one_of(data.get("keep", "last"), KEEP, "keep"),
        )
        searches = [group.search for stage in stages for group in stage.groups if group.search != "grid"]
        if searches and plan.points is None:
            raise self.fail(f"search {searches[0]!r} needs points, the most runs that it may make", "search")
        if plan.search in ADAPTIVE and (
            len(stages) > 1 or len(stages[0].groups) > 1 or len(stages[0].seeds) > 1
        ):
            raise self.fail(f"search {plan.search!r} goes with one stage, one group and one seed", "search")
        return plan

    def named_stage(self, i: int, entry: Mapping[Any, Any], template: str | Path | None) -> Stage:
        self.known(entry, ("name", *STAGE_KEYS), "stages", i)
        name = entry.get("name")
        if not isinstance(name, str) or not name.replace("_", "").isalnum():
            raise self.fail(f"a stage needs a name of letters, digits and _, found {name!r}", "stages", i)
        own = "template" in entry or "file" in entry
        shared = {key: self.data[key] for key in STAGE_KEYS if key in self.data}
        if own:
            shared = {key: value for key, value in shared.items() if key not in ("template", "file")}
        # What the plan varies, its first stages vary; those after them have the values of the run before.
        merged = {key: {**shared[key], **entry[key]} for key in ("values", "set") if both(key, shared, entry)}
        if entry.get("after"):
            shared = {
                key: value
                for key, value in shared.items()
                if key not in ("values", "groups", "seeds", "search")
            }
            merged.pop("values", None)
        return self.stage(name, {**shared, **entry, **merged}, template, "stages", i)

    def stage(
        self, name: str, data: Mapping[Any, Any], template: str | Path | None, *path: str | int
    ) -> Stage:
        given = [key for key in ("template", "file") if key in data]
        if len(given) > 1:
            raise self.fail("names a template and a file; give one of them", *path, "file")
        if not given and template is None:
            raise self.fail("names no template and no file", *path)
        source = self.beside(data[given[0]], *path, given[0]) if given else Path(str(template))
        is_template = given == ["template"] or (not given and source.suffix == ".prototmp")
        settings = data.get("set") or {}
        if not isinstance(settings, Mapping):
            raise self.fail(f"set: needs a mapping of settings, found {settings!r}", *path, "set")
        weights = data.get("weights") or ""
        return Stage(
            name=name,
            template=source if is_template else None,
            file=None if is_template else source,
            groups=self.groups(data, *path),
            seeds=self.seeds(data.get("seeds"), *path, "seeds"),
            settings={str(key): value for key, value in settings.items()},
            stop=self.stop(data.get("stop"), *path, "stop"),
            weights=str(weights),
            after=str(data.get("after") or ""),
            task=self.one_of(data.get("task", "train"), TASKS, *path, "task"),
            iterations=None
            if data.get("iterations") is None
            else self.number(data["iterations"], *path, "iterations", least=1),
        )

    def groups(self, data: Mapping[Any, Any], *path: str | int) -> tuple[Group, ...]:
        search = self.one_of(data.get("search", "grid"), SEARCHES, *path, "search")
        entries = data.get("groups")
        if entries is None:
            return (self.group(data.get("values") or {}, search, *path, "values"),)
        if "values" in data or not isinstance(entries, list):
            raise self.fail("groups: a list of mappings, in place of values", *path, "groups")
        groups = []
        for i, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                raise self.fail(f"a group is a mapping with values, found {entry!r}", *path, "groups", i)
            self.known(entry, ("search", "values"), *path, "groups", i)
            own = self.one_of(entry.get("search", search), SEARCHES[:2], *path, "groups", i, "search")
            groups.append(self.group(entry.get("values") or {}, own, *path, "groups", i, "values"))
        self.distinct([parameter for group in groups for parameter in group.parameters], *path, "groups")
        return tuple(groups)

    def group(self, values: Any, search: str, *path: str | int) -> Group:
        if not isinstance(values, Mapping):
            raise self.fail(f"values: needs a mapping of names, found {values!r}", *path)
        parameters = []
        for name, entry in values.items():
            try:
                parameters.append(from_short(str(name), entry, search))
            except SpecError as error:
                raise self.fail(str(error), *path, name) from None
            for other, _ in parameters[-1].when:
                if other not in [parameter.name for parameter in parameters[:-1]]:
                    raise self.fail(
                        f"parameter {str(name)!r}: when names {other!r}, which is no parameter before it"
                        + did_you_mean(other, [parameter.name for parameter in parameters[:-1]]),
                        *path,
                        name,
                    )
        return Group(search, tuple(parameters))

    def distinct(self, parameters: list[Parameter], *path: str | int) -> None:
        names = [parameter.name for parameter in parameters]
        if twice := [name for name in names if names.count(name) > 1]:
            raise self.fail(f"parameter {twice[0]!r} is there twice", *path)

    def order(self, stages: list[Stage]) -> None:
        """Raise SpecError where a name occurs twice, and where a stage does not follow the one that it comes after."""
        for i, stage in enumerate(stages):
            earlier = [other.name for other in stages[:i]]
            if stage.name in earlier:
                raise self.fail(f"stage {stage.name!r} is there twice", "stages", i, "name")
            if stage.after and stage.after not in earlier:
                hint = did_you_mean(stage.after, earlier)
                raise self.fail(
                    f"after {stage.after!r}: no stage before it has that name{hint}", "stages", i, "after"
                )
