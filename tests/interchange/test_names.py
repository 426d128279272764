"""The public names of the room are there, whatever was imported before."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import netspec
from netspec import interchange


def test_every_public_name_is_there() -> None:
    for home in (netspec, interchange):
        for name in home.__all__:
            assert getattr(home, name) is not None


def test_a_name_is_the_function_after_its_module_was_imported() -> None:
    """A package of a function's own name would take its place once it is imported."""
    for name in interchange.__all__:
        assert not isinstance(getattr(interchange, name), ModuleType), name
    code = "import netspec.interchange.conversion; from netspec.interchange import from_torch; from_torch.__code__"
    subprocess.run([sys.executable, "-c", code], check=True)
