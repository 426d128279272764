"""Fields of a plan's file: numbers, seeds, the metric, rules for stopping, limits; each mistake at its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netspec.errors import SpecError, did_you_mean
from netspec.experiments.parameters import whole
from netspec.experiments.places import Places
from netspec.experiments.plans import STOPS, Metric, Stop
from netspec.schema import shipped


class PlanFields:
    """The mapping of a plan's file; reads single fields, and makes the error at a field's place."""

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
        known = shipped.find(name)
        if known.is_file():
            return known
        told = did_you_mean(name, shipped.names()) or "; netspec list names the nets that come with netspec"
        raise self.fail(f"{name!r}: no such file beside the plan, nor in the working directory{told}", *path)

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
