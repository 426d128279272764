"""Tables written piece by piece: CSV, TSV or Parquet; nothing is left where writing fails."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from netspec.data.tables.cells import is_missing, number
from netspec.data.tables.columns import CATEGORY, DATE, INTEGER, LEFT_OUT, Column
from netspec.data.tables.reading import PARQUET, TEXTS, Cells
from netspec.errors import DataError, one_line

Rows = Iterable[Sequence[Cells]]
"""Pieces of a table, the cells of each column."""


def check_target(path: Path) -> Path:
    """The path; DataError where no table is written to such a name."""
    if path.suffix.lower() not in (*TEXTS, *PARQUET):
        raise DataError(f"{path}: a table is written as {', '.join((*TEXTS, *PARQUET))}")
    if path.is_dir():
        raise DataError(f"{path}: is a folder")
    return path


def write_table(
    path: Path,
    names: Sequence[str],
    pieces: Rows,
    *,
    separator: str | None = None,
    encoding: str = "utf-8",
    header: bool = True,
    columns: Sequence[Column] = (),
    types: Mapping[str, Any] | None = None,
) -> int:
    """Write pieces of rows under the names of their columns; gives the number of rows.

    separator, encoding, header: of a text file; by default a tab for .tsv, else a comma. types: pyarrow's of columns
    of a Parquet file; others are taken from `columns`. The file appears when it is whole.
    """
    check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        if path.suffix.lower() in PARQUET:
            known = {column.name: column for column in columns}
            count = write_parquet(Path(temporary), names, pieces, known, types or {})
        else:
            tab = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
            count = write_text(Path(temporary), names if header else (), pieces, separator or tab, encoding)
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return count


def umask() -> int:
    """The process's mask of permissions."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, names: Sequence[str], pieces: Rows, separator: str, encoding: str) -> int:
    """Separated cells; a missing one is empty."""
    count = 0
    with open(path, "w", encoding=encoding, newline="") as file:
        out = csv.writer(file, delimiter=separator, lineterminator="\n")
        if names:
            out.writerow(names)
        for piece in pieces:
            rows = [["" if cell is None else cell for cell in row] for row in zip(*piece, strict=True)]
            try:
                out.writerows(rows)
            except UnicodeEncodeError as error:
                raise DataError(f"{path}: {error.object!r} cannot be written as {encoding}") from error
            count += len(rows)
    return count


def write_parquet(
    path: Path, names: Sequence[str], pieces: Rows, columns: Mapping[str, Column], own: Mapping[str, Any]
) -> int:
    """Parquet: columns in their `own` types, else numbers as float64 or int64 and the rest as text; a missing cell is
    null. Whole numbers that were floats (as pandas makes of those with holes) are int64.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("writing Parquet needs pyarrow; pip install pyarrow, or write .csv") from error
    kinds = {name: kind_of(columns.get(name)) for name in names}
    own = {
        name: kind
        for name, kind in own.items()
        if kinds.get(name) != "int" or not pyarrow.types.is_floating(kind)
    }
    types = {"text": pyarrow.string(), "float": pyarrow.float64(), "int": pyarrow.int64()}
    schema = pyarrow.schema([(name, own.get(name, types[kinds[name]])) for name in names])
    count = 0
    with parquet.ParquetWriter(path, schema) as out:
        for piece in pieces:
            values = {}
            for name, cells in zip(names, piece, strict=True):
                array = pyarrow.array(
                    [value_of(cell, kinds[name], columns.get(name)) for cell in cells], types[kinds[name]]
                )
                try:
                    values[name] = array.cast(own[name]) if name in own else array
                except (pyarrow.ArrowException, ValueError) as error:
                    raise DataError(f"{path}: column {name!r}: {one_line(error)}") from error
            out.write_table(pyarrow.table(values, schema=schema))
            count += len(piece[0]) if piece else 0
    return count


def kind_of(column: Column | None) -> str:
    """ "int", "float" or "text"."""
    if column is None or column.kind in (CATEGORY, DATE, LEFT_OUT):
        return "text"
    return "int" if column.kind == INTEGER else "float"


def value_of(cell: str | None, kind: str, column: Column | None) -> Any:
    """A cell as a value of its type; None where it is missing."""
    if cell is None or is_missing(cell):
        return None
    if kind == "text":
        return cell
    value = number(cell, column.decimal if column else ".")
    return value if value is None or kind == "float" else round(value)
