"""Files written whole or not at all: through a temporary file or folder in the same folder, then renamed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from netspec.errors import DataError


def write_whole(path: Path, data: bytes) -> None:
    """Write through a temporary file in the same folder: flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # a full disk does not say whose write it refuses
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def clean(folder: Path) -> None:
    """Remove temporary files that an interrupted write left behind."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`.

    At the end its contents move into the target's folder; on any failure, and on the signals to interrupt and to end,
    they are removed. Leftovers of a killed process for the same target are removed first. Errors name the final places
    of the files.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    folder: Path | None = None
    try:
        folder = own_folder(target)
        with ended_by_signal():
            yield folder
            for path in sorted(
                folder.iterdir(), key=lambda file: file.name == target.name
            ):  # the target last
                os.replace(path, target.with_name(path.name))
    except DataError as error:
        if folder is None:
            raise
        raise DataError(str(error).replace(f"{folder}{os.sep}", f"{target.parent}{os.sep}")) from error
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def own_folder(target: Path) -> Path:
    """A new folder beside `target` whose name tells the process and differs from its other folders."""
    number = 0
    while True:
        folder = target.with_name(f".{target.name}.{number}.{os.getpid()}.tmp")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
        number += 1


def remove_leftovers(target: Path) -> None:
    """Remove folders beside `target` that belong to processes which no longer exist."""
    for path in target.parent.glob(f".{escape(target.name)}.*.tmp"):
        number = path.name.split(".")[-2]
        if path.is_dir() and number.isdecimal() and not alive(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def alive(process: int) -> bool:
    """Whether a process of this number exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """Let SIGTERM end the program by an exception, so that unfinished files are removed."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
