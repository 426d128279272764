"""`netspec check`: read, compile and shape spec files, run nothing that trains; say what each needs and lacks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from netspec import assume, experiment, schema, spec, trial
from netspec.data.catalogue import KNOWN
from netspec.data.datasets import lack
from netspec.errors import DataError, NetspecError, Position, Problem, SpecError
from netspec.experiment import find_file
from netspec.graph import Graph, Step, compile, unknown_type
from netspec.layers import registry
from netspec.layers.base import Shape
from netspec.layers.python_layer import Python
from netspec.net import Net, build
from netspec.schema.forks import FORK_FIELDS, dialects
from netspec.solver import Solver

PHASES = (spec.TRAIN, spec.TEST)
SLIP = 0.84
"""From this likeness (difflib's ratio) on, an unknown field is a valid one misspelt, not one of another fork."""


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
    """Forks whose layers or fields a net has, else BVLC."""
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For each phase with layers: layers, parameters, inputs and outputs with shapes; assumed input shapes."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    """Files and modules that the net refers to and that are not here."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [
            f"{self.file}: {'ok' if self.ok else 'not ok'}: {self.kind or 'not read'} {self.name}".rstrip()
        ]
        if self.legacy:
            lines.append(f"  old syntax, upgraded on reading: {', '.join(self.legacy)}")
        if self.dialects not in ([], ["BVLC"]):
            lines.append(f"  for the Caffe of {', '.join(self.dialects)}")
        for phase, found in self.phases.items():
            size = "shapes unknown" if found["parameters"] is None else f"{found['parameters']:,} parameters"
            lines.append(f"  {phase}: {found['layers']} layers, {size}")
            for name, shape in found["assumed"].items():
                lines.append(f"    assumed {name} {tuple(shape)}, as its source is not here")
            if "run" in found:
                lines.append(f"    ran {found['run']}")
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found["ok"] = self.ok
        for name in ("problems", "warnings"):
            found[name] = [problem_json(problem) for problem in found[name]]
        return found


def problem_json(problem: Problem) -> dict[str, Any]:
    place = problem.position
    return {
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "message": problem.message,
    }


def check(path: str | Path, strict: bool = False, run: bool = False, dialect: str = "") -> Report:
    """Check one file.

    strict: every field that the schema does not know is a problem (else a warning, unless it looks like a slip).
    run: also walk each net forward on random inputs, and backward where it has a loss.
    dialect: whose layers those are that forks give one name, where their fields do not tell (`forks.DIALECTS`).
    Never raises for a bad file: what is wrong stands in the report.
    """
    report = Report(str(path))
    try:
        document = schema.read(path, unknown="keep")
        if is_label_map(document):
            document = schema.parse("LabelMap", document.text, document.file, unknown="keep")
    except NetspecError as error:
        report.problems += problems_of(error)
        return report
    report.kind, report.legacy = KINDS.get(document.kind, document.kind), document.legacy
    if document.unknown and not document.message.ListFields():
        names = list(dict.fromkeys(unknown.name for unknown in document.unknown if len(unknown.path) == 1))
        text = f"no field of a net or a solver is in this file, but {', '.join(map(repr, names[:4]))}"
        report.problems.append(Problem(f"{text}: is it a file of Caffe?", document.unknown[0].position))
        return report
    for unknown in document.unknown:
        (report.problems if strict or is_slip(unknown) else report.warnings).append(unknown.problem)
    if document.kind == "solver":
        check_solver(document, report, run, dialect)
    elif document.kind == "net":
        report.name = document.message.name
        document.message.dialect = dialect or document.message.dialect
        report.dialects = dialects(document.message, document.unknown)
        check_net(document, report, run)
    return report


KINDS = {"LabelMap": "label map"}


def is_label_map(document: schema.Document) -> bool:
    """Whether it was read as a net, but is one of SSD's lists of class names."""
    names = {unknown.name for unknown in document.unknown if len(unknown.path) == 1}
    return document.kind == "net" and names == {"item"} and not document.message.ListFields()


