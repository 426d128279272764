"""Settings from the command line, `field=value`, written into a solver and its nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import text_format

from netspec.errors import SpecError, did_you_mean
from netspec.schema.descriptors import is_repeated

NETS = ("net", "train_net", "test_net", "net_param", "train_net_param", "test_net_param")
"""Fields of a solver that name its nets; they are read before settings are applied."""

UNTOLD = (*NETS, "max_iter", "display", "debug_info", "snapshot", "snapshot_prefix", "snapshot_after_train")
"""Fields in which a resumed run may differ: they change no iteration, or make the run longer."""


def changes(before: Any, now: Any) -> list[str]:
    """`base_lr was 0.01, now 0.1` for each field that differs between two SolverParameters, save for UNTOLD."""
    lines = []
    for field in now.DESCRIPTOR.fields:
        old, new = (shown(getattr(message, field.name)) for message in (before, now))
        if field.name not in UNTOLD and old != new:
            lines.append(f"{field.name} was {old or 'none'}, now {new or 'none'}")
    return lines


def settings_shown(solver: Any) -> dict[str, Any]:
    """The fields that a SolverParameter sets, its nets left out: numbers and texts as they are, others as text."""
    fields = {
        field.name: getattr(solver, field.name) for field, _ in solver.ListFields() if field.name not in NETS
    }
    return {
        name: value if isinstance(value, int | float | str) else shown(value)
        for name, value in fields.items()
    }


def shown(value: Any) -> str:
    """A field's value on one line."""
    if isinstance(value, float):
        return f"{value:.7g}"
    if hasattr(value, "ListFields"):
        return str(text_format.MessageToString(value, as_one_line=True))
    if isinstance(value, str | int):
        return str(value)
    return ",".join(shown(entry) for entry in value)


def override(solver: Any, nets: Sequence[Any], settings: Mapping[str, str] | Sequence[str]) -> None:
    """Write each setting into the solver's message, or into every layer of its name in the nets.

    `base_lr=0.01` is a field of the solver; `sim1.similarity_param.num_instances=64` one of the layer sim1;
    `param[1].lr_mult` or `stepvalue[0]` an entry of a repeated field, `stepvalue=10,20` all entries; the index after
    the last adds an entry, as in `include[0].phase=TEST`.
    `dialect=segnet` is a field of the nets. A value is written as in prototxt; the quotes of a string may be left out.
    Raises SpecError naming the setting that does not fit.
    """
    pairs = settings.items() if isinstance(settings, Mapping) else [split(setting) for setting in settings]
    for path, value in pairs:
        setting = f"--set {path}={value}"
        if path == "dialect":
            for net in nets:
                assign(net, path, value, setting)
            continue
        head, _, rest = path.partition(".")
        layers = [layer for net in nets for layer in net.layer if layer.name == head] if rest else []
        if not layers and head.partition("[")[0] not in solver.DESCRIPTOR.fields_by_name:
            names = [*solver.DESCRIPTOR.fields_by_name, *(layer.name for net in nets for layer in net.layer)]
            raise SpecError(f"{setting}: {head!r} is no solver field and no layer{did_you_mean(head, names)}")
        if not layers and head.partition("[")[0] in NETS:
            raise SpecError(f"{setting}: a solver's net is read before settings; give the file in its place")
        for message, inner in [(layer, rest) for layer in layers] or [(solver, path)]:
            assign(message, inner, value, setting)


def settable(value: Any) -> str:
    """A value of a plan in the form that follows `--set NAME=`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(settable(entry) for entry in value)
    return str(value)


def split(setting: str) -> tuple[str, str]:
    path, equals, value = setting.partition("=")
    if not equals or not path.strip():
        raise SpecError(f"--set {setting}: expected field=value")
    return path.strip(), value.strip()


def assign(message: Any, path: str, value: str, setting: str) -> None:
    """Set the field at a dotted path below `message` to what `value` says in text format."""
    *outer, last = path.split(".")
    for part in outer:
        field, index = find(message, part, setting)
        if field.message_type is None:
            raise SpecError(f"{setting}: {field.name} holds no fields")
        message = (
            element(message, field, index, setting) if is_repeated(field) else getattr(message, field.name)
        )
    field, index = find(message, last, setting)
    if index is not None:
        (new,) = parsed(message, field, value, setting)
        if field.message_type is not None:
            element(message, field, index, setting).CopyFrom(new)
        else:
            reachable(message, field, index, setting)[index : index + 1] = [new]
        return
    entries = value.split(",") if is_repeated(field) and field.message_type is None else [value]
    new = [entry for text in entries for entry in parsed(message, field, text.strip(), setting)]
    message.ClearField(field.name)
    if is_repeated(field):
        getattr(message, field.name).extend(new)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(new[0])
    else:
        setattr(message, field.name, new[0])


def find(message: Any, part: str, setting: str) -> tuple[Any, int | None]:
    """The descriptor of a field and the index behind it, from `name` or `name[index]`."""
    name, bracket, index = part.partition("[")
    fields = message.DESCRIPTOR.fields_by_name
    if name not in fields:
        raise SpecError(
            f"{setting}: {message.DESCRIPTOR.name} has no field {name!r}{did_you_mean(name, fields)}"
        )
    if not bracket:
        return fields[name], None
    if not is_repeated(fields[name]) or not index.removesuffix("]").isdigit():
        raise SpecError(f"{setting}: {part!r} is no entry of a repeated field")
    return fields[name], int(index.removesuffix("]"))


def reachable(message: Any, field: Any, index: int | None, setting: str) -> Any:
    """The entries of a repeated field; `index` must be one of them or the next."""
    values = getattr(message, field.name)
    name, count = field.name, len(values)
    if index is None and count:
        raise SpecError(f"{setting}: {name} has entries 0 to {count - 1}; say which, as in {name}[0]")
    if index is None or index > count:
        held = f"entries 0 to {count - 1}; {name}[{count}] would add one" if count else ""
        raise SpecError(f"{setting}: {name} has {held or f'no entries, and {name}[0] would add the first'}")
    return values


def element(message: Any, field: Any, index: int | None, setting: str) -> Any:
    """An entry of a repeated message; the index after the last adds one."""
    values = reachable(message, field, index, setting)
    return values.add() if index == len(values) else values[index]


def parsed(message: Any, field: Any, value: str, setting: str) -> list[Any]:
    """Values of `field` as written; a bare word is taken as a string where the field is one."""
    text = f"{{ {value} }}" if field.message_type is not None and not value.startswith("{") else value
    if field.cpp_type == field.CPPTYPE_STRING and value[:1] not in ("'", '"'):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    scratch = type(message)()
    try:
        text_format.Parse(f"{field.name}: {text}", scratch)
    except text_format.ParseError as error:
        reason = str(error).partition(" : ")[2] or str(error)
        raise SpecError(f"{setting}: {reason}") from None
    if others := [entry.name for entry, _ in scratch.ListFields() if entry.name != field.name]:
        raise SpecError(f"{setting}: holds other fields: {', '.join(others)}")
    values = getattr(scratch, field.name)
    return list(values) if is_repeated(field) else [values]
