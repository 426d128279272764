"""Lines in the form of Google's logging library, which the parsers of Caffe's logs read."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

SILENT = 4
threshold = 0
"""Least level that is written: 0 info, 1 warning, 2 error, 3 fatal; SILENT for none."""


copy: TextIO | None = None
"""A file that gets every line too, whatever the threshold."""


def line(level: int, text: str, source: str, now: float) -> str:
    """`I0210 13:39:22.381027 25210 solver.cpp:204] text`; the source file stands without a line number."""
    clock = time.localtime(now)
    stamp = f"{time.strftime('%m%d %H:%M:%S', clock)}.{int(now % 1 * 1e6):06d}"
    return f"{'IWEF'[level]}{stamp} {threading.get_native_id()} {source}] {text}"


def write(level: int, text: str, source: str) -> None:
    """Log `text`, each of its lines with a head of its own."""
    now = time.time()
    lines = "".join(line(level, part, source, now) + "\n" for part in text.splitlines() or [""])
    for stream in (sys.stderr if level >= threshold else None, copy):
        if stream is not None:
            stream.write(lines)
            stream.flush()


def info(text: str, source: str = "solver.cpp:1") -> None:
    """Log at level info; `source` is what stands for file and line."""
    write(0, text, source)


def warning(text: str, source: str = "solver.cpp:1") -> None:
    """Log at level warning."""
    write(1, text, source)


def error(text: str, source: str = "caffe.cpp:1") -> None:
    """Log at level error."""
    write(2, text, source)
