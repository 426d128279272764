"""Kinds of errors: a short code per kind, by which a reader finds its page in docs/errors.

`kinds.toml`, beside this file, is the one table: what each kind is called, how its messages are worded (a regular
expression), what it means, an example and what to write instead. A message belongs to the first kind whose wording
it has; one that has none belongs to the kind of its exception class (NS001 to NS004): a new message needs no entry.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

OF_SPEC, OF_DATA, OF_SNAPSHOT, OF_ANY = "NS001", "NS002", "NS003", "NS004"
"""Codes by class of exception, for messages that match no other kind."""
LONGEST = 4000
"""Most characters of a message that are matched."""


@dataclass(frozen=True)
class Example:
    """Files and a command that ends with this kind of error, and files with which it succeeds.

    Each of `wrong` and `right` holds texts of files by name; what only one of them has is what differs. `before` is
    Python that makes other files first.
    """

    command: str
    wrong: dict[str, str] = field(default_factory=dict)
    right: dict[str, str] = field(default_factory=dict)
    command_right: str = ""
    before: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of error."""

    code: str
    name: str
    means: str
    """What is wrong, in a few sentences."""
    instead: str
    """What to write or do instead."""
    wording: re.Pattern[str] | None
    """The wording of its messages; None for the kinds of exception classes."""
    example: Example


@cache
def kinds() -> dict[str, Kind]:
    """Every kind by its code, in the order in which their wordings are tried."""
    table = tomllib.loads(resources.files(__package__).joinpath("kinds.toml").read_text("utf-8"))
    nets = table.pop("nets")
    by_code = {}
    for code, row in table.items():
        wording = row.get("wording")
        own = {name: row[name] for name in ("command_right", "before") if name in row}
        both = {"net.prototxt": nets[row["net"]]} if "net" in row else {}
        own |= {side: {**row.get(side, {}), **both} for side in ("wrong", "right")}
        example = Example(command=row.get("command", "check net.prototxt"), **own)
        pattern = re.compile(wording) if wording else None
        by_code[code] = Kind(code, row["name"], row["means"], row["instead"], pattern, example)
    return by_code


def code_of(message: str, otherwise: str = OF_ANY) -> str:
    """The code of a message's kind; `otherwise` where no kind matches."""
    text = message[:LONGEST]
    for code, kind in kinds().items():
        if kind.wording is not None and kind.wording.search(text):
            return code
    return otherwise


def with_code(message: str, code: str) -> str:
    """The message with its code at the end of its first line."""
    first, newline, rest = message.partition("\n")
    return f"{first} [{code}]{newline}{rest}"
