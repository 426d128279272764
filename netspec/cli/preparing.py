"""Commands that make data sets out of others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netspec.cli.options import Device, Seed, Stages, Weights, height_width
from netspec.errors import DataError

if TYPE_CHECKING:
    from netspec.data.writing.convert import Example

app = typer.Typer()

Records = Annotated[
    str,
    typer.Argument(
        help="A list or a folder of pictures, an .npz, .npy, idx or HDF5 file of images, an LMDB or LevelDB, or a data "
        "set's name."
    ),
]
Split = Annotated[str, typer.Option(help="Of a named data set: train, validation, whole_train or test.")]
Size = Annotated[str | None, typer.Option(metavar="HxW", help="Resize to this height and width.")]
Root = Annotated[str, typer.Option(help="Folder that the paths of a list are relative to.")]
Gray = Annotated[bool, typer.Option("--gray", help="Read the pictures of a list as grey levels.")]
Backend = Annotated[
    str | None,
    typer.Option(help="lmdb, leveldb, hdf5 or npz (of a dataset); by default by TARGET's ending, else lmdb."),
]


@app.command()
def dataset(
    source: Records,
    target: Annotated[Path, typer.Argument(help="Database to make, or .h5.")],
    backend: Backend = None,
    split: Split = "whole_train",
    labels: Annotated[
        Path | None, typer.Option(help="Labels of an idx file; default the file named like it.")
    ] = None,
    root: Root = "",
    size: Size = None,
    gray: Gray = False,
    encoded: Annotated[
        bool, typer.Option("--encoded", help="Keep the bytes of the picture files of a list.")
    ] = False,
    same_size: Annotated[
        bool, typer.Option("--same-size", help="Refuse a list whose pictures differ in size.")
    ] = False,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Write in random order.")] = False,
    seed: Seed = None,
    scale: Annotated[
        float, typer.Option(help="Factor of the values in HDF5, which nothing scales later.")
    ] = 1.0,
    rows: Annotated[int, typer.Option(help="Rows of one HDF5 file.", min=1)] = 10_000,
    target_column: Annotated[
        str, typer.Option("--target", help="Of a table: the column that becomes the label.")
    ] = "",
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Of a table: a column to leave out; may be given again.")
    ] = None,
    standardise: Annotated[
        bool, typer.Option(help="Of a table: numbers less their mean, over their deviation.")
    ] = True,
) -> None:
    """Write images with labels, or the rows of a table, into an LMDB, a LevelDB, HDF5 files or an .npz archive.
    Nothing is left where it fails.
    """
    from netspec.data.writing.convert import from_any, is_table
    from netspec.data.writing.rows import table_records

    skipped: list[str] = []
    beside: dict[str, str] = {}
    kind = (backend or backend_of(target)).lower()
    if is_table(source):
        useless = {"--root": root, "--size": size, "--gray": gray, "--encoded": encoded, "--same-size": same_size,
                   "--labels": labels, "--shuffle": shuffle}  # fmt: skip
        if given := [name for name, value in useless.items() if value]:
            raise DataError(f"{source}: is a table; {', '.join(given)} is for pictures")
        table = table_records(source, target_column, tuple(leave_out or ()), standardise)
        for note in table.notes:
            print(f"warning: {note}", file=sys.stderr)
        records, told = table.records, table.text()
        beside[f"{target.name.split('.')[0]}_columns.prototxt"] = table.columns()
    else:
        if target_column or leave_out or not standardise:
            raise DataError(
                f"{source}: is no table, which --target, --leave-out and --no-standardise are for"
            )
        records = from_any(source, split=split, labels=labels, root=folder(root), size=height_width(size),
                           color=not gray, encoded=encoded, same_size=same_size,
                           shuffle=(seed or 0) if shuffle else None, skip=skipping(skipped))  # fmt: skip
        told = ""
    write_records(records, target, kind, beside, rows, scale, skipped)
    for line in (told, *(str(target.with_name(name)) for name in beside)):
        print(line) if line else None


def write_records(
    records: Iterator[Example],
    target: Path,
    kind: str,
    beside: dict[str, str],
    rows: int,
    scale: float,
    skipped: list[str],
) -> None:
    """Write records to a target of a kind, and say so."""
    from netspec.data.writing.databases import write_database, write_hdf5, write_npz

    if kind == "npz":
        print(f"{target}: {write_npz(records, target, scale, beside)} records{left_out(skipped)}")
    elif kind == "hdf5":
        listed = target if target.suffix == ".txt" else target.with_suffix(".txt")
        for file in write_hdf5(records, listed, rows, scale=scale, beside=beside):
            print(file)
        print(f"{listed}: for `source` of HDF5Data{left_out(skipped)}")
    else:
        count = write_database(records, target, kind.upper(), beside)
        print(f"{target}: {count} records{left_out(skipped)}")


def skipping(skipped: list[str]) -> Callable[[str], None]:
    """A function that reports and counts pictures that are left out."""

    def skip(text: str) -> None:
        skipped.append(text)
        print(f"left out: {text}", file=sys.stderr)

    return skip


def left_out(skipped: list[str]) -> str:
    """How many pictures were left out, in words."""
    return f"; {len(skipped)} pictures that cannot be read are left out" if skipped else ""


@app.command()
def mean(
    source: Records,
    target: Annotated[Path | None, typer.Argument(help="Mean image to write, a .binaryproto.")] = None,
    split: Split = "whole_train",
    root: Root = "",
    size: Size = None,
    gray: Gray = False,
) -> None:
    """Average images: a mean file, and the mean of each channel as lines for transform_param."""
    from netspec.data.files.protos import write_blob
    from netspec.data.writing.convert import from_any, mean_image

    skipped: list[str] = []
    average = mean_image(
        from_any(
            source,
            split=split,
            root=folder(root),
            size=height_width(size),
            color=not gray,
            skip=skipping(skipped),
        )
    )
    for value in average.mean((1, 2), dtype=float):
        print(f"mean_value: {value:.6g}")
    if target is not None:
        write_blob(target, average)
        print(target)


@app.command()
def features(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A run folder, a solver, or a net.")],
    target: Annotated[
        Path, typer.Argument(help=".h5, .npz, or a database (a folder of them for several blobs).")
    ],
    blob: Annotated[list[str], typer.Option(help="Blob to write; may be given again.")],
    batches: Annotated[int, typer.Option("--batches", "-n", help="Batches to run.", min=1)] = 50,
    weights: Weights = None,
    backend: Backend = None,
    stage: Stages = None,
    device: Device = None,
    seed: Seed = None,
) -> None:
    """Write what a net computes: its blobs over batches of its own data, in phase TEST."""
    from netspec.run.evaluate import extract
    from netspec.run.spread import together

    kind = (backend or backend_of(target)).upper()
    if (kind == "HDF5") != (target.suffix in HDF5):
        raise DataError(f"{target}: HDF5 is written to names that end with {' or '.join(HDF5)}")
    with together(device) as (among, own):
        rows = extract(
            source,
            target,
            blob,
            weights,
            batches=batches,
            backend=kind,
            stages=stage or (),
            device=None if own is None else str(own),
            seed=1 if seed is None else seed,
        )
    if among.leads:
        print(f"{target}: {rows} rows of {', '.join(blob)}")


HDF5 = (".h5", ".hdf5")


def backend_of(target: Path) -> str:
    """The kind of data set that a name asks for."""
    return (
        "npz"
        if target.suffix == ".npz"
        else "hdf5"
        if target.suffix in (*HDF5, ".txt")
        else "leveldb"
        if "leveldb" in target.name.lower()
        else "lmdb"
    )


def folder(root: str) -> str:
    """A folder as the prefix of paths."""
    return f"{root}/" if root and not root.endswith("/") else root
