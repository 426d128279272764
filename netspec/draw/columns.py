"""Columns of tables side by side: the distribution of each in the data and in what a model drew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netspec.data.files.idx import Array
from netspec.draw.canvas import DrawError, check_path, figure, write

COLOURS = ("#4c78a8", "#f58518")
ACROSS = 4
"""Panels of a row."""
LONGEST = 14
"""Characters of a category's name."""
MOST_BARS = 12
"""Categories of a panel; the rest are one bar."""


@dataclass(frozen=True)
class Panel:
    """A column: its name, and its values in each of the tables, NaN where missing."""

    name: str
    values: Sequence[Array]
    categories: tuple[str, ...] = ()
    """Of a column of categories, whose values are their numbers from 0; none of a column of numbers."""
    written: Callable[[float], str] | None = None
    """How a number is written on the axis, as dates are; by default as matplotlib does."""


def columns(panels: Sequence[Panel], tables: Sequence[str], path: str | Path, title: str = "") -> Path:
    """Draw a violin for each column of numbers (its density, median and quartiles) and bars of shares for categories,
    once for each of the tables, on one scale per column. Gives the path.

    tables: their names, as "data" and "samples". Missing values are left out; a column without any value says so.
    Raises DrawError where there is nothing to draw, or for a suffix that is no picture's.
    """
    path = check_path(path)
    if not panels:
        raise DrawError(f"{path}: no column to draw")
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    fig = figure(0.4 + 2.4 * across, 0.6 + 2.3 * down, constrained=True)
    for axes, panel in zip(fig.subplots(down, across, squeeze=False).flat, panels, strict=False):
        axes.set_title(panel.name, fontsize=9)
        kept = [values[~np.isnan(values)] for values in panel.values]
        if any(len(values) == 0 for values in kept):
            empty = next(i for i, values in enumerate(kept) if len(values) == 0)
            axes.text(0.5, 0.5, f"no value in {tables[empty]}", ha="center", va="center", fontsize=8)
            axes.set_axis_off()
        elif panel.categories:
            bars(axes, kept, panel.categories, tables)
        else:
            violins(axes, kept, tables, panel.written)
    for axes in list(fig.axes)[len(panels) :]:
        axes.set_axis_off()
    if title:
        fig.suptitle(title, fontsize=10)
    return write(fig, path)


def violins(
    axes: Any, kept: Sequence[Array], tables: Sequence[str], written: Callable[[float], str] | None
) -> None:
    """A violin for each table, with its median and quartiles; a line where all values are equal."""
    for i, (values, colour) in enumerate(zip(kept, COLOURS, strict=False)):
        if len(set(values.tolist())) > 1:
            for body in axes.violinplot([values], [i], widths=0.85, showextrema=False)["bodies"]:
                body.set(facecolor=colour, edgecolor=colour, alpha=0.45)
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        axes.vlines(i, low, high, color=colour, linewidth=4)
        axes.hlines(middle, i - 0.2, i + 0.2, color="black", linewidth=1)
    axes.set_xticks(range(len(tables)), tables, fontsize=8)
    axes.set_xlim(-0.6, len(tables) - 0.4)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(True, axis="y", color="#e0e0e0", linewidth=0.6)
    if written is not None:
        axes.locator_params(axis="y", nbins=5)
        axes.yaxis.set_major_formatter(lambda value, place: written(value))


def bars(axes: Any, kept: Sequence[Array], categories: Sequence[str], tables: Sequence[str]) -> None:
    """The share of each category in each table; those that are most frequent where there are many."""
    counts = np.stack([np.bincount(values.astype(int), minlength=len(categories)) for values in kept])
    shares = counts / counts.sum(1, keepdims=True)
    names = list(categories)
    if len(names) > MOST_BARS:
        first = np.sort(np.argsort(-shares.sum(0), kind="stable")[: MOST_BARS - 1])
        rest = 1 - shares[:, first].sum(1, keepdims=True)
        names = [*(names[i] for i in first), f"{len(categories) - len(first)} others"]
        shares = np.concatenate([shares[:, first], rest], 1)
    y, high = np.arange(len(names)), 0.8 / len(tables)
    for i, (row, colour) in enumerate(zip(shares, COLOURS, strict=False)):
        axes.barh(y + (i - (len(tables) - 1) / 2) * high, 100 * row, high, color=colour, label=tables[i])
    axes.set_yticks(
        y, [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names], fontsize=7
    )
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("% of the rows", fontsize=8)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.22))
