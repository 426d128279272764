"""Pages of the reference, made from the code: the command, the schema's messages, the Python names."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import netspec
from netspec import schema
from netspec.schema.descriptors import descriptor, message_names


def pages() -> dict[str, str]:
    """Markdown of each page by its name."""
    return {"command": command_page(), "python": python_page(), "fields": fields_page()}


def cell(text: str) -> str:
    """A text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def command_page() -> str:
    """Every command with its arguments and options."""
    from typer.main import get_command

    from netspec.cli import app

    group: Any = get_command(app)
    lines = [
        "# The `netspec` command",
        "",
        "Made from the program itself: `netspec COMMAND -h` says the same.",
        "",
    ]
    for name, command in group.commands.items():
        lines += [f"## netspec {name}", "", cell(command.help or ""), ""]
        rows = []
        for one in command.params:
            if one.name == "help":
                continue
            words = [*one.opts, *one.secondary_opts]
            what = (
                (one.metavar or one.name or "").upper()
                if one.param_type_name == "argument"
                else ", ".join(words)
            )
            help_text = getattr(one, "help", "") or ""
            default = one.default if not callable(one.default) else None
            tail = "" if default in (None, "", False, True) else f" Default: {default}."
            rows.append(f"| `{what}` | {cell(help_text + tail)} |")
        lines += ["| | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def python_page() -> str:
    """The public names."""
    lines = ["# Python", "", "What `import netspec` gives. Names are loaded when they are first used.", ""]
    for name in netspec.__all__:
        value = getattr(netspec, name)
        module = value.__module__
        if inspect.getmodule(value) is None:  # re-exported by a package
            module = importlib.import_module(module).__name__
        lines += [f"::: {module}.{name}", ""]
    return "\n".join(lines)


def fields_page() -> str:
    """Every message of the schema with its fields, types, defaults and meaning."""
    lines = [
        "# Fields of nets and solvers",
        "",
        "Made from `proto/netspec.proto`. A net file is a `NetParameter`, a solver file a `SolverParameter`.",
        "",
    ]
    first = ["NetParameter", "LayerParameter", "SolverParameter"]
    others = sorted(name for name in message_names() if name not in first and "." not in name)
    for name in [*first, *others]:
        message = descriptor(name)
        if not message.fields:
            continue
        lines += [f"## {name}", "", schema.describe(name), "", "| field | type | meaning |", "|---|---|---|"]
        for field in message.fields:
            many = "many " if many_of(field) else ""
            meaning = cell(schema.describe(name, field.name))
            lines.append(f"| `{field.name}` | {many}{type_of(field)}{default_of(field)} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def many_of(field: Any) -> bool:
    """Whether a field may be given again."""
    from netspec.schema.descriptors import is_repeated

    return is_repeated(field)


def type_of(field: Any) -> str:
    """What a field holds, in words."""
    if field.message_type is not None:
        return str(field.message_type.name)
    if field.enum_type is not None:
        return " ".join(value.name for value in field.enum_type.values)
    kinds = {
        1: "number",
        2: "number",
        3: "integer",
        4: "integer",
        5: "integer",
        8: "true or false",
        9: "text",
    }
    return kinds.get(field.type, "integer" if field.type in (6, 7, 13, 15, 16, 17, 18) else "bytes")


def default_of(field: Any) -> str:
    """The default, where the schema names one."""
    if not field.has_default_value:
        return ""
    value = field.default_value
    if field.enum_type is not None:
        value = field.enum_type.values_by_number[value].name
    return f", default {value}"
