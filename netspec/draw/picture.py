"""A net as boxes and links, ready to be drawn: folds in-place layers into their producer, and finds shared weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePath

from netspec.draw.families import family, options
from netspec.draw.text import number, shape_text, visible, wrap
from netspec.net.graph import Graph
from netspec.net.net import Net
from netspec.schema.spec import LayerSpec, NetSpec, loss_weights

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One layer inside a box: texts ready to be drawn, but not wrapped."""

    name: str
    type: str
    family: str
    options: tuple[str, ...]
    marks: tuple[str, ...]
    """Marks to notice: loss weight, shared weights, frozen weights, in place."""
    in_place: bool = False


@dataclass
class Box:
    """A layer, then those that change its top in place; or an output of the net (no layer, only a blob)."""

    parts: list[Part] = field(default_factory=list)
    output: str = ""


@dataclass(frozen=True)
class Link:
    """A blob on its way from box to box. `label` is its name (where it is not the maker's) and its shape."""

    tail: int
    head: int
    slot: int
    label: tuple[str, ...]


@dataclass
class Picture:
    """All that is drawn. `shared` joins boxes that use the same weights; `families` in the legend's order."""

    title: str
    boxes: list[Box]
    links: list[Link]
    shared: list[tuple[int, int, str]]

    @property
    def families(self) -> list[str]:
        from netspec.draw.families import COLOURS

        used = {part.family for box in self.boxes for part in box.parts}
        return [name for name in COLOURS if name in used]


@dataclass
class _Wires:
    """Reads and writes of every layer in slots, whether compiled or only read."""

    spec: NetSpec
    layers: list[LayerSpec]
    reads: list[tuple[int, ...]]
    writes: list[tuple[int, ...]]
    names: list[str]
    weights: dict[int, float]
    """Weight of each slot that counts into the objective."""


def picture(what: Net | Graph | NetSpec, shapes: Mapping[int, Shape] | None = None) -> Picture:
    """The picture of a net. Shapes come from the Net, or from `shapes` by slot; else edges show names only.

    A NetSpec is drawn as it is written, even where it would not compile (layers of unknown type).
    """
    if isinstance(what, Net):
        if shapes is None:
            shapes = {slot: shape for slot, shape in enumerate(what.shapes) if what.is_known(slot)}
        what = what.graph
    wires = _compiled(what) if isinstance(what, Graph) else _written(what)
    return _Folding(wires, shapes or {}).run()


def _compiled(graph: Graph) -> _Wires:
    steps = graph.steps
    return _Wires(
        graph.spec,
        [step.layer for step in steps],
        [step.reads for step in steps],
        [step.writes for step in steps],
        [slot.name for slot in graph.slots],
        dict(graph.losses),
    )


def _written(spec: NetSpec) -> _Wires:
    """Wires of a spec by names alone: unknown types and missing makers are no hindrance to a drawing."""
    wires = _Wires(spec, list(spec.layers), [], [], [], {})
    current: dict[str, int] = {}
    for layer in spec.layers:
        wires.reads.append(tuple(current[name] for name in layer.bottoms if name in current))
        writes = []
        weights = loss_weights(layer, family(layer) == "loss")
        for i, name in enumerate(layer.tops):
            wires.names.append(name)
            current[name] = len(wires.names) - 1
            writes.append(current[name])
            if i < len(weights) and weights[i]:
                wires.weights[current[name]] = weights[i]
        wires.writes.append(tuple(writes))
    return wires


