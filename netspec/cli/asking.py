"""Commands that ask a generative model."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from netspec.cli.options import SEED_MAX, Device, ModelFile, Weights

app = typer.Typer()

Picture = Annotated[Path, typer.Option("--out", "-o", help="Picture to write: .png, .svg or .pdf.")]
Page = Annotated[
    str,
    typer.Option(
        metavar="WxH", help="Page in inches to fit into, as 8.3x11.7; default: what the panels need."
    ),
]
Images = Annotated[str, typer.Option(metavar="A:B", help="Test images A to B - 1 of the model's data set.")]
Absent = Annotated[str, typer.Option(help="What is missing: iid:0.5, rects:1x11, ...; clean for nothing.")]
Draws = Annotated[int, typer.Option(help="Seed of the draws.", min=0, max=SEED_MAX)]


def chosen(images: str) -> tuple[int, int]:
    """A:B as numbers; B alone counts from 0."""
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
        found = float(width), float(height)
    except ValueError:
        raise typer.BadParameter(f"{page!r} is no WxH, such as 8.3x11.7") from None
    if not all(0.5 <= side <= 100 for side in found):
        raise typer.BadParameter(f"{page!r}: the sides of a page are 0.5 to 100 inches")
    return found


def bounds(robust: str) -> tuple[int, float]:
    """NxC as (N, C)."""
    deleted, _, bound = robust.partition("x")
    try:
        found = int(deleted), float(bound)
    except ValueError:
        raise typer.BadParameter(f"{robust!r} is no NxC, such as 5x0.1") from None
    if found[0] < 0 or not 0 < found[1] < float("inf"):
        raise typer.BadParameter(f"{robust!r}: N is at least 0, and C above 0")
    return found


def place(given: str) -> tuple[str, int, int, int]:
    """LAYER:ROW,COLUMN=STATE as (layer, row, column, state)."""
    found = re.fullmatch(r"(.+):(\d+),(\d+)=(\d+)", given)
    if not found:
        raise typer.BadParameter(f"{given!r} is no LAYER:ROW,COLUMN=STATE, such as sum3:0,1=17")
    layer, row, column, state = found.groups()
    return layer, int(row), int(column), int(state)


@app.command()
def sample(
    model: ModelFile,
    weights: Weights = None,
    out: Picture = Path("samples.png"),
    page: Page = "",
    columns: Annotated[int, typer.Option(help="Samples of each class.", min=1)] = 10,
    classes: Annotated[list[int] | None, typer.Option("--class", help="A class; may be given again.")] = None,
    noise: Annotated[
        bool, typer.Option(help="Draw pixels from the leaves' Gaussians, not their means.")
    ] = False,
    given: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER:ROW,COLUMN=STATE", help="A latent variable's state; may be given again."),
    ] = None,
    seed: Draws = 1,
) -> None:
    """Draw ancestral samples of a generative net, a row a class."""
    from netspec.model.model import load
    from netspec.model.pages import sample_grid

    known = [place(one) for one in given or ()]
    print(sample_grid(load(model, weights), out, columns, classes or (), seed, noise, known, inches(page)))


@app.command()
def complete(
    model: ModelFile,
    weights: Weights = None,
    out: Picture = Path("completions.png"),
    page: Page = "",
    images: Images = "0:6",
    missing: Absent = "iid:0.5",
    samples: Annotated[int, typer.Option(help="Sampled completions of each image.", min=0)] = 3,
    seed: Draws = 1,
) -> None:
    """Complete images with missing pixels: expected, sampled and most probable completion side by side."""
    import numpy as np

    from netspec.lab.settings import parse
    from netspec.model.model import load
    from netspec.model.pages import completion_page

    trained, (begin, end) = load(model, weights), chosen(images)
    pixels, _ = trained.images(begin=begin, end=end)
    observed = parse(missing).observed(pixels, np.arange(begin, begin + len(pixels)), seed)
    print(completion_page(trained, pixels, observed, out, samples, seed, inches(page)))


@app.command()
def explain(
    model: ModelFile,
    weights: Weights = None,
    out: Picture = Path("explanation.png"),
    page: Page = "",
    images: Images = "0:4",
    size: Annotated[int, typer.Option(help="Side of a patch in pixels.", min=1)] = 2,
    missing: Absent = "clean",
    seed: Draws = 1,
) -> None:
    """Show what each patch contributes to log p(class | image), integrated out exactly; with missing pixels, also
    which of them to look at next.
    """
    import numpy as np

    from netspec.lab.settings import parse
    from netspec.model.model import load
    from netspec.model.pages import explanation_page

    trained, (begin, end) = load(model, weights), chosen(images)
    pixels, labels = trained.images(begin=begin, end=end)
    observed = parse(missing).observed(pixels, np.arange(begin, begin + len(pixels)), seed)
    print(
        explanation_page(
            trained, pixels, labels.tolist(), out, size, observed=observed, seed=seed, page=inches(page)
        )
    )


@app.command()
def likelihood(
    model: ModelFile,
    weights: Weights = None,
    images: Images = "0:10",
    missing: Absent = "clean",
    seed: Draws = 1,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON an image.")] = False,
) -> None:
    """Print log p of images in nats, bits a pixel, and the probabilities of their classes."""
    import json

    import numpy as np

    from netspec.lab.settings import parse
    from netspec.model import latents
    from netspec.model.answers import ask, table
    from netspec.model.model import load

    trained, (begin, end) = load(model, weights), chosen(images)
    pixels, labels = trained.images(begin=begin, end=end)
    observed = parse(missing).observed(pixels, np.arange(begin, begin + len(pixels)), seed)
    if latents.find(trained) is not None:
        bounds = latents.answers(trained, trained.from_pixels(pixels, observed), begin)
        print("\n".join(map(json.dumps, bounds)) if as_json else latents.table(bounds))
        return
    answers = ask(trained, pixels, labels.tolist(), observed, begin)
    print("\n".join(json.dumps(one.as_json()) for one in answers) if as_json else table(answers))


@app.command()
def tree(
    model: ModelFile,
    weights: Weights = None,
    out: Picture = Path("tree.png"),
    page: Page = "",
    image: Annotated[
        int | None, typer.Option(help="A test image, drawn as its most probable tree.", min=0)
    ] = None,
    label: Annotated[
        int | None, typer.Option("--class", help="The class of the sample, or given for the image.")
    ] = None,
    seed: Draws = 1,
) -> None:
    """Draw one sample, or one image, as its latent tree."""
    from netspec.model.model import load
    from netspec.model.pages import tree_page

    trained = load(model, weights)
    pixels = None if image is None else trained.images(begin=image, end=image + 1)[0][0]
    print(tree_page(trained, out, pixels, label, seed, inches(page)))


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
    from netspec.model.model import load
    from netspec.model.pages import neurons_page

    print(neurons_page(load(model, weights), out, level, count, kind, seed, inches(page)))


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
    impute: Annotated[list[str] | None, typer.Option(help="Imputation for nets that take no NaN.")] = None,
    neighbours: Annotated[int, typer.Option(help="k of a nearest-neighbour row; 0 for none.", min=0)] = 0,
    robust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NxC", help="Robust linear classifiers, for N deleted pixels and weights up to C: 5x0.1."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Images to classify.")] = "test",
    images: Images = "",
    repeats: Annotated[int, typer.Option(help="Masks drawn for each image.", min=1)] = 1,
    seed: Draws = 1,
    device: Device = None,
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", help="File to write: .json, .csv, .md, .png, .svg, .pdf."),
    ] = None,
) -> None:
    """Classify images with pixels missing: a table of accuracies, models side by side."""
    from netspec.lab import missing as laboratory

    begin, end = chosen(images) if images else (0, None)
    table = laboratory(
        runs,
        iid=[part for part in iid.split(",") if part],
        rects=[part for part in rects.split(",") if part],
        others=other or (),
        split=split,
        begin=begin,
        end=end,
        repeats=repeats,
        seed=seed,
        shifts=shifts,
        mixture=mixture,
        impute=impute or (),
        neighbours=neighbours,
        robust=[bounds(one) for one in robust or ()],
        out=out or (),
        device=device,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(table.text())
