"""`netspec check`: read, compile and shape spec files, run nothing that trains; say what each needs and lacks."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch

from netspec import experiment, schema, spec
from netspec.data.catalogue import KNOWN
from netspec.data.datasets import lack
from netspec.errors import DataError, NetspecError, Problem, SpecError
from netspec.experiment import find_file
from netspec.graph import Graph, Step, compile
from netspec.layers import registry
from netspec.layers.base import Shape
from netspec.net import Net, build

PHASES = (spec.TRAIN, spec.TEST)
SLIP = 0.84
"""From this likeness (difflib's ratio) on, an unknown field is a valid one misspelt, not one of another fork."""


@dataclass
class Report:
    """What was found in one file. `ok` when nothing stands in `problems`."""

    file: str
    kind: str = ""
    """"net" or "solver"."""
    name: str = ""
    legacy: tuple[str, ...] = ()
    """Old syntaxes that were upgraded on reading."""
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


def check(path: str | Path, strict: bool = False, run: bool = False) -> Report:
    """Check one file.

    strict: every field that the schema does not know is a problem (else a warning, unless it looks like a slip).
    run: also walk each net forward on random inputs, and backward where it has a loss.
    Never raises for a bad file: what is wrong stands in the report.
    """
    report = Report(str(path))
    try:
        document = schema.read(path, unknown="keep")
    except NetspecError as error:
        report.problems += problems_of(error)
        return report
    report.kind, report.legacy = document.kind, document.legacy
    for unknown in document.unknown:
        (report.problems if strict or is_slip(unknown) else report.warnings).append(unknown.problem)
    if document.kind == "solver":
        check_solver(document, report, run)
    else:
        report.name = document.message.name
        check_net(document, report, run)
    return report


def is_slip(unknown: schema.UnknownField) -> bool:
    """Whether an unknown field of a layer that netspec knows is so like a valid one that it must be a misspelling."""
    if unknown.nearest is None or (unknown.layer_type is not None and unknown.layer_type not in registry):
        return False
    return SequenceMatcher(None, unknown.name, unknown.nearest).ratio() >= SLIP


def problems_of(error: NetspecError) -> list[Problem]:
    return list(error.problems) if isinstance(error, SpecError) else [Problem(str(error))]


def check_solver(document: schema.Document, report: Report, run: bool) -> None:
    """The solver's nets: those inside it, and those in files beside it or in the working directory."""
    message = document.message
    for name in ("net", "train_net", "test_net"):
        if not isinstance(paths := getattr(message, name), str):
            for i, path in enumerate(paths):
                follow(document, report, path, (name, i), run)
        elif paths:
            follow(document, report, paths, (name,), run)
    inner = [
        (name, getattr(message, name)) for name in ("net_param", "train_net_param") if message.HasField(name)
    ]
    for name, net in inner:
        report.name = net.name
        check_net(document, report, run, (name,), net)
    for i, net in enumerate(message.test_net_param):
        check_net(document, report, run, ("test_net_param", i), net)
    if not (message.net or message.train_net or inner):
        beside = Path(document.file).with_name(Path(document.file).name.replace("_solver", ""))
        if beside == Path(document.file) or not beside.exists():
            report.problems.append(Problem("the solver names no net (`net:` or `net_param`)", document.at()))


def follow(
    document: schema.Document, report: Report, path: str, field_path: tuple[str | int, ...], run: bool
) -> None:
    """Check the net file that a solver names."""
    found = find_file(path, document.file)
    if found is None:
        report.warnings.append(Problem(f"net file {path!r} is not here", document.at(*field_path)))
        report.needs.append(path)
        return
    inner = check(found, run=run)
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
    """Compile and shape every phase in which the net has layers."""
    found: dict[str, list[Problem]] = {}
    for phase in PHASES:
        try:
            net_spec = spec.net(document, phase, path=path, message=message)
            if net_spec.layers:
                report.phases[phase] = check_phase(compile(net_spec), report, run)
        except NetspecError as error:
            found[phase] = problems_of(error)
    tops = {top for layer in (document.message if message is None else message).layer for top in layer.top}
    for phase, problems in found.items():
        if report.phases and all(made_elsewhere(problem, tops) for problem in problems):
            text = f"is not for phase {phase}, where {problems[0].message}"
            report.warnings.append(Problem(text, problems[0].position))
            continue
        known = set(map(str, report.problems))
        report.problems += [problem for problem in problems if str(problem) not in known]


def made_elsewhere(problem: Problem, tops: Collection[str]) -> bool:
    """Whether it is that a bottom is missing which layers of another phase make: the file is for that phase alone."""
    found = re.search("bottom '(.*)' is made by no earlier layer", problem.message)
    return found is not None and found[1] in tops


def check_phase(graph: Graph, report: Report, run: bool) -> dict[str, Any]:
    net, assumed = shaped(graph, report)
    if net is None:
        return {"layers": len(graph.steps), "parameters": None, "inputs": {}, "outputs": {}, "assumed": {}}
    result = {
        "layers": len(graph.steps),
        "parameters": sum(param.value.numel() for param in net.params),
        "inputs": {graph.name(slot): list(net.shapes[slot]) for slot in graph.inputs},
        "outputs": {graph.name(slot): list(net.shapes[slot]) for slot in graph.outputs},
        "assumed": {name: list(shape) for name, shape in assumed.items()},
    }
    if run:
        result["run"] = try_out(graph, assumed)
    return result


def shaped(graph: Graph, report: Report) -> tuple[Net | None, dict[str, Shape]]:
    """The net on the meta device. Where a data source is not here, shapes that the net accepts are assumed.

    None in place of the net where none of the assumptions fits; the report then warns.
    """
    open_steps = []
    for step in graph.steps:
        if step.kind.is_source:
            if step.layer.type == "Dataset":
                warn_of_absence(step, report)
            try:
                step.kind(step.layer, step.layer.phase(graph.spec.phase)).source_shapes()
            except DataError as error:
                open_steps.append(step)
                missing = step.layer.problem(str(error).rpartition(f"{step.layer}: ")[2])
                if str(missing) not in map(str, report.warnings):
                    report.warnings.append(missing)
                    report.needs.append(source_of(step))
    if not open_steps:
        return build(graph, device="meta"), {}
    first: SpecError | None = None
    for shapes in itertools.islice(guesses(graph, open_steps), 64):
        try:
            return build(graph, device="meta", input_shapes=shapes), shapes
        except SpecError as error:
            first = first or error
    for problem in first.problems if first else ():
        report.warnings.append(
            Problem(f"with assumed shapes of its missing data: {problem.message}", problem.position)
        )
    return None, {}


def warn_of_absence(step: Step, report: Report) -> None:
    """Warn where a named data set, whose shape is known anyway, is not on this machine."""
    name = step.layer.message.dataset_param.name
    if name not in KNOWN or name in report.needs or not (found := lack(name)):
        return
    report.needs.append(name)
    report.warnings.append(step.layer.problem(found, "dataset_param", "name"))


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


def source_of(step: Step) -> str:
    """The file that a data layer reads."""
    for descriptor, value in step.layer.message.ListFields():
        if descriptor.name.endswith("_param") and hasattr(value, "source") and value.source:
            return str(value.source)
    return step.layer.name


SIZES = ((3, 224, 224), (1, 28, 28), (3, 227, 227), (3, 32, 32), (3, 256, 256), (3, 300, 300), (3, 512, 512))
"""Image shapes to try where a data source is missing and its layer does not tell: the commonest first."""


def guesses(graph: Graph, steps: Iterable[Step]) -> Iterator[dict[str, Shape]]:
    """Shapes of the tops of data layers whose files are missing."""
    for size in (*hinted(graph), *SIZES):
        for label in ("scalar", "column", "image", "like"):
            shapes: dict[str, Shape] = {}
            for step in steps:
                shapes |= guess(graph, step, size, label)
            yield shapes


def hinted(graph: Graph) -> list[tuple[int, int, int]]:
    """Image shapes that layers mention: the size that an Upsample or Interp restores."""
    sizes = []
    for step in graph.steps:
        up, interp = step.layer.message.upsample_param, step.layer.message.interp_param
        for height, width in ((up.upsample_h, up.upsample_w), (interp.height, interp.width)):
            if height and width:
                sizes.append((3, height, width))
    return sorted(set(sizes), reverse=True)[:3]


def guess(graph: Graph, step: Step, size: tuple[int, int, int], label: str) -> dict[str, Shape]:
    message = step.layer.message
    transform = message.transform_param
    batch, found = 1, {}
    channels, height, width = size
    if len(transform.mean_value) > 1:
        channels = len(transform.mean_value)
    for descriptor, value in message.ListFields():
        if not descriptor.name.endswith("data_param"):
            continue
        batch = getattr(value, "batch_size", 0) or batch
        if getattr(value, "new_height", 0) and value.new_width:
            height, width = value.new_height, value.new_width
        if not getattr(value, "is_color", True):
            channels = 1
    if transform.force_gray:
        channels = 1
    if transform.resize_param.height and transform.resize_param.width:
        height, width = transform.resize_param.height, transform.resize_param.width
    if transform.crop_size:
        height = width = transform.crop_size
    if step.layer.type == "AnnotatedData":
        rows = batch * message.annotated_data_param.boxes_per_image
        shapes = ((batch, channels, height, width), (1, 1, rows, 8))
        return {graph.name(slot): shape for slot, shape in zip(step.writes, shapes, strict=False)}
    labels = {"scalar": (batch,), "column": (batch, 1), "image": (batch, 1, height, width)}
    for i, slot in enumerate(step.writes):
        image = (batch, channels, height, width)
        found[graph.name(slot)] = image if i == 0 else labels.get(label, image)
    return found


def try_out(graph: Graph, assumed: dict[str, Shape]) -> str:
    """Walk the net on random input: "forward", or "forward and backward" where it has a loss."""
    net = build(graph, seed=0, input_shapes=assumed)
    generator = torch.Generator().manual_seed(0)
    values = [random_input(graph.name(slot), net.shapes[slot], generator) for slot in graph.inputs]
    total = net.objective(net(*values))
    if graph.losses and total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
        return "forward and backward"
    return "forward"


def random_input(name: str, shape: Shape, generator: torch.Generator) -> torch.Tensor:
    """Zeros for what looks like labels or indices (always valid), else standard normal values."""
    if len(shape) < 3 or any(word in name.lower() for word in ("label", "target", "index", "clip", "cont")):
        return torch.zeros(shape)
    return torch.randn(shape, generator=generator)
