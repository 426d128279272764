"""Kinds of errors: every example of the table ends with its kind and, mended, well; and who gets which code."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest

from netspec.check import check
from netspec.errors import DataError, NetspecError, Position, Problem, SnapshotError, SpecError
from netspec.errors.kinds import LONGEST, code_of, kinds, with_code
from tools.generate import error_pages

KINDS = list(kinds().values())
WITH_EXAMPLE = [kind for kind in KINDS if kind.example.command]


def test_the_table() -> None:
    assert 60 <= len(KINDS) <= 100
    assert all(re.fullmatch(r"NS\d\d\d", kind.code) for kind in KINDS)
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert len(WITH_EXAMPLE) >= len(KINDS) - 3
    for kind in KINDS:
        assert kind.means.endswith("."), kind.code
        assert kind.instead, kind.code
        assert (kind.wording is None) == kind.code.startswith("NS00"), kind.code


@pytest.mark.parametrize("kind", WITH_EXAMPLE, ids=lambda kind: kind.code)
def test_the_failing_text_and_the_mended_one(kind: error_pages.Kind) -> None:
    status, printed = error_pages.outcome(kind.example)
    assert status != 0
    assert error_pages.line_of(kind, printed), printed
    status, printed = error_pages.outcome(kind.example, right=True)
    assert status == 0, printed
    assert f"[{kind.code}]" not in printed


def test_pages_are_as_the_table_says() -> None:
    assert error_pages.stale() == []


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (SpecError, "NS001"),
        (DataError, "NS002"),
        (SnapshotError, "NS003"),
        (NetspecError, "NS004"),
        (Problem, "NS001"),
    ],
)
def test_a_message_of_no_kind_has_the_code_of_its_class(
    make: Callable[[str], NetspecError | Problem], code: str
) -> None:
    assert make("something new is wrong here").code == code
    assert make("bottom 'x' is made by no earlier layer").code == "NS202"


def test_each_problem_has_its_code_at_its_lines_end() -> None:
    problems = [
        Problem("bottom 'x' is made by no earlier layer", Position("net.prototxt", 3)),
        Problem("something new"),
    ]
    error = SpecError(problems)
    assert error.with_codes().splitlines() == [
        "net.prototxt:3:1: bottom 'x' is made by no earlier layer [NS202]",
        "something new [NS001]",
    ]
    assert error.code == "NS202"
    assert "[" not in str(error)  # Python's message is as it was
    assert SpecError(problems * 15).with_codes().splitlines()[-1] == "... and 10 more"


def test_the_code_ends_the_first_line() -> None:
    assert with_code("one\ntwo", "NS001") == "one [NS001]\ntwo"


def test_json_of_check_has_the_code() -> None:
    report = check("no/such.prototxt")
    (problem,) = json.loads(json.dumps(report.as_json()))["problems"]
    assert problem["code"] == "NS805"


def test_wordings_take_bounded_time() -> None:
    """A message may hold a name without end; no wording backtracks over it for long."""
    text = "needs a " * 200_000 + "bottom " * 100_000
    start = time.process_time()
    code_of(text)
    one = time.process_time() - start
    start = time.process_time()
    code_of(text[:LONGEST])
    assert one < 20 * (time.process_time() - start) + 0.5
