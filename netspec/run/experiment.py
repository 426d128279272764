"""Experiment: a solver, the net that it trains and the nets that it tests, wherever the files define them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from netspec import schema
from netspec.errors import Position, Problem, SpecError, did_you_mean
from netspec.interchange.dialects import Source, common_dialect, told
from netspec.net import reading
from netspec.run.settings import override, split
from netspec.schema import Document, spec
from netspec.schema.spec import TEST, TRAIN, NetSpec


@dataclass
class Test:
    """One test net of a solver: its layers, and how many batches a test takes."""

    __test__ = False  # not for pytest

    spec: NetSpec
    iterations: int


@dataclass
class Experiment:
    """What a training run needs to know. `solver` is a SolverParameter with its nets taken out."""

    solver: Any
    train: NetSpec
    tests: list[Test]
    stem: str
    """Name for the run's folder."""
    file: str
    nets: list[Any]
    """The NetParameters that are trained (first) and tested, overrides applied, each once."""
    test_nets: list[int]
    """Which of `nets` each test uses."""
    at: Callable[..., Position | None] = field(default=lambda *path: None)
    """Place of a field of the solver."""
    settings: dict[str, str] = field(default_factory=dict)
    """The settings given with --set, as they were written."""
    warnings: list[Problem] = field(default_factory=list)
    """Remarks on what is allowed but probably not meant."""

    def texts(self) -> dict[str, str]:
        """The experiment as files: solver.prototxt, net.prototxt, and the test nets where they differ from the training
        net.
        """
        solver = copied(self.solver)
        names = ["net.prototxt", *(f"test_net_{i}.prototxt" for i in range(1, len(self.nets)))]
        if len(self.nets) == 1:
            solver.net = names[0]
        else:
            solver.train_net = names[0]
            solver.test_net.extend(names[i] for i in self.test_nets)
        texts = {name: schema.print_text(net) for name, net in zip(names, self.nets, strict=True)}
        return {"solver.prototxt": schema.print_text(solver), **texts}


@dataclass
class _Net:
    """A NetParameter and where it lies."""

    document: Document
    message: Any
    path: tuple[str | int, ...] = ()

    def spec(self, phase: str, state: Any) -> NetSpec:
        return spec.net(self.document, phase, tuple(state.stage), state.level, self.path, self.message)


def load(
    source: str | Path | Document,
    overrides: Mapping[str, str] | Sequence[str] = (),
    solver: Any = None,
    stages: Collection[str] = (),
    level: int | None = None,
) -> Experiment:
    """Read an experiment from a solver file, or a net file with <stem>_solver.prototxt beside it.

    overrides: `field=value` settings of the solver, or `layer.field=value` of a layer (see `overrides`).
    solver: a SolverParameter to use in place of a file (the net then is `source`).
    stages: added to the stages of the solver's train_state and test_state; level: replaces their level.
    Raises SpecError where a file is missing, names no net or names several.
    """
    document = source if isinstance(source, Document) else reading.read(source)
    if document.kind == "solver":
        message, net_document = copied(document.message), None
        solver_document: Document | None = document
    else:
        solver_document = None if solver is not None else read_solver_beside(document)
        message = copied(solver if solver_document is None else solver_document.message)
        net_document = document
    nets = _Nets(message, solver_document, net_document)
    train, tests = nets.train(), nets.tests()
    distinct = {id(net.message): net for net in (train, *tests)}
    override(message, [net.message for net in distinct.values()], overrides)
    at = solver_document.at if solver_document is not None else lambda *path: None
    freeze_named(message, [net.message for net in distinct.values()], at)
    tests = nets.tests()  # a setting may have changed how many there are
    if stages or level is not None:
        enter(message, len(tests), stages, level)
    experiment = Experiment(
        solver=message,
        train=train.spec(TRAIN, message.train_state),
        tests=test_specs(message, tests),
        stem=Path(document.file).stem.removesuffix("_solver") or "net",
        file=document.file,
        nets=[net.message for net in distinct.values()],
        test_nets=[list(distinct).index(id(net.message)) for net in tests],
        at=at,
        settings=dict(overrides.items() if isinstance(overrides, Mapping) else map(split, overrides)),
    )
    known = [stage for net in experiment.nets for stage in stages_of(net)]
    experiment.warnings = idle_stages(message, known, experiment.at)
    for name in ("net", "train_net", "test_net", "net_param", "train_net_param", "test_net_param"):
        message.ClearField(name)
    return experiment


