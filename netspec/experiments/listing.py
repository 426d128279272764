"""`netspec runs`: the runs of an index as a table, chosen by filters."""

from __future__ import annotations

import csv
import io
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netspec.errors import NetspecError, did_you_mean
from netspec.experiments.index import Index

FACTS = ("status", "iteration", "seconds", "seed")
"""Columns of every table, behind the run's path."""
CONDITION = re.compile(r"([^<>=!~\s]+)\s*(<=|>=|!=|==|=|<|>|~)\s*(.*)")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
Row = dict[str, Any]


@dataclass
class Listing:
    """Rows with everything known of each run, and the names of the columns to show."""

    rows: list[Row]
    columns: list[str]

    def shown(self) -> list[Row]:
        return [{name: row.get(name) for name in self.columns} for row in self.rows]

    def csv(self) -> str:
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.shown())
        return out.getvalue()


def listing(index: Index, filters: Sequence[str] = (), sort: str = "") -> Listing:
    """The runs that pass every filter: a part of a path, or a condition such as accuracy>0.9, seed=1, net~cac.

    Names are columns of `runs`, outputs of the last test, values of plans, and fields of solvers and nets. sort: one of
    these names; a leading - puts the largest first. Raises NetspecError for a name that no run has.
    """
    names, stored = index.ask("select * from runs order by path")
    rows = [dict(zip(names, row, strict=True)) for row in stored]
    by_id = {row["id"]: row for row in rows}
    outputs: dict[str, None] = {}
    values: dict[str, set[str]] = {}
    hidden: dict[str, dict[int, str]] = {}
    for run, name, value in index.ask("select run, output, value from last")[1]:
        shown = f"output.{name}" if name in names else name
        by_id[run][shown] = value
        outputs[shown] = None
    for run, name, value, kind in index.ask("select run, name, value, kind from settings")[1]:
        if kind == "value":
            shown = f"value.{name}" if name in names or name in outputs else name
            by_id[run][shown] = value
            values.setdefault(shown, set()).add(value)
        else:
            hidden.setdefault(name, {})[run] = value

    def column(name: str) -> None:
        if not rows or any(name in row for row in rows):
            return
        if name not in hidden:
            known = [*by_id[rows[0]["id"]], *outputs, *values, *hidden]
            raise NetspecError(f"no run has {name!r}{did_you_mean(name, known)}")
        for run, value in hidden[name].items():
            by_id[run][name] = value

    asked: list[str] = []
    for text in filters:
        condition = CONDITION.fullmatch(text.strip())
        if condition is None:
            rows = [row for row in rows if text in row["path"]]
            continue
        name, sign, value = condition.groups()
        column(name)
        asked.append(name)
        rows = [row for row in rows if passes(row.get(name), sign, value)]
    if key := sort.removeprefix("-"):
        column(key)
        asked.append(key)
        known_rows = [row for row in rows if row.get(key) is not None]
        known_rows.sort(key=lambda row: orderable(row[key]), reverse=sort.startswith("-"))
        rows = [*known_rows, *(row for row in rows if row.get(key) is None)]
    differing = [name for name in values if len({row[name] for row in rows if name in row}) > 1]
    used = [name for name in outputs if any(row.get(name) is not None for row in rows)]
    return Listing(rows, list(dict.fromkeys(["path", *FACTS, *differing, *used, *asked])))


def unique(names: Sequence[str]) -> list[str]:
    """Names of columns made unique by a number: x, x:2."""
    taken: list[str] = []
    for name in names:
        counted, n = name, 1
        while counted in taken:
            n += 1
            counted = f"{name}:{n}"
        taken.append(counted)
    return taken


def passes(held: Any, sign: str, value: str) -> bool:
    """Whether a value meets a condition; an absent value meets only !=."""
    if held is None:
        return sign == "!="
    if sign == "~":
        return value in str(held)
    try:
        return COMPARISONS[sign](float(held), float(value))
    except (TypeError, ValueError):
        return COMPARISONS[sign](str(held), value)


def orderable(value: Any) -> tuple[int, Any]:
    """A sorting key that puts numbers before texts."""
    try:
        return 0, float(value)
    except (TypeError, ValueError):
        return 1, str(value)


def cell(value: Any) -> str:
    """A value in a table for people."""
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as lines of columns; numbers to the right."""
    texts = [list(columns), *([cell(row.get(name)) for name in columns] for row in rows)]
    right = [
        all(isinstance(row.get(name), int | float | None) for row in rows) and bool(rows) for name in columns
    ]
    wide = [max(len(line[i]) for line in texts) for i in range(len(columns))]
    lines = (
        "  ".join(text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, wide, right, strict=True))
        for line in texts
    )
    return "\n".join(line.rstrip() for line in lines)
