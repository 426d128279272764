"""Shapes of one phase on the meta device; shapes of data that is not on this machine are assumed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from netspec.check import assume, guesses, trial
from netspec.check.report import Report, Wanted
from netspec.check.stand_ins import StandIn, tell
from netspec.check.whole import whole_sizes
from netspec.errors import DataError, Position, Problem, SnapshotError, SpecError, did_you_mean
from netspec.interchange import load_weights
from netspec.layers import consent
from netspec.layers.base import Shape
from netspec.net import reading
from netspec.net.graph import Graph, Step, compile, kind_of, unknown_type
from netspec.net.net import Net, build
from netspec.run import experiment
from netspec.schema import spec

log = logging.getLogger("netspec")
PHASES = (spec.TRAIN, spec.TEST)


def check_phase(
    graph: Graph, report: Report, wanted: Wanted, known: Collection[Position | None] = ()
) -> dict[str, Any]:
    """The report on one phase. `known`: places of mistakes that are reported already."""
    net, assumed, told = shaped(graph, report, known, wanted.shapes)
    whole = net is not None and all(map(net.is_known, range(len(graph.slots))))
    if net is None:
        return {"layers": len(graph.steps), "parameters": None, "inputs": {}, "outputs": {}, "assumed": {}}
    result: dict[str, Any] = {
        "layers": len(graph.steps),
        "parameters": guesses.parameters(net) if whole and told else None,
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
    graph: Graph,
    report: Report,
    known: Collection[Position | None] = (),
    shapes: Mapping[str, Shape] | None = None,
) -> tuple[Net | None, dict[str, Shape], bool]:
    """(the net on the meta device, the shapes assumed for absent data, whether the number of parameters is certain with
    them).

    shapes: shapes of inputs by name, in place of what their layers say.
    The net is None where no assumption fits, which the report then says, and where only mistakes at `known` places are
    in the way. Raises SpecError for mistakes that do not depend on the absent data.
    """
    given = given_shapes(graph, shapes or {})
    steps = [
        step
        for step in open_steps(graph, report)
        if not all(graph.name(slot) in given for slot in step.writes)
    ]
    if not steps:
        try:
            return build(graph, device="meta", input_shapes=given, unknown=[]), {}, True
        except SpecError as error:
            if all(problem.position in known for problem in error.problems):
                return None, {}, True
            raise
    tried: list[tuple[dict[str, Shape], SpecError]] = []
    for size in chain(guesses.sizes(graph, steps), whole_sizes(graph, steps)):
        assumed = assume.input_shapes(graph, steps, size, given=given)
        if any(assumed == other for other, _ in tried):
            continue
        try:
            net = build(graph, device="meta", input_shapes={**given, **assumed}, unknown=[])
        except SpecError as error:
            if all(problem.position in known for problem in error.problems):
                return None, assumed, False
            tried.append((assumed, error))
            continue
        return net, assumed, guesses.is_told(graph, steps, assumed, net, given)
    if lasting := guesses.lasting(graph, [({**given, **assumed}, error) for assumed, error in tried]):
        raise SpecError(lasting)
    for problem in tried[0][1].problems if tried else ():
        text = f"with assumed shapes of its missing data: {problem.message}; say the right one: {offered(graph, steps)}"
        report.warnings.append(Problem(text, problem.position))
    return None, {}, False


def given_shapes(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The given shapes; SpecError where one is of no input of the graph."""
    inputs = [graph.name(slot) for slot in graph.inputs]
    for name in shapes:
        if name not in inputs:
            known = f"; its inputs are {', '.join(inputs)}" if inputs else "; it has none"
            raise SpecError(f"the net has no input {name!r}{did_you_mean(name, inputs)}{known}")
    return dict(shapes)


def offered(graph: Graph, steps: Sequence[Step]) -> str:
    """The option that gives the shape of the first input whose data is not here."""
    return f"--shape {graph.name(steps[0].writes[0])}=1,3,224,224" if steps else ""


