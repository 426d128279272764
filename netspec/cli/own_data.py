"""Commands for data of one's own: a net for a table, and the classes of rows and pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netspec.cli.options import ModelFile, Weights, height_width
from netspec.errors import NetspecError

if TYPE_CHECKING:
    from netspec.experiments.pictures import Begun
    from netspec.experiments.tables import Arranged, Arrangement

app = typer.Typer()


@app.command()
def predict(
    model: ModelFile,
    weights: Weights = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A:B|PICTURE|FOLDER|FILE",
            help="Test images A to B - 1 of the model's own data; or pictures (may be given again), a folder, a list, "
            "a .npz, .npy, HDF5 or LMDB file, with :0:20 behind it for the first 20.",
        ),
    ] = None,
    rows: Annotated[
        str,
        typer.Option("--table", metavar="FILE", help="Rows of a .csv, .tsv or .parquet, or a named table."),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Table to write: .csv, .tsv or .parquet; default: print it."),
    ] = None,
) -> None:
    """Say the class of pictures or rows by its name, and the probability of each; of a numeric target its value."""
    from netspec.data.tables.writing import write_table
    from netspec.model.classes import classes_of
    from netspec.model.model import load
    from netspec.model.rows import TableModel, shown

    trained = load(model, weights)
    if rows:
        asked = TableModel(trained, lambda text: print(f"warning: {text}", file=sys.stderr))
        if out is not None:
            print(f"{out}: {asked.write_predicted(rows, out)} rows")
            return
        for piece in asked.predicted(asked.open(rows)):
            print(shown(asked.predicted_names(), piece))
        return
    names, columns = classes_of(
        trained, images or (), lambda text: print(f"warning: {text}", file=sys.stderr)
    )
    if out is None:
        print(shown(names, columns))
    else:
        print(f"{out}: {write_table(out, names, [columns])} pictures")


@app.command()
def arrange(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A .csv, .tsv or .parquet file, or a named table such as sklearn_iris; or pictures: a folder with a "
            "sub-folder a class, a flat folder, a .npz, .npy, HDF5, idx or LMDB file.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Net to write; default <name>.prototxt, its solver beside it."),
    ] = None,
    target: Annotated[
        str, typer.Option(help="The column that is to be foretold; default: none, or a named table's.")
    ] = "",
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; may be given again.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="A column of categories; may be given again.")
    ] = None,
    number: Annotated[list[str] | None, typer.Option(help="A column of numbers; may be given again.")] = None,
    missing_word: Annotated[
        list[str] | None, typer.Option(help="A word that stands for a missing cell; may be given again.")
    ] = None,
    separator: Annotated[str, typer.Option(help="What separates cells; default: as the file looks.")] = "",
    decimal: Annotated[str, typer.Option(help="The decimal sign; default: as the columns look.")] = "",
    encoding: Annotated[str, typer.Option(help="Of the text, as cp1252; default: as the file looks.")] = "",
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first line names the columns.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Height and width of pictures; default: the first one's, at most 32."
        ),
    ] = None,
    test: Annotated[float, typer.Option(help="Share of the rows that are held out to test on.")] = 0.2,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A value of nets/table.prototmp or pictures.prototmp, such as states=32.",
        ),
    ] = None,
) -> None:
    """Write a net and a solver for data of your own. For a table: a tree in which dependent columns are neighbours, a
    leaf for each kind of column. For pictures: a tree over patches, with the classes at its root.
    """
    from netspec.experiments.pictures import are_pictures, arrange_pictures
    from netspec.experiments.tables import Arrangement, arrange_table
    from netspec.experiments.values import parse_settings

    plan = Arrangement(
        source, target, tuple(leave_out or ()), tuple(category or ()), tuple(number or ()), tuple(missing_word or ()),
        separator, decimal, encoding, header, test,
    )  # fmt: skip
    values = parse_settings(settings or ())
    if are_pictures(source):
        refuse_table_options(plan)
        show_written(arrange_pictures(source, out, values, size=height_width(size), test=test))
        return
    if size is not None:
        raise NetspecError(f"{source}: is no folder or file of pictures; --size is for pictures")
    show_written(arrange_table(plan, out, values))


def refuse_table_options(plan: Arrangement) -> None:
    """NetspecError that names the options of tables, where they are given for pictures."""
    options = {
        "--target": plan.target, "--leave-out": plan.leave_out, "--category": plan.category, "--number": plan.number,
        "--missing-word": plan.missing_word, "--separator": plan.separator, "--decimal": plan.decimal,
        "--encoding": plan.encoding, "--header": plan.header is not None,
    }  # fmt: skip
    if useless := [name for name, value in options.items() if value]:
        raise NetspecError(f"{plan.source}: holds pictures; {', '.join(useless)} is for tables")


def show_written(begun: Begun | Arranged) -> None:
    """Print the files that were written, and warnings."""
    for note in begun.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(begun.text())
