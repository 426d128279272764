"""Completions of a shell for `--set`: fields of the solver, layers and their fields, values of enums."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from netspec.errors import NetspecError
from netspec.layers import registry
from netspec.run.experiment import load
from netspec.run.settings import NETS
from netspec.schema.values import FieldInfo
from netspec.solver.policies import policies
from netspec.solver.rules import rules


def settings(file: Path | None, begun: str) -> list[str]:
    """Settings that begin with the text, for a solver, or a net with its solver beside it; fields of the solver alone
    without a readable file.

    A name that leads to fields ends in a dot, a name that takes a value in an equals sign.
    """
    from netspec import schema

    nets: list[Any] = []
    solver = schema.message_class("SolverParameter").DESCRIPTOR
    if file is not None:
        try:
            nets = load(file).nets
        except (NetspecError, OSError):
            nets = []
    path, equals, value = begun.partition("=")
    *outer, last = path.split(".")
    layers = {layer.name: layer for net in nets for layer in net.layer}
    message, lead = solver, ".".join(outer) + "." if outer else ""
    if outer and outer[0] in layers:
        message, outer = layers[outer[0]].DESCRIPTOR, outer[1:]
    for step in outer:
        field = message.fields_by_name.get(step.partition("[")[0])
        if field is None or field.message_type is None:
            return []
        message = field.message_type
    if equals:
        field = message.fields_by_name.get(last.partition("[")[0])
        return [f"{path}={word}" for word in words(message, field) if word.startswith(value)]
    names = [f"{field.name}{ending(field)}" for field in message.fields if field.name not in NETS]
    if not lead:
        names += [f"{name}." for name in layers]
    elif lead.count(".") == 1 and path.partition(".")[0] in layers:
        own = used(layers[path.partition(".")[0]])
        names = [name for name in names if not name.endswith("_param.") or name.removesuffix(".") in own]
    return [lead + name for name in names if name.startswith(last)]


def used(layer: Any) -> set[str]:
    """The message fields that a layer's type reads, and those that the layer has."""
    kind = registry.get(layer.type)
    own = {kind.param_field} if kind is not None and kind.param_field else set[str]()
    return {*own, "transform_param", "loss_param", *(field.name for field, _ in layer.ListFields())}


def ending(field: Any) -> str:
    info = FieldInfo(field)
    if info.repeated and info.below is not None:
        return "[0]."
    return "." if info.below is not None else "="


def words(message: Any, field: Any) -> list[str]:
    """The values of a field with a fixed set of values."""
    if field is None:
        return []
    info = FieldInfo(field)
    if info.enum:
        return list(info.enum)
    if info.type == "bool":
        return ["true", "false"]
    known: dict[tuple[str, str], Iterable[str]] = {
        ("SolverParameter", "lr_policy"): policies,
        ("SolverParameter", "type"): rules,
        ("LayerParameter", "type"): registry,
    }
    return sorted(known.get((message.name, field.name), ()))
