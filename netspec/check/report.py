"""What a check found in one file, as text and as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netspec.errors import NetspecError, Problem, SpecError

State = tuple[str, tuple[str, ...]]
"""A phase and the stages that are set."""


@dataclass(frozen=True)
class Wanted:
    """The options of a check."""

    run: bool = False
    """Also walk each net on random input."""
    dialect: str = ""
    """The fork of layers whose name several forks use."""
    weights: str | Path | None = None
    """A weight file that should fit the net."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs whose data is not here, by name."""
    states: tuple[State, ...] = ()
    """The states in which a solver runs the net."""
    above: tuple[Path, ...] = ()
    """The solvers that named the file, outermost first."""


@dataclass
class Report:
    """What was found in one file. `ok` when nothing stands in `problems`."""

    file: str
    kind: str = ""
    """"net", "solver" or "label map"."""
    name: str = ""
    legacy: tuple[str, ...] = ()
    """Old syntaxes that were upgraded on reading."""
    dialects: list[str] = field(default_factory=list)
    """Forks whose layers or fields the net uses; else BVLC."""
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For each phase with layers: layers, parameters, inputs and outputs with shapes; assumed input shapes.
    With weights: which blobs fit.
    """
    stages: list[str] = field(default_factory=list)
    """Stages named in the rules of layers."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    """Files and modules that the net refers to and that do not exist here."""

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def status(self) -> str:
        """ "ok", "not ok", or "ok, data absent" where nothing is wrong but data of the net is not here."""
        return "not ok" if self.problems else "ok, data absent" if self.needs else "ok"

    def __str__(self) -> str:
        lines = [f"{self.file}: {self.status}: {self.kind or 'not read'} {self.name}".rstrip()]
        if self.legacy:
            lines.append(f"  old syntax, upgraded on reading: {', '.join(self.legacy)}")
        if self.dialects not in ([], ["BVLC"]):
            lines.append(f"  for the Caffe of {', '.join(self.dialects)}")
        for phase, facts in self.phases.items():
            size = (
                "parameters unknown" if facts["parameters"] is None else f"{facts['parameters']:,} parameters"
            )
            if facts["parameters"] is None and not facts["inputs"]:
                size = "shapes unknown"
            lines.append(f"  {phase}: {facts['layers']} layers, {size}")
            if facts["parameters"] is None and facts["assumed"]:
                name, shape = next(iter(facts["assumed"].items()))
                lines.append(f"    say the shape of the data: --shape {name}={','.join(map(str, shape))}")
            for name, shape in facts["assumed"].items():
                lines.append(f"    assumed {name} {tuple(shape)}, as its source is not here")
            if "weights" in facts:
                blobs = facts["weights"]
                lines.append(
                    f"    weights: {blobs['taken']} blobs fit, {len(blobs['missing'])} of the net's not there, "
                    f"{len(blobs['unused'])} of no layer here"
                )
            if "run" in facts:
                lines.append(f"    ran {facts['run']}")
        lines += [f"  problem: {problem.with_code()}" for problem in self.problems]
        lines += [f"  warning: {warning.with_code()}" for warning in self.warnings]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["ok"], plain["status"] = self.ok, self.status
        for name in ("problems", "warnings"):
            plain[name] = [problem_json(problem) for problem in plain[name]]
        return plain


def problem_json(problem: Problem) -> dict[str, Any]:
    place = problem.position
    return {
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "message": problem.message,
        "code": problem.code,
    }


def problems_of(error: NetspecError) -> list[Problem]:
    return list(error.problems) if isinstance(error, SpecError) else [Problem(str(error))]
