"""Reads files of nets and solvers for every command, and judges the fields of forks by one table.

A field that netspec does not have is one of three kinds: without effect here (one warning per file and name), refused
with a reason, or misspelt, which is an error. `netspec check` judges in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path

from netspec import schema
from netspec.errors import Problem, SpecError, one_edit
from netspec.layers import registry
from netspec.schema import Document, UnknownField
from netspec.schema.forks import HARMLESS, OLD_NAMES, refusal, whose
from netspec.schema.upgrade import V1_TYPES

log = logging.getLogger("netspec")
SOLVER_FIELDS = {field.name for field in schema.descriptor("SolverParameter").fields}
"""A file with one of these fields at its top level is a solver."""
SLIP = 0.84
"""From this likeness (difflib's ratio) on, an unknown field is a misspelt valid one and not another fork's."""


def read(path: str | Path, kind: str = "") -> Document:
    """A file that is a net or a solver; kind "net" or "solver" where it must be that.

    Raises SpecError for every mistake, and every field of a fork that changes numbers and is not built.
    """
    readers = {"": schema.read, "net": schema.read_net, "solver": schema.read_solver}
    document = readers[kind](path, unknown="keep")
    judge(document)
    return document


def judge(document: Document) -> None:
    """Refuse fields of a fork that cannot be ignored, and warn once per name of those that can."""
    if (strange := foreign(document)) is not None:
        raise SpecError([strange])
    problems = [problem for unknown in document.unknown if (problem := refused(unknown)) is not None]
    if problems:
        raise SpecError(problems)
    for problem in warnings(document.unknown):
        log.warning("%s", problem)


def foreign(document: Document) -> Problem | None:
    """That nothing in a file is a field of a net or a solver; None where something is, or nothing is there."""
    if not document.unknown or document.message.ListFields():
        return None
    names = list(dict.fromkeys(unknown.name for unknown in document.unknown if len(unknown.path) == 1))
    text = f"no field of a net or a solver is in this file, but {', '.join(map(repr, names[:4]))}"
    return Problem(f"{text}: is it a file of Caffe?", document.unknown[0].position)


def refused(unknown: UnknownField) -> Problem | None:
    """Why an unknown field is a mistake; None where it can be ignored."""
    if reason := refusal(unknown):
        return Problem(f"{unknown.text}: {reason}", unknown.position)
    if unknown.owner == "NetParameter" and unknown.name in SOLVER_FIELDS:
        return unknown.problem
    if (unknown.owner, unknown.name) in OLD_NAMES:
        return unknown.problem
    if whose(unknown):
        return None
    if is_slip(unknown) or is_wrong_value(unknown):
        return unknown.problem
    return None


def warnings(unknown: Iterable[UnknownField]) -> list[Problem]:
    """One warning per name of an ignored field, at its first place."""
    first: dict[tuple[str, str], UnknownField] = {}
    for field in unknown:
        if refused(field) is None:
            first.setdefault((field.owner, field.name), field)
    return [Problem(worded(field), field.position) for field in first.values()]


def worded(field: UnknownField) -> str:
    fork = whose(field)
    text, _, _ = field.text.partition("; ") if fork else (field.text, "", "")
    return f"{text}: of {fork}, without effect here" if fork else text


def is_slip(unknown: UnknownField) -> bool:
    """Whether an unknown field of a layer that netspec knows is so like a valid one that it must be a misspelling."""
    if unknown.nearest is None or (unknown.layer_type is not None and unknown.layer_type not in registry):
        return False
    if SequenceMatcher(None, unknown.name, unknown.nearest).ratio() >= SLIP:
        return True
    return len(unknown.name) > 2 and one_edit(unknown.name, unknown.nearest)


def is_wrong_value(unknown: UnknownField) -> bool:
    """Whether an enum has an unknown value that would be read as something else."""
    if not unknown.is_value or unknown.path[-1] in HARMLESS or unknown.owner == "V1LayerParameter":
        return False
    return unknown.layer_type is None or V1_TYPES.get(unknown.layer_type, unknown.layer_type) in registry
