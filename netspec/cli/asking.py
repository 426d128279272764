"""Commands that ask a generative model."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netspec.cli.options import SEED_MAX, AllowPython, Device, ModelFile, Weights, consent_to

if TYPE_CHECKING:
    from netspec.data.files.idx import Array
    from netspec.model.inputs import Given
    from netspec.model.model import Model

app = typer.Typer()

Picture = Annotated[Path, typer.Option("--out", "-o", help="Picture to write: .png, .svg or .pdf.")]
Page = Annotated[
    str,
    typer.Option(
        metavar="WxH", help="Page in inches to fit into, as 8.3x11.7; default: what the panels need."
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A:B|PICTURE|FOLDER|FILE",
        help="Test images A to B - 1 of the model's own data; or a picture (may be given again), a folder, a list, a "
        ".npz, .npy, HDF5 or LMDB file, with :0:20 behind it for the first 20.",
    ),
]
Rows = Annotated[
    str,
    typer.Option("--table", metavar="FILE", help="Rows to ask about: .csv, .tsv, .parquet or a named table."),
]
Absent = Annotated[
    str, typer.Option(help="What is missing: iid:0.5, rects:1x11, file:MASK.png, ...; clean for nothing.")
]
Draws = Annotated[int, typer.Option(help="Seed of the draws.", min=0, max=SEED_MAX)]


def chosen(images: str) -> tuple[int, int]:
    """A:B as numbers; B alone means 0:B."""
    first, _, last = images.rpartition(":")
    try:
        begin, end = int(first or 0), int(last)
    except ValueError:
        raise typer.BadParameter(f"{images!r} is no range A:B") from None
    if not 0 <= begin < end:
        raise typer.BadParameter(f"{images!r} is no range A:B with 0 <= A < B")
    return begin, end


def inches(page: str) -> tuple[float, float] | None:
    """WxH as (width, height); None for an empty text."""
    if not page:
        return None
    width, _, height = page.partition("x")
    try:
        sides = float(width), float(height)
    except ValueError:
        raise typer.BadParameter(f"{page!r} is no WxH, such as 8.3x11.7") from None
    if not all(0.5 <= side <= 100 for side in sides):
        raise typer.BadParameter(f"{page!r}: the sides of a page are 0.5 to 100 inches")
    return sides


def parts(text: str) -> list[str]:
    """What stands between the commas."""
    return [part for part in text.split(",") if part]


def tell(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def bounds(robust: str) -> tuple[int, float]:
    """NxC as (N, C)."""
    deleted, _, bound = robust.partition("x")
    try:
        pair = int(deleted), float(bound)
    except ValueError:
        raise typer.BadParameter(f"{robust!r} is no NxC, such as 5x0.1") from None
    if pair[0] < 0 or not 0 < pair[1] < float("inf"):
        raise typer.BadParameter(f"{robust!r}: N is at least 0, and C above 0")
    return pair


def place(given: str) -> tuple[str, int, int, int]:
    """LAYER:ROW,COLUMN=STATE as (layer, row, column, state)."""
    match = re.fullmatch(r"(.+):(\d+),(\d+)=(\d+)", given)
    if not match:
        raise typer.BadParameter(f"{given!r} is no LAYER:ROW,COLUMN=STATE, such as sum3:0,1=17")
    layer, row, column, state = match.groups()
    return layer, int(row), int(column), int(state)


def seen(
    trained: Model, images: list[str] | None, default: str, missing: str, seed: int, holes: str = "clean"
) -> tuple[Array, Array, Given]:
    """(pixels, mask of the observed ones, the images asked about). holes: the missing pixels where neither `missing`
    nor the images say.
    """
    import numpy as np

    from netspec.lab.settings import parse
    from netspec.model.inputs import given

    by_number = images and re.fullmatch(r"(-?\d*:)?-?\d+", images[0])
    if images and by_number:
        chosen(images[0])
    asked = given(trained, images or (), default)
    for note in asked.notes:
        warn(note)
    own = asked.holes
    setting = parse(missing or ("clean" if own is not None else holes))
    if images and own is None and not missing and holes != "clean" and not by_number:
        warn(
            f"no pixel of these pictures is missing, so {holes} is hidden; say --missing rects:1x8, file:MASK.png"
        )
    if larger := setting.larger(asked.pixels.shape[2:]):
        warn(larger)
    observed = setting.observed(asked.pixels, np.arange(asked.first, asked.first + len(asked.pixels)), seed)
    return asked.pixels, observed if own is None else observed & own, asked


def one_image(trained: Model, image: str) -> Array:
    """The pixels (C, H, W) of a test image by its number, or of a picture."""
    from netspec.model.inputs import given

    if re.fullmatch(r"-\d+", image):
        raise typer.BadParameter(f"{image!r} is no image: numbers count from 0")
    asked = given(trained, [f"{image}:{int(image) + 1}" if image.isdecimal() else image])
    picture: Array = asked.pixels[0]
    return picture


def refuse_table(trained: Model) -> None:
    """DataError for a model of a table, which answers about rows."""
    from netspec.errors import DataError

    if trained.layout is not None:
        raise DataError(f"{trained.name}: reads a table; ask it about --table FILE.csv, or a named table")


def refuse_pictures_of(trained: Model) -> None:
    """DataError for a model of a table, of which there is no picture."""
    from netspec.errors import DataError

    if trained.layout is not None:
        run = trained.name
        raise DataError(
            f"{run}: is of a table, and this draws pictures; ask for rows (netspec sample {run} -o rows.csv), classes "
            f"(netspec predict {run} --table FILE) or log p (netspec likelihood {run} --table FILE), or draw the net "
            f"(netspec draw {run})"
        )


def refuse_missing(missing: str) -> None:
    """NetspecError where `missing` says what of a table given as a file is missing."""
    from netspec.errors import NetspecError

    if missing not in ("", "clean"):
        raise NetspecError(
            f"--missing is for pictures, found {missing!r}; of --table FILE the empty cells are missing"
        )


def warn(text: str) -> None:
    """Warn on stderr."""
    print(f"warning: {text}", file=sys.stderr)


@app.command()
def sample(
    model: ModelFile,
    weights: Weights = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Picture to write: .png, .svg or .pdf, of a table violins beside its own; or .csv, .tsv, .parquet.",
        ),
    ] = None,
    page: Page = "",
    count: Annotated[
        int, typer.Option("--rows", help="Rows to draw, where the model is of a table.", min=1)
    ] = 100,
    columns: Annotated[int, typer.Option(help="Samples of each class.", min=1)] = 10,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME|N", help="A class by its name or number; may be given again."),
    ] = None,
    noise: Annotated[
        bool, typer.Option(help="Draw pixels from the leaves' Gaussians, not their means.")
    ] = False,
    given: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER:ROW,COLUMN=STATE", help="A latent variable's state; may be given again."),
    ] = None,
    seed: Draws = 1,
) -> None:
    """Draw ancestral samples of a generative net, a row per class; rows of a table in its own units."""
    from netspec.model.model import load
    from netspec.model.pages import sample_grid

    trained, known = load(model, weights), [place(text) for text in given or ()]
    if trained.data.type == "Table":
        from netspec.draw.canvas import SUFFIXES
        from netspec.model.columns import draw_sampled
        from netspec.model.rows import TableModel

        numbers_of_rows = [trained.class_number(text) for text in classes or ()]
        if out is not None and out.suffix.lower() in SUFFIXES:
            print(draw_sampled(TableModel(trained), out, count, seed, numbers_of_rows))
        else:
            path_of_rows = out or Path("samples.csv")
            print(TableModel(trained).write_sampled(path_of_rows, count, seed, numbers_of_rows))
        return
    path = out or Path("samples.png")
    # A net without classes says so itself, whatever is asked for.
    numbers = [trained.class_number(one) if trained.generative else 0 for one in classes or ()]
    print(sample_grid(trained, path, columns, numbers, seed, noise, known, inches(page)))


@app.command()
def complete(
    model: ModelFile,
    weights: Weights = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Picture to write: .png, .svg or .pdf; a folder for one .png a picture; of a table .csv, .tsv or "
            ".parquet, by default FILE_completed.",
        ),
    ] = None,
    page: Page = "",
    images: Images = None,
    rows: Rows = "",
    how: Annotated[
        str,
        typer.Option(
            help="Cells of a table, or pictures in a folder: expected, most_probable, sampled, or as the net can."
        ),
    ] = "",
    missing: Annotated[
        str,
        typer.Option(
            help="Pixels that are missing: iid:0.5, rects:1x11, file:MASK.png, ..., clean; by default "
            "iid:0.5, or those that are NaN in your own data."
        ),
    ] = "",
    samples: Annotated[int, typer.Option(help="Sampled completions of each image.", min=0)] = 3,
    seed: Draws = 1,
) -> None:
    """Complete images with missing pixels (expected, sampled and most probable completion side by side), or the missing
    cells of a table in its own units.
    """
    from netspec.model.model import load
    from netspec.model.pages import completed_pictures, completion_page

    trained = load(model, weights)
    if rows:
        from netspec.model.rows import TableModel, beside

        refuse_missing(missing)
        path = out or beside(rows, "completed")
        count = TableModel(trained, warn).write_completed(rows, path, how or "expected", seed)
        print(f"{path}: {count} rows")
        return
    refuse_table(trained)
    pixels, observed, asked = seen(trained, images, "0:6", missing, seed, "iid:0.5")
    if out is not None and (out.is_dir() or not out.suffix):
        for path in completed_pictures(trained, pixels, observed, asked.names, out, how, seed):
            print(path)
        return
    print(
        completion_page(
            trained, pixels, observed, out or Path("completions.png"), samples, seed, inches(page)
        )
    )


@app.command()
def explain(
    model: ModelFile,
    weights: Weights = None,
    out: Picture = Path("explanation.png"),
    page: Page = "",
    images: Images = None,
    size: Annotated[int, typer.Option(help="Side of a patch in pixels.", min=1)] = 2,
    missing: Absent = "clean",
    seed: Draws = 1,
) -> None:
    """Show what each patch contributes to log p(class | image), integrated out exactly; with missing pixels, also
    which of them to look at next.
    """
    from netspec.model.model import load
    from netspec.model.pages import explanation_page

    trained = load(model, weights)
    refuse_pictures_of(trained)
    pixels, observed, asked = seen(trained, images, "0:4", missing, seed)
    print(
        explanation_page(
            trained, pixels, asked.labels, out, size, observed=observed, seed=seed, page=inches(page)
        )
    )


@app.command()
def likelihood(
    model: ModelFile,
    weights: Weights = None,
    images: Images = None,
    rows: Rows = "",
    missing: Absent = "clean",
    seed: Draws = 1,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per image or row.")] = False,
) -> None:
    """Print log p of images in nats, bits per pixel, and the probabilities of their classes; of rows of a table log p
    in its own units.
    """
    import json

    from netspec.model import latents
    from netspec.model.answers import ask, table
    from netspec.model.model import load

    trained = load(model, weights)
    if rows:
        refuse_missing(missing)
    if rows or (trained.layout is not None and latents.find(trained) is None):
        from netspec.model.rows import TableModel, lines

        model_of_rows = TableModel(trained, warn)
        if rows:
            answers_of_rows = model_of_rows.answers(model_of_rows.open(rows))
        else:
            pixels, observed, asked = seen(trained, images, "0:10", missing, seed)
            x = trained.from_pixels(pixels, observed)
            answers_of_rows = model_of_rows.answers_to(x, asked.labels, [int(name) for name in asked.names])
        for line in map(json.dumps, answers_of_rows) if as_json else lines(answers_of_rows):
            print(line)
        return
    pixels, observed, asked = seen(trained, images, "0:10", missing, seed)
    if latents.find(trained) is not None:
        bounds = latents.answers(trained, trained.from_pixels(pixels, observed), asked.first)
        print("\n".join(map(json.dumps, bounds)) if as_json else latents.table(bounds))
        return
    answers = ask(trained, pixels, asked.labels, observed, asked.first)
    print(
        "\n".join(json.dumps(answer.as_json()) for answer in answers)
        if as_json
        else table(answers, trained.class_name)
    )


@app.command()
def tree(
    model: ModelFile,
    weights: Weights = None,
    out: Picture = Path("tree.png"),
    page: Page = "",
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            "--images",
            metavar="N|PICTURE",
            help="A test image by its number, or a picture, drawn as its most probable tree.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME|N",
            help="The class of the sample by its name or number, or given for the image.",
        ),
    ] = None,
    seed: Draws = 1,
) -> None:
    """Draw one sample, or one image, as its latent tree."""
    from netspec.model.latent_pages import tree_page
    from netspec.model.model import load

    trained = load(model, weights)
    refuse_pictures_of(trained)
    pixels = None if image is None else one_image(trained, image)
    number = None if label is None else trained.class_number(label)
    print(tree_page(trained, out, pixels, number, seed, inches(page)))


@app.command()
def neurons(
    model: ModelFile,
    weights: Weights = None,
    out: Picture = Path("neurons.png"),
    page: Page = "",
    level: Annotated[
        str | None, typer.Option(help="Blob of the level; default the one below the classes.")
    ] = None,
    count: Annotated[int, typer.Option(help="States shown at each position.", min=1)] = 16,
    kind: Annotated[str, typer.Option(help="sample, mean or most_probable.")] = "sample",
    seed: Draws = 1,
) -> None:
    """Draw what the states of a level stand for, laid out by position."""
    from netspec.model.latent_pages import neurons_page
    from netspec.model.model import load

    trained = load(model, weights)
    refuse_pictures_of(trained)
    print(neurons_page(trained, out, level, count, kind, seed, inches(page)))


@app.command()
def missing(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; baselines of the same data set among them.")
    ],
    iid: Annotated[str, typer.Option(metavar="P,...", help="Probabilities of a pixel to be missing.")] = "",
    rects: Annotated[str, typer.Option(metavar="NxW,...", help="N rectangles of W x W pixels.")] = "",
    other: Annotated[
        list[str] | None, typer.Option(help="A further setting by name, such as nonzero:50.")
    ] = None,
    shifts: Annotated[bool, typer.Option(help="Sum scores over the nine one-pixel translations.")] = False,
    mixture: Annotated[
        bool, typer.Option(help="A row more: the mixture of all generative runs, each equally probable.")
    ] = False,
    impute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|RUN|MODULE:CLASS",
            help="Imputation for nets that take no NaN: zero, mean, mean_per_pixel, knn:5, pca:50, missforest, "
            "expected, most_probable, sampled; a run that completes images; a class of your own. May be given again.",
        ),
    ] = None,
    neighbours: Annotated[int, typer.Option(help="k of a nearest-neighbour row; 0 for none.", min=0)] = 0,
    robust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NxC", help="Robust linear classifiers, for N deleted pixels and weights up to C: 5x0.1."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Images to classify.")] = "test",
    images: Annotated[str, typer.Option(metavar="A:B", help="Images A to B - 1 of the split.")] = "",
    repeats: Annotated[int, typer.Option(help="Masks drawn for each image.", min=1)] = 1,
    rows: Rows = "",
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Of nets over tables: rmse, mae, category, accuracy, ece; default all. Beside scikit-learn's mean, "
            "KNNImputer and IterativeImputer, and gradient boosting.",
        ),
    ] = "",
    baselines: Annotated[
        str, typer.Option(metavar="NAME,...", help="Of nets over tables: which of these; none for none.")
    ] = "",
    seed: Draws = 1,
    device: Device = None,
    allow_python: AllowPython = False,
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", help="File to write: .json, .csv, .md, .png, .svg, .pdf."),
    ] = None,
) -> None:
    """Classify images with pixels missing: a table of accuracies, models side by side. Of nets over tables: fill cells
    that were taken away, and tell classes, beside scikit-learn's ways.
    """
    from netspec import lab
    from netspec.lab.rows import of_tables, report
    from netspec.run.spread import together

    consent_to(allow_python)
    if metric or baselines or rows or of_tables(runs):
        useless = {"--rects": rects, "--other": other, "--shifts": shifts, "--mixture": mixture, "--impute": impute,
                   "--neighbours": neighbours, "--robust": robust, "--images": images}  # fmt: skip
        figures = report(
            runs, metric, iid, baselines, [name for name, value in useless.items() if value],
            table=rows, repeats=repeats, seed=seed, out=out or (), progress=tell,
        )  # fmt: skip
        print(figures.text())
        return
    begin, end = chosen(images) if images else (0, None)
    with together(device) as (among, own):
        table = lab.missing(
            runs,
            lab.Columns(parts(iid), parts(rects), other or (), repeats, seed),
            lab.Rows(impute or (), shifts, mixture, neighbours, [bounds(text) for text in robust or ()]),
            split=split,
            begin=begin,
            end=end,
            out=(out or ()) if among.leads else (),
            device=own,
            progress=tell if among.leads else lambda line: None,
        )
    if among.leads:
        print(table.text())
