"""Layout: what the columns of a table are, as a model remembers them; rows to a blob's values and back to cells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from netspec.data.files.idx import Array
from netspec.data.tables.cells import MISSING
from netspec.data.tables.columns import CATEGORY, LEFT_OUT, NUMBER, Column, Summary
from netspec.data.tables.reading import Cells, Piece, Rows
from netspec.errors import DataError, did_you_mean

Say = Callable[[str], None]
FARTHEST = float(np.finfo(np.float32).max)
"""Largest distance of a value from the mean, in deviations."""


@dataclass(frozen=True)
class Wishes:
    """A layer's settings for columns that are not yet known."""

    target: str = ""
    leave_out: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    decimal: str = ""

    def check(self, names: Sequence[str], where: str) -> None:
        """DataError, with the nearest name, where the table lacks a named column."""
        for name in (*([self.target] if self.target else []), *self.leave_out, *self.category, *self.number):
            if name not in names:
                hint = did_you_mean(name, names, f"it has {listed(names)}")
                raise DataError(f"{where}: has no column {name!r}{hint}")
        if both := set(self.category) & set(self.number):
            raise DataError(f"column {min(both)!r}: cannot hold both categories and numbers")
        if self.target in self.leave_out:
            raise DataError(f"column {self.target!r}: is the target, and left out")
        if self.decimal not in ("", ".", ","):
            raise DataError(f"decimal {self.decimal!r}: it is '.' or ','")


