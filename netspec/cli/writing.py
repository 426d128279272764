"""Commands that help with writing specs."""

from __future__ import annotations

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
    from netspec.check.canonical import files_of, formatted
    from netspec.schema.formatting import format_text

    if paths == [Path("-")]:
        print(format_text(sys.stdin.read(), "<standard input>"), end="")
        return
    changed, failed, seen = 0, 0, 0
    for path in files_of(paths):
        seen += 1
        try:
            one = formatted(path)
            if one.differs and not (check or diff):
                one.write()
        except (NetspecError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        if one.differs:
            changed += 1
            print(
                one.diff() if diff else f"{path}: {'would change' if check else 'formatted'}",
                end="" if diff else "\n",
            )
    would = "would change" if check or diff else "formatted"
    broken = f", {failed} cannot be read" if failed else ""
    print(f"{changed} of {seen} files {would}{broken}", file=sys.stderr)
    if failed:
        raise typer.Exit(2)
    if changed and (check or diff):
        raise typer.Exit(1)
