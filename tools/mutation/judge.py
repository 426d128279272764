"""Runs the tests of each mutant in a process of its own and writes down whether one of them fails."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

import pytest

from tools.mutation.record import LONGEST, STATE, recorded
from tools.mutation.sites import ROOT, Site, changed, files, sites

VERDICTS = STATE / "verdicts.jsonl"
BUDGET = 25.0
"""Seconds of recorded test time per mutant: the fastest tests of its line come first."""
FACTOR, SPARE = 5, 60
"""A mutant may use this many times the recorded time, and so many seconds beside: then it hangs, and is killed."""
PATIENCE = 900.0
"""Seconds by the clock after which a process that waits for something is killed."""
CONTROL = 0.1
"""Share of the killed mutants whose tests are run again without the change: they must pass."""
PRELOADED = (
    "torch",
    "torch._dynamo",
    "torch.export",
    "numpy",
    "scipy.stats",
    "google.protobuf",
    "hypothesis",
)


class Index:
    """The tests that run a line, the fastest first."""

    def __init__(self) -> None:
        self.by_line: dict[tuple[str, int], list[str]] = defaultdict(list)
        self.seconds: dict[str, float] = {}
        for entry in sorted(recorded(), key=lambda entry: entry["seconds"]):
            if entry["passed"] and entry["seconds"] <= LONGEST and entry["lines"]:
                self.seconds[entry["test"]] = entry["seconds"]
                for name, lines in entry["lines"].items():
                    for line in lines:
                        self.by_line[name, line].append(entry["test"])

    def tests(self, site: Site) -> list[str]:
        """Those of the site's line, else (a line that runs when the module is imported) of what encloses it."""
        tree = ast.parse((ROOT / site.path).read_text(encoding="utf-8"))
        statements = [
            (node.lineno, node.end_lineno or node.lineno)
            for node in ast.walk(tree)
            if isinstance(node, ast.stmt) and node.lineno <= site.line <= (node.end_lineno or 0)
        ]
        spans = [(site.line, site.line), *sorted(statements, key=lambda span: span[1] - span[0])]
        in_function = any(
            isinstance(node, ast.FunctionDef) and node.body[0].lineno <= site.line <= (node.end_lineno or 0)
            for node in ast.walk(tree)
        )
        tests: set[str] = set()
        for first, last in [*spans, *([] if in_function else [(1, 10**6)])]:
            lines = range(first, min(last, 10**5) + 1)
            tests = {test for line in lines for test in self.by_line.get((site.path, line), ())}
            if tests:
                break
        if not in_function:  # what a class says is tested under the names of its types
            names = tuple(f"[{name}-" for name in types_of(tree, site.line))
            tests |= {test for test in self.seconds if names and any(name in test for name in names)}
        return sorted(tests, key=lambda test: (self.seconds[test], test))

    def chosen(self, site: Site) -> list[str]:
        """As many of the site's tests as the budget allows."""
        spent = 0.0
        chosen: list[str] = []
        for test in self.tests(site):
            spent += self.seconds[test]
            if chosen and spent > BUDGET:
                break
            chosen.append(test)
        return chosen


def types_of(tree: ast.Module, line: int) -> list[str]:
    """Names under which the layer class around a line is registered."""
    return [
        argument.value
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.lineno <= line <= (node.end_lineno or 0)
        for call in node.decorator_list
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "register"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


class Changed(importlib.machinery.SourceFileLoader):
    """Finds the one changed module and compiles it from its changed tree."""

    def __init__(self, site: Site):
        name = site.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        super().__init__(name, str(ROOT / site.path))
        self.tree = changed(site)[0]

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name != self.name:
            return None
        package = [os.path.dirname(self.path)] if self.path.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(
            name, self.path, loader=self, submodule_search_locations=package
        )

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.tree, self.path, "exec", dont_inherit=True)


class Chosen:
    """A plugin of pytest that keeps the chosen tests, in their order."""

    def __init__(self, tests: Sequence[str]):
        self.order = {test: i for i, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )


def drawn(count: int, seed: int) -> list[Site]:
    """Mutants drawn from all sites of the judged rooms."""
    everything = [site for path in files() for site in sites(path)]
    return random.Random(seed).sample(everything, min(count, len(everything)))


def judged() -> dict[str, dict[str, Any]]:
    """Verdicts by the mutant's name, so far."""
    if not VERDICTS.exists():
        return {}
    entries = [json.loads(line) for line in VERDICTS.read_text(encoding="utf-8").splitlines()]
    return {entry["name"]: entry for entry in entries}


def child(site: Site | None, tests: Sequence[str], limit: float) -> None:
    """In the forked process: the tests, with the change; ends with pytest's exit status."""
    status = 3
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        if site is not None:
            sys.meta_path.insert(0, Changed(site))
        paths = sorted({test.split("::")[0] for test in tests})
        options = [
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-m",
            "",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        ]
        status = int(pytest.main([*options, *paths], plugins=[Chosen(tests)]))
    finally:
        os._exit(status)


def run(site: Site | None, tests: Sequence[str], seconds: float) -> str:
    """`survived`, `killed`, or `killed by time`."""
    limit = FACTOR * seconds + SPARE
    pid = os.fork()
    if pid == 0:
        child(site, tests, limit)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return (
                    "killed by time" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "killed"
                )
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "killed by time"


def judge(count: int, seed: int, minutes: float) -> None:
    """Judge mutants that have no verdict yet, until the time is over."""
    os.chdir(ROOT)
    for name in PRELOADED:
        importlib.import_module(name)
    assert not any(name.split(".")[0] == "netspec" for name in sys.modules), (
        "the product must be imported changed"
    )
    until = time.monotonic() + 60 * minutes
    index, before, chance = Index(), judged(), random.Random(seed)
    for site in drawn(count, seed):
        if site.name in before:
            continue
        if time.monotonic() > until:
            break
        tests = index.chosen(site)
        seconds = sum(index.seconds[test] for test in tests)
        start = time.monotonic()
        verdict = run(site, tests, seconds) if tests else "no test"
        if (
            verdict.startswith("killed")
            and chance.random() < CONTROL
            and run(None, tests, seconds) != "survived"
        ):
            raise SystemExit(f"{site.name}: its tests fail without the change too")
        entry = {
            "name": site.name,
            "change": changed(site)[1],
            "verdict": verdict,
            "tests": len(tests),
            "seconds": round(time.monotonic() - start, 1),
        }
        with VERDICTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        print(f"{verdict:15} {site.name}   {changed(site)[1][:100]}", flush=True)
