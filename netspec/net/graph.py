"""compile(spec) -> Graph: layers in file order, blob names turned into slots, every wiring error at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any

from netspec.errors import Problem, SpecError, nearest, one_edit
from netspec.layers import Layer, registry
from netspec.layers.fillers import unknown_types
from netspec.net.tripped import at_layer
from netspec.schema.descriptors import is_repeated
from netspec.schema.forks import FORK_LAYERS
from netspec.schema.spec import LayerSpec, NetSpec, loss_weights

AUTOMATIC = "(automatic)"
"""Name of the top of a loss layer that is written without one, as in Caffe."""


@dataclass(frozen=True)
class Slot:
    """One version of a blob: an in-place layer makes a new slot under the same name."""

    name: str
    maker: int
    """Index of the layer that writes it."""
    top: int
    """Which top of that step it is."""


@dataclass(frozen=True)
class Step:
    """One layer with the slots it reads and writes."""

    layer: LayerSpec
    kind: type[Layer]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    drops: tuple[int, ...]
    """Slots that no later step reads."""
    stops: tuple[bool, ...]
    """For each bottom, whether the gradient stops here."""


@dataclass(frozen=True)
class Graph:
    """A compiled net. Slots are versions of blobs; a loader feeds `inputs`; `outputs` are the slots that no layer
    reads.
    """

    spec: NetSpec
    steps: tuple[Step, ...]
    slots: tuple[Slot, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    """Unread blobs, by name (Caffe's order of net outputs)."""
    losses: tuple[tuple[int, float], ...]
    """Slots that count into the objective, each with its weight."""

    def name(self, slot: int) -> str:
        return self.slots[slot].name

    def find(self, name: str) -> int | None:
        """The last slot of the blob called `name`."""
        numbers = [i for i, slot in enumerate(self.slots) if slot.name == name]
        return numbers[-1] if numbers else None


def compile(spec: NetSpec) -> Graph:
    """Wire the layers of `spec`; raises one SpecError that holds every wiring mistake."""
    return _Wiring(spec).run()


@dataclass
class _Wiring:
    spec: NetSpec
    slots: list[Slot] = field(default_factory=list)
    current: dict[str, int] = field(default_factory=dict)
    """The newest slot of each blob name."""
    unread: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    """Tops of layers of unknown type; they exist, so that their readers cause no second error."""
    steps: list[Step] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def run(self) -> Graph:
        for index, layer in enumerate(self.spec.layers):
            self.add(index, layer)
        if self.problems:
            raise SpecError(self.problems)
        outputs = tuple(self.current[name] for name in sorted(self.unread))
        return Graph(
            self.spec,
            with_drops(self.steps, {*outputs, *(slot for slot, _ in self.losses)}),
            tuple(self.slots),
            tuple(self.inputs),
            outputs,
            tuple(self.losses),
        )

    def add(self, index: int, layer: LayerSpec) -> None:
        kind = kind_of(layer)
        reads = [self.read(layer, i, name) for i, name in enumerate(layer.bottoms)]
        if kind is None:
            self.problems.append(unknown_type(layer, self.hints()))
            self.broken.update(layer.tops)
            return
        layer = with_automatic_tops(layer, kind)
        for path, text in (*unknown_types(layer.message), *long_shapes(layer.message)):
            self.problem(layer, text, *path)
        self.check_arity(layer, kind)
        writes = [self.write(index, layer, i, name) for i, name in enumerate(layer.tops)]
        weights = loss_weights(layer, kind.is_loss)
        if len(weights) != len(layer.tops):
            self.problem(
                layer, f"{len(weights)} loss_weight values for {len(layer.tops)} tops", "loss_weight", 0
            )
        flags = list(layer.message.propagate_down)
        if flags and len(flags) != len(layer.bottoms):
            self.problem(
                layer,
                f"{len(flags)} propagate_down values for {len(layer.bottoms)} bottoms",
                "propagate_down",
                0,
            )
        if None in reads or None in writes:
            return
        written = [slot for slot in writes if slot is not None]
        self.losses += [(slot, weight) for slot, weight in zip(written, weights, strict=False) if weight != 0]
        if kind.is_source:
            self.inputs += written
        forced = self.spec.force_backward
        stops = tuple(
            not kind.differentiable or (not forced and i < len(flags) and not flags[i])
            for i in range(len(reads))
        )
        self.steps.append(
            Step(layer, kind, tuple(slot for slot in reads if slot is not None), tuple(written), (), stops)
        )

    def read(self, layer: LayerSpec, i: int, name: str) -> int | None:
        """The slot behind bottom i."""
        self.unread.discard(name)
        if name not in self.current and name not in self.broken:
            hint = ""
            if self.hints() and (near := nearest(name, self.current)):
                maker = self.spec.layers[self.slots[self.current[near]].maker]
                place = maker.at("top", self.slots[self.current[near]].top)
                hint = f"; did you mean {near!r}" + (f" (line {place.line})?" if place else "?")
            self.problem(layer, f"bottom {name!r} is made by no earlier layer{hint}", "bottom", i)
        return self.current.get(name)

    def write(self, index: int, layer: LayerSpec, i: int, name: str) -> int | None:
        """A new slot for top i of layer number `index`."""
        in_place = i < len(layer.bottoms) and layer.bottoms[i] == name
        if name in self.current and not in_place and name != AUTOMATIC:
            maker = self.spec.layers[self.slots[self.current[name]].maker]
            self.problem(layer, f"top {name!r} is already made by {maker}", "top", i)
            return None
        self.slots.append(Slot(name, index, i))
        self.current[name] = len(self.slots) - 1
        self.unread.add(name)
        return self.current[name]

    def check_arity(self, layer: LayerSpec, kind: type[Layer]) -> None:
        for word, arity, names in (("bottom", kind.bottoms, layer.bottoms), ("top", kind.tops, layer.tops)):
            if not arity.allows(len(names)):
                plural = "" if arity.least == arity.most == 1 else "s"
                seen = f"{len(names)}: {', '.join(names)}" if names else "none"
                self.problem(layer, f"takes {arity} {word}{plural}, found {seen}", word, 0)
        if kind.paired and len(layer.bottoms) != len(layer.tops):
            self.problem(
                layer,
                f"needs as many tops as bottoms, found {len(layer.tops)} and {len(layer.bottoms)}",
                "top",
                0,
            )

    def hints(self) -> bool:
        """Whether nearest names are still sought; a file may have thousands of wrong names."""
        return len(self.problems) < SpecError.MOST

    def problem(self, layer: LayerSpec, message: str, *path: str | int) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(layer.problem(message, *path))


MOST_PROBLEMS = 1000
"""Most problems reported of a net: messages about a million wrong names would fill the memory."""
MOST_AXES = 32
"""Most axes of a blob, as in Caffe (kMaxBlobAxes)."""


def long_shapes(
    message: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path, what is wrong) for every BlobShape in a message that has too many axes."""
    if message.DESCRIPTOR.name == "BlobShape" and len(message.dim) > MOST_AXES:
        yield (*path, "dim", MOST_AXES), f"a shape has at most {MOST_AXES} axes, found {len(message.dim)}"
    for known, value in message.ListFields():
        if known.message_type is None or known.name == "blobs":
            continue
        if is_repeated(known):
            for i, item in enumerate(value):
                yield from long_shapes(item, (*path, known.name, i))
        else:
            yield from long_shapes(value, (*path, known.name))


def kind_of(layer: LayerSpec) -> type[Layer] | None:
    """The class that computes a layer; None where its type is unknown."""
    kind = registry.get(layer.type)
    with at_layer(layer, "its fields cannot be read"):
        return None if kind is None else kind.kind_for(layer)


def unknown_type(layer: LayerSpec, hints: bool = True) -> Problem:
    """The problem that there is no such layer type, with what is known of it; `hints`: with the nearest type."""
    near = likely_type(layer.type) if hints else None
    if layer.type in FORK_LAYERS:
        hint = f", {FORK_LAYERS[layer.type]}; netspec does not have it: netspec.register makes a layer of yours known"
    elif near:
        hint = f"; did you mean {near!r}? A layer of your own is made known by netspec.register"
    else:
        hint = "; a layer of your own is made known by netspec.register"
    return layer.problem(f"unknown layer type {layer.type!r}{hint}", "type")


LONG = 5
"""From this length on a misspelt name can be told from a different name."""


def likely_type(name: str) -> str | None:
    """The layer type that a name misspells: by capitals, or by one slip in a long name."""
    near = nearest(name, registry, cutoff=0.75)
    if near is None or name.lower() == near.lower():
        return near
    slip = min(len(name), len(near)) >= LONG and one_edit(name.lower(), near.lower())
    alike = SequenceMatcher(None, name.lower(), near.lower()).ratio() >= ALIKE
    return near if slip or (alike and len(name) > LONG) else None


ALIKE = 0.85
"""From this likeness (difflib's ratio) on, one name of a layer is a misspelling of the other."""


def with_automatic_tops(layer: LayerSpec, kind: type[Layer]) -> LayerSpec:
    """A loss layer written without a top gets one (src/caffe/net.cpp, AutoTopBlobs)."""
    if not kind.is_loss or len(layer.tops) >= kind.tops.least:
        return layer
    return replace(layer, tops=layer.tops + (AUTOMATIC,) * (kind.tops.least - len(layer.tops)))


def with_drops(steps: list[Step], kept: set[int]) -> tuple[Step, ...]:
    """Each step with the slots that can be freed after it."""
    last: dict[int, int] = {}
    for i, step in enumerate(steps):
        for slot in (*step.reads, *step.writes):
            last[slot] = i
    drops: dict[int, list[int]] = {}
    for slot, i in last.items():
        if slot not in kept:
            drops.setdefault(i, []).append(slot)
    return tuple(replace(step, drops=tuple(drops.get(i, ()))) for i, step in enumerate(steps))
