"""Files: a net, a solver with the nets that it names, a label map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from netspec import schema
from netspec.check.report import Report, State, Wanted, problems_of
from netspec.check.shapes import shaped_net
from netspec.check.states import check_net
from netspec.errors import NetspecError, Problem, SpecError, nearest
from netspec.interchange.targets import rejected, target_called
from netspec.net.reading import foreign, refused
from netspec.net.reading import warnings as unknown_warnings
from netspec.run.experiment import find_file, idle_stages
from netspec.schema.forks import dialects
from netspec.schema.spec import TEST, TRAIN
from netspec.solver import Solver

KINDS = {"LabelMap": "label map"}


def check(
    path: str | Path,
    strict: bool = False,
    run: bool = False,
    dialect: str = "",
    weights: str | Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    reader: str = "",
) -> Report:
    """Check one file.

    strict: every unknown field is a problem; by default it is a warning, unless it looks like a misspelling.
    run: also walk each net forward on random inputs, and backward where it has a loss.
    dialect: the fork (of `forks.DIALECTS`) of layers whose name several forks use, where their fields do not tell.
    shapes: of inputs whose data is not here, by name.
    weights: a weight file, which must fit the net and which tells the dialect where nothing else does.
    reader: another program that is to read the net (`interchange.targets`): what it would reject is a problem.
    Never raises for a bad file: the report holds the mistakes. Raises SpecError for an unknown reader.
    """
    other = target_called(reader) if reader else None
    report = check_file(path, Wanted(run, dialect, weights, shapes or {}), strict)
    if other is not None and report.ok:
        try:
            report.problems += rejected(shaped_net(path, TEST, shapes=shapes), other)
        except NetspecError as error:
            report.problems += problems_of(error)
    report.warnings = list(dict.fromkeys(report.warnings))  # once, not for each phase
    report.problems = list(dict.fromkeys(report.problems))
    return report


def check_file(path: str | Path, wanted: Wanted, strict: bool = False) -> Report:
    """`check`, for a file that a solver may have named."""
    report = Report(str(path))
    try:
        document = schema.read(path, unknown="keep")
        if is_label_map(document):
            document = schema.parse("LabelMap", document.text, document.file, unknown="keep")
    except NetspecError as error:
        report.problems += problems_of(error)
        return report
    report.kind, report.legacy = KINDS.get(document.kind, document.kind), document.legacy
    if (strange := foreign(document)) is not None:
        report.problems.append(strange)
        return report
    for unknown in document.unknown:
        bad = unknown.problem if strict else refused(unknown)
        report.problems += [bad] if bad is not None else []
    report.warnings += [] if strict else unknown_warnings(document.unknown)
    if document.kind == "solver":
        check_solver(document, report, wanted)
    elif document.kind == "net":
        report.name = document.message.name
        document.message.dialect = wanted.dialect or document.message.dialect
        check_net(document, report, wanted)
        report.dialects = dialects(document.message, document.unknown)
    return report


def is_label_map(document: schema.Document) -> bool:
    """Whether a file that was read as a net is one of SSD's lists of class names."""
    names = {unknown.name for unknown in document.unknown if len(unknown.path) == 1}
    return document.kind == "net" and names == {"item"} and not document.message.ListFields()


def check_solver(document: schema.Document, report: Report, wanted: Wanted) -> None:
    """The solver's nets: those inside it, and those in files beside it or in the working directory."""
    message = document.message
    for name in ("pretraining", "net", "train_net", "test_net"):
        if not isinstance(paths := getattr(message, name), str):
            for i, path in enumerate(paths):
                follow(document, report, path, (name, i), wanted)
        elif paths:
            follow(document, report, paths, (name,), wanted)
    inner = [
        (name, getattr(message, name)) for name in ("net_param", "train_net_param") if message.HasField(name)
    ]
    for name, net in inner:
        report.name = net.name
        check_net(document, report, replace(wanted, states=states_of(message, name)), (name,), net)
    for i, net in enumerate(message.test_net_param):
        states = states_of(message, "test_net_param", i)
        check_net(document, report, replace(wanted, states=states), ("test_net_param", i), net)
    try:
        Solver([], message, at=document.at)
    except SpecError as error:
        report.problems += problems_of(error)
    if report.phases:
        report.warnings += idle_stages(message, report.stages, document.at)
    if not (message.net or message.train_net or inner):
        beside = Path(document.file).with_name(Path(document.file).name.replace("_solver", ""))
        if beside == Path(document.file) or not beside.exists():
            report.problems.append(Problem("the solver names no net (`net:` or `net_param`)", document.at()))


def follow(
    document: schema.Document,
    report: Report,
    path: str,
    field_path: tuple[str | int, ...],
    wanted: Wanted,
) -> None:
    """Check the net file, or the solver of the pretraining, that a solver names."""
    kind = "solver" if field_path == ("pretraining",) else "net"
    file, place = find_file(path, document.file), document.at(*field_path)
    template = Path(document.file).with_name(Path(path).name).with_suffix(".prototmp")
    if file is None and kind == "net" and template.is_file():
        text = f"net file {path!r} is not here; netspec render makes it from the template {template.name} beside it"
        report.warnings.append(Problem(text, place))
        report.needs.append(path)
        return
    if file is None:
        report.problems.append(
            Problem(f"{kind} file {path!r} is not here{near_file(path, document.file)}", place)
        )
        report.needs.append(path)
        return
    above = (*wanted.above, Path(document.file).resolve())
    if kind == "solver" and file.resolve() in above:
        report.problems.append(Problem(f"solver file {path!r} leads back to itself", place))
        return
    if kind == "net" and is_solver(file):
        report.problems.append(Problem(f"net file {path!r} is a solver", place))
        return
    # A run's weights need not be those of the run before it.
    weights = None if kind == "solver" else wanted.weights
    states = () if kind == "solver" else states_of(document.message, *field_path)
    inner = check_file(file, replace(wanted, weights=weights, above=above, states=states))
    report.dialects = list(dict.fromkeys((*report.dialects, *inner.dialects)))
    report.problems += inner.problems
    report.warnings += inner.warnings
    report.needs += inner.needs
    report.phases |= inner.phases
    report.name = inner.name
    report.stages += [] if kind == "solver" else inner.stages


def near_file(path: str, beside: str) -> str:
    """A hint at the file beside the spec whose name is nearest to the missing one."""
    try:
        names = [entry.name for entry in Path(beside).parent.iterdir() if entry.is_file()]
    except OSError:
        return ""
    near = nearest(Path(path).name, names, cutoff=0.8)
    return f"; did you mean {near!r}?" if near else ""


def states_of(solver: Any, name: str | int, index: str | int = 0) -> tuple[State, ...]:
    """The states in which a solver runs the net of one of its fields; only those with stages."""
    inner, named = len(solver.test_net_param), len(solver.test_net)
    train, tests = (
        (TRAIN, tuple(solver.train_state.stage)),
        [(TEST, tuple(s.stage)) for s in solver.test_state],
    )
    first = int(index) + (inner if name == "test_net" else 0)
    states = {
        "train_net": [train],
        "train_net_param": [train],
        "net": [train, *tests[inner + named :]],
        "net_param": [train, *tests[inner + named :]],
    }.get(str(name), tests[first : first + 1])
    return tuple(dict.fromkeys(state for state in states if state[1]))


def is_solver(path: Path) -> bool:
    """Whether a file that can be read is a solver."""
    try:
        return schema.read(path, unknown="keep").kind == "solver"
    except NetspecError:
        return False