def freeze_named(solver: Any, nets: Sequence[Any], at: Callable[..., Position | None]) -> None:
    """Mark the layers that a solver's `frozen` names; SpecError where a name fits no layer of its nets."""
    layers = [layer for net in nets for layer in net.layer]
    for i, pattern in enumerate(solver.frozen):
        chosen = [layer for layer in layers if fnmatchcase(layer.name, pattern)]
        if not chosen:
            hint = did_you_mean(pattern, {layer.name for layer in layers})
            raise SpecError(f"frozen {pattern!r}: no layer of the net is called so{hint}", at("frozen", i))
        for layer in chosen:
            layer.frozen = True


def stages_of(net: Any) -> list[str]:
    """The stages that the rules of a net's layers name."""
    rules = [rule for layer in net.layer for rule in (*layer.include, *layer.exclude)]
    return list(dict.fromkeys(stage for rule in rules for stage in (*rule.stage, *rule.not_stage)))


def idle_stages(message: Any, known: Collection[str], at: Callable[..., Position | None]) -> list[Problem]:
    """Stages that the solver names and no net uses. Caffe allows them, but a misspelt stage turns its mode off
    unseen.
    """
    states: list[tuple[tuple[str | int, ...], Any]] = [(("train_state",), message.train_state)]
    states += [(("test_state", i), state) for i, state in enumerate(message.test_state)]
    return [
        Problem(
            f"stage {stage!r} changes nothing, as no layer of the net names it{did_you_mean(stage, known)}",
            at(*path, "stage", i),
        )
        for path, state in states
        for i, stage in enumerate(state.stage)
        if stage not in known
    ]


def enter(message: Any, tests: int, stages: Collection[str], level: int | None) -> None:
    """Set stages and level in the state of every net of a solver."""
    while len(message.test_state) < tests:
        message.test_state.add()
    for state in (message.train_state, *message.test_state):
        state.stage.extend(stage for stage in stages if stage not in state.stage)
        if level is not None:
            state.level = level


def copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def read_solver_beside(document: Document) -> Document:
    """The solver file that belongs to a net file by its name."""
    path = Path(document.file)
    beside = path.with_name(f"{path.stem}_solver{path.suffix or '.prototxt'}")
    if not beside.is_file():
        raise SpecError(
            f"{path} is a net; its solver is looked for in {beside}, which is not there; "
            f"netspec new --solver {path} writes one to begin with"
        )
    return reading.read(beside, "solver")


def find_file(name: str, beside: str) -> Path | None:
    """Find a file that a spec names: in the working directory, as Caffe does, then in the spec's own folder.

    A name without a folder is sought beside the spec first: the solver in a run folder means the net in that folder.
    """
    folder, here = Path(beside).parent, Path(name)
    for candidate in (
        *([folder / name] if here.parent == Path() else []),
        here,
        folder / name,
        folder / here.name,
    ):
        if os.path.isfile(candidate):  # false for names that no file can have
            return candidate
    return None