def open_steps(graph: Graph, report: Report) -> list[Step]:
    """Steps that feed the net from data that is not here; the report says so."""
    steps = []
    for step in graph.steps:
        if not step.kind.is_source:
            continue
        if isinstance(step.layer, StandIn):
            steps.append(step)
            continue
        if (lack := step.kind.lacking(step.layer)) is not None:
            tell(lack, report)
        try:
            step.kind(step.layer, step.layer.phase(graph.spec.phase)).source_shapes()
        except (DataError, SpecError) as error:
            if isinstance(error, SpecError) and has_source(step):
                raise
            steps.append(step)
            missing = step.layer.problem(str(error).rpartition(f"{step.layer}: ")[2])
            if str(missing) not in map(str, report.warnings):
                report.warnings.append(missing)
                report.needs.append(source_of(step))
    return steps


def shaped_net(
    path: str | Path,
    phase: str = spec.TRAIN,
    stages: Collection[str] = (),
    level: int | None = None,
    shapes: Mapping[str, Shape] | None = None,
) -> Net:
    """The net of a file, of the net a solver file names, or of a run folder, with its shapes and no memory allocated.

    stages, level: of the net's state; with a solver file, added to its stages and in place of its level. shapes: of
    inputs whose data is not here; by default the function assumes shapes that the net accepts, and logs them. Raises
    SpecError for mistakes of the net, and for a phase without layers.
    """
    return shaped_of(path, read_phase(path, phase, stages, level), shapes)


def drawable(
    path: str | Path,
    phase: str = spec.TRAIN,
    stages: Collection[str] = (),
    level: int | None = None,
    shapes: Mapping[str, Shape] | None = None,
) -> tuple[Net | spec.NetSpec, list[Problem]]:
    """What `shaped_net` gives; of a net with layers of unknown types the net as written, and a problem for each.

    Raises SpecError for whatever else is wrong with it.
    """
    net_spec = read_phase(path, phase, stages, level)
    unknown = [unknown_type(layer) for layer in net_spec.layers if kind_of(layer) is None]
    try:
        return shaped_of(path, net_spec, shapes), []
    except SpecError as error:
        if not unknown or {str(problem) for problem in error.problems} - {
            str(problem) for problem in unknown
        }:
            raise
        return net_spec, unknown


def read_phase(path: str | Path, phase: str, stages: Collection[str], level: int | None) -> spec.NetSpec:
    """The layers that take part in a phase of a file's net."""
    path = Path(path) / "net.prototxt" if Path(path).is_dir() else Path(path)
    phase = phase.upper()
    if phase not in PHASES:
        raise SpecError(f"no phase {phase!r}; there are {', '.join(PHASES)}")
    document = reading.read(path)
    if document.kind == "solver":
        plan = experiment.load(document, stages=stages, level=level)
        net_spec = plan.train if phase == spec.TRAIN or not plan.tests else plan.tests[0].spec
    else:
        net_spec = spec.net(document, phase, stages, level or 0)
    if not net_spec.layers:
        raise SpecError(f"{path}: no layer takes part in phase {phase}")
    return net_spec


def shaped_of(path: str | Path, net_spec: spec.NetSpec, shapes: Mapping[str, Shape] | None) -> Net:
    """The net on the meta device, the shapes of absent data assumed, which is logged."""
    report = Report(str(path))
    net, assumed, told = shaped(compile(net_spec), report, shapes=shapes)
    if net is None:
        raise SpecError(report.warnings)
    if assumed and not told:
        name, shape = next(iter(assumed.items()))
        size = ",".join(map(str, shape))
        log.warning(
            "%s: the data is not here; the table is for --shape %s=%s, which is only assumed",
            path,
            name,
            size,
        )
    return net


def has_source(step: Step) -> bool:
    """Whether a data layer names the source of its data."""
    fields = step.layer.message.ListFields()
    if any(field.name == "dataset_param" for field, _ in fields):
        return True
    params = [value for field, value in fields if field.name.endswith("data_param")]
    return bool(params) and all(getattr(value, "source", True) for value in params)


def source_of(step: Step) -> str:
    """The file that a data layer reads."""
    for descriptor, value in step.layer.message.ListFields():
        if descriptor.name.endswith("_param") and hasattr(value, "source") and value.source:
            return str(value.source)
    return step.layer.name
