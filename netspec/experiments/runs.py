"""Reads a run folder: what was run, with what, and with what result. Damaged files are passed over."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from netspec import schema
from netspec.errors import NetspecError
from netspec.experiments.ledger import POINT, RESULT
from netspec.interchange.snapshot_files import iteration_of, states
from netspec.run.folder import METRICS, is_number, parse_lines
from netspec.schema.descriptors import is_repeated
from netspec.schema.printer import format_float
from netspec.schema.regular import read_regular

FACTS, SOLVER, NET = "run.json", "solver.prototxt", "net.prototxt"
SIGNS = (FACTS, METRICS, RESULT, POINT)
"""A folder with one of these files is a run folder."""
MOST_CONTENT = 1 << 28
"""Most bytes of a run's file that are read."""
DONE, UNFINISHED = "done", "unfinished"
NAMES = ("net", "train_net", "test_net", "snapshot_prefix")
"""Fields of a solver that only say where files lie."""


@dataclass
class RunFolder:
    """A run folder; every part is read when it is first asked for."""

    path: Path

    @property
    def name(self) -> str:
        return as_text(self.path.resolve().name)

    @property
    def is_of_sweep(self) -> bool:
        return (self.path / POINT).is_file()

    @cached_property
    def facts(self) -> dict[str, Any]:
        """run.json"""
        return mapping(self.path / FACTS)

    @cached_property
    def point(self) -> dict[str, Any]:
        """point.json: of a sweep's run, its values."""
        return mapping(self.path / POINT)

    @cached_property
    def result(self) -> dict[str, Any]:
        """result.json: of a sweep's run that is over."""
        return mapping(self.path / RESULT)

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl."""
        data = content(self.path / METRICS)
        lines = parse_lines(data)[0] if data else []
        return [cleaned(line) for line in lines] if data and (b"\\u" in data or b"\xed" in data) else lines

    @cached_property
    def train(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == "train"]

    @cached_property
    def tests(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == "test"]

    @cached_property
    def last(self) -> dict[str, float]:
        """The outputs of each test net in its last test, by name; those of later nets as `1:accuracy`."""
        outputs: dict[str, float] = {}
        for line in self.tests:
            outputs |= outputs_of(line)
        return outputs

    def series(self, output: str) -> list[tuple[int, float]]:
        """(iteration, value) of an output, named as in `last`."""
        return [
            (line["iteration"], own[output]) for line in self.tests if output in (own := outputs_of(line))
        ]

    @cached_property
    def solver(self) -> Any:
        """The resolved SolverParameter; an empty one where there is none."""
        return parsed(self.path / SOLVER, "solver")

    @cached_property
    def net(self) -> Any:
        """The resolved NetParameter of training."""
        return parsed(self.path / NET, "net")

    def text(self, name: str) -> str:
        """A text file of the folder, "" where it has none."""
        return (content(self.path / name) or b"").decode("utf-8", "replace")

    @cached_property
    def settings(self) -> dict[str, str]:
        """Every field of the solver and its net, named as for --set: base_lr, conv1.convolution_param.pad."""
        fields = {name: value for name, value in flat(self.solver).items() if name.split("[")[0] not in NAMES}
        return fields | flat_net(self.net)

    @property
    def aim(self) -> tuple[str, bool] | None:
        """(output, whether lower is better), as the plan of a sweep's run says; None without a plan."""
        own = self.point.get("metric")
        if not isinstance(own, dict) or not isinstance(own.get("output"), str) or not own["output"]:
            return None
        if own.get("mode") not in ("min", "max"):
            return None
        lead = f"{own['net']}:" if isinstance(own.get("net"), int) and own["net"] else ""
        return lead + own["output"], own["mode"] == "min"

    @property
    def values(self) -> dict[str, Any]:
        """The values of its plan; for a run without a plan, its --set settings."""
        own = self.point.get("values")
        return dict(own) if isinstance(own, dict) else dict(self.made)

    @property
    def made(self) -> dict[str, str]:
        """The settings given with --set."""
        settings = self.facts.get("settings", self.point.get("settings"))
        return {str(k): str(v) for k, v in settings.items()} if isinstance(settings, dict) else {}

    @property
    def seed(self) -> int | None:
        for value in (self.facts.get("seed"), self.result.get("seed"), self.point.get("seed")):
            if isinstance(value, int):
                return value
        return None

    @property
    def iteration(self) -> int:
        """The last iteration that it reached."""
        iterations = [line["iteration"] for line in self.lines]
        iterations += [iteration_of(path) for path in states(self.path)]
        return max([*iterations, number(self.result.get("iteration")) or 0], default=0)

    @property
    def seconds(self) -> float:
        """Of training."""
        times = [line["seconds"] for line in self.lines if line.get("seconds") is not None]
        return max([*times, number(self.result.get("seconds")) or 0.0], default=0.0)

    @property
    def status(self) -> str:
        """done, pruned, failed or unfinished."""
        if self.result:
            return str(self.result.get("status", UNFINISHED))
        most = self.solver.max_iter
        over = any(line["kind"] == "best" for line in self.lines) or (most and self.iteration >= most)
        return DONE if over else UNFINISHED

    @property
    def again(self) -> str:
        """The command that repeats the run."""
        seed = "" if self.seed is None else f" --seed {self.seed}"
        if self.point:
            source, own = word_of(self.point.get("source", "")), self.point.get("settings")
            if isinstance(own, dict) and own:
                return f"netspec train {source}{flags(own)}{seed}"
            net = "again.prototxt"
            return f"netspec render {source}{flags(self.values)} -o {net} && netspec train {net}{seed}"
        return f"netspec train {word_of(self.facts.get('file', SOLVER))}{flags(self.made)}{seed}"


