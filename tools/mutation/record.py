"""Notes which lines of the judged rooms each test runs, and how long it takes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Generator, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tools.mutation.sites import ROOMS, ROOT

STATE = ROOT / "build" / "mutation"
TESTS = STATE / "tests.jsonl"
AREAS = ("net", "solver", "queries", "layers", "check", "rendering", "run", "model")
"""Folders of tests whose tests judge."""
PREFIXES = tuple(str(ROOT / "netspec" / room) + os.sep for room in ROOMS)
LONGEST = 60.0
"""Seconds of processor time that a test may take to be of use here."""


class Recorder:
    """A plugin of pytest that writes a line of JSON per test that passes: name, seconds, lines by file."""

    def __init__(self, until: float):
        self.until = until
        self.lines: dict[str, set[int]] = defaultdict(set)
        self.seen = {entry["test"] for entry in recorded()}
        self.passed = True

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.seen]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        if time.monotonic() > self.until:
            pytest.exit("the time is over", returncode=0)
        self.lines.clear()
        self.passed = True
        start = time.process_time()
        sys.settrace(self.call)
        try:
            result = yield
        finally:
            sys.settrace(None)
        entry = {
            "test": item.nodeid,
            "seconds": round(time.process_time() - start, 3),
            "passed": self.passed,
            "lines": {name: sorted(lines) for name, lines in self.lines.items()},
        }
        with TESTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed = self.passed and report.outcome == "passed"

    def call(self, frame: FrameType, event: str, arg: object) -> Any:
        """The tracer of calls: follows the lines of the judged rooms' functions."""
        name = frame.f_code.co_filename
        if not name.startswith(PREFIXES):
            return None
        lines = self.lines[name[len(str(ROOT)) + 1 :]]
        lines.add(frame.f_lineno)

        def line(frame: FrameType, event: str, arg: object) -> Any:
            lines.add(frame.f_lineno)
            return line

        return line


def recorded() -> Iterable[dict[str, Any]]:
    """The lines written so far."""
    if not TESTS.exists():
        return []
    return [json.loads(line) for line in TESTS.read_text(encoding="utf-8").splitlines()]


def record(minutes: float) -> None:
    """Run what has not been recorded yet, until the time is over."""
    STATE.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    until = time.monotonic() + 60 * minutes
    folders = [str(Path("tests") / area) for area in AREAS]
    pytest.main(["-q", "-p", "no:cacheprovider", *folders], plugins=[Recorder(until)])
    print(f"{len(list(recorded()))} tests recorded")
