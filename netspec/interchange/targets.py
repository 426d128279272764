"""Other programs that read Caffe files: what of a net they would reject, by line, and the net as they read it.

What they take stands in targets.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from netspec import schema
from netspec.errors import Problem, SpecError, did_you_mean
from netspec.layers.base import Shape
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.schema.spec import TEST, LayerSpec

FORKS = 1000
"""Numbers of fields from here on are no number of Caffe's own."""
SQUARE = ("kernel_size", "stride", "pad", "dilation")
AXES = ("concat_param", "slice_param", "softmax_param")


@dataclass(frozen=True)
class Target:
    """What a reader of Caffe files takes; the fields are those of targets.toml."""

    title: str
    source: str
    types: frozenset[str]
    floor: str
    pools: tuple[str, ...]
    fields: frozenset[str] = frozenset()
    rename: Mapping[str, str] = field(default_factory=dict)
    static: bool = False
    axes: int = 0
    square: bool = False
    order: bool = False
    limits: Mapping[str, str] = field(default_factory=dict)


@cache
def targets() -> dict[str, Target]:
    """The readers by the name that `--for` takes."""
    table = tomllib.loads((Path(__file__).parent / "targets.toml").read_text(encoding="utf-8"))
    forms: dict[str, Any] = {"types": frozenset, "fields": frozenset, "pools": tuple}
    return {
        name: Target(**{key: forms[key](value) if key in forms else value for key, value in row.items()})
        for name, row in table.items()
    }


def target_called(name: str) -> Target:
    """The reader of that name; NetspecError with the names that there are."""
    target = targets().get(name)
    if target is None:
        raise SpecError(
            f"no reader {name!r}{did_you_mean(name, targets())}; there are {', '.join(targets())}"
        )
    return target


def rejected(net: Net, target: Target) -> list[Problem]:
    """What the reader would reject of a net, or compute otherwise, each at its place; empty where it takes all."""
    problems = []
    for step in net.graph.steps:
        reads = [net.shapes[slot] for slot in step.reads]
        writes = [net.shapes[slot] for slot in step.writes]
        for text, *path in of_layer(step.layer, reads, writes, target):
            problems.append(step.layer.problem(f"{target.title} {text}", *path))
    return problems


def of_layer(
    layer: LayerSpec, reads: list[Shape], writes: list[Shape], target: Target
) -> Iterator[tuple[Any, ...]]:
    """(what is wrong, path of the field) of one layer."""
    if layer.type in target.limits:
        yield f"does not read this layer: {target.limits[layer.type]}", "type"
    elif target.rename.get(layer.type, layer.type) not in target.types:
        yield "has no layer of this type", "type"
    p = layer.message
    if p.HasField("pooling_param"):
        yield from of_pooling(layer, reads, writes, target)
    yield from of_fields(p, target)
    if target.static and not layer.bottoms:
        for shape in writes:
            if len(shape) != 4 or min(shape) < 1:
                yield f"needs four axes of known size at each input, found {shape}", "input_param"
    for name in AXES:
        if p.HasField(name) and reads and getattr(p, name).axis % max(len(reads[0]), 1) < target.axes:
            yield "has no batch axis: axis 0 cannot be worked along", name, "axis"
    if target.square and p.HasField("convolution_param"):
        for name in SQUARE:
            values = list(getattr(p.convolution_param, name))
            if len(set(values)) > 1:
                yield (
                    f"reads the first {name} only, of {values}; write {name}_h and {name}_w",
                    "convolution_param",
                    name,
                    1,
                )
    if target.order and p.HasField("permute_param") and list(p.permute_param.order)[:1] not in ([], [0]):
        yield "leaves the batch in front: order must begin with 0", "permute_param", "order", 0


