"""Cells of text: which are missing, which are numbers, which are dates, and how each is written back."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite, nan

import numpy as np

from netspec.data.files.idx import Array

MISSING = frozenset(
    ("", "na", "n/a", "#n/a", "#na", "nan", "-nan", "<na>", "null", "none", "nil", "?", "nat", "missing")
)
"""Words, in small letters, that stand for a missing cell."""

DATES = (
    "%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y",
    "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d %b %Y", "%d-%b-%Y",
)  # fmt: skip
"""How dates may be written; the first that fits every cell of a column is its format."""

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?")
GROUPED = {
    ".": re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?"),
    ",": re.compile(r"[+-]?\d{1,3}(?:[. ]\d{3})+(?:,\d*)?"),
}
"""Patterns of numbers with thousands separators, by decimal sign."""
MAYBE_DATE = re.compile(r"\d{1,4}[-/. ](?:\d{1,2}|[A-Za-z]{3})[-/. ]\d{1,4}(?:[T ].*)?")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_missing(cell: str | None, words: Collection[str] = ()) -> bool:
    """Whether a cell says that its value is missing; `words`: further ones, as written."""
    if cell is None:
        return True
    text = cell.strip()
    return text.lower() in MISSING or text in words


def number(cell: str, decimal: str = ".") -> float | None:
    """The finite number that a cell holds; None where it holds none. Thousands may be set apart."""
    text = cell.strip()
    if GROUPED[decimal].fullmatch(text):
        text = text.replace("," if decimal == "." else ".", "").replace(" ", "")
    if decimal == ",":
        if "." in text:
            return None
        text = text.replace(",", ".")
    if not NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if isfinite(value) else None


def numbers(cells: Sequence[str | None], decimal: str, words: Collection[str]) -> tuple[Array, int | None]:
    """(values (n,) float64 with NaN where a cell is missing, the place of the first cell that is no number)."""
    if decimal == ".":
        try:
            values = np.array([nan if not cell else float(cell) for cell in cells])
        except ValueError:
            pass  # a word among them, or thousands set apart: cell by cell
        else:
            if not np.isinf(values).any() and not words:
                return values, None
    values = np.full(len(cells), nan)
    for i, cell in enumerate(cells):
        if cell is None or is_missing(cell, words):
            continue
        value = number(cell, decimal)
        if value is None:
            return values, i
        values[i] = value
    return values, None


def is_whole(cell: str) -> bool:
    """Whether a cell is written as a whole number."""
    return WHOLE.fullmatch(cell.strip()) is not None


ISO = tuple(form for form in DATES if form.startswith("%Y-"))
"""Formats that mean the same everywhere."""


def any_moment(cell: str, form: str) -> float | None:
    """Days since 1970 of a date written in a format, or else as ISO writes dates, with a time or without."""
    return next((days for known in (form, *ISO) if (days := moment(cell, known)) is not None), None)


def moment(cell: str, form: str) -> float | None:
    """Days since 1970 of a date written in a format; None where it is not."""
    try:
        date = datetime.strptime(cell.strip(), form)
    except ValueError:
        return None
    return (date.replace(tzinfo=UTC) - EPOCH) / timedelta(days=1)


def written_moment(days: float, form: str) -> str:
    """The date of so many days since 1970 in a format; dates without a time are rounded to the day."""
    step = (
        1.0
        if not any(mark in form for mark in ("%H", "%M", "%S"))
        else 1 / 86400
        if "%S" in form
        else 1 / 1440
    )
    days = min(max(round(days / step) * step, -719162.0), 2932896.0)  # the years 1 to 9999
    seconds = round(days * 86400)
    when = EPOCH + timedelta(seconds=seconds)
    return when.strftime(form).replace(f"{when.year}", f"{when.year:04d}", 1)


def written_number(value: float, decimal: str, digits: int) -> str:
    """A number with at most `digits` digits after the decimal sign."""
    text = f"{value:.{digits}f}"
    if digits:
        text = text.rstrip("0").rstrip(".")
    text = "0" if text == "-0" else text
    return text.replace(".", decimal) if decimal != "." else text
