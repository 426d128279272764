"""Measures of the package's structure, of any checkout: python -m tools.house [FOLDER...] [--record]

Rooms are files and folders directly under netspec/; floors the longest chain of imports between them, circles groups
that import each other; loose modules those that are no folder. A type's name counts wherever it is written as a string
outside layers/. Pairs are places of two files, or of one, that share six or more lines to the letter (imports, comments
and lone brackets do not count). With --record the figures of this checkout and of one of commit f5ed140 (FOLDER) go
into docs/results/house.json.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "results" / "house.json"
SHARED = 6
"""Lines that make two places a pair."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def room_of(path: Path, package: Path) -> str:
    """The folder directly under the package, or the module that lies loose there."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported(tree: ast.AST, rooms: set[str]) -> Iterator[str]:
    """Rooms that a file imports from, also inside functions."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "netspec" and len(parts) > 1 and parts[1] in rooms:
                yield parts[1]


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Groups of rooms that reach each other."""
    reach = {room: {room} | below for room, below in arrows.items()}
    for _ in reach:
        for room in reach:
            reach[room] |= {far for near in reach[room] for far in reach.get(near, set())}
    groups = {frozenset(b for b in reach[a] if a in reach.get(b, set())) for a in reach}
    return [set(group) for group in groups]


def floors(arrows: dict[str, set[str]], groups: list[set[str]]) -> int:
    """The longest chain of groups, each importing the next."""
    group_of = {room: i for i, group in enumerate(groups) for room in group}
    below = {
        i: {group_of[to] for room in group for to in arrows.get(room, ()) if group_of[to] != i}
        for i, group in enumerate(groups)
    }
    height: dict[int, int] = {}

    def floor(i: int) -> int:
        if i not in height:
            height[i] = 1 + max((floor(to) for to in below[i]), default=0)
        return height[i]

    return max(floor(i) for i in below)


def type_names(trees: dict[Path, ast.Module], package: Path) -> tuple[int, int]:
    """How often, and in how many files outside layers/, a registered type is written as a string."""
    types = {
        argument.value
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "register"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    counts = Counter(
        {
            path: sum(isinstance(node, ast.Constant) and node.value in types for node in ast.walk(tree) if
                      isinstance(getattr(node, "value", None), str))
            for path, tree in trees.items()
            if room_of(path, package) not in ("layers", "__init__")
        }
    )  # fmt: skip
    return counts.total(), sum(count > 0 for count in counts.values())


def pairs(paths: list[Path]) -> int:
    """Pairs of files (or a file with itself) that share a run of SHARED lines."""
    places: dict[tuple[str, ...], list[tuple[Path, int]]] = defaultdict(list)
    for path in paths:
        lines = [
            line.strip()
            for line in path.read_text(encoding="utf-8").splitlines()
            if re.search(r"\w", line) and not re.match(r"\s*(#|import |from )", line)
        ]
        for i in range(len(lines) - SHARED + 1):
            places[tuple(lines[i : i + SHARED])].append((path, i))
    shared = set()
    for same in places.values():
        for (a, i), (b, j) in combinations(same, 2):
            if a != b or abs(i - j) >= SHARED:
                shared.add((a, b))
    return len(shared)


def parameters(node: Function) -> int:
    """How many parameters a function takes, beside self and cls."""
    names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def measure(checkout: Path) -> dict[str, Any]:
    """The figures of a checkout."""
    package = checkout / "netspec"
    paths = sorted(package.rglob("*.py"))
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    rooms = {room_of(path, package) for path in paths} - {"__init__", "__main__"}
    arrows: dict[str, set[str]] = {room: set() for room in rooms}
    for path, tree in trees.items():
        if (room := room_of(path, package)) in rooms:
            arrows[room] |= set(imported(tree, rooms)) - {room}
    groups = circles(arrows)
    functions = [
        node
        for path, tree in trees.items()
        if room_of(path, package) != "cli"  # a command's options are its parameters
        for node in ast.walk(tree)
        if isinstance(node, Function)
    ]
    names, files = type_names(trees, package)
    return {
        "files": len(paths),
        "rooms": len(rooms),
        "floors": floors(arrows, groups),
        "arrows between rooms": sum(map(len, arrows.values())),
        "circles": sum(len(group) > 1 for group in groups),
        "rooms in circles": sum(len(group) for group in groups if len(group) > 1),
        "loose modules": len(
            [path for path in package.glob("*.py") if path.stem not in ("__init__", "__main__")]
        ),
        "names of layer types outside layers": names,
        "files that write them": files,
        "functions with 8 parameters or more": sum(parameters(node) >= 8 for node in functions),
        "most parameters": max(map(parameters, functions)),
        "functions longer than 40 lines": sum((n.end_lineno or 0) - n.lineno >= 40 for n in functions),
        "files longer than 300 lines": sum(len(p.read_text().splitlines()) > 300 for p in paths),
        "pairs of files with six equal lines": pairs(paths),
        "variables called found": sum(
            isinstance(n, ast.Name) and n.id == "found" for tree in trees.values() for n in ast.walk(tree)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="checkouts; default this one")
    parser.add_argument(
        "--record", action="store_true", help="write docs/results/house.json; FOLDER is the one before"
    )
    told = parser.parse_args()
    if told.record:
        (before,) = told.folders
        record = {
            "command": "git worktree add BEFORE f5ed140; python -m tools.house BEFORE --record",
            "before": measure(before),
            "after": measure(ROOT),
        }
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(record, indent=1))
        return
    for folder in told.folders or [ROOT]:
        print(json.dumps(measure(folder), indent=1))


if __name__ == "__main__":
    main()
