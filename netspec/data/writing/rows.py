"""The rows of a table as records of a data set, and what the columns are, to be written beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netspec import schema
from netspec.data.sets.tables import TABLES
from netspec.data.sources.table import layout_of, rows_of
from netspec.data.tables.table import Layout
from netspec.data.writing.convert import Example, from_table
from netspec.schema.printer import print_text


@dataclass
class TableRecords:
    """Records of a table, read when they are asked for."""

    layout: Layout
    records: Iterator[Example]
    notes: list[str]

    def text(self) -> str:
        """What the cells of a record and its label are."""
        target = self.layout.label
        told = f"data (1, 1, {self.layout.width}): {', '.join(self.layout.names)}"
        if target is None:
            return told
        classes = f" ({', '.join(self.layout.classes)})" if self.layout.classes else ""
        return f"{told}; label: {target.name}{classes}"

    def columns(self) -> str:
        """The columns as a TableParameter says them, with means, deviations and categories."""
        p = schema.TableParameter(target=self.layout.target, standardise=self.layout.standardise)
        p.column.extend(column.message() for column in self.layout.columns)
        return print_text(p)


def table_records(
    source: str, target: str = "", leave_out: tuple[str, ...] = (), standardise: bool = True
) -> TableRecords:
    """The rows of a .csv, .tsv or .parquet file, or of a named table, whose own target is the default one."""
    if source in TABLES and not target and not Path(source).exists():
        target = TABLES[source].target
    p = schema.TableParameter(source=source, target=target, leave_out=leave_out, standardise=standardise)
    path = Path(source)
    layout = layout_of(p, path)
    rows = rows_of(p, path)
    return TableRecords(layout, from_table(rows, layout), [*dict.fromkeys((*rows.notes, *layout.notes))])
