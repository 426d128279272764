"""The files of each run of a sweep, which let a sweep be stopped at any point and shared by processes and machines.

point.json          the run: its values, seed, settings, and the run before it
rendered.prototxt   the template with the values put in, where there is one
.claim              locked by the process that works on the run; the system lets go of it when that process ends
attempts            a line per beginning of the run
result.json         what came of it; written whole or not at all, and last: a run with a result is over
log.txt             what the run printed
... and what a run folder holds (see netspec.run.folder)
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from netspec.data.files.whole import write_whole
from netspec.errors import NetspecError
from netspec.schema.regular import append_regular, read_regular

POINT, RESULT, RENDERED, LOCK, ATTEMPTS, LOG = (
    "point.json", "result.json", "rendered.prototxt", ".claim", "attempts", "log.txt"
)  # fmt: skip

DONE, PRUNED, FAILED = "done", "pruned", "failed"
STATES = (DONE, PRUNED, FAILED)


@dataclass
class Result:
    """The result of a run."""

    run: str
    status: str
    """done, pruned (by the search) or failed."""
    reason: str = ""
    """Why the run failed, or ended early."""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    """Outputs of each test net in the last test."""
    value: float | None = None
    """The plan's metric in the last test."""
    best: dict[str, Any] | None = None
    """The best value of the metric in all tests, and its iteration."""
    iteration: int = 0
    seconds: float = 0.0
    """Seconds of training."""
    attempts: int = 1
    seed: int | None = None

    def write(self, folder: Path) -> None:
        write_whole(folder / RESULT, (json.dumps(asdict(self), indent=2) + "\n").encode())


def read_result(folder: Path) -> Result | None:
    """The result of a run; None where it has none. Raises NetspecError for one that cannot be read."""
    fields = read_json(folder / RESULT)
    if fields is None:
        return None
    try:
        return Result(**fields)
    except TypeError as error:
        raise NetspecError(f"{folder / RESULT}: cannot be read: {error}") from None


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(read_regular(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise NetspecError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise NetspecError(f"{path}: cannot be read: holds no mapping")
    return value


def told_apart(point: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether two runs differ: not in how the plan or its file was named, nor in what becomes of their results.

    Runs made before the digest of a plan's file was kept differ in none.
    """
    free = {"set": "", "metric": None, "plan": "", "source": ""}
    if "sha256" not in known:
        free["sha256"] = ""
    return {**known, **free} != {**point, **free}


def check_point(folder: Path, point: Mapping[str, Any], text: str | None) -> bool:
    """Whether the folder describes this very run; False where it describes none, or what may differ is to be written.

    Raises NetspecError where it holds another run of that name.
    """
    point = json.loads(json.dumps(point))
    known = read_json(folder / POINT)
    path = folder / RENDERED
    before = path.read_text(encoding="utf-8") if path.is_file() else None
    if known == point and before == text:
        return True
    if known is not None and told_apart(point, known):
        raise NetspecError(f"{folder}: is the run of another plan; give the sweep another folder (--out)")
    if before is not None and before != text:
        raise NetspecError(f"{path}: the template has changed since; give the sweep another folder (--out)")
    return False


def write_point(folder: Path, point: Mapping[str, Any], text: str | None) -> None:
    """Describe a run before it begins. Raises NetspecError where the folder holds another run of that name."""
    if check_point(folder, point, text):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if text is not None:
        write_whole(folder / RENDERED, text.encode())
    write_whole(folder / POINT, (json.dumps(point, indent=2) + "\n").encode())


def claim(folder: Path) -> IO[str] | None:
    """Lock a run for this process; None where another process works on it. Closing the file releases the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    file = append_regular(folder / LOCK)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def count_attempt(folder: Path) -> int:
    """Note that the run begins or continues; returns how often it has begun."""
    with append_regular(folder / ATTEMPTS) as file:
        file.write(f"{os.getpid()}\n")
    return attempts(folder)


def attempts(folder: Path) -> int:
    path = folder / ATTEMPTS
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def forget(folder: Path) -> None:
    """Forget the result of a failed run, so that it is made again, from its last snapshot where it has one."""
    for name in (RESULT, ATTEMPTS):
        (folder / name).unlink(missing_ok=True)
