"""Plans as hyper_train.py of the SimNets fork reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from netspec.errors import SpecError
from netspec.experiments.parameters import from_object
from netspec.experiments.plan_fields import PlanFields
from netspec.experiments.plans import SEARCHES, Group, Plan, Stage

KEYS = (
    "name", "search_type", "hyper_params", "rendering_engine", "max_data_points", "weights_file",
    "moving_avg_window_size", "termination_rules",
)  # fmt: skip


class OriginalPlan(PlanFields):
    """Reads a plan of hyper_train.py."""

    def plan(self, template: str | Path | None, out: str | Path | None) -> Plan:
        data = self.data
        self.known(data, KEYS)
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
        groups = self.groups()
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

    def groups(self) -> tuple[Group, ...]:
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
            parameters = []
            for j, entry in enumerate(members):
                try:
                    parameters.append(from_object(entry, search))
                except SpecError as error:
                    raise self.fail(str(error), *path, j) from None
            groups.append(Group(search, tuple(parameters)))
        return tuple(groups)