def is_slip(unknown: schema.UnknownField) -> bool:
    """Whether an unknown field of a layer that netspec knows is so like a valid one that it must be a misspelling."""
    if unknown.name in FORK_FIELDS.get(unknown.owner, {}):
        return False
    if unknown.nearest is None or (unknown.layer_type is not None and unknown.layer_type not in registry):
        return False
    return SequenceMatcher(None, unknown.name, unknown.nearest).ratio() >= SLIP


def problems_of(error: NetspecError) -> list[Problem]:
    return list(error.problems) if isinstance(error, SpecError) else [Problem(str(error))]


def check_solver(document: schema.Document, report: Report, run: bool, dialect: str = "") -> None:
    """The solver's nets: those inside it, and those in files beside it or in the working directory."""
    message = document.message
    for name in ("pretraining", "net", "train_net", "test_net"):
        if not isinstance(paths := getattr(message, name), str):
            for i, path in enumerate(paths):
                follow(document, report, path, (name, i), run, dialect)
        elif paths:
            follow(document, report, paths, (name,), run, dialect)
    inner = [
        (name, getattr(message, name)) for name in ("net_param", "train_net_param") if message.HasField(name)
    ]
    for name, net in inner:
        report.name = net.name
        check_net(document, report, run, (name,), net)
    for i, net in enumerate(message.test_net_param):
        check_net(document, report, run, ("test_net_param", i), net)
    try:
        Solver([], message, at=document.at)
    except SpecError as error:
        report.problems += problems_of(error)
    if not (message.net or message.train_net or inner):
        beside = Path(document.file).with_name(Path(document.file).name.replace("_solver", ""))
        if beside == Path(document.file) or not beside.exists():
            report.problems.append(Problem("the solver names no net (`net:` or `net_param`)", document.at()))


def follow(
    document: schema.Document,
    report: Report,
    path: str,
    field_path: tuple[str | int, ...],
    run: bool,
    dialect: str = "",
) -> None:
    """Check the net file, or the solver of the pretraining, that a solver names."""
    found = find_file(path, document.file)
    if found is None:
        kind = "solver" if field_path == ("pretraining",) else "net"
        report.warnings.append(Problem(f"{kind} file {path!r} is not here", document.at(*field_path)))
        report.needs.append(path)
        return
    inner = check(found, run=run, dialect=dialect)
    report.dialects = list(dict.fromkeys((*report.dialects, *inner.dialects)))
    report.problems += inner.problems
    report.warnings += inner.warnings
    report.needs += inner.needs
    report.phases |= inner.phases
    report.name = inner.name


def check_net(
    document: schema.Document,
    report: Report,
    run: bool,
    path: tuple[str | int, ...] = (),
    message: Any = None,
) -> None:
    """Compile and shape every phase in which the net has layers, and where that is not enough every stage."""
    root = document.message if message is None else message
    if not root.layer:
        report.problems.append(Problem("the net has no layers", document.at(*path)))
        return
    found: dict[State, list[Problem]] = {}
    for phase in PHASES:
        check_state(document, report, run, path, message, (phase, ()), found)
    if found and not all(state[0] in report.phases for state in found):
        for stage in stages(root):
            for phase in PHASES:
                check_state(document, report, run, path, message, (phase, (stage,)), found)
    tops = {top for layer in root.layer for top in layer.top}
    partial = {state: all(made_elsewhere(p, tops) for p in problems) for state, problems in found.items()}
    whole = bool(report.phases) or not all(partial.values())
    for state, problems in found.items():
        if partial[state] and whole:
            text = f"is not for {told(state)}, where {problems[0].message}"
            report.warnings.append(Problem(text, problems[0].position))
            continue
        known = set(map(str, report.problems))
        for problem in problems:
            # What only this state lacks matters less than what is wrong with the net.
            elsewhere = made_elsewhere(problem, tops) and any(
                problem not in other for other in found.values()
            )
            if str(problem) not in known and not (whole and elsewhere):
                report.problems.append(problem)


