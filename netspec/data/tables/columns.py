"""Columns of a table: what their cells are, found piece by piece; cells to numbers of mean 0 and deviation 1, and
back to cells in the column's own units.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10, nan, sqrt
from typing import Any

import numpy as np

from netspec import schema
from netspec.data.files.idx import Array
from netspec.data.tables.cells import (
    DATES,
    MAYBE_DATE,
    any_moment,
    is_missing,
    is_whole,
    moment,
    number,
    numbers,
    written_moment,
    written_number,
)
from netspec.data.tables.reading import Cells
from netspec.errors import DataError

NUMBER, INTEGER, CATEGORY, DATE, LEFT_OUT = "NUMBER", "INTEGER", "CATEGORY", "DATE", "LEFT_OUT"
KINDS = (NUMBER, INTEGER, CATEGORY, DATE, LEFT_OUT)
MOST_CATEGORIES = 200
"""A column with more different texts is not categorical."""
MOST_CLASSES = 20
"""A target of whole numbers with more different values is a number, not a class."""
DIGITS = 4
"""Digits of a written number from the first one of its column's deviation on."""
ALMOST = 0.9
"""A column in which this share of cells are numbers is numeric with slips in it."""


@dataclass(frozen=True)
class Column:
    """A column as a TableColumn says: see proto/netspec.proto."""

    name: str
    kind: str
    mean: float = 0.0
    deviation: float = 1.0
    values: tuple[str, ...] = ()
    format: str = ""
    decimal: str = "."

    @classmethod
    def of(cls, message: Any) -> Column:
        """From a TableColumn."""
        kind = message.Kind.Name(message.kind)
        return cls(message.name, kind, message.mean, message.deviation, tuple(message.value), message.format,
                   message.decimal)  # fmt: skip

    def message(self) -> Any:
        """As a TableColumn, with the fields that its kind has."""
        column = schema.TableColumn(name=self.name, kind=self.kind)
        if self.kind in (NUMBER, INTEGER, DATE):
            column.mean, column.deviation = self.mean, self.deviation
        column.value.extend(self.values)
        if self.format:
            column.format = self.format
        if self.decimal != ".":
            column.decimal = self.decimal
        return column

    def cells(self, one_hot: bool) -> int:
        """Number of cells that the column takes in a row of the blob."""
        if self.kind == LEFT_OUT:
            return 0
        return len(self.values) if self.kind == CATEGORY and one_hot else 1

    def encode(
        self, cells: Cells, words: Collection[str], standardise: bool = True
    ) -> tuple[Array, list[int]]:
        """(numbers (n,) float64, NaN where missing; the places of cells that are none of the column's).

        Numbers and dates less the mean, over the deviation; a category as its number from 0. A cell that does not fit
        the column (a word among numbers, an unseen category) is NaN too.
        """
        if self.kind == CATEGORY:
            return self._categories(cells, words)
        if self.kind == DATE:
            values = np.full(len(cells), nan)
            odd = []
            for i, cell in enumerate(cells):
                if cell is None or is_missing(cell, words):
                    continue
                days = any_moment(cell, self.format)
                values[i] = nan if days is None else days
                odd += [i] if days is None else []
        else:
            values, odd = self._numbers(cells, words)
        return ((values - self.mean) / self.deviation if standardise else values), odd

    def _numbers(self, cells: Cells, words: Collection[str]) -> tuple[Array, list[int]]:
        values, first = numbers(cells, self.decimal, words)
        if first is None:
            return values, []
        odd = []
        for i in range(first, len(cells)):
            cell = cells[i]
            if cell is None or is_missing(cell, words):
                continue
            value = number(cell, self.decimal)
            values[i] = nan if value is None else value
            odd += [i] if value is None else []
        return values, odd

    def _categories(self, cells: Cells, words: Collection[str]) -> tuple[Array, list[int]]:
        places = {plain(value): i for i, value in enumerate(self.values)}
        places |= {value: i for i, value in enumerate(self.values)}
        values, odd = np.full(len(cells), nan), []
        for i, cell in enumerate(cells):
            if cell is None or is_missing(cell, words):
                continue
            text = cell.strip()
            place = places.get(text, places.get(plain(text)))
            if place is None:
                odd.append(i)
            else:
                values[i] = place
        return values, odd

    def decode(self, values: Array, standardise: bool = True) -> Cells:
        """Cells of numbers as `encode` gives them; None where NaN. Categories are rounded to one that there is."""
        if self.kind == CATEGORY:
            last = len(self.values) - 1
            return [None if v != v else self.values[min(max(round(v), 0), last)] for v in values.tolist()]
        own = values * self.deviation + self.mean if standardise else values
        if self.kind == DATE:
            return [None if v != v else written_moment(v, self.format) for v in own.tolist()]
        digits = 0 if self.kind == INTEGER else min(max(DIGITS - floor(log10(self.deviation)), 0), 15)
        return [None if v != v else written_number(v, self.decimal, digits) for v in own.tolist()]


