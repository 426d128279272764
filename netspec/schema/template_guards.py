"""Limits on templates, and the two simple kinds of template. Needs nothing but Python: see `template_worker`."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Mapping
from typing import Any

SECONDS, LAST_SECONDS = 0.4, 0.5
"""Processor time after which a template is told to stop, and after which the process is ended."""

MEMORY = 512 << 20
"""Bytes that the process may have."""

OUTPUT, FILE, LONGEST, BITS, WIDTH = 16 << 20, 1 << 20, 1 << 20, 4096, 10_000
"""Characters of a rendered text, bytes of a template, length of a repeated text or list, bits of a power, and width of
a formatted value."""

MARK = re.compile("\x01(\\d+):(\\d+)\x02")
"""The mark that the worker puts at the beginning of each line of a template: the number of the file, and of the
line.
"""


class Refused(Exception):
    """An operation that a template may not perform, or that would take too much."""


class Failure(Exception):
    """Why a template cannot be filled, with the place where that is known."""

    def __init__(self, message: str, line: int = 0, file: str = "", name: str = ""):
        super().__init__(message)
        self.message, self.line, self.file, self.name = message, line, file, name


def within(name: str, folder: str | None, library: str) -> str:
    """The path of an included template: of the library ("netspec/..."), or in the folder of the template."""
    parts = name.split("/")
    if os.path.isabs(name) or ".." in parts or "\\" in name or "\0" in name or not name:
        raise Refused(f"includes {name!r}, which is outside of its folder")
    base = library if parts[0] == "netspec" else folder
    if base is None:
        raise Refused(f"includes {name!r}, and has no folder to include from")
    path = os.path.realpath(os.path.join(base, *(parts[1:] if parts[0] == "netspec" else parts)))
    if os.path.commonpath([path, os.path.realpath(base)]) != os.path.realpath(base):
        raise Refused(f"includes {name!r}, which is outside of its folder")
    return path


def read(path: str) -> str:
    """The text of a template in a file of its own; never waits for a pipe."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"includes {path!r}, which is no file")
    if status.st_size > FILE:
        raise Refused(f"includes {path!r}, which is longer than {FILE >> 20} MB")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return file.read()


# What would fill memory before anything could stop it


def size_of(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def refuse_repeat(left: Any, right: Any) -> None:
    """Refuse repeated texts and lists, and numbers, that are too large."""
    for value, count in ((left, right), (right, left)):
        if size_of(value) and isinstance(count, int) and size_of(value) * count > LONGEST:
            raise Refused(f"repeats {size_of(value)} characters or entries {count} times")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > BITS:
        raise Refused(f"a product of more than {BITS} bits")


def refuse_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(right, 1) > BITS:
        raise Refused(f"a power of more than {BITS} bits")


WIDE_PERCENT = re.compile(r"%(?:\(\w*\))?[-+ #0]*(?:\*|\d{5,}|\d*\.(?:\*|\d{5,}))")
WIDE_BRACES = re.compile(r"\{[^{}]*:[^{}]*?(?:\d{5,}|\{)")


def refuse_width(text: str, wide: re.Pattern[str] = WIDE_PERCENT) -> None:
    """Refuse formats with a wide field, or with a width that is given as a value."""
    if wide.search(text):
        raise Refused(f"a format of more than {WIDTH} characters")


def refuse_call(function: Any, arguments: tuple[Any, ...]) -> None:
    """Refuse methods that make texts of a requested length beyond the limit."""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, str) and name in ("format", "format_map"):
        refuse_width(owner, WIDE_BRACES)
    if isinstance(owner, str | bytes | int) and name in (
        "center",
        "ljust",
        "rjust",
        "zfill",
        "expandtabs",
        "to_bytes",
    ):
        refuse_numbers(arguments)


def refuse_numbers(arguments: tuple[Any, ...]) -> None:
    if any(isinstance(value, int) and abs(value) > WIDTH for value in arguments):
        raise Refused(f"a width of more than {WIDTH}")


def guarded(function: Any) -> Any:
    """A filter that refuses widths and counts beyond reason."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        refuse_numbers((*arguments[1:], *named.values()))
        for value in arguments[:1]:
            if isinstance(value, str) and function.__name__ == "do_format":
                refuse_width(value)
        return function(*arguments, **named)

    return call


# Templates of others


def percent(request: Mapping[str, Any]) -> str:
    """Python's `%(name)s`, as hyper_train.py fills it without a rendering engine; `%%` is a percent sign."""
    values, text = request["values"], request["text"]
    pattern = re.compile(r"%(?:%|\((\w+)\)([-+ #0]*\d*(?:\.\d+)?[hlL]?[diouxXeEfFgGcrsa])|(.?))", re.DOTALL)

    def put(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start()) + 1
        if match[0] == "%%":
            return "%"
        if match[1] is None:
            wrong = match[0].split("\n")[0]
            raise Failure(f"{wrong!r} is no %(name)s; a percent sign is written %%", line, request["file"])
        if match[1] not in values:
            raise Failure(f"{match[1]!r} is undefined", line, request["file"], match[1])
        try:
            refuse_width(match[0])
            return str(("%" + match[2]) % (values[match[1]],))
        except (TypeError, ValueError, OverflowError, Refused) as problem:
            raise Failure(f"{match[0]!r}: {problem}", line, request["file"]) from None

    return pattern.sub(put, text)


def dollar(request: Mapping[str, Any]) -> str:
    """`$NAME` and `${NAME}`, as FlowNet's deploy templates have them; `$$` is a dollar sign."""
    values, text = request["values"], request["text"]

    def put(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$"
        if name not in values:
            line = text.count("\n", 0, match.start()) + 1
            raise Failure(f"{name!r} is undefined", line, request["file"], name)
        return str(values[name])

    return re.sub(r"\$(?:\$|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", put, text)
