"""Commands that look at nets and runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from netspec.cli.options import Level, ModelFile, NetFile, Phase, Shapes, Stages, Weights, shapes_of

app = typer.Typer()


@app.command()
def summary(
    file: NetFile,
    phase: Phase = "TRAIN",
    stage: Stages = None,
    level: Level = None,
    shape: Shapes = None,
) -> None:
    """Table of a net's layers: shapes, parameters, multiply-adds, memory, receptive field."""
    from rich.console import Console

    from netspec.check import shaped_net
    from netspec.net.summary import table

    layers = table(shaped_net(file, phase, stage or (), level, shapes_of(shape)))
    Console(width=None if sys.stdout.isatty() else 160).print(layers)


@app.command()
def draw(
    file: NetFile,
    out: Annotated[
        Path | None,
        typer.Argument(help="Picture to write: .svg, .png, .pdf, .gv (source); default <name>.svg."),
    ] = None,
    phase: Phase = "TRAIN",
    stage: Stages = None,
    level: Level = None,
    shape: Shapes = None,
    rankdir: Annotated[str, typer.Option(help="Direction of the data: TB, BT, LR or RL.")] = "TB",
) -> None:
    """Draw a net as a graph of layers, shapes on its edges; without them where a layer's type is unknown."""
    from netspec.check import drawable
    from netspec.draw import graph

    net, unknown = drawable(file, phase, stage or (), level, shapes_of(shape))
    drawing = graph(net, out or Path(f"{file.stem}.svg"), rankdir=rankdir)
    for path in drawing.paths:
        print(path)
    without = [f"{problem}; drawn without shapes" for problem in unknown]
    for note in (*without, *drawing.notes):
        print(f"note: {note}", file=sys.stderr)


@app.command()
def activations(
    model: ModelFile,
    out: Annotated[Path, typer.Argument(help="Folder for the pictures.")] = Path("activations"),
    weights: Weights = None,
    image: Annotated[
        Path | None,
        typer.Option(help="A picture to feed; default the first test image of the net's data set."),
    ] = None,
    blob: Annotated[list[str] | None, typer.Option(help="Blobs to draw; default all with places.")] = None,
) -> None:
    """Draw the feature maps of every blob for an image, and the filters of every convolution."""
    from netspec.model.model import load
    from netspec.model.pages import activation_pages

    for path in activation_pages(load(model, weights), out, image, blob or ()):
        print(path)
