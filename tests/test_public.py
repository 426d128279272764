"""Every public name has an example, and every example gives what it shows."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import netspec
from netspec.layers import consent, registry


@pytest.fixture(autouse=True)
def left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An example may write files, register layers and consent to Python."""
    monkeypatch.chdir(tmp_path)
    before = dict(registry)
    with consent.command():
        yield
    registry.clear()
    registry.update(before)


@pytest.mark.parametrize("name", netspec.__all__)
def test_the_example_of_a_public_name(name: str) -> None:
    value = getattr(netspec, name)
    test = doctest.DocTestParser().get_doctest(
        inspect.cleandoc(value.__doc__ or ""), {"__name__": "example"}, name, None, None
    )
    assert test.examples, f"{name} has no example in its docstring"
    told: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(test, out=told.append)
    assert runner.failures == 0, "".join(told)
