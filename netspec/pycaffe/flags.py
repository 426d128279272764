"""Flags of Caffe's command and tools, as gflags reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netspec.errors import NetspecError, did_you_mean

Flags = dict[str, Any]
"""Values by name. The type of a flag's default is that of its values: str, int or bool."""

GLOG: Mapping[str, bool] = {"logtostderr": False, "alsologtostderr": False}
"""Flags of glog, which change nothing here: the log always goes to the standard error."""


class UsageError(NetspecError):
    """The command line cannot be understood."""


def parse(argv: Sequence[str], known: Mapping[str, Any]) -> tuple[list[str], Flags]:
    """The words and the flags of a command line: -flag value, -flag=value, with one dash or two.

    A boolean flag is written -flag, -noflag or -flag=false. Raises UsageError for a flag that is not known (with the
    nearest one), that has no value, or whose value is no whole number where one is needed.
    """
    flags, words, rest = {**GLOG, **known}, list[str](), list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            words.append(word)
        elif name.startswith("no") and isinstance(flags.get(name[2:]), bool):
            flags[name[2:]] = False
        elif name not in flags:
            raise UsageError(f"unknown flag {word!r}{did_you_mean(name, flags)}")
        elif isinstance(flags[name], bool):
            flags[name] = value.lower() not in ("false", "0", "no", "f", "n")
        elif not equals and not rest:
            raise UsageError(f"flag {word!r} needs a value")
        else:
            value = value if equals else rest.pop(0)
            flags[name] = whole_number(name, value) if isinstance(flags[name], int) else value
    return words, flags


def whole_number(name: str, value: str) -> int:
    """The value of a flag as an integer; UsageError where it is none."""
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"flag -{name} takes a whole number, found {value!r}") from None
