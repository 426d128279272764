"""Freed memory stays with the process where glibc is."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from tests.places import ROOT

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
ASKED = "from netspec.net.allocator import keep_freed_memory; print(keep_freed_memory())"


def python(*arguments: str, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, env=inherited | environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@glibc
@pytest.mark.slow
def test_fewer_page_faults() -> None:
    """Whole passes of a net: the pages that one frees are there for the next."""
    without, kept = (
        json.loads(python("-m", "tools.bench.page_faults", "--child", "ht_cac_mnist", keep, "0"))["faults"]
        for keep in "01"
    )
    assert kept < without / 2, (kept, without)


@glibc
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_users_own_settings_stay(name: str) -> None:
    value = "glibc.malloc.trim_threshold=131072" if name == "GLIBC_TUNABLES" else "131072"
    assert python("-c", ASKED, **{name: value}).strip() == "False"
    assert python("-c", ASKED).strip() == "True"
