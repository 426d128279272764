"""The floors of the house: who may import whom, what the package exports, what generated files say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import netspec

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"errors"},
    {"schema", "spec", "fillers", "clusters"},
    {"layers", "data", "blob", "memory"},
    {"graph"},
    {"params", "shapes"},
    {"net"},
    {"queries", "solver", "interchange", "unsupervised", "draw", "summary", "experiment", "overrides", "snapshot",
     "watch", "compiled", "progress", "runs", "signals", "state", "deploy", "devices", "testing", "checkpoint",
     "beginning"},
    {"train", "trainer", "model", "mixture", "evaluate", "baselines", "lab", "rendering", "check", "assume", "trial",
     "pictures", "answers", "glog"},
    {"pycaffe", "caffe_command", "caffe_tools", "experiments"},
    {"cli", "__main__", "__init__"},
]  # fmt: skip
"""Modules of netspec from the lowest floor up; a module imports its own floor and those below at import time."""


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


def imports(path: Path) -> set[str]:
    """Modules of netspec that a file imports when it is imported itself (not inside functions or for types)."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "netspec":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("netspec.")}
    return found


@pytest.mark.parametrize(
    "path", sorted((ROOT / "netspec").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_run_one_way(path: Path) -> None:
    name = path.relative_to(ROOT / "netspec").parts[0].removesuffix(".py")
    upwards = {other for other in imports(path) if floor(other) > floor(name)}
    assert not upwards, f"{path.name} is on floor {floor(name)} and imports {upwards}"


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


@pytest.mark.parametrize("tool", ["compile_schema", "layer_table"])
def test_generated_files_are_current(tool: str) -> None:
    command = [sys.executable, "-m", f"tools.{tool}", "--check"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
