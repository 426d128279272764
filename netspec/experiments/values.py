"""Values of templates and plans: from the command line, from files, and as names of files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from netspec.errors import Position, SpecError, did_you_mean
from netspec.schema.read import load_text

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Loader(yaml.SafeLoader):
    """YAML's plain data, in which `1e-3` is a number as in other languages."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`name=value` each; a value is read as YAML: a number, true, a text, [1, 2] or {a: 1}. Raises SpecError."""
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise SpecError(f"--set {setting}: expected NAME=VALUE")
        values[name.strip()] = parse_value(text, f"--set {setting}")
    return values


def parse_value(text: str, what: str = "") -> Any:
    """A value as written on a command line: a number, true, false, null, a list or mapping, else a text as it is."""
    text = text.strip()
    if text == "None":
        return None
    if NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
    if not text.startswith(("[", "{", "'", '"')) and not re.fullmatch(
        r"(?i)true|false|null|~|[-+]?\.inf|\.nan", text
    ):
        return text
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as problem:
        raise SpecError(f"{what or text}: {reason(problem)}") from None


def unread(template: Path, names: Iterable[str]) -> list[tuple[str, str]]:
    """(name, the nearest that it reads, in words) of values that a template never reads; [] for one that passes its
    values on to other templates.
    """
    text = template.read_text(encoding="utf-8", errors="replace")
    if re.search(r"\{%[-+]?\s*(include|extends)\b|\bwith context\b", text):
        return []
    words = set(re.findall(r"[A-Za-z_]\w*", text))
    return [(name, did_you_mean(name, sorted(words))) for name in names if name not in words]


def read_values(path: Path) -> dict[str, Any]:
    """The mapping that a YAML or JSON file holds; `#` begins a comment in both. Raises SpecError with the place."""
    values = read_mapping(path, load_text(path))
    return {str(name): value for name, value in values.items()}


def read_mapping(path: Path, text: str) -> dict[Any, Any]:
    """A text as YAML; where it begins with a brace, as JSON with comments, which YAML reads but for tabs."""
    text = text.lstrip("\ufeff")
    if text.lstrip().startswith("{") or path.suffix == ".json":
        return read_json(path, text)
    try:
        value = yaml.load(text, Loader)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        place = Position(str(path), mark.line + 1, mark.column + 1) if mark else Position(str(path), 1)
        raise SpecError(reason(problem), place) from None
    except RecursionError:
        raise SpecError("nests too deeply", Position(str(path), 1)) from None
    return mapping(value, path)


def read_json(path: Path, text: str) -> dict[Any, Any]:
    """JSON in which `#` outside of quotes begins a comment, as the SimNets fork's plans have it."""
    lines = [without_comment(line) for line in text.splitlines()]
    if not any(line.strip() for line in lines) or not "".join(lines).lstrip().startswith(("{", "[")):
        raise SpecError("expected a mapping, in braces", Position(str(path), 1))
    try:
        value = json.loads("\n".join(lines))
    except json.JSONDecodeError as problem:
        raise SpecError(problem.msg, Position(str(path), problem.lineno, problem.colno)) from None
    except RecursionError:
        raise SpecError("nests too deeply", Position(str(path), 1)) from None
    return mapping(value, path)


def without_comment(line: str) -> str:
    """A line of JSON up to a `#` that is not in quotes."""
    quoted = escaped = False
    for i, character in enumerate(line):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "#" and not quoted:
            return line[:i]
    return line


def mapping(value: Any, path: Path) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise SpecError(f"expected a mapping of names, found {type(value).__name__}", Position(str(path), 1))
    return value


def reason(problem: yaml.YAMLError) -> str:
    """A YAML error on one line."""
    return str(getattr(problem, "problem", None) or problem).replace("\n", " ")