State = tuple[str, tuple[str, ...]]
"""A phase and the stages that are set."""


def told(state: State) -> str:
    phase, names = state
    return f"phase {phase}" + (f" with stage {', '.join(names)}" if names else "")


def stages(net: Any) -> list[str]:
    """The stages that the rules of a net's layers mention."""
    rules = [rule for layer in net.layer for rule in (*layer.include, *layer.exclude)]
    return list(dict.fromkeys(stage for rule in rules for stage in (*rule.stage, *rule.not_stage)))


def check_state(
    document: schema.Document,
    report: Report,
    run: bool,
    path: tuple[str | int, ...],
    message: Any,
    state: State,
    found: dict[State, list[Problem]],
) -> None:
    """Compile and shape the net in one state; its problems go to `found`."""
    phase, names = state
    try:
        net_spec = spec.net(document, phase, names, path=path, message=message)
        if names and any(net_spec.layers == spec.net(document, *seen, path=path, message=message).layers
                         for seen in found):  # fmt: skip
            return
        if net_spec.layers:
            net_spec, absent = with_stand_ins(net_spec, report)
            if absent:
                found[state] = absent
            key = " ".join((phase, *names))
            graph = compile(net_spec)
            report.phases[key] = check_phase(graph, report, run, {problem.position for problem in absent})
    except NetspecError as error:
        found[state] = found.get(state, []) + problems_of(error)


def made_elsewhere(problem: Problem, tops: Collection[str]) -> bool:
    """Whether it is that a bottom is missing which layers of another phase make: the file is for that phase alone."""
    found = re.search("bottom '(.*)' is made by no earlier layer", problem.message)
    return found is not None and found[1] in tops


def with_stand_ins(net_spec: spec.NetSpec, report: Report) -> tuple[spec.NetSpec, list[Problem]]:
    """The net with inputs in place of layers that feed it and cannot be made here; what is wrong with those.

    A loss whose gains are in a file that is not here is weighed alike for all classes, and the report warns.
    """
    layers, problems = [], []
    for layer in net_spec.layers:
        problem = cannot_be_made(layer, net_spec.phase)
        gains = layer.message.infogain_loss_param.source
        if layer.type == "InfogainLoss" and len(layer.bottoms) == 2 and gains and not Path(gains).exists():
            warning = layer.problem(f"gains file {gains!r} is not here", "infogain_loss_param", "source")
            if gains not in report.needs:
                report.needs.append(gains)
                report.warnings.append(warning)
            layer = dataclasses.replace(layer, type="SoftmaxWithLoss")
        if problem is not None:
            problems.append(problem)
        if problem is not None and not layer.bottoms and layer.tops:
            fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
            layer = StandIn(**{**fields, "type": "Input"})
        layers.append(layer)
    return dataclasses.replace(net_spec, layers=tuple(layers)), problems


def cannot_be_made(layer: spec.LayerSpec, phase: str) -> Problem | None:
    """What is wrong with a layer whose type or module is not here, where that alone is the mistake."""
    if layer.type not in registry and not layer.bottoms:
        return unknown_type(layer)
    if layer.type == "Python":
        try:
            Python(layer, layer.phase(phase)).make()
        except SpecError as error:
            return error.problems[0]
    return None


class StandIn(spec.LayerSpec):
    """An input in place of a layer that cannot be made here, with that layer's message."""


def check_phase(
    graph: Graph, report: Report, run: bool, known: Collection[Position | None] = ()
) -> dict[str, Any]:
    """What is in one phase. `known` are the places of mistakes that are reported already."""
    net, assumed = shaped(graph, report, known)
    if net is None:
        return {"layers": len(graph.steps), "parameters": None, "inputs": {}, "outputs": {}, "assumed": {}}
    result: dict[str, Any] = {
        "layers": len(graph.steps),
        "parameters": sum(param.value.numel() for param in net.params),
        "inputs": {graph.name(slot): list(net.shapes[slot]) for slot in graph.inputs},
        "outputs": {graph.name(slot): list(net.shapes[slot]) for slot in graph.outputs},
        "assumed": {name: list(shape) for name, shape in assumed.items()},
    }
    if run:
        result["run"] = trial.try_out(graph, trial.small(graph, assumed))
    return result


