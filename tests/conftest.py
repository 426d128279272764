"""Which tests the default run leaves to `-m slow`: those that were measured to take long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SLOW = Path(__file__).parent / "slow.txt"

os.environ.setdefault(
    "NETSPEC_THREADS", "0"
)  # torch's own: runs that are compared to the bit measure nothing


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what tests/slow.txt lists (made by `python -m tools.generate.slow_tests LOG`)."""
    slow = set(SLOW.read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)
