"""A parsed document as typed, frozen layer descriptions: the layers of the net in a given phase, stage and level."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from netspec.errors import Position, Problem, SpecError
from netspec.schema.forks import DIALECTS

TRAIN, TEST, RUN = "TRAIN", "TEST", "RUN"
"""The phases; RUN is a fork's, for deployment, where layers compute as in TEST."""


class Located(Protocol):
    """What a spec needs of a parsed document: its message and the place of each field."""

    message: Any
    file: str

    def at(self, *path: str | int) -> Position | None: ...


@dataclass(frozen=True)
class LayerSpec:
    """One layer as written: names of its blobs, its message, and where it stands.

    `path` leads to the layer in the document, such as ("layer", 3) or ("net_param", "layer", 3).
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Any
    document: Located | None = None
    path: tuple[str | int, ...] = ()
    dialect: str = ""
    """The fork that the net names as its dialect, for layers whose fields do not show it."""

    def at(self, *path: str | int) -> Position | None:
        """Where the field `path` of this layer is written, or the nearest enclosing place."""
        return self.document.at(*self.path, *path) if self.document else None

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.type})"

    def phase(self, of_net: str) -> str:
        """The phase that this layer computes in: its own where it names one, else the net's."""
        name = phase_name(self.message.phase) if self.message.HasField("phase") else of_net
        return TEST if name == RUN else name

    def problem(self, message: str, *path: str | int) -> Problem:
        """A Problem at this layer's field `path`, its text led by the layer's name and type."""
        return Problem(f"{self}: {message}", self.at(*path))


@dataclass(frozen=True)
class NetSpec:
    """The layers of one phase, in file order (which is execution order)."""

    name: str
    phase: str
    layers: tuple[LayerSpec, ...]
    force_backward: bool = False
    file: str = ""


def net(
    document: Located,
    phase: str = TRAIN,
    stages: Collection[str] = (),
    level: int = 0,
    path: tuple[str | int, ...] = (),
    message: Any = None,
) -> NetSpec:
    """The NetSpec of a NetParameter: layers kept by their include and exclude rules.

    path, message: select a net inside a larger document (a solver's `net_param`).
    stages, level: added to the net's own `state`; a level other than 0 replaces that of the `state`.
    Raises SpecError when a layer carries both include and exclude rules (src/caffe/net.cpp, FilterNet).
    """
    root = document.message if message is None else message
    if root.dialect and root.dialect not in DIALECTS:
        text = f"unknown dialect {root.dialect!r}; there are {', '.join(DIALECTS)}"
        raise SpecError(text, document.at(*path, "dialect"))
    stages, level = {*root.state.stage, *stages}, level or root.state.level
    layers, problems = [], []
    for i, layer in enumerate(root.layer):
        if layer.include and layer.exclude:
            problems.append(
                Problem(
                    f"layer {layer.name!r} ({layer.type}): has include and exclude rules; use one kind",
                    document.at(*path, "layer", i, "exclude", 0),
                )
            )
        if keeps(layer, phase, stages, level):
            layers.append(
                LayerSpec(
                    layer.name,
                    layer.type,
                    tuple(layer.bottom),
                    tuple(layer.top),
                    layer,
                    document,
                    (*path, "layer", i),
                    root.dialect,
                )
            )
    if problems:
        raise SpecError(problems)
    return NetSpec(root.name, phase, tuple(layers), bool(root.force_backward), document.file)


def keeps(layer: Any, phase: str, stages: Collection[str], level: int) -> bool:
    """Whether a LayerParameter takes part in the given state."""
    if layer.include:
        return any(meets(rule, phase, stages, level) for rule in layer.include)
    return not any(meets(rule, phase, stages, level) for rule in layer.exclude)


def meets(rule: Any, phase: str, stages: Collection[str], level: int) -> bool:
    """Whether a NetStateRule holds: phase equal, level in range, every `stage` set, no `not_stage` set."""
    if rule.HasField("phase") and phase_name(rule.phase) != phase:
        return False
    if rule.HasField("min_level") and level < rule.min_level:
        return False
    if rule.HasField("max_level") and level > rule.max_level:
        return False
    return all(stage in stages for stage in rule.stage) and not any(
        stage in stages for stage in rule.not_stage
    )


def phase_name(number: int) -> str:
    """Name of a value of the Phase enum."""
    return (TRAIN, TEST, RUN)[number]


def loss_weights(layer: LayerSpec, is_loss: bool) -> tuple[float, ...]:
    """One weight per top: as written, else 1 for the first top of a loss layer and 0 for the rest."""
    written: Sequence[float] = layer.message.loss_weight
    if written:
        return tuple(written)
    return tuple(1.0 if is_loss and i == 0 else 0.0 for i in range(len(layer.tops)))
