"""Commands of experiments: templates with values put in, and searches over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from netspec.cli.options import Device

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


@app.command()
def sweep(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[TEMPLATE] PLAN", help="A plan (YAML or JSON), before it a template for its runs."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and what they would cost.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the sweep.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Runs at a time; by default one per core or GPU."),
    ] = None,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Time a step in a dry run.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print a dry run as JSON lines.")] = False,
    device: Device = None,
    keep: Annotated[
        str | None, typer.Option(help="Snapshots of a finished run to keep: last, best, all or none.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Make runs that failed again.")] = False,
    storage: Annotated[
        str,
        typer.Option(
            help="optuna's storage, shared by machines: sqlite:///FILE, postgresql://..., or a journal file."
        ),
    ] = "",
) -> None:
    """Make the runs of a plan, or list them. A sweep that was stopped, however, goes on with the same command."""
    from netspec.experiments.plans import read_plan

    if len(files) > 2:
        raise typer.BadParameter("give a plan, or a template and a plan")
    plan = read_plan(files[-1], files[0] if len(files) == 2 else None, out, keep)
    if dry_run:
        show(plan, jobs or 1, timing, as_json)
        return
    from netspec.experiments.board import Board
    from netspec.experiments.sweep import Options, Sweep
    from netspec.experiments.table import table_path

    with Board() as board:
        summary = Sweep(plan, Options(jobs, device, retry, storage), board.tell).run()
    if summary.interrupted:
        print("stopped; the same command goes on")
        raise typer.Exit(130)
    lacking = f", {len(summary.skipped)} not made" if summary.skipped else ""
    print(
        f"{len(summary.results)} runs over, {len(summary.failed)} of them failed{lacking}: {table_path(plan)}"
    )
    if summary.failed or summary.skipped:
        raise typer.Exit(1)


def show(plan: Any, jobs: int, timing: bool, as_json: bool) -> None:
    """Print the runs of a plan."""
    from netspec.experiments.preview import adaptive_lines, is_adaptive, lines, previews

    if is_adaptive(plan):
        print("\n".join(adaptive_lines(plan)))
        return
    found = list(previews(plan, timing))
    for line in [json.dumps(one.as_json()) for one in found] if as_json else lines(plan, found, jobs, timing):
        print(line)
    if any(one.error for one in found):
        raise typer.Exit(1)
