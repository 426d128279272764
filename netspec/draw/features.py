"""What a net has learned and what it sees: its filters, and its feature maps for images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from netspec.draw.canvas import DrawError
from netspec.draw.grids import grid
from netspec.draw.pixels import array

MOST_ROWS, MOST_COLUMNS = 32, 32
"""Most panels along each side of a page; the title tells what is left out."""


def filters(
    weights: Any, path: str | Path, *, title: str = "", page: tuple[float, float] | None = None
) -> Path:
    """Draw filters (outputs, inputs, h, w): a panel per output where inputs are 1 or 3 (colours), else a row.

    Each panel runs from its least value (black) to its largest (white). Gives the path; raises DrawError for
    other shapes.
    """
    w = array(weights)
    if w.ndim != 4 or 0 in w.shape:
        raise DrawError(f"filters must have shape (outputs, inputs, h, w); found {w.shape}")
    if w.shape[1] in (1, 3):
        most = MOST_ROWS * MOST_COLUMNS
        heading = _heading(title, (len(w), most, "filters"))
        return grid(w[:most], path, title=heading, limits="each", page=page)
    heading = _heading(title, (len(w), MOST_ROWS, "outputs"), (w.shape[1], MOST_COLUMNS, "inputs"))
    w = w[:MOST_ROWS, :MOST_COLUMNS]
    return grid(
        w.reshape(-1, 1, *w.shape[2:]), path, columns=w.shape[1], title=heading, limits="each", page=page,
        row_labels=[str(i) for i in range(len(w))], column_labels=[str(i) for i in range(w.shape[1])],
    )  # fmt: skip


def feature_maps(
    values: Any, path: str | Path, *, title: str = "", page: tuple[float, float] | None = None
) -> Path:
    """Draw a blob: a panel per channel for one image (C, H, W), a row of channels per image for (N, C, H, W).

    A blob without height and width (N, C) is drawn as one strip of C cells per image. Each panel has its own black and
    white; strips share theirs. Gives the path; raises DrawError for other shapes.
    """
    x = array(values)
    if x.ndim == 2:
        strips = x[:MOST_ROWS, None, None, :]
        strips = np.repeat(strips, max(1, x.shape[1] // 20), axis=2)
        labels = [str(i) for i in range(len(strips))]
        return grid(
            strips, path, columns=1, row_labels=labels, page=page, cell=400.0 if page is None else None,
            title=_heading(title, (len(x), MOST_ROWS, "images")),
        )  # fmt: skip
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise DrawError(f"feature maps must have shape (C, H, W), (N, C, H, W) or (N, C); found {x.shape}")
    if x.ndim == 3 or len(x) == 1:
        x = x.reshape(-1, 1, *x.shape[-2:])
        most = MOST_ROWS * MOST_COLUMNS
        heading = _heading(title, (len(x), most, "channels"))
        names = [str(i) for i in range(min(len(x), most))]
        return grid(x[:most], path, titles=names, title=heading, limits="each", page=page)
    heading = _heading(title, (len(x), MOST_ROWS, "images"), (x.shape[1], MOST_COLUMNS, "channels"))
    x = x[:MOST_ROWS, :MOST_COLUMNS]
    return grid(
        x.reshape(-1, 1, *x.shape[2:]), path, columns=x.shape[1], title=heading, limits="each", page=page,
        row_labels=[str(i) for i in range(len(x))], column_labels=[str(i) for i in range(x.shape[1])],
    )  # fmt: skip


def _heading(title: str, *counts: tuple[int, int, str]) -> str:
    """The title, with a note for each (number, most shown, word) that does not fit on the page."""
    cut = [f"the first {most} of {n} {word}" for n, most, word in counts if n > most]
    return ": ".join([*([title] if title else []), *([", ".join(cut)] if cut else [])])
