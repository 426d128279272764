"""The source of the Table layer: rows of a table as blobs, their columns standardised, NaN where a cell is missing."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec import schema
from netspec.data.files.idx import Array
from netspec.data.hiding import Hiding
from netspec.data.sets.tables import TABLES, open_named, unknown
from netspec.data.source import Order, Shape, Stream, failure, mistake
from netspec.data.tables.columns import DATE, INTEGER, NUMBER, Column
from netspec.data.tables.reading import Form, Rows, open_table
from netspec.data.tables.split import ALL, TRAIN, Split
from netspec.data.tables.table import Layout, Wishes, describe
from netspec.data.transform import near
from netspec.errors import DataError
from netspec.schema.spec import LayerSpec

FIELD = "table_param"
MOST_STRATA = 1000
"""Most classes for stratified shares; a target with more values is a number."""
IN_MEMORY = 1 << 28
"""Above this many bytes, encoded rows go into a temporary file that is mapped into memory."""


def open_source(name: str, form: Form, path: Path | None = None) -> Rows:
    """The rows of a file, or else of a named table; DataError with the nearest name where it is neither."""
    path = path or Path(name)
    if not path.exists():
        if name in TABLES:
            return open_named(name)
        if not path.suffix:
            raise DataError(unknown(name))
    return open_table(path, form)


def form_of(p: Any) -> Form:
    """The form of the file, as the layer says it."""
    return Form(p.separator or None, p.encoding or None, p.header if p.HasField("header") else None)


def wishes_of(p: Any) -> Wishes:
    """The layer's settings for columns."""
    return Wishes(
        p.target, tuple(p.leave_out), tuple(p.category), tuple(p.number), tuple(p.missing_word), p.decimal
    )


def rows_of(p: Any, path: Path) -> Rows:
    """The rows that a TableParameter names, its source at `path`."""
    return open_source(p.source, form_of(p), path)


def layout_of(p: Any, path: Path) -> Layout:
    """The layout in a TableParameter, else one described from the training part of its data."""
    if len(p.column):
        columns = tuple(Column.of(column) for column in p.column)
        known = Layout(columns, p.target, p.one_hot, p.standardise, tuple(p.missing_word))
        return answering(known, p.response, str(path))
    stat = path.stat() if path.is_file() else None
    key = p.SerializeToString(deterministic=True)
    return _described(key, path, (stat.st_size, stat.st_mtime_ns) if stat else None)


def answering(layout: Layout, response: str, where: str) -> Layout:
    """The layout with its response; DataError where that is no column of numbers or dates."""
    if response and layout.kind_of(response) not in (NUMBER, INTEGER, DATE):
        there = "it holds no numbers and no dates" if layout.kind_of(response) else "there is no such column"
        raise DataError(f"{where}: column {response!r} cannot be the response: {there}")
    return replace(layout, response=response)


@lru_cache(maxsize=8)
def _described(key: bytes, path: Path, stamp: tuple[int, int] | None) -> Layout:
    p = schema.TableParameter.FromString(key)
    rows, split = rows_of(p, path), Split.of(p.split)
    chosen = None
    if split.cuts:
        total, labels = labels_of(rows, p.target)
        if not total:
            raise DataError(f"{rows.path}: the table has no rows")
        kept = np.zeros(total, bool)
        kept[split.rows(total, labels, TRAIN)] = True
        chosen = lambda begin, end: kept[begin:end]  # noqa: E731
    layout = describe(rows, wishes_of(p), chosen, one_hot=p.one_hot, standardise=p.standardise)
    if rows.notes:
        layout = replace(layout, notes=(*rows.notes, *layout.notes))
    return answering(layout, p.response, str(rows.path))


