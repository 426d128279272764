"""Samples of a model of a table beside the table: a panel per column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from netspec import draw
from netspec.data.sources.table import open_source
from netspec.data.tables.columns import CATEGORY, DATE, Column
from netspec.data.tables.reading import Cells
from netspec.errors import DataError
from netspec.model.rows import TableModel

MOST_DRAWN = 10_000
"""Rows of the table that are drawn, its first."""
SAMPLES = 1000


def first_rows(model: TableModel) -> dict[str, Cells]:
    """The first MOST_DRAWN rows of the table that the model learned from, by the names of `sampled_names`."""
    trained = model.trained
    table = open_source(trained.data.message.table_param.source, model.form, trained.source)
    layout = model.layout
    places = dict(
        zip((c.name for c in layout.columns), layout.fit(table.names, str(table.path)), strict=True)
    )
    cells: dict[str, Cells] = {name: [] for name in model.sampled_names()}
    taken = 0
    for piece in table.pieces():
        for name, column in cells.items():
            place = places[name]
            column += [None] * len(piece) if place is None else piece.columns[place][: MOST_DRAWN - taken]
        taken += len(piece)
        if taken >= MOST_DRAWN:
            break
    return cells


def draw_sampled(
    model: TableModel, out: str | Path, count: int = SAMPLES, seed: int = 1, classes: Sequence[int] = ()
) -> Path:
    """Draw each column of rows drawn from the model beside that of its table, in the table's units; gives the path.

    classes: of the rows that are drawn from the model, by default all.
    Numbers and dates are violins, categories bars of shares; missing cells of the table are left out. Of a long table
    the first MOST_DRAWN rows are taken. Raises DrawError for a suffix that is no picture's, DataError where the table
    cannot be read.
    """
    data, drawn = (
        first_rows(model),
        dict(zip(model.sampled_names(), model.sampled(count, seed, classes), strict=True)),
    )
    columns = {column.name: column for column in model.layout.columns}
    panels = []
    for name in data:
        column = columns[name]
        both = [
            column.encode(cells[name], model.layout.words, standardise=False)[0] for cells in (data, drawn)
        ]
        panels.append(
            draw.Panel(
                name,
                both,
                column.values if column.kind == CATEGORY else (),
                partial(one_cell, column) if column.kind == DATE else None,
            )
        )
    rows = max((len(cells) for cells in data.values()), default=0)
    if not rows:
        raise DataError(f"{model.trained.source}: has no rows to draw")
    title = f"{rows:,} rows of the table, {count:,} samples"
    return draw.columns(panels, ("table", "samples"), out, title)


def one_cell(column: Column, value: float) -> str:
    """A number of a column as the table writes it."""
    return column.decode(np.array([value]), standardise=False)[0] or ""
