"""A spec file after reading: its message, the place of each field, and the fields that the schema does not know."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from netspec.errors import Position, Problem


class Node:
    """The place of one field (offset into the text) and, for a message, the nodes of its fields."""

    __slots__ = ("children", "offset")

    def __init__(self, offset: int, children: dict[str, list[Node]] | None = None):
        self.offset = offset
        self.children: dict[str, list[Node]] = {} if children is None else children

    def add(self, name: str, node: Node) -> Node:
        """Append `node` as one more occurrence of the field `name`; returns it."""
        self.children.setdefault(name, []).append(node)
        return node

    def child(self, name: str, index: int = 0) -> Node:
        """The node of `name[index]`, or this node itself where the field has no place of its own."""
        nodes = self.children.get(name, ())
        return nodes[index] if -len(nodes) <= index < len(nodes) else self


@dataclass(frozen=True)
class UnknownField:
    """A field (or a value of an enum) that the schema does not have; its content was skipped."""

    path: tuple[str | int, ...]
    """Names and indices as written in the file, before any upgrade."""
    name: str
    owner: str
    """The message it stands in, such as "ConvolutionParameter"."""
    position: Position
    nearest: str | None
    """The nearest valid name, if any."""
    layer: str | None
    """Name of the layer it belongs to; None outside of layers."""
    layer_type: str | None
    value: str | None
    """The value as text; None for a message."""
    is_value: bool = False
    """True when the field is known and `name` is an enum value that is not."""
    text: str = ""
    """The complaint, as an error would word it."""

    @property
    def problem(self) -> Problem:
        """The complaint with its place."""
        return Problem(self.text, self.position)


@dataclass
class Document:
    """One parsed file.  `message` is in the current (V2) layer syntax, whatever the file was written in."""

    kind: str
    """ "net", "solver", or the name of a message."""
    message: Any
    file: str
    text: str
    root: Node
    unknown: list[UnknownField] = field(default_factory=list)
    legacy: tuple[str, ...] = ()
    """Old syntaxes upgraded on reading: of "v0", "v1", "input", "transform", "batch_norm", "solver_type"."""

    @cached_property
    def _lines(self) -> list[int]:
        return line_starts(self.text)

    def at(self, *path: str | int) -> Position:
        """Place of a field: `at("layer", 3, "convolution_param", "num_output")`; an index left out is 0.

        A field without a place of its own (a default, or made by the upgrade) has the place of the nearest field around
        it.
        """
        node, steps = self.root, list(path)
        while steps:
            name = steps.pop(0)
            index = steps.pop(0) if steps and isinstance(steps[0], int) else 0
            below = node.child(str(name), int(index))
            if below is node:
                break
            node = below
        return self.position(node.offset)

    def position(self, offset: int) -> Position:
        """Line and column of an offset into `text`."""
        return position(self.file, self._lines, offset)


def line_starts(text: str) -> list[int]:
    """Offset of the first character of each line."""
    starts, at = [0], text.find("\n")
    while at >= 0:
        starts.append(at + 1)
        at = text.find("\n", at + 1)
    return starts


def position(file: str, starts: list[int], offset: int) -> Position:
    """Line and column, from 1, of `offset`."""
    line = bisect.bisect_right(starts, offset)
    return Position(file, line, offset - starts[line - 1] + 1)
