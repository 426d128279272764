"""Table: accuracies of methods in settings, with confidence intervals; as text, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from netspec.data.files.whole import write_whole
from netspec.errors import DataError

TABLES = (".json", ".csv", ".md", ".txt")
"""Suffixes of the files that a table is written to."""

Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


def wilson(accuracy: float, n: int, z: float = Z) -> tuple[float, float]:
    """The interval of Wilson (1927) for a proportion `accuracy` found on n independent trials:
    (low, high).
    """
    if n == 0:
        return 0.0, 1.0
    centre = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    # At 0 and 1 the interval ends there exactly, which rounding would miss.
    return max(0.0, min(centre - half, accuracy)), min(1.0, max(centre + half, accuracy))


@dataclass(frozen=True)
class Cell:
    """What one method scored in one setting."""

    right: int
    """Images classified right, over all repeats."""
    images: int
    """Different images."""
    repeats: int = 1
    """Times each image was shown, each time with another mask."""

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.right / (self.images * self.repeats)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval (Wilson) of the accuracy on new images.

        The trials are the images, not images times repeats: masks are redrawn, images are not.
        """
        return wilson(self.accuracy, self.images)


@dataclass
class Table:
    """Cells by method and setting, both in the order they came in; `facts` say how the table was made."""

    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def put(self, method: str, setting: str, cell: Cell) -> None:
        """Enter a cell."""
        self.cells.setdefault(method, {})[setting] = cell

    @property
    def settings(self) -> list[str]:
        """Every setting that some method has."""
        return list(dict.fromkeys(name for row in self.cells.values() for name in row))

    def accuracy(self, method: str) -> dict[str, float]:
        """Accuracies of a method in per cent, rounded to two digits, by setting."""
        return {name: round(100 * cell.accuracy, 2) for name, cell in self.cells[method].items()}

    def as_json(self) -> dict[str, Any]:
        """{"accuracy": {setting: per cent}, ...} for one method; by method's name for several."""
        rows = {method: _row(self, method) for method in self.cells}
        return {**(next(iter(rows.values())) if len(rows) == 1 else {"methods": rows}), **self.facts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], name: str = "") -> Table:
        """The inverse of `as_json`; `name` is given to the method of a table of one."""
        facts = {key: value for key, value in data.items() if key not in ("methods", *_KEYS)}
        table = cls(facts=facts)
        for method, row in data.get("methods", {name: data}).items():
            for setting, right in row["right"].items():
                table.put(method, setting, Cell(right, row["images"], row["repeats"][setting]))
        return table

    def csv(self) -> str:
        """A line a cell: method, setting, accuracy and interval in per cent, counts."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["method", "setting", "accuracy", "low", "high", "right", "images", "repeats"])
        for method, row in self.cells.items():
            for setting, cell in row.items():
                numbers = [f"{100 * value:.3f}" for value in (cell.accuracy, *cell.interval)]
                writer.writerow([method, setting, *numbers, cell.right, cell.images, cell.repeats])
        return out.getvalue()

    def text(self) -> str:
        """Columns for a terminal: a line per method, accuracy with half the interval's width."""
        return "\n".join("  ".join(row).rstrip() for row in _aligned(self._rows("±")))

    def markdown(self) -> str:
        """The same as a Markdown table."""
        head, *rows = self._rows(" ± ")
        lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def _rows(self, sign: str) -> list[list[str]]:
        rows = [["method", *self.settings]]
        for method, row in self.cells.items():
            rows.append([method, *(_cell(row.get(setting), sign) for setting in self.settings)])
        return rows

    def write(self, path: str | Path) -> Path:
        """Write by suffix: .json, .csv, .md or .txt."""
        path = Path(path)
        if path.suffix == ".json":
            text = json.dumps(self.as_json(), indent=2)
        elif path.suffix == ".csv":
            text = self.csv().rstrip("\n")
        elif path.suffix == ".md":
            text = self.markdown()
        elif path.suffix == ".txt":
            text = self.text()
        else:
            raise DataError(f"{path}: tables are written as {', '.join(TABLES)}")
        write_whole(path, f"{text}\n".encode())
        return path


_KEYS = ("accuracy", "interval", "right", "images", "repeats")


def _row(table: Table, method: str) -> dict[str, Any]:
    row = table.cells[method]
    first = next(iter(row.values()))
    return {
        "accuracy": table.accuracy(method),
        "interval": {name: [round(100 * x, 2) for x in cell.interval] for name, cell in row.items()},
        "right": {name: cell.right for name, cell in row.items()},
        "images": first.images,
        "repeats": {name: cell.repeats for name, cell in row.items()},
    }


def _cell(cell: Cell | None, sign: str) -> str:
    if cell is None:
        return ""
    low, high = cell.interval
    return f"{100 * cell.accuracy:.2f}{sign}{50 * (high - low):.2f}"


def _aligned(rows: list[list[str]]) -> list[list[str]]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [[row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
            for row in rows]  # fmt: skip
