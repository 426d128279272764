"""Rows of a table in pieces: CSV, TSV and other separated text, Parquet, pandas' frames; never more than a piece in
memory.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from netspec.data.files.idx import reading
from netspec.data.tables.cells import is_missing, number
from netspec.errors import DataError, no_such_file

PIECE = 20_000
"""Rows of a piece."""
SNIFFED = 1 << 16
"""Number of characters from which separator and decimal sign are told."""
SEPARATORS = (",", ";", "\t", "|")
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
TEXTS = (".csv", ".tsv", ".txt", ".tab", ".data", ".dat")
PARQUET = (".parquet", ".pq")

Cells = list[str | None]
"""A column of a piece, None where its format marks a cell as missing."""


@dataclass(frozen=True)
class Form:
    """How a table is written; None means detected from the file."""

    separator: str | None = None
    encoding: str | None = None
    header: bool | None = None

    def __post_init__(self) -> None:
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise DataError(f"separator {self.separator!r}: give one character, such as ';'")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise DataError(f"no encoding is called {self.encoding!r}; give utf-8, cp1252, ...") from None


@dataclass
class Piece:
    """Some rows: a list of cells per column, and the place of each row for errors."""

    columns: list[Cells]
    places: Sequence[int]
    """Line numbers in a text file, row numbers from 1 elsewhere."""

    def __len__(self) -> int:
        return len(self.places)


@dataclass
class Text:
    """A file of separated cells, opened anew for each walk over it."""

    path: Path
    form: Form = field(default_factory=Form)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.encoding = self.form.encoding or self._encoding()
        with reading(self.path) as file:
            start = self._decoded(file, SNIFFED)
        if "\0" in start:
            raise DataError(f"{self.path}: is no text (it holds zero bytes); tables are CSV, TSV or Parquet")
        whole = len(start) < SNIFFED
        lines = start if whole else start[: start.rfind("\n") + 1] or start
        self.separator = self.form.separator or separator_of(lines, self.path.name)
        first, *later = [cells for _, cells in self.rows(lines=lines)] or [[]]
        if not first:
            raise DataError(f"{self.path}: the table is empty")
        self.header = looks_like_header(first, later) if self.form.header is None else self.form.header
        self.names = named(first if self.header else [""] * len(first), str(self.path))

    def _encoding(self) -> str:
        """By the file's mark, else UTF-8 where all of it is, else cp1252, which is noted."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        with reading(self.path) as file:
            try:
                first = file.read(1 << 20)
                for mark, name in MARKS.items():
                    if first.startswith(mark):
                        return name
                while first:
                    decoder.decode(first)
                    first = file.read(1 << 20)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                self.notes.append(
                    f"{self.path}: is not UTF-8; read as cp1252 (give an encoding if it is another)"
                )
                return "cp1252"
        return "utf-8"

    def _decoded(self, file: IO[bytes], size: int) -> str:
        try:
            with io.TextIOWrapper(file, self.encoding, newline="") as text:
                return text.read(size)
        except UnicodeError as error:
            raise DataError(f"{self.path}: cannot be read as {self.encoding} ({error})") from error

    def rows(self, lines: str | None = None) -> Iterator[tuple[int, list[str]]]:
        """(line number, cells) of each row, the header among them; empty lines are passed over."""
        with reading(self.path) as raw, self._text(raw, lines) as file:
            reader = csv.reader(file, delimiter=self.separator, strict=False, skipinitialspace=True)
            begin = 1
            try:
                for cells in reader:
                    if cells and not (len(cells) == 1 and not cells[0].strip()):
                        yield begin, cells
                    begin = reader.line_num + 1
            except csv.Error as error:
                raise DataError(f"{self.path}:{reader.line_num}: {error}") from error
            except UnicodeError as error:
                raise DataError(f"{self.path}:{reader.line_num + 1}: {error}") from error

    def _text(self, raw: IO[bytes], lines: str | None) -> IO[str]:
        if lines is not None:
            return io.StringIO(lines, newline="")
        return io.TextIOWrapper(raw, self.encoding, newline="")

    def pieces(self, size: int = PIECE) -> Iterator[Piece]:
        """The rows after the header; DataError at the line that has another number of cells."""
        rows: list[list[str]] = []
        places: list[int] = []
        waiting = self.header
        for line, cells in self.rows():
            if waiting:
                waiting = False
                continue
            if len(cells) != len(self.names):
                raise DataError(
                    f"{self.path}:{line}: {len(cells)} cells, the table has {len(self.names)} columns "
                    f"(separator {self.separator!r})"
                )
            rows.append(cells)
            places.append(line)
            if len(rows) == size:
                yield Piece([list(column) for column in zip(*rows, strict=True)], places)
                rows, places = [], []
        if rows:
            yield Piece([list(column) for column in zip(*rows, strict=True)], places)


