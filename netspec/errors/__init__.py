"""Positions in a spec file, and errors that carry them."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import ClassVar

from netspec.errors import kinds


@dataclass(frozen=True, order=True)
class Position:
    """A place in a text file; line and column count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class NetspecError(Exception):
    """Base of every error that a user can cause and mend; the CLI prints it and exits 2.

    >>> import netspec
    >>> try:
    ...     netspec.make_net('layer { name: "x" type: "Inputs" top: "x" }')
    ... except netspec.NetspecError as error:
    ...     print(error.code)
    NS201
    """

    otherwise: ClassVar[str] = kinds.OF_ANY
    """The code of messages whose wording matches no kind."""

    @property
    def code(self) -> str:
        """The code of its kind, such as "NS202"; docs/errors has a page for each. Of several problems the first's."""
        return kinds.code_of(str(self), self.otherwise)

    def with_codes(self) -> str:
        """Its message, with the code of its kind at the end of the line, or of each line for several problems."""
        return kinds.with_code(str(self), self.code)


class DataError(NetspecError):
    """A data set or one of its files is missing, truncated or not what it says it is.

    >>> from pathlib import Path
    >>> from netspec.data.files import idx
    >>> idx.read(Path("no_such_file"))
    Traceback (most recent call last):
    netspec.errors.DataError: no_such_file: no such file
    """

    otherwise = kinds.OF_DATA


class LabelError(DataError, IndexError):
    """Labels lie outside the classes of the scores; names layer, blob, and the label."""


class SnapshotError(NetspecError):
    """A weight or solver-state file cannot be used; names the file and the reason.

    >>> import netspec
    >>> netspec.load("lenet_mnist", "no_such_file.caffemodel")
    Traceback (most recent call last):
    netspec.errors.SnapshotError: no_such_file.caffemodel: cannot be read: No such file or directory
    """

    otherwise = kinds.OF_SNAPSHOT


@dataclass(frozen=True)
class Problem:
    """One mistake in a spec, with its place when the spec came from a file."""

    message: str
    position: Position | None = None

    LONGEST: ClassVar[int] = 2000
    """Most characters of a message: a file may have very long names."""

    def __post_init__(self) -> None:
        if len(self.message) > self.LONGEST:
            object.__setattr__(self, "message", f"{self.message[: self.LONGEST - 4]} ...")

    def __str__(self) -> str:
        return f"{self.position}: {self.message}" if self.position else self.message

    @property
    def code(self) -> str:
        """The code of its kind, such as "NS202"; docs/errors has a page for each."""
        return kinds.code_of(self.message, kinds.OF_SPEC)

    def with_code(self) -> str:
        """Its line, with the code of its kind at the end."""
        return kinds.with_code(str(self), self.code)


class SpecError(NetspecError):
    """All mistakes that one reading found in a network or solver description.

    >>> import netspec
    >>> try:
    ...     netspec.make_net('layer { name: "r" type: "ReLU" bottom: "data" top: "y" }')
    ... except netspec.SpecError as error:
    ...     for problem in error.problems:
    ...         print(problem.position.line, problem.code, problem.message)
    1 NS202 layer 'r' (ReLU): bottom 'data' is made by no earlier layer
    """

    MOST = 20
    otherwise = kinds.OF_SPEC

    def __init__(self, problems: Problem | str | Sequence[Problem], position: Position | None = None):
        if isinstance(problems, str):
            problems = Problem(problems, position)
        if isinstance(problems, Problem):
            problems = [problems]
        self.problems = tuple(problems)
        super().__init__("\n".join([*map(str, self.problems[: self.MOST]), *self.rest()]))

    def rest(self) -> list[str]:
        """A line that counts the problems beyond the first MOST."""
        more = len(self.problems) - self.MOST
        return [f"... and {more} more"] if more > 0 else []

    @property
    def code(self) -> str:
        return self.problems[0].code if self.problems else self.otherwise

    def with_codes(self) -> str:
        return "\n".join([*(problem.with_code() for problem in self.problems[: self.MOST]), *self.rest()])


MOST_TEXT = 300
"""Characters of another program's message that are passed on."""


def one_line(error: BaseException) -> str:
    """The message of another library's error, shortened to one line; its type where the message is empty."""
    text = " ".join(str(error).split())
    if len(text) > MOST_TEXT:
        text = f"{text[:MOST_TEXT]} ..."
    return text or type(error).__name__


LONGEST_NAME = 100
"""Longer names are never taken for misspellings."""
MOST_CANDIDATES = 1000
"""Most names that are compared letter by letter; from more, those with the longest common beginning and end are
chosen.
"""


def nearest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate most like `name` (case-insensitive), or None when none is close; in bounded time."""
    if len(name) > LONGEST_NAME:
        return None
    lower = name.lower()
    by_lower = {
        candidate.lower(): candidate
        for candidate in candidates
        if 2 * min(len(candidate), len(name)) >= cutoff * (len(candidate) + len(name))
    }
    names: Iterable[str] = by_lower
    if len(by_lower) > MOST_CANDIDATES:
        names = heapq.nlargest(MOST_CANDIDATES, by_lower, key=lambda other: shared_ends(lower, other))
    matches = difflib.get_close_matches(lower, names, n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else None


def shared_ends(a: str, b: str) -> int:
    """How many letters two names share at their beginning and at their end."""
    pairs = (zip(a, b, strict=False), zip(reversed(a), reversed(b), strict=False))
    return sum(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pair)) for pair in pairs)


def one_edit(a: str, b: str) -> bool:
    """Whether `b` is `a` with one letter changed, added or left out, or with two neighbours swapped."""
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    left, right = a[start:], b[start:]
    swapped = left[:2] == right[1::-1] and left[2:] == right[2:]
    return swapped or left[1:] == right[1:] or left[1:] == right or left == right[1:]


def no_such_file(path: object, more: Iterable[str] = (), what: str = "file") -> str:
    """`"peple.csv: no such file; did you mean 'people.csv'?"`: among the files of its folder and `more` names."""
    where = Path(str(path))
    try:
        names = [entry.name for entry in where.parent.iterdir()]
    except OSError:
        return f"{path}: no such {what} (nor the directory {where.parent})"
    return f"{path}: no such {what}{did_you_mean(where.name, [*names, *more])}"


def did_you_mean(name: str, candidates: Iterable[str], more: str = "") -> str:
    """`"; did you mean 'conv1'?"`, or the empty string when no candidate is close; `more` follows as a sentence."""
    candidate = nearest(name, candidates)
    if not candidate:
        return f"; {more}" if more else ""
    return f"; did you mean {candidate!r}?" + (f" {more[0].upper()}{more[1:]}" if more else "")
