"""Plans: which runs an experiment has, in a file of YAML, or of the SimNets fork's JSON with comments.

    name: ht_small                      # the sweep's folder is runs/ht_small
    template: ht_cac.prototmp           # values are variables of a template; or
    file: nets/lenet_solver.prototxt    # values are settings, as behind --set
    search: grid                        # grid, random, tpe, halving, hyperband
    points: 24                          # at most so many; needed but for grid
    metric: accuracy                    # output of the first test net; {output:, net:, mode: min} says more
    values:
      base_lr: {logspace: [0.003, 0.03], count: 3}
      states: [[8, 16], [16, 32]]
      dropout: {uniform: [0, 0.5], when: {model: cnn}}
    groups: [{search: grid, values: {...}}, {search: random, values: {...}}]   # in place of values: their product
    seeds: 3                            # each point once per seed; a list names them
    set: {max_iter: 1000, snapshot: 200}
    stop: {nan: true, delta: 1e-6, plateau: 500, patience: 10}
    weights: ../init/*.safetensors
    limits: {seconds: 600, memory: 4}   # per run; memory in GB
    keep: last                          # snapshots of a finished run: last, best, all or none
    stages: [{name: init, ...}, {name: train, after: init, ...}, {name: test, after: train, task: test, ...}]

A stage has the keys of the plan; those that it leaves out are the plan's. A stage `after` another runs once per run of
that stage and per point of its own, with the values of both, from the weights of that run; values, groups and seeds of
the plan itself are those of the stages that come after none.

hyper_train.py's plans: name is the folder, the template is net.prototmp beside the plan, `weights_file` a pattern in
the folder; templates get `name`, `caffe_random_seed` and `run_idx_1`, `run_idx_2` ..., as those of other plans do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from netspec.errors import SpecError, did_you_mean
from netspec.experiments.parameters import Parameter, from_object, from_short, whole
from netspec.experiments.places import Places
from netspec.experiments.values import read_mapping
from netspec.schema.read import load_text

SEARCHES = ("grid", "random", "tpe", "halving", "hyperband")
ADAPTIVE = SEARCHES[2:]
KEEP = ("last", "best", "all", "none")
TASKS = ("train", "test")
STOPS = ("nan", "delta", "plateau", "patience", "window")


@dataclass(frozen=True)
class Metric:
    """The figure to compare runs by: an output of a test net, and which way is better."""

    output: str = "accuracy"
    net: int = 0
    mode: str = "max"

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.mode == "max" else -1


@dataclass(frozen=True)
class Stop:
    """The rules by which a run ends early."""

    nan: bool = True
    """Stop where loss or gradients are not finite."""
    delta: float | None = None
    """Stop where the loss falls by less than this share per iteration, by the medians of the two halves of all
    displays.
    """
    plateau: int = 0
    """Stop where the displayed loss has had no new low for so many iterations; 0: never."""
    patience: int = 0
    """Stop where the metric has had no new best for so many tests; 0: never."""
    window: int = 10
    """Number of tests in the moving average of the results table."""


@dataclass(frozen=True)
class Group:
    """Parameters that are searched together."""

    search: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Stage:
    """Runs of one kind."""

    name: str
    template: Path | None
    file: Path | None
    groups: tuple[Group, ...]
    seeds: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    stop: Stop = Stop()
    weights: str = ""
    after: str = ""
    task: str = "train"
    iterations: int | None = None
    """Batches of a test."""

    @property
    def source(self) -> Path:
        """The file that its runs are made from."""
        path = self.template or self.file
        if path is None:
            raise SpecError(f"stage {self.name!r} names no template and no file")
        return path


@dataclass(frozen=True)
class Plan:
    """A plan as read."""

    file: str
    name: str
    folder: Path
    stages: tuple[Stage, ...]
    metric: Metric = Metric()
    points: int | None = None
    seed: int = 0
    """Seed of everything that the plan draws."""
    limits: Mapping[str, float] = field(default_factory=dict)
    keep: str = "last"
    engine: str | None = None
    original: bool = False
    """Whether it is a plan of hyper_train.py."""

    @property
    def search(self) -> str:
        """The search of its first stage where that is adaptive, else "grid"."""
        searches = [
            group.search for stage in self.stages for group in stage.groups if group.search in ADAPTIVE
        ]
        return searches[0] if searches else "grid"


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
    reader = Reader(file, data, Places(text, str(file)))
    plan = reader.original(template, out) if "hyper_params" in data else reader.plan(template, out)
    plan = plan if keep is None else replace(plan, keep=reader.one_of(keep, KEEP, "keep"))
    if plan.keep == "none" and (needy := [stage.name for stage in plan.stages if stage.after]):
        raise reader.fail(f"keep: none, but stage {needy[0]!r} starts from the weights of another", "keep")
    return plan


def both(key: str, one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    """Whether an entry is a mapping in both."""
    return isinstance(one.get(key), Mapping) and isinstance(other.get(key), Mapping)


PLAN_KEYS = ("name", "points", "metric", "seed", "limits", "keep", "stages", "out")
STAGE_KEYS = (
    "template", "file", "search", "values", "groups", "seeds", "set", "stop", "weights", "after", "task", "iterations",
)  # fmt: skip
ORIGINAL_KEYS = (
    "name", "search_type", "hyper_params", "rendering_engine", "max_data_points", "weights_file",
    "moving_avg_window_size", "termination_rules",
)  # fmt: skip


class Reader:
    """From the mapping of a plan's file to the plan."""

    def __init__(self, file: Path, data: Mapping[Any, Any], places: Places):
        self.file, self.data, self.places = file, data, places

    def fail(self, text: str, *path: str | int) -> SpecError:
        return SpecError(text, self.places.at(*path))

    def known(self, data: Mapping[Any, Any], names: tuple[str, ...], *path: str | int) -> None:
        for key in data:
            if key not in names:
                raise self.fail(f"unknown key {key!r}{did_you_mean(str(key), names)}", *path, key)

    def beside(self, name: Any, *path: str | int) -> Path:
        """A file that the plan names: beside the plan, or relative to the working directory."""
        if not isinstance(name, str):
            raise self.fail(f"expected a file's name, found {name!r}", *path)
        for place in (self.file.parent / name, Path(name)):
            if place.is_file():
                return place
        raise self.fail(f"{name!r}: no such file beside the plan, nor in the working directory", *path)

    # Plans of our own

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
        made = []
        for name, entry in values.items():
            try:
                made.append(from_short(str(name), entry, search))
            except SpecError as error:
                raise self.fail(str(error), *path, name) from None
            for other, _ in made[-1].when:
                if other not in [parameter.name for parameter in made[:-1]]:
                    raise self.fail(
                        f"parameter {str(name)!r}: when names {other!r}, which is no parameter before it"
                        + did_you_mean(other, [parameter.name for parameter in made[:-1]]),
                        *path,
                        name,
                    )
        return Group(search, tuple(made))

    def distinct(self, parameters: list[Parameter], *path: str | int) -> None:
        names = [parameter.name for parameter in parameters]
        if twice := [name for name in names if names.count(name) > 1]:
            raise self.fail(f"parameter {twice[0]!r} is there twice", *path)

    def order(self, stages: list[Stage]) -> None:
        """Sort stages so that each follows the stage that it comes after."""
        for i, stage in enumerate(stages):
            earlier = [other.name for other in stages[:i]]
            if stage.name in earlier:
                raise self.fail(f"stage {stage.name!r} is there twice", "stages", i, "name")
            if stage.after and stage.after not in earlier:
                hint = did_you_mean(stage.after, earlier)
                raise self.fail(
                    f"after {stage.after!r}: no stage before it has that name{hint}", "stages", i, "after"
                )

    # Fields

    def one_of(self, value: Any, allowed: tuple[str, ...], *path: str | int) -> str:
        if value not in allowed:
            hint = did_you_mean(str(value), allowed)
            raise self.fail(f"{path[-1]} is one of {', '.join(allowed)}, found {value!r}{hint}", *path)
        return str(value)

    def number(self, value: Any, *path: str | int, least: int = 0) -> int:
        count = whole(value)
        if count is None or count < least:
            raise self.fail(f"{path[-1]} is a whole number of at least {least}, found {value!r}", *path)
        return count

    def points(self, value: Any, key: str = "points") -> int | None:
        return None if value is None else self.number(value, key, least=1)

    def seeds(self, value: Any, *path: str | int) -> tuple[int, ...]:
        if value is None:
            return ()
        if isinstance(value, list):
            return tuple(self.number(entry, *path, i) for i, entry in enumerate(value))
        return tuple(range(1, 1 + self.number(value, *path, least=1)))

    def metric(self, value: Any) -> Metric:
        if value is None:
            return Metric()
        data = {"output": value} if isinstance(value, str) else value
        if not isinstance(data, Mapping) or not isinstance(data.get("output"), str):
            raise self.fail(
                f"metric: the name of a test output, or {{output:, net:, mode:}}, found {value!r}", "metric"
            )
        self.known(data, ("output", "net", "mode"), "metric")
        from netspec.run.stopping import lower_is_better

        default = "min" if lower_is_better(data["output"]) else "max"
        mode = self.one_of(data.get("mode", default), ("max", "min"), "metric", "mode")
        return Metric(data["output"], self.number(data.get("net", 0), "metric", "net"), mode)

    def stop(self, value: Any, *path: str | int) -> Stop:
        data = value or {}
        if not isinstance(data, Mapping):
            raise self.fail(f"{path[-1]}: needs a mapping with {', '.join(STOPS)}, found {value!r}", *path)
        self.known(data, STOPS, *path)
        delta = data.get("delta")
        if delta is not None and (isinstance(delta, bool) or not isinstance(delta, int | float)):
            raise self.fail(f"delta is a number, found {delta!r}", *path, "delta")
        return Stop(
            nan=bool(data.get("nan", True)),
            delta=None if delta is None or delta == float("-inf") else float(delta),
            plateau=self.number(data.get("plateau", 0), *path, "plateau"),
            patience=self.number(data.get("patience", 0), *path, "patience"),
            window=self.number(data.get("window", 10), *path, "window", least=1),
        )

    def limits(self, value: Any) -> dict[str, float]:
        data = value or {}
        if not isinstance(data, Mapping):
            raise self.fail(f"limits: needs a mapping with seconds and memory, found {value!r}", "limits")
        self.known(data, ("seconds", "memory"), "limits")
        for key, limit in data.items():
            if isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0:
                raise self.fail(f"{key} is a number above 0, found {limit!r}", "limits", key)
        return {str(key): float(limit) for key, limit in data.items()}

    # Plans of hyper_train.py

    def original(self, template: str | Path | None, out: str | Path | None) -> Plan:
        data = self.data
        self.known(data, ORIGINAL_KEYS)
        name = data.get("name")
        if not isinstance(name, str) or not name:
            raise self.fail(f"a plan needs a name, found {name!r}", "name")
        if "search_type" not in data:
            raise self.fail("a plan needs search_type: grid, random, or a list of them, one per group")
        jinja = bool(data.get("rendering_engine"))
        weights = data.get("weights_file") or ""
        if weights and not jinja:
            raise self.fail(
                "weights_file needs the rendering engine (rendering_engine: true)", "weights_file"
            )
        points = self.points(data.get("max_data_points"), "max_data_points")
        groups = self.original_groups()
        if points is None and any(group.search == "random" for group in groups):
            raise self.fail("a random search needs max_data_points", "search_type")
        rules = data.get("termination_rules") or {}
        if not isinstance(rules, Mapping):
            raise self.fail(f"termination_rules: needs a mapping, found {rules!r}", "termination_rules")
        window = data.get("moving_avg_window_size", 10)
        beside = self.file.parent / "net.prototmp"
        source = Path(template) if template is not None else beside
        if not source.is_file():
            raise self.fail(f"{source}: the plan's template is not there; give it before the plan")
        stop = self.stop({**rules, "window": window}, "termination_rules")
        stage = Stage("", source, None, groups, stop=stop, weights=str(weights))
        folder = Path(out) if out is not None else Path(name)
        return Plan(
            str(self.file),
            name,
            folder,
            (stage,),
            points=points,
            engine="jinja" if jinja else "percent",
            original=True,
        )

    def original_groups(self) -> tuple[Group, ...]:
        entries, searches = self.data["hyper_params"], self.data["search_type"]
        if not isinstance(entries, list) or not entries:
            raise self.fail(f"hyper_params is a list of parameters, found {entries!r}", "hyper_params")
        nested = isinstance(entries[0], list)
        lists = entries if nested else [entries]
        kinds = searches if isinstance(searches, list) else [searches] * len(lists)
        if len(kinds) < len(lists):
            raise self.fail(f"{len(kinds)} search types for {len(lists)} groups", "search_type")
        groups = []
        for i, (search, members) in enumerate(zip(kinds, lists, strict=False)):
            path: tuple[str | int, ...] = ("hyper_params", i) if nested else ("hyper_params",)
            self.one_of(search, SEARCHES[:2], "search_type")
            if not isinstance(members, list):
                raise self.fail("hyper_params: either parameters, or lists of them", *path)
            made = []
            for j, entry in enumerate(members):
                try:
                    made.append(from_object(entry, search))
                except SpecError as error:
                    raise self.fail(str(error), *path, j) from None
            groups.append(Group(search, tuple(made)))
        return tuple(groups)