class Parquet:
    """A Parquet file, read by pyarrow in batches of rows."""

    def __init__(self, path: Path):
        self.path, self.notes = path, list[str]()
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise DataError(
                f"{path}: reading Parquet needs the library pyarrow: pip install pyarrow"
            ) from error
        self.failures = (ArrowException, OSError, ValueError)
        try:
            self.file = parquet.ParquetFile(path)
        except FileNotFoundError as error:
            raise DataError(no_such_file(path)) from error
        except self.failures as error:
            raise DataError(f"{path}: is no Parquet file ({error})") from error
        self.names = named([str(name) for name in self.file.schema_arrow.names], str(path))

    def types(self) -> dict[str, Any]:
        """pyarrow's type of each column that text can be turned into."""
        from pyarrow import types as kinds

        simple = (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_string, kinds.is_large_string,
                  kinds.is_date, lambda kind: kinds.is_timestamp(kind) and kind.tz is None)  # fmt: skip
        schema = self.file.schema_arrow
        return {
            name: kind
            for name, kind in zip(self.names, schema.types, strict=True)
            if any(test(kind) for test in simple)
        }

    def pieces(self, size: int = PIECE) -> Iterator[Piece]:
        """The rows as text."""
        begin = 1
        try:
            for batch in self.file.iter_batches(batch_size=size):
                columns = [texts(column.to_pylist()) for column in batch.columns]
                yield Piece(columns, range(begin, begin + batch.num_rows))
                begin += batch.num_rows
        except self.failures as error:
            raise DataError(f"{self.path}: {error}") from error


class Frame:
    """Columns in memory: a pandas DataFrame, or a mapping of names to values."""

    def __init__(self, frame: Any, name: str = "the table"):
        self.path, self.notes = Path(name), list[str]()
        self.frame = frame
        self.names = named([str(column) for column in frame], name)

    def pieces(self, size: int = PIECE) -> Iterator[Piece]:
        """The rows as text."""
        whole = [list(self.frame[column]) for column in self.frame]
        count = len(whole[0]) if whole else 0
        for begin in range(0, count, size):
            part = slice(begin, min(begin + size, count))
            yield Piece([texts(column[part]) for column in whole], range(part.start + 1, part.stop + 1))


Rows = Text | Parquet | Frame


def texts(values: Sequence[Any]) -> Cells:
    """Values of Python as cells: numbers in full, dates as ISO writes them, None and NaN as missing."""
    cells: Cells = []
    for value in values:
        if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
            cells.append(None)
        elif hasattr(value, "isoformat"):
            cells.append(value.isoformat(sep=" ") if hasattr(value, "hour") else value.isoformat())
        else:
            cells.append(str(value.item() if hasattr(value, "item") else value))
    return cells


def open_table(source: str | Path, form: Form | None = None) -> Rows:
    """The table in a file; DataError where it is none, or cannot be read."""
    path = Path(source)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; a table is a .csv, .tsv or .parquet file")
    if path.suffix.lower() in PARQUET:
        return Parquet(path)
    return Text(path, form or Form())


def separator_of(text: str, name: str) -> str:
    """The character that cuts most lines of `text` into the same number of cells, more than one."""
    if ".tsv" in name.lower() or name.lower().endswith(".tab"):
        return "\t"
    best, chosen = (0.0, 0), ","
    for candidate in SEPARATORS:
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=candidate) if row]
        except csv.Error:
            continue
        counts = [len(row) for row in rows[:200]]
        usual = max(set(counts), key=counts.count) if counts else 1
        if usual > 1 and (score := (counts.count(usual) / len(counts), usual)) > best:
            best, chosen = score, candidate
    return chosen


def looks_like_header(cells: Sequence[str], later: Sequence[Sequence[str]]) -> bool:
    """Whether a first line names columns: none of its cells is a number, and less than half of them come again below
    themselves.
    """
    words = [cell.strip() for cell in cells]
    if all(is_missing(word) for word in words):
        return False
    if any(number(word) is not None or number(word, ",") is not None for word in words):
        return False
    again = sum(
        any(i < len(row) and row[i].strip() == word for row in later) for i, word in enumerate(words) if word
    )
    return 2 * again < len(words)


def named(heads: Sequence[str], where: str) -> list[str]:
    """Names of the columns, `column_<n>` for those without; DataError where two are the same."""
    names = [head.strip() or f"column_{i}" for i, head in enumerate(heads, 1)]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DataError(
                f"{where}: two columns are called {name!r} (columns {names.index(name) + 1} and {i + 1})"
            )
    if not names:
        raise DataError(f"{where}: the table has no columns")
    return names