MOST_DIGITS = 400
"""Most digits of a whole number; longer ones are names."""


def plain(cell: str) -> str:
    """A whole number without its point (1 for 1.0), True and False in one way; other texts as they are."""
    if is_whole(cell):
        digits = cell.strip().partition(".")[0]
        return str(int(digits)) if len(digits) <= MOST_DIGITS else cell
    return cell.lower() if cell.lower() in ("true", "false") else cell


class Summary:
    """A summary of the cells of a column so far, enough to tell its kind."""

    def __init__(self, name: str, words: Collection[str] = (), decimals: str = "."):
        """decimals: the decimal signs that may occur, "." or ".,"."""
        self.name, self.words = name, words
        self.seen = self.rows = 0
        self.fits = dict.fromkeys(decimals, 0)
        """How many cells are numbers with each decimal sign."""
        self.first_word: dict[str, tuple[str, int]] = {}
        """(cell, place) of the first that is no number."""
        self.marks: set[str] = set()
        """Points and commas in its cells."""
        self.whole = True
        self.moments: dict[str, tuple[int, float, float]] = {}
        """Of the numbers, by decimal sign, and of dates by format: how many, mean, sum of squared deviations."""
        self.dates: list[str] | None = None
        """Formats that fit all cells so far; None before the first cell."""
        self.distinct: dict[str, int] = {}
        self.many = False

    def add(self, cells: Cells, places: Sequence[int]) -> None:
        """Look at the cells of some more rows."""
        self.rows += len(cells)
        here = [(cell.strip(), place) for cell, place in zip(cells, places, strict=True)
                if cell is not None and not is_missing(cell, self.words)]  # fmt: skip
        if not here:
            return
        self.seen += len(here)
        if len(self.fits) > 1 and len(self.marks) < 2:
            self.marks |= {mark for mark in ".," if any(mark in cell for cell, _ in here)}
        for decimal in self.fits:
            values, word = read_numbers([cell for cell, _ in here], decimal)
            self.fits[decimal] += len(values)
            if word is not None:
                self.first_word.setdefault(decimal, here[word])
            self.count(decimal, values)
        self.whole = self.whole and all(is_whole(cell) for cell, _ in here)
        if self.fits[next(iter(self.fits))] < self.seen:
            self.look_for_dates([cell for cell, _ in here])
        if not self.many:
            for cell, _ in here:
                self.distinct[cell] = self.distinct.get(cell, 0) + 1
            self.many = len(self.distinct) > max(MOST_CATEGORIES, 1000)

    def look_for_dates(self, cells: Sequence[str]) -> None:
        if self.dates is None:
            self.dates = list(DATES) if MAYBE_DATE.fullmatch(cells[0]) else []
        for form in list(self.dates):
            days = [moment(cell, form) for cell in cells]
            if None in days:
                self.dates.remove(form)
                self.moments.pop(form, None)
            else:
                self.count(form, np.array(days, float))

    def count(self, key: str, values: Array) -> None:
        """Add values to the mean and the squared deviations (Chan, Golub and LeVeque's update)."""
        if not len(values):
            return
        n, mean, squares = self.moments.get(key, (0, 0.0, 0.0))
        with np.errstate(over="ignore", invalid="ignore"):  # numbers too large are refused when all are seen
            own = float(values.mean())
            more, apart = len(values), own - mean
            total = n + more
            squares += float(np.square(values - own).sum()) + apart * apart * n * more / total
        self.moments[key] = (total, mean + apart * more / total, squares)

    # What it is

    def only_decimal(self) -> str:
        """The decimal sign with which all its cells are numbers, where there is but one such; else ""."""
        signs = [sign for sign, count in self.fits.items() if self.seen and count == self.seen]
        return signs[0] if len(signs) == 1 and len(self.fits) > 1 else ""

    def column(self, forced: str = "", target: bool = False, prefer: str = "") -> tuple[Column, str]:
        """(the column, remarks on it). forced: CATEGORY or NUMBER, whatever the cells look like. prefer: the
        decimal sign of cells such as 1,234 that are numbers with either.

        Raises DataError where nearly all cells are numbers, and some are words.
        """
        if not self.seen:
            return Column(self.name, LEFT_OUT), f"column {self.name!r}: holds no value; it is left out"
        if forced == CATEGORY:
            return self.categories(), ""
        decimal = max(self.fits, key=lambda sign: (self.fits[sign], sign == prefer))
        if self.fits[decimal] == self.seen:
            return self.numeric(decimal, target, forced == NUMBER), ""
        if forced == NUMBER or self.fits[decimal] >= max(ALMOST * self.seen, 1):
            cell, place = self.first_word[decimal]
            raise DataError(
                f"column {self.name!r}, line {place}: {cell!r} is no finite number, as {self.fits[decimal]} of its "
                f"{self.seen} cells are; name it as a missing_word, or the column as one of category"
            )
        if self.dates:
            return self.date()
        if self.many or len(self.distinct) > MOST_CATEGORIES or (not target and self.names_rows()):
            kinds = f"more than {len(self.distinct) - 1}" if self.many else str(len(self.distinct))
            said = f"column {self.name!r}: {kinds} different texts in {self.seen} cells; it is left out"
            return Column(self.name, LEFT_OUT), said
        return self.categories(), ""

    def names_rows(self) -> bool:
        """Whether nearly every cell is a unique text, as for names and serial numbers."""
        return self.seen > 20 and len(self.distinct) > 0.5 * self.seen

    def categories(self) -> Column:
        """As categories: whole numbers in numeric order, texts in alphabetical order."""
        names = [cell for cell in self.distinct if plain(cell) == cell or plain(cell) not in self.distinct]
        if self.many:
            raise DataError(f"column {self.name!r}: has more than {MOST_CATEGORIES} categories")
        names.sort(key=lambda name: (0, float(name), name) if number(name) is not None else (1, 0.0, name))
        return Column(self.name, CATEGORY, values=tuple(names))

    def numeric(self, decimal: str, target: bool, forced: bool) -> Column:
        """As numbers; as categories where there are only two, or for a target with few whole numbers."""
        few = 2 if not target else MOST_CLASSES
        if not forced and self.whole and not self.many and 2 <= len(self.distinct) <= few:
            return self.categories()
        n, mean, squares = self.moments[decimal]
        deviation = sqrt(squares / n) or 1.0
        if not (isfinite(mean) and isfinite(deviation)):
            raise DataError(f"column {self.name!r}: its numbers are too large for a mean and a deviation")
        return Column(self.name, INTEGER if self.whole else NUMBER, mean, deviation, decimal=decimal)

    def date(self) -> tuple[Column, str]:
        """As dates, in the first format that fits."""
        form = (self.dates or [""])[0]
        n, mean, squares = self.moments[form]
        said = ""
        if "%d/%m/%Y" in form and any("%m/%d/%Y" in other for other in self.dates or ()):
            said = f"column {self.name!r}: its dates are read as day/month/year, month/day/year would fit too"
        return Column(self.name, DATE, mean, sqrt(squares / n) or 1.0, format=form), said


def read_numbers(cells: Sequence[str], decimal: str) -> tuple[Array, int | None]:
    """(the finite numbers among cells, the place of the first cell that is none)."""
    if decimal == ".":
        try:
            values = np.array([float(cell) for cell in cells])
        except ValueError:
            pass  # a word among them, or thousands set apart
        else:
            if np.isfinite(values).all():
                return values, None
    parsed = [number(cell, decimal) for cell in cells]
    word = parsed.index(None) if None in parsed else None
    return np.array([value for value in parsed if value is not None], float), word