def word_of(file: Any) -> str:
    """A file as one word of a command, on one line and no option."""
    text = " ".join(str(file).splitlines())
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def flags(settings: Mapping[str, Any]) -> str:
    from netspec.run.settings import settable

    texts = (" ".join(f"{name}={settable(value)}".splitlines()) for name, value in settings.items())
    return "".join(f" --set {shlex.quote(text)}" for text in texts)


def find_runs(root: str | Path) -> Iterator[RunFolder]:
    """The run folders in a folder, or the folder itself, in the order of their names; links are not followed."""
    for place, folders, files in os.walk(root):
        if any(sign in files for sign in SIGNS):
            folders.clear()  # what lies in a run is its own: abandoned branches, pretraining
            yield RunFolder(Path(place))
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def is_run(path: str | Path) -> bool:
    """Whether a folder is one of a run."""
    return any((Path(path) / sign).is_file() for sign in SIGNS)


def runs_in(paths: Sequence[str | Path]) -> list[RunFolder]:
    """The runs at the paths, which are run folders or folders of runs. Raises NetspecError for a path without a run."""
    runs: dict[Path, RunFolder] = {}
    for path in paths:
        if not Path(path).is_dir():
            raise NetspecError(f"{path}: no such run folder, nor a folder of runs")
        own = list(find_runs(path))
        if not own:
            raise NetspecError(f"{path}: holds no run ({', '.join(SIGNS)})")
        runs |= {run.path.resolve(): run for run in own if run.path.resolve() not in runs}
    return list(runs.values())


def outputs_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The outputs of a test that are numbers; names of later test nets are led by the net's number."""
    lead = f"{line['net']}:" if line["net"] else ""
    values: dict[str, float] = {}
    for name, value in line["outputs"].items():
        if isinstance(value, list):
            values |= {f"{lead}{name}[{i}]": float(v) for i, v in enumerate(value) if v is not None}
        elif value is not None:
            values[f"{lead}{name}"] = float(value)
    return values


def is_own(path: Path, most: int) -> bool:
    """Whether it is a file of at most `most` bytes inside its folder: a link may lead to a secret."""
    try:
        return path.resolve().is_relative_to(path.parent.resolve()) and path.stat().st_size <= most
    except (OSError, RuntimeError):
        return False


def content(path: Path, most: int = MOST_CONTENT) -> bytes | None:
    """The bytes of a file; None where it is not there, is no regular file of the folder, or has more than `most`."""
    try:
        return read_regular(path) if is_own(path, most) else None
    except (OSError, NetspecError):
        return None


def mapping(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none."""
    try:
        value = cleaned(json.loads(content(path) or b"{}"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def as_text(path: str | Path) -> str:
    """A path as text that every file and database takes: bytes of it that are no UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def cleaned(value: Any) -> Any:
    """The value without halves of surrogate pairs, which neither files nor databases accept."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    return {cleaned(k): cleaned(v) for k, v in value.items()} if isinstance(value, dict) else value


def parsed(path: Path, kind: str) -> Any:
    """A spec's message; an empty one where it is not there or damaged."""
    text = (content(path) or b"").decode("utf-8", "replace")
    try:
        return schema.parse(kind, text, str(path), "keep").message
    except NetspecError:
        return schema.message_class("SolverParameter" if kind == "solver" else "NetParameter")()


def number(value: Any) -> Any:
    return value if is_number(value) else None


def flat(message: Any, lead: str = "") -> dict[str, str]:
    """The fields that a message has, by their paths below it: param[0].lr_mult."""
    fields: dict[str, str] = {}
    for field, value in message.ListFields():
        values = list(value) if is_repeated(field) else [value]
        if field.message_type is not None:
            for i, inner in enumerate(values):
                index = f"[{i}]" if is_repeated(field) else ""
                fields |= flat(inner, f"{lead}{field.name}{index}.") or {f"{lead}{field.name}{index}": "{}"}
        else:
            fields[lead + field.name] = ",".join(word(field, one) for one in values)
    return fields


def flat_net(net: Any) -> dict[str, str]:
    """The fields of a net's layers, led by the layer's name; the phase tells layers of one name apart."""
    fields: dict[str, str] = {}
    seen: set[str] = set()
    for layer in net.layer:
        lead = layer.name
        if lead in seen:
            names = schema.enum("Phase").values_by_number
            phases = [names[rule.phase].name for rule in layer.include if rule.HasField("phase")]
            lead = f"{layer.name} ({' '.join(phases) or 'again'})"
        seen.add(lead)
        fields |= {name: value for name, value in flat(layer, f"{lead}.").items() if name != f"{lead}.name"}
    return fields


def word(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(known.name if known else value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return format_float(value) if isinstance(value, float) else str(value)


def differing(runs: Sequence[RunFolder]) -> dict[str, list[str | None]]:
    """The settings that differ between runs: for each, its value in every run, None where it is not set.

    The plan's values (or what was behind --set) come first, then the fields of solvers and nets.
    """
    rows: dict[str, list[str | None]] = {}
    shown = [{name: settable_text(value) for name, value in run.values.items()} for run in runs]
    for listed in (shown, [run.settings for run in runs]):
        for name in dict.fromkeys(name for one in listed for name in one):
            row = [one.get(name) for one in listed]
            if any(value != row[0] for value in row) and name not in rows:
                rows[name] = row
    return rows


def settable_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    from netspec.run.settings import settable

    return settable(value)
