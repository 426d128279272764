"""Commands of experiments: templates with values put in, and searches over them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from netspec.cli.options import Device, Seed, Weights, settings_of
from netspec.errors import NetspecError

app = typer.Typer()
Values = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A value of the template; may be given again."),
]


def refuse_unread(file: Path, said: Mapping[str, Any]) -> None:
    """NetspecError for a --set value that the template never reads; a template with includes may pass it on."""
    from netspec.experiments.values import unread

    for name, hint in unread(file, said):
        raise NetspecError(f"--set {name}: {file} has no value of that name{hint}")


@app.command()
def render(
    file: Annotated[Path, typer.Argument(help="A template: Jinja2 (.prototmp), %(name)s or $NAME.")],
    settings: Values = None,
    values: Annotated[
        list[Path] | None, typer.Option("--values", help="A YAML or JSON file of values; may be given again.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan, whose values of one point are put in.")] = None,
    point: Annotated[int, typer.Option(min=1, help="Number of the plan's point.")] = 1,
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
    """Put values into a template. Mistakes name the line of the text, and that of the template.

    As in a plan's runs, `name` (the template's, without its suffix), `run_idx_1` and `caffe_random_seed` (both 1) have
    values where none are given.
    """
    from netspec.experiments.values import parse_settings, read_values
    from netspec.schema.templates import rendered

    given: dict[str, Any] = {"name": file.stem, "run_idx_1": 1, "caffe_random_seed": 1}
    if plan is not None:
        from netspec.experiments.points import values_of_point

        given, own = values_of_point(plan, file, point)
        engine = engine or own
    given |= {name: value for path in values or () for name, value in read_values(path).items()}
    said = parse_settings(settings or ())
    filled = rendered(file, {**given, **said}, engine)
    refuse_unread(file, said)
    if out is not None:
        out.write_text(filled.text, encoding="utf-8")
    else:
        print(filled.text, end="")
    if check:
        filled.parse(str(out) if out is not None else "")


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
    """Make the runs of a plan, or list them. A sweep that was stopped goes on with the same command."""
    from netspec.experiments.plan_reading import read_plan

    if len(files) > 2:
        raise typer.BadParameter("give a plan, or a template and a plan")
    plan = read_plan(files[-1], files[0] if len(files) == 2 else None, out, keep)
    for note in plan.notes():
        print(f"warning: {note}", file=sys.stderr)
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
    runs = list(previews(plan, timing))
    for line in [json.dumps(run.as_json()) for run in runs] if as_json else lines(plan, runs, jobs, timing):
        print(line)
    if any(run.error for run in runs):
        raise typer.Exit(1)


@app.command("lr-range")
def range_test(
    file: Annotated[Path, typer.Argument(help="A solver, or a net with its solver beside it.")],
    low: Annotated[float, typer.Option("--from", help="The first rate.")] = 1e-6,
    high: Annotated[float, typer.Option("--to", help="The last rate.")] = 10.0,
    iterations: Annotated[int, typer.Option("--iterations", "-n", min=2)] = 100,
    weights: Weights = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Change a field, as in train.", autocompletion=settings_of
        ),
    ] = None,
    device: Device = None,
    seed: Seed = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The curve: .svg, .png or .pdf.")] = Path(
        "lr_range.svg"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the curve as JSON too.")] = False,
) -> None:
    """Train a little while the learning rate rises; propose a rate to begin with."""
    from netspec.run.lr_range import draw_range, lr_range

    curve = lr_range(
        file,
        low=low,
        high=high,
        iterations=iterations,
        weights=weights,
        overrides=settings,
        device=device,
        seed=seed,
        progress=not as_json,
    )
    draw_range(curve, out)
    if as_json:
        print(
            json.dumps(
                {
                    "proposal": curve.proposal,
                    "lowest": curve.lowest,
                    "rates": curve.rates,
                    "losses": curve.losses,
                }
            )
        )
        return
    print(f"loss lowest at {curve.lowest:.3g}, falls fastest at {curve.steepest:.3g}; curve: {out}")
    print(f"proposal: base_lr: {curve.proposal:.2g}")