@dataclass(frozen=True)
class Layout:
    """The columns of a table in its own order, the target among them; how a row lies in the blob."""

    columns: tuple[Column, ...]
    target: str = ""
    one_hot: bool = False
    standardise: bool = True
    words: tuple[str, ...] = ()
    response: str = ""
    """A column of the blob, of numbers or dates, that is predicted from the others."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Remarks on columns that are left out."""

    @property
    def inputs(self) -> list[Column]:
        """The columns that lie in the blob, in its order."""
        return [column for column in self.columns if column.name != self.target and column.kind != LEFT_OUT]

    @property
    def width(self) -> int:
        """Cells of a row of the blob."""
        return sum(column.cells(self.one_hot) for column in self.inputs)

    @property
    def label(self) -> Column | None:
        """The target's column."""
        return next((column for column in self.columns if column.name == self.target), None)

    def kind_of(self, name: str) -> str:
        """The kind of the column of this name; "" where there is none."""
        return next((column.kind for column in self.columns if column.name == name), "")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none where the target is a number, or there is none."""
        return self.label.values if self.label is not None else ()

    @property
    def names(self) -> list[str]:
        """A name for each cell of the blob: the column's, or `column=category`."""
        names = []
        for column in self.inputs:
            several = column.kind == CATEGORY and self.one_hot
            names += [f"{column.name}={value}" for value in column.values] if several else [column.name]
        return names

    def spans(self) -> Iterator[tuple[Column, slice]]:
        """Each column of the blob with its cells."""
        at = 0
        for column in self.inputs:
            size = column.cells(self.one_hot)
            yield column, slice(at, at + size)
            at += size

    def fit(self, names: Sequence[str], where: str) -> list[int | None]:
        """For each column of the layout its place in a table of these columns; None for a target or a response that is
        not there.

        Columns are matched by name; a table with as many columns and none of the names is matched by order. DataError
        for a missing column.
        """
        wanted = [column.name for column in self.columns]
        if len(names) == len(wanted) and not set(names) & set(wanted):
            return list(range(len(names)))
        places: list[int | None] = []
        for column in self.columns:
            there = column.name in names
            if not there and column.name not in (self.target, self.response) and column.kind != LEFT_OUT:
                hint = did_you_mean(column.name, names, f"it has {listed(names)}")
                raise DataError(
                    f"{where}: has no column {column.name!r}{hint}; an empty column is one of missing cells"
                )
            places.append(names.index(column.name) if there else None)
        return places

    def encode(
        self, piece: Piece, places: Sequence[int | None], say: Say | None = None
    ) -> tuple[Array, Array]:
        """(rows (n, width) float32, NaN where missing; labels (n,) float32: class, standardised number, or NaN)."""
        rows = np.full((len(piece), self.width), np.nan, np.float32)
        labels = np.full(len(piece), np.nan, np.float32)
        spans = {column.name: span for column, span in self.spans()}
        for column, place in zip(self.columns, places, strict=True):
            if place is None or column.kind == LEFT_OUT:
                continue
            cells = piece.columns[place]
            values, odd = column.encode(cells, self.words, self.standardise or column.name == self.target)
            far = np.flatnonzero(np.abs(values) > FARTHEST)
            if len(far) and say is not None:
                say(
                    f"column {column.name!r}, line {piece.places[far[0]]}: {cells[far[0]]!r} lies too far from the "
                    "column's values for single precision; it is taken as missing"
                )
            values[far] = np.nan
            if odd and say is not None:
                say(self._odd(column, str(cells[odd[0]]), piece.places[odd[0]]))
            if column.name == self.target:
                labels[:] = values
            else:
                rows[:, spans[column.name]] = self._spread(column, values)
        return rows, labels

    def _spread(self, column: Column, values: Array) -> Array:
        """A column's values as the cells that it takes (n, cells)."""
        if column.kind != CATEGORY or not self.one_hot:
            return values[:, None]
        return np.where(np.isnan(values)[:, None], np.nan, values[:, None] == np.arange(len(column.values)))

    def _odd(self, column: Column, cell: str, place: int) -> str:
        what = "was not seen in training" if column.kind == CATEGORY else "is none of its values"
        kind = {CATEGORY: "category", "DATE": f"date ({column.format})"}.get(column.kind, "number")
        return f"column {column.name!r}, line {place}: {cell!r} {what} ({kind}); it is taken as missing"

    def decode(self, rows: Array) -> dict[str, Cells]:
        """Cells by column of rows (n, width); None where NaN. Of cells of 0 and 1 the largest is the category."""
        cells: dict[str, Cells] = {}
        for column, span in self.spans():
            values = rows[:, span].astype(np.float64)
            if column.kind == CATEGORY and self.one_hot:
                unknown = np.isnan(values).any(1)
                values = np.where(unknown, np.nan, np.nan_to_num(values).argmax(1))[:, None]
            cells[column.name] = column.decode(values[:, 0], self.standardise)
        return cells


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names joined by commas; only the first few of many."""
    rest = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def describe(
    rows: Rows, wishes: Wishes, chosen: Callable[[int, int], Array] | None = None, **options: bool
) -> Layout:
    """The layout of a table, from the rows that `chosen` (begin, end) -> mask keeps; default: from all of them.

    options: one_hot, standardise. DataError where a column cannot be what it is said to be, or no row is left.
    """
    where = str(rows.path)
    wishes.check(rows.names, where)
    columns, notes = columns_of(
        summaries_of(rows, wishes, chosen), wishes, where, getattr(rows, "separator", "")
    )
    layout = Layout(tuple(columns), wishes.target, options.get("one_hot", False), options.get("standardise", True),
                    wishes.words, notes=tuple(notes))  # fmt: skip
    if not layout.inputs:
        why = f": {'; '.join(notes)}" if notes else ""
        raise DataError(f"{where}: no column is left to learn from{why}".replace(f": {where}: ", ": "))
    return layout


def summaries_of(
    rows: Rows, wishes: Wishes, chosen: Callable[[int, int], Array] | None = None
) -> list[Summary]:
    """A summary of each column over the chosen rows; DataError for a table without rows."""
    decimals = wishes.decimal or (".," if getattr(rows, "separator", "") not in ("", ",") else ".")
    summaries = [Summary(name, wishes.words, decimals) for name in rows.names]
    begin = 0
    for piece in rows.pieces():
        kept = None if chosen is None else chosen(begin, begin + len(piece))
        begin += len(piece)
        for summary, cells in zip(summaries, piece.columns, strict=True):
            if summary.name in wishes.leave_out:
                continue
            if kept is None:
                summary.add(cells, piece.places)
            else:
                some = [i for i, keep in enumerate(kept) if keep]
                summary.add([cells[i] for i in some], [piece.places[i] for i in some])
    if not begin:
        raise DataError(f"{rows.path}: the table has no rows")
    return summaries


def columns_of(
    summaries: Sequence[Summary], wishes: Wishes, where: str, separator: str = ""
) -> tuple[list[Column], list[str]]:
    """(columns, remarks) from their summaries; DataError where a column cannot be what the wishes say."""
    columns, notes = [], list[str]()
    signs = {summary.only_decimal() for summary in summaries} - {""}
    for summary in summaries:
        # Other columns tell what 1,234 is; where none does, semicolons separate cells because commas are in numbers.
        lone = "," if separator == ";" and summary.marks == {","} else ""
        prefer = signs.copy().pop() if len(signs) == 1 else lone
        if summary.name in wishes.leave_out:
            columns.append(Column(summary.name, LEFT_OUT))
            continue
        forced = (
            CATEGORY if summary.name in wishes.category else NUMBER if summary.name in wishes.number else ""
        )
        try:
            column, note = summary.column(forced, summary.name == wishes.target, prefer)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if summary.name == wishes.target and column.kind == LEFT_OUT:
            raise DataError(f"{where}: column {column.name!r} cannot be the target: {note}")
        columns.append(column)
        notes += [f"{where}: {note}"] if note else []
    return columns, notes


def missing_words(words: Collection[str]) -> str:
    """The words for missing cells, for messages."""
    return ", ".join(sorted({*MISSING, *words} - {""}))
