"""Commands that help with writing specs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from netspec.errors import NetspecError

app = typer.Typer()


@app.command()
def fmt(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Specs, folders of them (.prototxt, .pbtxt), or - for standard input."),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 where a file would change.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; show what would change.")] = False,
) -> None:
    """Write specs in canonical form. Comments, fields and values stay as they are; only the layout changes."""
    from netspec.check.canonical import INPUT, files_of, formatted, from_input

    changed, failed, seen = 0, 0, 0
    for path in files_of(paths):
        seen += 1
        try:
            spec = from_input(sys.stdin.read()) if path == INPUT else formatted(path)
            if path == INPUT and not (check or diff):
                print(spec.after, end="")
                return
            if spec.differs and not (check or diff):
                spec.write()
        except (NetspecError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        if spec.differs:
            changed += 1
            print(
                spec.diff() if diff else f"{path}: {'would change' if check else 'formatted'}",
                end="" if diff else "\n",
            )
    would = "would change" if check or diff else "formatted"
    broken = f", {failed} cannot be read" if failed else ""
    print(f"{changed} of {seen} files {would}{broken}", file=sys.stderr)
    if failed:
        raise typer.Exit(2)
    if changed and (check or diff):
        raise typer.Exit(1)


def names_of_fields(incomplete: str) -> list[str]:
    """A shell's completions for a name: layer types, messages, paths of fields."""
    from netspec.check.fields import names

    return [name for name in names() if name.startswith(incomplete)]


@app.command()
def field(
    name: Annotated[
        str,
        typer.Argument(
            help="A field (convolution_param.pad, pad), a layer type or a message.",
            autocompletion=names_of_fields,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the fields of that name as JSON.")] = False,
) -> None:
    """Say what a field means: its type, default, layers, and a use of it; or what fields a layer type has."""
    from netspec.check.fields import explain, find

    if as_json:
        print(json.dumps([entry.as_json() for entry in find(name)], indent=2))
        return
    print("\n".join(explain(name)))
