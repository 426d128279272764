"""Regular files only: a device or a pipe has no end, or waits for ever. `NETSPEC_ALLOW_SPECIAL=1` (on the command line
`--allow-special`) lets them be read.

Decompressed content is bounded by what the compressed file can honestly hold, `NETSPEC_ALLOW_LARGE=1`
(`--allow-large`) lifts that.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TextIO

from netspec.errors import DataError

SPECIAL, LARGE = "NETSPEC_ALLOW_SPECIAL", "NETSPEC_ALLOW_LARGE"
KINDS = {
    stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
}  # fmt: skip
LARGER = f"; --allow-large (or {LARGE}=1) does"
"""Hint after a message that something is too large to be read."""
SMALL = 1 << 20
"""Files up to this size may take MOST_SMALL bytes of memory, larger ones MOST_TIMES their size."""
MOST_SMALL = 1 << 29
MOST_TIMES = 3


def refuse_special(path: str | Path) -> None:
    """DataError where `path` exists and is no regular file or folder; such a path is not opened."""
    if os.environ.get(SPECIAL) == "1":
        return
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # whoever opens it says so
        return
    kind = KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise DataError(
            f"{path}: is {kind}, no regular file; --allow-special (or {SPECIAL}=1) reads it all the same"
        )


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file; DataError for a special one, OSError where it cannot be read."""
    refuse_special(path)
    return path.read_bytes()


def append_regular(path: Path) -> TextIO:
    """Open a text file inside a folder for appending. Raises DataError where it is a link, a device or a pipe: somebody
    else's folder must not redirect our writing.
    """
    if path.is_symlink():
        raise DataError(f"{path}: is a link; what is written here must not reach another file, so remove it")
    refuse_special(path)
    return open(path, "a+", encoding="utf-8", errors="replace")


def most_unpacked(size: int) -> int:
    """Most bytes that a compressed file of `size` bytes may unpack to without a flag."""
    if os.environ.get(LARGE) == "1":
        return 1 << 40
    return MOST_SMALL if size <= SMALL else max(MOST_SMALL, MOST_TIMES * size)
