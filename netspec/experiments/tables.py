"""A net for a table: looks at its columns, orders them so that dependent ones are neighbours, writes net and solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from netspec import schema
from netspec.data.files.idx import Array
from netspec.data.sets.tables import TABLES
from netspec.data.sources.table import labels_of, layout_of, rows_of
from netspec.data.tables.arranging import MOST_ROWS, mutual_information, order
from netspec.data.tables.columns import CATEGORY, DATE
from netspec.data.tables.table import Layout
from netspec.errors import DataError
from netspec.experiments.beginning import checked, held_out, next_steps, whole_batches, write_both
from netspec.schema.printer import print_text

VALUES = ("states", "tree", "min_scale", "discriminative", "iterations", "prior", "batches")
"""Values of the template that the user chooses; the others come from the table."""


@dataclass(frozen=True)
class Arrangement:
    """What the user says of a table: see TableParameter."""

    source: str
    target: str = ""
    leave_out: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    missing_word: tuple[str, ...] = ()
    separator: str = ""
    decimal: str = ""
    encoding: str = ""
    header: bool | None = None
    test: float = 0.2

    def message(self) -> Any:
        """As a TableParameter without columns."""
        p = schema.TableParameter(source=self.source, target=self.target)
        for name in ("leave_out", "category", "number", "missing_word"):
            getattr(p, name).extend(getattr(self, name))
        for name in ("separator", "decimal", "encoding"):
            if getattr(self, name):
                setattr(p, name, getattr(self, name))
        if self.header is not None:
            p.header = self.header
        if not 0 <= self.test < 1:
            raise DataError(f"--test {self.test:g}: a share is 0 or more, and less than 1")
        if self.test:
            p.split.test = self.test
        return p


@dataclass
class Arranged:
    """The files written, and remarks for the user."""

    net: Path
    solver: Path
    layout: Layout
    order: list[int]
    rows: int
    source: str
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The columns in their order, and the files."""
        names = [self.layout.inputs[i].name for i in self.order]
        layout = self.layout
        target = f"; target {layout.target} ({', '.join(layout.classes)})" if layout.classes else ""
        if len(layout.classes) > 2 and all(name.lstrip("-").isdigit() for name in layout.classes):
            target += f"; --number {layout.target!r} predicts it as a number"
        if layout.response:
            kind = "a date" if layout.kind_of(layout.response) == DATE else "a number"
            target = f"; target {layout.response} ({kind}, predicted with its deviation)"
        asked = "predict" if layout.classes or layout.response else "complete"
        return f"{self.rows} rows; neighbours: {', '.join(names)}{target}\n" + next_steps(
            self.net, self.solver, f"netspec {asked} runs/{self.net.stem} --table {self.source}"
        )


def arrange_table(
    plan: Arrangement, out: Path | None = None, settings: Mapping[str, Any] | None = None
) -> Arranged:
    """Write the net of a table to `out` (default <name>.prototxt in the working directory) and its solver beside it.

    settings: values of the template. A categorical target gives the net's classes; one of numbers or dates is a column
    like the others, which `netspec predict` gives from them. Nothing is left behind on failure. Raises DataError where
    the table cannot be read, SpecError at a value that the template has not.
    """
    if plan.source in TABLES and not plan.target and not Path(plan.source).exists():
        plan = Arrangement(**{**vars(plan), "target": TABLES[plan.source].target})
    p = plan.message()
    layout = layout_for(p, Path(plan.source))
    rows = rows_of(p, Path(plan.source))
    values, count = sampled(rows, layout)
    if len(layout.inputs) < 1 or not count:
        raise DataError(f"{plan.source}: the table has no rows to learn from")
    arranged = order(mutual_information(values))
    net = out or Path(f"{Path(plan.source).name.split('.')[0]}.prototxt")
    solver = net.with_name(f"{net.stem}_solver.prototxt")
    p.column.extend(column.message() for column in layout.columns)
    batch = min(train_rows(count, plan.test), MOST_ROWS)
    told = Arranged(
        net, solver, layout, arranged, count, plan.source, [*dict.fromkeys((*rows.notes, *layout.notes))]
    )
    held = 0
    if p.split.test:
        total, classes = labels_of(rows, p.target)
        held, few = held_out(plan.test, total, classes, plan.source)
        if few:
            told.notes.append(few)
            p.split.test = 0
    chosen = template_values(p, layout, arranged, net, batch, held) | checked(settings or {}, VALUES)
    write_both(net, solver, "table", chosen)
    return told


def layout_for(p: Any, path: Path) -> Layout:
    """The layout of a table with a target; one of numbers or dates becomes the response among the columns."""
    layout = layout_of(p, path)
    if not layout.target or layout.classes:
        return layout
    p.target, p.response = "", p.target
    return layout_of(p, path)


def train_rows(count: int, test: float) -> int:
    """About how many rows are left to train on."""
    return max(1, count - round(test * count))


def sampled(rows: Any, layout: Layout) -> tuple[Array, int]:
    """(up to MOST_ROWS rows at about equal distances, number of all rows)."""
    places = layout.fit(rows.names, str(rows.path))
    kept: list[Array] = []
    count, step = 0, 1
    for piece in rows.pieces():
        values, _ = layout.encode(piece, places)
        first = -count % step
        kept.append(values[first::step])
        count += len(piece)
        while sum(map(len, kept)) > 2 * MOST_ROWS:  # thin out what is there, and what is to come
            kept, step = [np.concatenate(kept)[::2]], 2 * step
    return (np.concatenate(kept) if kept else np.empty((0, layout.width), np.float32)), count


def template_values(
    p: Any, layout: Layout, arranged: Sequence[int], net: Path, batch: int, held: int
) -> dict[str, Any]:
    """The values for the template; held: number of rows held out."""
    tested, batches = whole_batches(held)
    kinds = [
        {"kind": "categorical", "levels": max(len(column.values), 2)}
        if column.kind == CATEGORY
        else {"kind": "gaussian"}
        for column in layout.inputs
    ]
    p = copied(p)
    test = float(f"{p.split.test:.6g}")
    p.ClearField("split")
    return {
        "name": net.stem,
        "net": net.name,
        "data": print_text(p).strip(),
        "test": test,
        "kinds": kinds,
        "order": list(arranged),
        "classes": len(layout.classes),
        "batch": batch,
        "tested": tested,
        "batches": batches,
    }


def copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