class _Nets:
    """The nets that a solver names (src/caffe/solver.cpp, InitTrainNet and InitTestNets)."""

    def __init__(self, message: Any, solver: Document | None, given: Document | None):
        self.message, self.solver, self.given = message, solver, given
        self.read: dict[str, _Net] = {}

    def fail(self, text: str, *path: str | int) -> SpecError:
        return SpecError(Problem(text, self.solver.at(*path) if self.solver is not None else None))

    def train(self) -> _Net:
        """The one net that the solver trains."""
        if self.given is not None:
            return self.shared()
        m = self.message
        named = [name for name in ("train_net", "train_net_param", "net", "net_param") if m.HasField(name)]
        if not named:
            raise self.fail("the solver names no net: give net, net_param, train_net or train_net_param")
        if len(named) > 1:
            raise self.fail(f"the solver names its net {len(named)} times: {', '.join(named)}", named[1])
        return self.take(named[0], getattr(m, named[0]), named[0])

    def shared(self) -> _Net:
        """The net behind `net` or `net_param`, used for training and testing."""
        if self.given is not None:
            return self.read.setdefault("", _Net(self.given, copied(self.given.message)))
        name = "net" if self.message.HasField("net") else "net_param"
        return self.take(name, getattr(self.message, name), name)

    def take(self, key: str, value: Any, *path: str | int) -> _Net:
        """A net given inline, or the net file of that name; each file is read once."""
        key = value if isinstance(value, str) else key
        if key not in self.read:
            if isinstance(value, str):
                file = find_file(value, self.solver.file if self.solver is not None else "")
                if file is None:
                    raise self.fail(f"net file {value!r} is not there", *path)
                document = reading.read(file, "net")
                self.read[key] = _Net(document, copied(document.message))
            elif self.solver is not None:
                self.read[key] = _Net(self.solver, copied(value), path)
        return self.read[key]

    def tests(self) -> list[_Net]:
        """Each test_net_param, each test_net, then the shared net for the test_iter that are left."""
        m = self.message
        own = [
            self.take(f"test_net_param {i}", net, "test_net_param", i)
            for i, net in enumerate(m.test_net_param)
        ]
        own += [self.take(f"test_net {i}", name, "test_net", i) for i, name in enumerate(m.test_net)]
        counts = len(m.test_iter)
        if any(count < 0 for count in m.test_iter):
            raise self.fail(f"test_iter must be at least 0, found {min(m.test_iter)}", "test_iter")
        if counts < len(own):
            raise self.fail(f"{counts} test_iter values for {len(own)} test nets", "test_iter")
        if counts > len(own):
            if self.given is None and not (m.HasField("net") or m.HasField("net_param")):
                raise self.fail(f"{counts} test_iter values for {len(own)} test nets", "test_iter", len(own))
            own += [self.shared()] * (counts - len(own))
        if len(m.test_state) not in (0, len(own)):
            raise self.fail(f"{len(m.test_state)} test_state entries for {len(own)} test nets", "test_state")
        return own


def test_specs(message: Any, nets: list[_Net]) -> list[Test]:
    """Each test net in its state, with its number of batches; equal nets in equal states are one NetSpec."""
    states = list(message.test_state) or [schema.NetState()] * len(nets)
    specs: dict[tuple[int, bytes], NetSpec] = {}
    tests = []
    for net, state, count in zip(nets, states, message.test_iter, strict=True):
        key = (id(net.message), state.SerializeToString(deterministic=True))
        if key not in specs:
            specs[key] = net.spec(TEST, state)
        tests.append(Test(specs[key], count))
    return tests


def tell(plan: Experiment, weights: Sequence[Source]) -> None:
    """`told` for every net of an experiment; the texts that a run keeps say it too."""
    if not weights:
        return
    plan.train = told(plan.train, *weights)
    tests = {id(test.spec): told(test.spec, *weights) for test in plan.tests}
    for test in plan.tests:
        test.spec = tests[id(test.spec)]
    for message, net in zip(
        (plan.nets[i] for i in (0, *plan.test_nets)), (plan.train, *(t.spec for t in plan.tests)), strict=True
    ):
        message.dialect = message.dialect or common_dialect(net)
