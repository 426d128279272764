"""Waiting for files to be saved (`netspec check --watch`)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from netspec import schema
from netspec.errors import NetspecError
from netspec.run.experiment import find_file

NAMES = ("net", "train_net", "test_net")
"""Fields of a solver that name files of nets."""
PAUSE = 0.3
"""Seconds between two looks."""

State = dict[Path, tuple[int, int] | None]


def again(files: Iterable[Path], pause: float = PAUSE) -> Iterator[None]:
    """Yields once at first, then each time that one of the files, or a net named by one of them, has changed."""
    given = list(files)
    while True:
        before = state(watched(given))
        yield
        while state(before) == before:
            time.sleep(pause)


def watched(files: Iterable[Path]) -> list[Path]:
    """The files, and the nets that solvers among them name."""
    paths: dict[Path, None] = {}
    for file in files:
        paths[file] = None
        try:
            document = schema.read(file, unknown="keep")
        except (NetspecError, OSError):
            continue  # what is wrong is told by the check; the file itself is looked at
        for field, value in document.message.ListFields():
            if document.kind == "solver" and field.name in NAMES:
                for name in [value] if isinstance(value, str) else value:
                    paths[find_file(name, str(file)) or Path(name)] = None
    return list(paths)


def state(paths: Iterable[Path]) -> State:
    """Time of last change and size of each file; None where it does not exist."""
    facts_of: State = {}
    for path in paths:
        try:
            facts = path.stat()
        except OSError:
            facts_of[path] = None
        else:
            facts_of[path] = (facts.st_mtime_ns, facts.st_size)
    return facts_of