def labels_of(rows: Rows, target: str) -> tuple[int, Array | None]:
    """(number of rows, a number per distinct text of the target for stratification, where there is a target)."""
    if target and target not in rows.names:
        Wishes(target).check(rows.names, str(rows.path))
    place = rows.names.index(target) if target else None
    known: dict[str | None, int] = {}
    labels: list[Array] = []
    total = 0
    for piece in rows.pieces():
        total += len(piece)
        if place is not None and len(known) <= MOST_STRATA:
            numbers = [known.setdefault(cell, len(known)) for cell in piece.columns[place]]
            labels.append(np.array(numbers, np.int32))
    # A target of numbers has no classes to take shares from.
    if place is None or len(known) > min(MOST_STRATA, max(20, total // 10)):
        return total, None
    # Classes by the order of their texts, not by that of the rows.
    order = {text: i for i, text in enumerate(sorted(known, key=str))}
    ranks = np.array([order[text] for text in known], float)
    return total, ranks[np.concatenate(labels)]


class TableSource(Stream):
    """data = the rows' cells (N, 1, 1, D), NaN where missing; label; mask, 1 where a cell is observed."""

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        p = spec.message.table_param
        super().__init__(int(p.batch_size))
        self.spec, self.phase = spec, phase
        check(spec)
        try:
            path = near(spec, p.source)
            self.layout = layout_of(p, path)
            rows = rows_of(p, path)
            self.data, self.labels = self.encoded(rows, Split.of(p.split, phase))
        except DataError as error:
            raise failure(spec, str(error), FIELD, "source") from error
        self.notes += [*dict.fromkeys((*self.layout.notes, *rows.notes, *self.odd.values()))]
        self.shapes = shapes(spec, self.layout)
        self.samples = len(self.data)
        self.order = Order(self.samples, p.shuffle, seed)
        self.hiding = Hiding(spec, FIELD, phase, seed)

    def encoded(self, rows: Rows, split: Split) -> tuple[Array, Array]:
        """The rows of the part as numbers, and their labels, in the order of the file."""
        target = self.layout.target
        total, classes = labels_of(rows, target if target in rows.names else "")
        if not total:
            raise DataError(f"{rows.path}: the table has no rows")
        chosen = split.rows(total, classes) if split.cuts or split.part != ALL else np.arange(total)
        places, width = self.layout.fit(rows.names, str(rows.path)), self.layout.width
        self.numbers = chosen + 1
        """Of the rows of the part, in the table, from 1."""
        data = room((len(chosen), width))
        labels = np.full(len(chosen), np.nan, np.float32)
        self.odd: dict[str, str] = {}
        begin = first = 0
        for piece in rows.pieces():
            last = int(np.searchsorted(chosen, begin + len(piece)))
            values, own = self.layout.encode(piece, places, self.say)
            picked = chosen[first:last] - begin
            data[first:last], labels[first:last] = values[picked], own[picked]
            begin, first = begin + len(piece), last
        return data, labels

    def say(self, text: str) -> None:
        """Keep the first remark on each column."""
        self.odd.setdefault(text.partition(", line")[0], text)

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        chosen = self.order(positions)
        data = np.ascontiguousarray(self.data[chosen])[:, None, None]
        labels = torch.from_numpy(self.labels[chosen])
        known = ~np.isnan(data)
        known &= self.hiding.hide(data, lambda: data, chosen, positions)
        tops = [torch.from_numpy(data), labels, torch.from_numpy(known.astype(np.float32))]
        return tuple(tops[: len(self.shapes)])


def room(shape: tuple[int, int]) -> Array:
    """An empty array for rows: in memory, or for many rows in an unnamed file that disappears with the array."""
    if 4 * shape[0] * shape[1] <= IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(prefix="netspec-table-") as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def check(spec: LayerSpec) -> None:
    """SpecError at a field of a Table layer that is wrong for any data."""
    p = spec.message.table_param
    if not p.source and not len(p.column):
        raise mistake(spec, "needs a source: a .csv, .tsv or .parquet file, or a named table", FIELD)
    if not p.batch_size:
        raise mistake(spec, "needs batch_size > 0", FIELD)
    try:
        Split.of(p.split)
    except DataError as error:
        raise mistake(spec, str(error), FIELD, "split") from error
    try:
        form_of(p)
    except DataError as error:
        raise mistake(
            spec, str(error), FIELD, "separator" if "separator" in str(error) else "encoding"
        ) from error


def shapes(spec: LayerSpec, layout: Layout | None = None) -> list[Shape]:
    """Shapes of data, label and mask; no file is read where the layer says what its columns are."""
    check(spec)
    p = spec.message.table_param
    if layout is None:
        try:
            layout = layout_of(p, near(spec, p.source))
        except DataError as error:
            raise failure(spec, str(error), FIELD, "source") from error
    n = int(p.batch_size)
    return [(n, 1, 1, layout.width), (n,), (n, 1, 1, layout.width)][: len(spec.tops)]


def settle(spec: LayerSpec, earlier: Any = None) -> list[str]:
    """Write the columns into the layer's message where it lacks them; returns remarks on columns that are left out, and
    why.

    earlier: the message of the training net's layer of the same name, whose columns apply here too.
    """
    check(spec)
    p = spec.message.table_param
    if not len(p.column) and earlier is not None and earlier.table_param.target == p.target:
        p.column.extend(earlier.table_param.column)
    notes: tuple[str, ...] = ()
    if not len(p.column):
        try:
            layout = layout_of(p, near(spec, p.source))
        except DataError as error:
            raise failure(spec, str(error), FIELD, "source") from error
        p.column.extend(column.message() for column in layout.columns)
        notes = layout.notes
    return list(notes)
