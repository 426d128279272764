"""The rooms of the house: which imports which, what the package exports, what generated files say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import netspec

ROOT = Path(__file__).parent.parent
ROOMS = [
    "errors",
    "schema",
    "data",
    "layers",
    "net",
    "solver",
    "interchange",
    "queries",
    "rendering",
    "draw",
    "run",
    "model",
    "lab",
    "check",
    "experiments",
    "testing",
    "sklearn",
    "serve",
    "pycaffe",
    "cli",
]
"""Rooms of netspec from the lowest floor up; a room imports only those below it, also inside functions."""


def imports(path: Path) -> set[str]:
    """Rooms that a file imports from, wherever the import stands."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "netspec":
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("netspec.")}
    return rooms


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_those_below_it(room: str) -> None:
    place = ROOT / "netspec" / room
    allowed = {*ROOMS[: ROOMS.index(room) + 1], "__version__"}
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
        upwards = (imports(path) if path.exists() else set()) - allowed
        assert not upwards, f"{path.relative_to(ROOT)} imports {upwards}, which lie above {room}"


def test_nothing_lies_loose() -> None:
    loose = {path.stem for path in (ROOT / "netspec").glob("*.py")}
    assert loose == {"__init__", "__main__"}
    rooms = {path.parent.name for path in (ROOT / "netspec").glob("*/__init__.py")}
    assert rooms <= set(ROOMS)
    assert len(ROOMS) <= 20


def test_every_room_is_described() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^    (\w+) {2,}\S", page, re.M)
    assert listed == ROOMS[::-1]
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", page):
        assert (ROOT / "netspec" / path).exists() or (ROOT / path).exists(), path


def test_nothing_of_ours_imports_tools_or_tests() -> None:
    for path in (ROOT / "netspec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] in ("tools", "tests") for name in names), path


def test_public_names() -> None:
    assert len(netspec.__all__) <= 20
    for name in netspec.__all__:
        assert getattr(netspec, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        netspec.fitt  # noqa: B018


@pytest.mark.parametrize("tool", ["compile_schema", "layer_table", "error_pages"])
def test_generated_files_are_current(tool: str) -> None:
    command = [sys.executable, "-m", f"tools.generate.{tool}", "--check"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


EMPTY_NAMES = {"found"}
"""Names of variables that say nothing of what they hold."""


def test_variables_say_what_they_hold() -> None:
    for path in (ROOT / "netspec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = {ast.Name: "id", ast.arg: "arg", ast.Attribute: "attr"}.get(type(node))
            if name is not None and getattr(node, name) in EMPTY_NAMES:
                line = f"{path.relative_to(ROOT)}:{node.lineno}"  # type: ignore[attr-defined]
                raise AssertionError(f"{line}: {getattr(node, name)!r}: say what it is")
