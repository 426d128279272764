"""Consent to run the Python modules that a net names: given by the user, never by a file.

    netspec.allow_python()            this program may import what nets name
    NETSPEC_ALLOW_PYTHON=1            so may every program that is started with it
    netspec train --allow-python      so may this command

Importing netspec.pycaffe is consent too: such scripts are programs of Caffe, which run these modules anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from netspec.errors import SpecError

VARIABLE = "NETSPEC_ALLOW_PYTHON"
REMEDY = f"if you trust it, say --allow-python (train, test, convert, missing, caffe), set {VARIABLE}=1"
"""The remedy where a module is not imported because consent is missing."""


class NoConsent(SpecError):
    """A net names a Python module, and the user has not consented to run it."""


class _Scopes:
    """The state of consent: of the program, and of the commands and readings that run within it."""

    def __init__(self) -> None:
        self.given = [False]
        """The last counts; the first is the program's."""
        self.withheld = 0
        """How many readings, that never import, are under way."""


_scopes = _Scopes()


def allow_python() -> None:
    """Consent to importing and running the modules that nets name in Python layers, for the rest of this program (or
    of the command that runs). They can do whatever you can: say so for files that you trust.

    >>> import netspec
    >>> netspec.allow_python()  # from here on, nets may import the Python modules that they name
    """
    _scopes.given[-1] = True


def imported_pycaffe() -> None:
    """Called when netspec.pycaffe is imported: a script's import is consent, an import by a netspec command is not."""
    if not commanded():
        allow_python()


def given() -> bool:
    """Whether the modules that a net names may be imported and run now."""
    return not _scopes.withheld and (_scopes.given[-1] or os.environ.get(VARIABLE) == "1")


def commanded() -> bool:
    """Whether a command of ours is running, and not a program that uses the library."""
    return len(_scopes.given) > 1


@contextmanager
def command() -> Iterator[None]:
    """Within, only consent given to this command or in the environment counts."""
    _scopes.given.append(False)
    try:
        yield
    finally:
        _scopes.given.pop()


@contextmanager
def withheld() -> Iterator[None]:
    """Within, no consent counts; for code that only reads nets."""
    _scopes.withheld += 1
    try:
        yield
    finally:
        _scopes.withheld -= 1
