"""Shapes of one phase on the meta device, with assumed ones for data that is not on this machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from netspec import schema
from netspec.check import assume, trial
from netspec.check.report import Report, Wanted
from netspec.check.stand_ins import StandIn, tell
from netspec.check.whole import whole_sizes
from netspec.errors import DataError, Position, Problem, SnapshotError, SpecError
from netspec.interchange import load_weights
from netspec.layers import consent
from netspec.layers.base import Shape
from netspec.net.graph import Graph, Step, compile
from netspec.net.net import Net, build
from netspec.run import experiment
from netspec.schema import spec

PHASES = (spec.TRAIN, spec.TEST)


def check_phase(
    graph: Graph, report: Report, wanted: Wanted, known: Collection[Position | None] = ()
) -> dict[str, Any]:
    """What is in one phase. `known` are the places of mistakes that are reported already."""
    net, assumed = shaped(graph, report, known)
    whole = net is not None and all(map(net.is_known, range(len(graph.slots))))
    if net is None:
        return {"layers": len(graph.steps), "parameters": None, "inputs": {}, "outputs": {}, "assumed": {}}
    result: dict[str, Any] = {
        "layers": len(graph.steps),
        "parameters": sum(param.value.numel() for param in net.params) if whole else None,
        "inputs": shapes_of(net, graph.inputs),
        "outputs": shapes_of(net, graph.outputs),
        "assumed": {name: list(shape) for name, shape in assumed.items()},
    }
    if not whole:
        if wanted.weights is not None or wanted.run:
            text = "with shapes unknown the net is not run, nor are weights compared"
            if text not in [warning.message for warning in report.warnings]:
                report.warnings.append(Problem(text))
        return result
    if wanted.weights is not None:
        missing, unused = load_weights(net, wanted.weights)  # on the meta device: shapes alone
        taken = len(net.params) - len(missing)
        result["weights"] = {"taken": taken, "missing": missing, "unused": unused}
        if not taken and net.params:
            text = f"{wanted.weights}: has no blob of this net; its first is {next(iter(unused), 'none')!r}"
            raise SnapshotError(text)
    if wanted.run:
        result["run"] = trial.try_out(graph, trial.small(graph, assumed))
    return result


def shapes_of(net: Net, slots: Sequence[int]) -> dict[str, list[int] | None]:
    """Shapes of blobs by name, None where they are unknown."""
    return {net.graph.name(slot): list(net.shapes[slot]) if net.is_known(slot) else None for slot in slots}


@consent.withheld()
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
        if (lack := step.kind.lacking(step.layer)) is not None:
            tell(lack, report)
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
    for size in chain(assume.sizes(graph), whole_sizes(graph, open_steps)):
        shapes = assume.input_shapes(graph, open_steps, size)
        try:
            return build(graph, device="meta", input_shapes=shapes, unknown=[]), shapes
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
