"""The message being read, and the context that complaints name."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from netspec.errors import nearest
from netspec.schema.document import Node
from netspec.schema.values import FieldInfo, MessageInfo

LAYERS = ("LayerParameter", "V1LayerParameter", "V0LayerParameter")


class Frame:
    """A message that is being filled; `message` is None while unknown content is skipped."""

    __slots__ = (
        "close",
        "in_list",
        "index",
        "info",
        "layer",
        "list_field",
        "message",
        "name",
        "node",
        "type_text",
    )

    def __init__(self, message: Any, info: MessageInfo | None, node: Node, name: str, index: int, close: str):
        self.message, self.info, self.node, self.name, self.index = message, info, node, name, index
        self.close = close
        self.layer: Frame | None = None
        self.in_list = False
        self.list_field: FieldInfo | None = None
        self.type_text: str | None = None


def home_of(stack: list[Frame], info: MessageInfo, name: str) -> str:
    """The message that a known but misplaced field belongs in: "in pooling_param", or empty."""
    for outer in reversed(stack[:-1]):
        if outer.info is not None and name in outer.info.fields and outer.name:
            return f"to '{outer.name}', outside of '{stack[-1].name}'"
    below = [field for field in info.fields.values() if field.below is not None]
    holders = [field.name for field in below if name in field.below.fields_by_name]
    return "in " + " or ".join(holders[:3]) if 0 < len(holders) <= 3 else ""


def path_of(stack: list[Frame], last: str) -> tuple[str | int, ...]:
    """Names and indices from the root down to the field `last` of the innermost message."""
    steps: list[str | int] = []
    for frame in stack[1:]:
        steps += [frame.name, frame.index]
    return (*steps, last)


@lru_cache(maxsize=1000)
def _nearest_in(fields: tuple[str, ...], name: str) -> str | None:
    return nearest(name, fields)


def nearest_field(info: MessageInfo, name: str) -> str | None:
    """The field most like `name`; forks repeat their unknown names in every layer, so answers are kept."""
    return _nearest_in(tuple(info.fields), name) if len(name) < 60 else None


def layer_name(layer: Frame) -> str:
    """The name of a layer, or that of the V0 layer inside it."""
    inner = layer.message.layer.name if layer.message.DESCRIPTOR.name == "V1LayerParameter" else ""
    return str(layer.message.name or inner)


def layer_type(layer: Frame) -> str | None:
    """The type of a layer as written, or that of the V0 layer inside it."""
    if layer.type_text is None and layer.message.DESCRIPTOR.name == "V1LayerParameter":
        return str(layer.message.layer.type) or None
    return layer.type_text


def opening(frame: Frame) -> str:
    """The bracket that opened the message."""
    return "{" if frame.close == "}" else "<"


def expected(field: FieldInfo) -> str:
    """What a scalar field takes, in words."""
    return {"string": "a string", "bytes": "a string", "bool": "true or false", "enum": "a name"}.get(
        field.type, "an integer" if "int" in field.type else "a number"
    )