@dataclass
class _Folding:
    wires: _Wires
    shapes: Mapping[int, Shape]
    boxes: list[Box] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    home: dict[int, int] = field(default_factory=dict)
    """Box that holds the maker of each slot."""
    box_of: list[int] = field(default_factory=list)
    """Box of each layer."""

    def run(self) -> Picture:
        wires = self.wires
        self.readers = [0] * len(wires.names)
        for reads in wires.reads:
            for slot in reads:
                self.readers[slot] += 1
        groups = _shared(wires.layers)
        for layer, reads, writes in zip(wires.layers, wires.reads, wires.writes, strict=True):
            self.add(layer, reads, writes, groups)
        for slot, name in enumerate(wires.names):
            box = self.boxes[self.home[slot]]
            if not self.readers[slot] and box.parts[-1].family not in ("loss", "accuracy"):
                self.boxes.append(Box(output=visible(name)))
                self.links.append(
                    Link(self.home[slot], len(self.boxes) - 1, slot, self.label(slot, named=False))
                )
        return Picture(self.title(), self.boxes, self.links, self.shared_links(groups))

    def add(
        self, layer: LayerSpec, reads: Sequence[int], writes: Sequence[int], groups: Mapping[str, list[int]]
    ) -> None:
        in_place = any(a == b for a, b in zip(layer.bottoms, layer.tops, strict=False))
        folded = in_place and len(reads) == len(writes) == 1 and self.readers[reads[0]] == 1
        part = self.part(layer, writes, groups, in_place)
        if folded:
            self.boxes[self.home[reads[0]]].parts.append(part)
            index = self.home[reads[0]]
        else:
            self.boxes.append(Box([part]))
            index = len(self.boxes) - 1
            self.links += [Link(self.home[slot], index, slot, self.label(slot)) for slot in reads]
        self.box_of.append(index)
        self.home.update(dict.fromkeys(writes, index))

    def part(
        self, layer: LayerSpec, writes: Sequence[int], groups: Mapping[str, list[int]], in_place: bool
    ) -> Part:
        marks = []
        if in_place:
            marks.append("in place")
        for slot in writes:
            if slot in self.wires.weights:
                which = f" of {visible(self.wires.names[slot])}" if len(writes) > 1 else ""
                marks.append(f"loss weight{which} {number(self.wires.weights[slot])}")
        tags = sorted({visible(p.name) for p in layer.message.param if p.name in groups})
        if tags:
            marks.append("shares " + ", ".join(tags))
        rates = [p.lr_mult for p in layer.message.param]
        if rates and not any(rates):
            marks.append("weights fixed")
        return Part(
            visible(layer.name),
            visible(layer.type),
            family(layer),
            tuple(visible(o) for o in options(layer)),
            tuple(marks),
            in_place,
        )

    def label(self, slot: int, named: bool = True) -> tuple[str, ...]:
        name = visible(self.wires.names[slot])
        shown = named and name != self.boxes[self.home[slot]].parts[0].name
        lines = [name] if shown else []
        if slot in self.shapes:
            lines.append(shape_text(self.shapes[slot]))
        return tuple(lines)

    def shared_links(self, groups: Mapping[str, list[int]]) -> list[tuple[int, int, str]]:
        """Dashed links between the boxes of each group, one per neighbouring pair, with all its names."""
        pairs: dict[tuple[int, int], list[str]] = {}
        for name, users in groups.items():
            boxes = list(dict.fromkeys(self.box_of[i] for i in users))
            for a, b in pairwise(boxes):
                pairs.setdefault((a, b), []).append(visible(name))
        return [(a, b, ", ".join(names)) for (a, b), names in pairs.items()]

    def title(self) -> str:
        spec = self.wires.spec
        name = spec.name or PurePath(spec.file).stem or "net"
        count = len(self.wires.layers)
        return f"{visible(name)} · {spec.phase} · {count} layer{'' if count == 1 else 's'}"


def _shared(layers: Sequence[LayerSpec]) -> dict[str, list[int]]:
    """Parameter names that more than one layer (or one layer twice) uses, with those layers."""
    users: dict[str, list[int]] = {}
    for i, layer in enumerate(layers):
        for param in layer.message.param:
            if param.name:
                users.setdefault(param.name, []).append(i)
    return {name: numbers for name, numbers in users.items() if len(numbers) > 1}


@dataclass(frozen=True)
class Line:
    """One line of text in a box."""

    text: str
    size: float
    bold: bool = False
    colour: str = "#1b1b1b"


WRAP = 34
"""Characters a line inside a box; longer names and lists go on in the next line."""


def lines(part: Part) -> list[Line]:
    """The text of one layer: name, type, options, marks; an in-place layer's name and type share a line."""
    kind = f"{part.type}, in place" if part.in_place else part.type
    marks = [mark for mark in part.marks if mark != "in place"]
    name = part.name or "(no name)"
    if part.in_place and len(name) + len(kind) < WRAP:
        block = [Line(f"{name} · {kind}", 10.0)]
    else:
        block = [Line(text, 10.0 if part.in_place else 11.5, True) for text in wrap(name, WRAP)]
        block += [Line(text, 10.0) for text in wrap(kind, WRAP) if kind != name]
    block += [Line(text, 9.0, False, "#444444") for text in listed(part.options)]
    block += [Line(text, 9.0, False, "#8c1515") for text in listed(marks)]
    return block


def listed(words: Sequence[str]) -> list[str]:
    """Words joined by commas into lines of at most WRAP characters, a word longer than that broken."""
    block: list[str] = []
    for i, word in enumerate(words):
        word += "," if i < len(words) - 1 else ""
        if block and len(block[-1]) + 1 + len(word) <= WRAP:
            block[-1] += " " + word
        else:
            block += wrap(word, WRAP)
    return block
