"""`netspec field NAME`: what the schema says of a field, a layer type or a message."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from netspec import schema
from netspec.errors import NetspecError, nearest
from netspec.layers import Layer, registry
from netspec.schema import shipped
from netspec.schema.descriptors import is_repeated, is_required
from netspec.schema.printer import format_float, quote
from netspec.schema.values import FieldInfo

ROOTS = ("LayerParameter", "SolverParameter", "NetParameter")
OLD = ("V0LayerParameter", "V1LayerParameter")
"""Messages of old syntaxes, whose fields have moved."""
MOST = 12
"""Most places that are listed."""


@dataclass(frozen=True)
class Field:
    """A field in its message."""

    owner: str
    field: Any
    """Its descriptor."""
    asked: str = ""
    """The path that the user asked for."""

    @property
    def key(self) -> str:
        return f"{self.owner}.{self.field.name}"

    @property
    def paths(self) -> list[str]:
        """How it is reached from a layer, a solver or a net: convolution_param.pad."""
        written = [f"{lead}{self.field.name}" for lead in leads(self.owner)]
        return sorted(written, key=lambda path: path != self.asked)

    @property
    def layers(self) -> list[str]:
        """Types of layers that read it."""
        heads = {path.partition(".")[0] for path in self.paths}
        return sorted(name for name, kind in registry.items() if kind.param_field in heads)

    @property
    def type(self) -> str:
        """What it holds, in words."""
        info = FieldInfo(self.field)
        kind = " | ".join(info.enum) if info.enum else info.below.name if info.below else info.type
        many = "any number of " if info.repeated else "required " if is_required(self.field) else ""
        return many + kind

    @property
    def default(self) -> str:
        """The default value; "" where the field has none worth showing."""
        if is_repeated(self.field) or self.field.message_type is not None or not self.field.has_default_value:
            return ""
        return self.word(self.field.default_value)

    def word(self, value: Any) -> str:
        """A value as it is written in a file."""
        if self.field.enum_type is not None:
            return str(self.field.enum_type.values_by_number[value].name)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return format_float(value)
        return quote(value) if isinstance(value, str) else str(value)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "message": self.owner,
            "field": self.field.name,
            "paths": self.paths,
            "type": self.type,
            "default": self.default or None,
            "meaning": schema.describe(self.owner, self.field.name),
            "layers": self.layers,
            "example": self.example(),
        }

    def example(self) -> str:
        """Its first use in a shipped net or solver, with the place; else a line as a file might have it."""
        for path in files():
            if use := first_use(path, self.owner, self.field.name):
                return use
        if self.field.message_type is not None:
            return f"{self.field.name} {{ ... }}"
        if self.field.enum_type is not None:
            return f"{self.field.name}: {self.field.enum_type.values[-1].name}"
        words = {"string": '"..."', "bytes": '"..."', "bool": "true", "float": "0.1", "double": "0.1"}
        return f"{self.field.name}: {self.default or words.get(FieldInfo(self.field).type, '1')}"

    def lines(self) -> Iterator[str]:
        """What is printed of it."""
        shown = self.paths[:MOST] or [self.field.name]
        yield f"{shown[0]}: {self.type}" + (f", default {self.default}" if self.default else "")
        if meaning := schema.describe(self.owner, self.field.name):
            yield f"  {' '.join(meaning.split())}"
        if self.field.enum_type is not None:
            for value in self.field.enum_type.values:
                name = self.field.enum_type.full_name.partition(f"{self.owner}.")[2]
                if said := name and schema.describe(self.owner, f"{name}.{value.name}"):
                    yield f"  {value.name}: {' '.join(said.split())}"
        yield f"  message: {self.owner}"
        if self.layers:
            yield f"  layers: {', '.join(self.layers)}"
        if len(shown) > 1:
            more = f", and {len(self.paths) - MOST} more" if len(self.paths) > MOST else ""
            yield f"  also: {', '.join(shown[1:])}{more}"
        yield f"  example: {self.example()}"


def files() -> list[Any]:
    """The shipped nets and solvers, the shortest first."""
    return sorted(shipped.folder().rglob("*.prototxt"), key=lambda path: (path.stat().st_size, path.name))


@cache
def document(path: Any) -> Any:
    try:
        return schema.read(path)
    except NetspecError:
        return None


def first_use(path: Any, owner: str, name: str) -> str:
    """`file:line: field: value` of the first use in a file; "" where it has none."""
    text = document(path)
    if text is None or name not in text.text:
        return ""
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(text.message, ())]
    while waiting:
        message, at = waiting.pop(0)
        for field, value in message.ListFields():
            values = list(value) if is_repeated(field) else [value]
            if message.DESCRIPTOR.name == owner and field.name == name:
                place = text.at(*at, name, *((0,) if is_repeated(field) else ()))
                line = text.text.splitlines()[place.line - 1].strip()
                return f"{line}   ({path.name}:{place.line})"
            if field.message_type is not None:
                steps = [(field.name, i) if is_repeated(field) else (field.name,) for i in range(len(values))]
                waiting += [(inner, (*at, *step)) for inner, step in zip(values, steps, strict=True)]
    return ""


@cache
def leads(owner: str) -> tuple[str, ...]:
    """How a message is reached: "" for the roots, "convolution_param." and so on; shortest first."""
    if owner in ROOTS:
        return ("",)
    paths: list[str] = []
    for name in schema.message_names():
        if name in OLD or name == owner:
            continue
        for field in schema.descriptor(name).fields:
            if field.message_type is not None and field.message_type.name == owner:
                paths += [f"{lead}{field.name}." for lead in shallow(name)]
    return tuple(sorted(dict.fromkeys(paths), key=lambda lead: (lead.count("."), lead)))


def shallow(owner: str) -> tuple[str, ...]:
    """As `leads`, without nets inside solvers, which would repeat everything."""
    if owner in ROOTS:
        return ("",)
    return tuple(
        f"{field.name}."
        for name in ROOTS[:2]
        for field in schema.descriptor(name).fields
        if field.message_type is not None and field.message_type.name == owner
    )


def find(name: str) -> list[Field]:
    """The fields that a name means: a path (convolution_param.pad, ConvolutionParameter.pad, Convolution.pad, with
    `layer.` before it or not), or a field's own name. Raises NetspecError with the nearest names.
    """
    first, *rest = name.removeprefix("layer.").split(".")
    if not rest:
        return named(first)
    message = start(first)
    if message is None:
        names = [
            *registry,
            *schema.message_names(),
            *(f.name for root in ROOTS for f in schema.descriptor(root).fields),
        ]
        raise unknown(name, first, names, "no field of layers, solvers or nets")
    for step in rest[:-1]:
        inner = member(message, step, name).message_type
        if inner is None:
            raise NetspecError(f"{name}: {step} holds no fields")
        message = inner
    return [Field(message.name, member(message, rest[-1], name), name.removeprefix("layer."))]


def start(first: str) -> Any:
    """The message that the first part of a path leads into."""
    if first in schema.message_names():
        return schema.descriptor(first)
    for root in ROOTS:
        field = schema.descriptor(root).fields_by_name.get(first)
        if field is not None and field.message_type is not None:
            return field.message_type
    kind = registry.get(first)
    if kind is not None and kind.param_field:
        return schema.descriptor("LayerParameter").fields_by_name[kind.param_field].message_type
    inner = [known.field.message_type for known in everywhere(first)]
    return next((message for message in inner if message is not None), None)


def member(message: Any, name: str, asked: str) -> Any:
    fields = message.fields_by_name
    if name in fields:
        return fields[name]
    near = nearest(name, fields)
    hint = f"did you mean {near!r}?" if near else f"it has {', '.join(fields)}"
    raise NetspecError(f"{asked}: {message.name} has no field {name!r}; {hint}")


def named(name: str) -> list[Field]:
    """The fields of this name in all messages; solvers, layers and nets come first."""
    fields = everywhere(name)
    if not fields:
        names = {field.name for owner in owners() for field in schema.descriptor(owner).fields}
        raise unknown(
            name, name, [*names, *registry, *schema.message_names()], "no field, layer type or message"
        )
    return fields


def owners() -> list[str]:
    """All messages except those of old syntaxes; the roots come first."""
    return [*ROOTS, *(name for name in schema.message_names() if name not in (*ROOTS, *OLD))]


def everywhere(name: str) -> list[Field]:
    """The fields of a name."""
    fields = ((owner, schema.descriptor(owner).fields_by_name.get(name)) for owner in owners())
    return [Field(owner, field) for owner, field in fields if field is not None]


def unknown(asked: str, name: str, candidates: Any, text: str) -> NetspecError:
    near = nearest(name, candidates)
    return NetspecError(f"{asked}: {text}" + (f"; did you mean {near!r}?" if near else ""))


def explain(name: str) -> Iterator[str]:
    """The lines that `netspec field` prints. Raises NetspecError for a name that means nothing."""
    if name in registry:
        yield from of_type(name, registry[name])
    elif name in schema.message_names():
        yield from of_message(name)
    else:
        fields = find(name)
        if len(fields) <= 3:
            for entry in fields:
                yield from entry.lines()
            return
        yield f"{name} is a field of {len(fields)} messages:"
        for entry in fields:
            meaning = " ".join(schema.describe(entry.owner, entry.field.name).split())
            path = (entry.paths or [entry.key])[0]
            yield f"  {path}: {entry.type}{f', default {entry.default}' if entry.default else ''}. {meaning}"
        yield f"one of them: netspec field {(fields[0].paths or [fields[0].key])[0]}"


def of_type(name: str, kind: type[Layer]) -> Iterator[str]:
    """A layer type: what it does, and its fields."""
    yield f"{name}: " + " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    yield f"  bottoms: {kind.bottoms}, tops: {'as bottoms' if kind.paired else kind.tops}, family: {kind.family}"
    if kind.param_field:
        message = schema.descriptor("LayerParameter").fields_by_name[kind.param_field].message_type
        yield f"  {kind.param_field} {{ ... }}"
        yield from (f"  {line}" for line in of_message(message.name))


def of_message(name: str) -> Iterator[str]:
    """A message and its fields, a line each."""
    said = " ".join(schema.describe(name).split())
    yield f"{name}: {said}" if said else name
    for field in schema.descriptor(name).fields:
        entry = Field(name, field)
        meaning = " ".join(schema.describe(name, field.name).split())
        yield f"  {field.name}: {entry.type}{f', default {entry.default}' if entry.default else ''}. {meaning}"


def names() -> list[str]:
    """Layer types, messages, and the paths of all fields of layers and solvers."""
    paths = [
        path
        for owner in schema.message_names()
        if owner not in OLD
        for field in schema.descriptor(owner).fields
        for path in Field(owner, field).paths
    ]
    return sorted({*registry, *schema.message_names(), *paths})