def shaped(
    graph: Graph, report: Report, known: Collection[Position | None] = ()
) -> tuple[Net | None, dict[str, Shape]]:
    """The net on the meta device. Where a data source is not here, shapes that the net accepts are assumed.

    None in place of the net where none of the assumptions fits, which the report then says, or where mistakes
    at `known` places are all that hinders.
    """
    open_steps = []
    for step in graph.steps:
        if not step.kind.is_source:
            continue
        if isinstance(step.layer, StandIn):
            open_steps.append(step)
            continue
        if step.layer.type == "Dataset":
            warn_of_absence(step, report)
        try:
            step.kind(step.layer, step.layer.phase(graph.spec.phase)).source_shapes()
        except (DataError, SpecError) as error:
            if isinstance(error, SpecError) and has_source(step):
                raise
            open_steps.append(step)
            missing = step.layer.problem(str(error).rpartition(f"{step.layer}: ")[2])
            if str(missing) not in map(str, report.warnings):
                report.warnings.append(missing)
                report.needs.append(source_of(step))
    first: SpecError | None = None
    for size in assume.sizes(graph):
        shapes = assume.input_shapes(graph, open_steps, size)
        try:
            return build(graph, device="meta", input_shapes=shapes), shapes
        except SpecError as error:
            if all(problem.position in known for problem in error.problems):
                return None, shapes
            if not open_steps:
                raise
            first = first or error
    for problem in first.problems if first else ():
        report.warnings.append(
            Problem(f"with assumed shapes of its missing data: {problem.message}", problem.position)
        )
    return None, {}


def shaped_net(
    path: str | Path, phase: str = spec.TRAIN, stages: Collection[str] = (), level: int | None = None
) -> Net:
    """The net of a file, of the net a solver file names, or of a run folder, with its shapes and no memory allocated.

    stages, level: of the net's state; for a solver file beside and in place of what it says itself.
    Raises SpecError for what is wrong with it, and where the phase has no layers.
    """
    path = Path(path) / "net.prototxt" if Path(path).is_dir() else Path(path)
    phase = phase.upper()
    if phase not in PHASES:
        raise SpecError(f"no phase {phase!r}; there are {', '.join(PHASES)}")
    document = schema.read(path)
    if document.kind == "solver":
        plan = experiment.load(document, stages=stages, level=level)
        net_spec = plan.train if phase == spec.TRAIN or not plan.tests else plan.tests[0].spec
    else:
        net_spec = spec.net(document, phase, stages, level or 0)
    if not net_spec.layers:
        raise SpecError(f"{path}: no layer takes part in phase {phase}")
    report = Report(str(path))
    net, _ = shaped(compile(net_spec), report)
    if net is None:
        raise SpecError(report.warnings)
    return net


def warn_of_absence(step: Step, report: Report) -> None:
    """Warn where a named data set, whose shape is known anyway, is not on this machine."""
    name = step.layer.message.dataset_param.name
    if name not in KNOWN or name in report.needs or not (found := lack(name)):
        return
    report.needs.append(name)
    report.warnings.append(step.layer.problem(found, "dataset_param", "name"))


def has_source(step: Step) -> bool:
    """Whether the parameters of a data layer say where its data is."""
    found = [value for field, value in step.layer.message.ListFields() if field.name.endswith("data_param")]
    return bool(found) and all(getattr(value, "source", True) for value in found)


def source_of(step: Step) -> str:
    """The file that a data layer reads."""
    for descriptor, value in step.layer.message.ListFields():
        if descriptor.name.endswith("_param") and hasattr(value, "source") and value.source:
            return str(value.source)
    return step.layer.name
