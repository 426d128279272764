"""Commands that exchange files with Caffe and others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netspec.cli.options import AllowPython, Reader, Weights, consent_to, shapes_of

app = typer.Typer()


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A prototxt, a run folder, a weight file, an .onnx model, or package.module:name of a torch module."
        ),
    ],
    target: Annotated[
        Path, typer.Argument(help="File to write: .safetensors .caffemodel .h5 .onnx .pt2 .prototxt.")
    ],
    net: Annotated[
        Path | None, typer.Option(help="The prototxt of a weight file, where the target needs it.")
    ] = None,
    weights: Weights = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]N,C,H,W",
            help="Shape of an input of a torch module; with its name, of an input whose data is not here.",
        ),
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Leave the batch size of an export open.")
    ] = False,
    fork: Annotated[
        bool,
        typer.Option(
            "--fork",
            help="Of a torch module or an .onnx model: pooling as OpenCV and many forks read it (ceil_mode: false).",
        ),
    ] = False,
    reader: Reader = "",
    allow_python: AllowPython = False,
) -> None:
    """Write a model as another kind of file; reports the differences layer by layer.

    The status is 1 where what is written departs from the model.
    """
    from netspec.interchange import convert as write

    consent_to(allow_python)
    named = [text for text in shape or () if "=" in text]
    shapes = [list(shapes_of([f"input={text}"])["input"]) for text in shape or () if text not in named]
    report = write(
        source,
        target,
        net=net,
        weights=weights,
        inputs=shapes,
        shapes=shapes_of(named),
        dynamic_batch=dynamic_batch,
        fork=fork,
        reader=reader,
    )
    print(report)
    print(target)
    if report.departs is not None:
        raise typer.Exit(1)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
def caffe(context: typer.Context) -> None:
    """Caffe's own command: train, test, time, device_query, with its flags and its log lines."""
    from netspec.pycaffe.command import main

    consent_to("--allow-python" in context.args)
    raise typer.Exit(main([word for word in context.args if word != "--allow-python"]))