def of_pooling(
    layer: LayerSpec, reads: list[Shape], writes: list[Shape], target: Target
) -> Iterator[tuple[Any, ...]]:
    p = layer.message.pooling_param
    kind = p.DESCRIPTOR.fields_by_name["pool"].enum_type.values_by_number[p.pool].name
    if kind not in target.pools:
        yield f"has no {kind} pooling", "pooling_param", "pool"
    if rounds_down(layer) and not target.floor and ceiled(layer, reads) != writes:
        own = "round_mode" if p.HasField("round_mode") else "ceil_mode"
        size = "x".join(map(str, writes[0][2:])), "x".join(map(str, ceiled(layer, reads)[0][2:]))
        yield (
            f"always rounds the size of pooled maps up: {size[1]} in place of {size[0]}; choose an input size for "
            "which both agree",
            "pooling_param",
            own,
        )


def of_fields(message: Any, target: Target, *path: str | int) -> Iterator[tuple[Any, ...]]:
    """Fields of forks within Caffe's own messages, which a reader of another fork stops at."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            name = f"{message.DESCRIPTOR.name}.{descriptor.name}"
            known = name in target.fields or descriptor.name in ("ceil_mode", "round_mode")
            if descriptor.number >= FORKS and not known:
                yield f"does not know the field {descriptor.name!r}", *path, descriptor.name
        elif (
            descriptor.number < FORKS and not isinstance(value, (str, bytes)) and hasattr(value, "ListFields")
        ):
            yield from of_fields(value, target, *path, descriptor.name)


def rounds_down(layer: LayerSpec) -> bool:
    """Whether a pooling rounds its output's size down."""
    p = layer.message.pooling_param
    return bool(p.round_mode == p.FLOOR or not p.ceil_mode)


def ceiled(layer: LayerSpec, reads: list[Shape]) -> list[Shape]:
    """The shapes that the pooling would give if it rounded up."""
    message = schema.NetParameter()
    for name, shape in zip(layer.bottoms, reads, strict=True):
        source = message.layer.add(name=f"{name} in", type="Input", top=[name])
        source.input_param.shape.add(dim=shape)
    copy = message.layer.add()
    copy.CopyFrom(layer.message)
    copy.top[:] = [f"{name} out" for name in layer.tops]
    for name in ("include", "exclude", "phase"):
        copy.ClearField(name)
    set_rounding(copy, "", down=False)
    net = make_net(schema.parse_net(schema.print_text(message)), TEST, device="meta")
    return [net.shapes[slot] for slot in net.graph.steps[-1].writes]


def set_rounding(message: Any, name: str, *, down: bool) -> None:
    """Write how a pooling rounds by the field `name`, and by no other."""
    p = message.pooling_param
    p.ClearField("round_mode")
    p.ClearField("ceil_mode")
    if down and name == "ceil_mode":
        p.ceil_mode = False
    elif down:
        p.round_mode = p.FLOOR


def as_read(net: Net, target: Target) -> Any:
    """The layers of the net's phase as a NetParameter that the reader takes.

    Pooling rounds by the reader's own field, types bear its names, and `include` and `exclude`, which have done their
    work, are left out. Raises SpecError with everything that it would reject all the same.
    """
    if problems := rejected(net, target):
        raise SpecError(problems)
    message = schema.NetParameter(name=net.graph.spec.name)
    for step in net.graph.steps:
        layer = message.layer.add()
        layer.CopyFrom(step.layer.message)
        layer.ClearField("include")
        layer.ClearField("exclude")
        if layer.HasField("pooling_param"):
            set_rounding(layer, target.floor, down=rounds_down(step.layer) and bool(target.floor))
        if (
            layer.HasField("convolution_param") and not layer.convolution_param.num_output
        ):  # one map per channel
            layer.convolution_param.num_output = net.shapes[step.writes[0]][1]
        if layer.type in target.rename:
            layer.type = target.rename[layer.type]
            if layer.type == "Convolution":
                layer.convolution_param.group = net.shapes[step.reads[0]][1]
    return message
