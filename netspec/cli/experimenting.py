"""Commands of experiments: templates with values put in, and searches over them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
Values = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A value of the template; may be given again."),
]


@app.command()
def render(
    file: Annotated[Path, typer.Argument(help="A template: Jinja2 (.prototmp), %(name)s or $NAME.")],
    settings: Values = None,
    values: Annotated[
        list[Path] | None, typer.Option("--values", help="A YAML or JSON file of values; may be given again.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="jinja, percent or dollar; by default what the text looks like.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write it there, in place of printing.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Read the text as a net or a solver.")
    ] = True,
) -> None:
    """Put values into a template. Mistakes name the line of the text, and that of the template."""
    from netspec.experiments.values import parse_settings, read_values
    from netspec.schema.templates import rendered

    given = {name: value for path in values or () for name, value in read_values(path).items()}
    made = rendered(file, {**given, **parse_settings(settings or ())}, engine)
    if out is not None:
        out.write_text(made.text, encoding="utf-8")
    else:
        print(made.text, end="")
    if check:
        made.parse(str(out) if out is not None else "")
