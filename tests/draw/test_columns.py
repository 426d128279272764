"""Violins and bars: what a panel shows of each column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netspec import draw
from netspec.draw.columns import MOST_BARS


def text(panels: list[draw.Panel], folder: Path) -> str:
    return draw.columns(panels, ("table", "samples"), folder / "p.svg", "title").read_text()


def test_numbers_categories_and_dates(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    found = text(
        [
            draw.Panel("width", [rng.normal(size=50), rng.normal(size=80)]),
            draw.Panel("colour", [np.array([0.0, 1, 1, np.nan]), np.array([0.0, 0])], ("red", "green")),
            draw.Panel("day", [np.arange(9.0), np.arange(9.0)], written=lambda value: f"day {value:g}"),
            draw.Panel("same", [np.ones(5), np.ones(3)]),
        ],
        tmp_path,
    )
    for word in ("width", "colour", "red", "green", "day 4", "same", "table", "samples", "title"):
        assert f">{word}<" in found


def test_many_categories_end_in_one_bar(tmp_path: Path) -> None:
    names = tuple(f"c{i}" for i in range(40))
    values = np.repeat(np.arange(40.0), np.arange(40, 0, -1))
    found = text([draw.Panel("x", [values, values], names)], tmp_path)
    assert f">{40 - MOST_BARS + 1} others<" in found
    assert [name for name in names if f">{name}<" in found] == list(names[: MOST_BARS - 1])


def test_a_column_without_values_says_so(tmp_path: Path) -> None:
    assert ">no value in samples<" in text([draw.Panel("x", [np.ones(3), np.full(2, np.nan)])], tmp_path)


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(draw.DrawError, match="no column"):
        draw.columns([], ("a", "b"), tmp_path / "p.png")
    with pytest.raises(draw.DrawError, match="pictures are written as"):
        draw.columns([draw.Panel("x", [np.ones(2)])], ("a",), tmp_path / "p.gif")
