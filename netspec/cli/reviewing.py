"""Commands over runs that are there: lists, comparisons, reports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from netspec.cli.options import Device
from netspec.errors import NetspecError

app = typer.Typer()


@app.command()
def runs(
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILTER]...", help="Part of a path, or a condition: accuracy>0.9, seed=1, net~cac."
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--in", help="Folder of the runs.")] = Path("runs"),
    sort: Annotated[str, typer.Option(help="A column to sort by; -accuracy: the largest first.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is known as JSON lines.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    sql: Annotated[
        str,
        typer.Option(
            help="Ask the index in SQL: tables runs, settings, tests, train, data, and the view last."
        ),
    ] = "",
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the index anew.")] = False,
) -> None:
    """List runs, from an index that is made from their folders (index.sqlite beside them)."""
    from netspec.experiments.index import Index
    from netspec.experiments.listing import Listing, listing, table, unique

    with Index(folder, rebuild) as index:
        if sql:
            columns, rows = index.ask(sql)
            columns = unique(columns)
            shown = Listing([dict(zip(columns, row, strict=True)) for row in rows], columns)
        else:
            shown = listing(index, filters or (), sort)
    if as_json:
        hidden = ("stamp", "id") if not sql else ()
        for row in shown.rows:
            print(
                json.dumps({name: value for name, value in row.items() if name not in hidden}, default=repr)
            )
    elif as_csv:
        print(shown.csv(), end="")
    else:
        print(table(shown.rows, shown.columns))


@app.command()
def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...",
            help="Run folders, or folders of runs; with --blobs two models: nets, runs, .onnx.",
        ),
    ],
    output: Annotated[
        str, typer.Option(help="The test output to compare; by default all that the runs share.")
    ] = "",
    test: Annotated[
        bool,
        typer.Option("--test/--no-test", help="Run the test nets, for McNemar's test on their predictions."),
    ] = True,
    diff: Annotated[bool, typer.Option("--diff", help="Print all that differs in the files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = None,
    blobs: Annotated[
        bool,
        typer.Option(
            "--blobs",
            help="Compare two models blob by blob on the same inputs; exits with 1 where they differ.",
        ),
    ] = False,
    weights_a: Annotated[Path | None, typer.Option(help="With --blobs: weights of the first.")] = None,
    weights_b: Annotated[Path | None, typer.Option(help="With --blobs: weights of the second.")] = None,
    tolerance: Annotated[
        float, typer.Option(help="With --blobs: largest relative difference that passes.")
    ] = 1e-4,
) -> None:
    """Compare runs: metrics, what differs in their files, and whether the difference is more than chance.

    Runs that differ in their seeds alone are one group, compared over the seeds that both have. Without run folders,
    two models are compared blob by blob, as with --blobs.
    """
    if blobs or not all(path.is_dir() for path in paths):
        compare_blobs(paths, weights_a, weights_b, tolerance)
        return
    from netspec.experiments.comparing import compare_runs

    comparison = compare_runs(
        paths, output=output, test=test, device=device, progress=lambda text: print(text, file=sys.stderr)
    )
    if as_json:
        print(json.dumps(comparison.as_json(), indent=2))
    else:
        print("\n".join(comparison.lines(diff)))


def compare_blobs(
    paths: list[Path], weights_a: Path | None, weights_b: Path | None, tolerance: float
) -> None:
    """Print the differences of two models blob by blob."""
    from netspec.interchange import compare_files

    if len(paths) != 2:
        gone = [path for path in paths if not path.exists()]
        if gone:
            raise NetspecError(f"{gone[0]}: no such run folder; netspec runs lists those in runs/")
        raise NetspecError("blob by blob, two models are compared: netspec compare --blobs A B")
    comparison = compare_files(paths[0], paths[1], weights_a, weights_b, tolerance)
    print(comparison)
    if not comparison.equal:
        raise typer.Exit(1)


@app.command()
def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs, as a sweep's.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The page; by default report.html in the folder, or beside several."
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="The test output by which runs are ranked.")] = "",
    test: Annotated[
        bool,
        typer.Option(
            "--test/--no-test",
            help="Run the test net of the run in detail, for its confusion matrix and histograms.",
        ),
    ] = True,
) -> None:
    """Write runs as one HTML page: curves, a table, settings against results, the net, pictures; it works offline."""
    from netspec.experiments.report import report as write

    print(write(paths, out, metric=metric, test=test, tell=lambda text: print(text, file=sys.stderr)))
