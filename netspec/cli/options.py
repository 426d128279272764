"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netspec.errors import DataError, SpecError


def files_and_names(incomplete: str) -> list[str]:
    """A shell's completions for a file: existing files and shipped nets."""
    from netspec.schema import shipped

    folder, _, begin = incomplete.rpartition("/")
    lead = incomplete[: len(incomplete) - len(begin)]
    try:
        entries = sorted(Path(lead or ".").iterdir())
    except OSError:
        entries = []
    here = [f"{lead}{entry.name}{'/' if entry.is_dir() else ''}" for entry in entries]
    names = [] if folder else shipped.names()
    return [name for name in (*here, *names) if name.startswith(incomplete)]


def settings_of(context: typer.Context, incomplete: str) -> list[str]:
    """A shell's completions for a setting of the file that the command names."""
    from netspec.check.completing import settings
    from netspec.schema import shipped

    given = context.params.get("file")
    return settings(shipped.find(given) if given else None, incomplete)


NetFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A net's prototxt, its shipped name, or a run folder.",
        autocompletion=files_and_names,
    ),
]
ModelFile = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run folder, or a net's prototxt with --weights.",
        autocompletion=files_and_names,
    ),
]
SolverFile = Annotated[
    Path,
    typer.Argument(
        help="A solver, or a net with its solver beside it as <stem>_solver.prototxt; or a shipped net's name.",
        autocompletion=files_and_names,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", "-w", help="Weights: .safetensors, .caffemodel, .h5 or a run folder."),
]
Reader = Annotated[
    str,
    typer.Option(
        "--for",
        metavar="READER",
        help="Another program that is to read the net: bvlc, opencv, ncnn, ascend or rknn.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N; by default the GPU where there is one.")
]
Phase = Annotated[str, typer.Option(help="TRAIN or TEST, in any case.")]
Stages = Annotated[list[str] | None, typer.Option("--stage", help="A stage that is set; may be given again.")]
Level = Annotated[
    int | None, typer.Option(help="The level of the net's state; by default 0, or the solver's.")
]
AllowPython = Annotated[
    bool,
    typer.Option(
        "--allow-python",
        help="Import and run the Python modules that the net, or the command, names: files you trust.",
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=N,C,H,W",
        help="Shape of an input whose data is not here; may be given again.",
    ),
]


def shapes_of(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Shapes by name of the input; SpecError for a text that is none."""
    shapes = {}
    for text in texts or ():
        name, equals, sizes = text.partition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not equals or not shape or min(shape) < 1:
            raise SpecError(
                f"--shape {text}: expected the name of an input and its sizes, such as data=1,3,224,224"
            )
        shapes[name] = shape
    return shapes


def height_width(text: str | None) -> tuple[int, int] | None:
    """`28x32` as (28, 32); DataError for anything else."""
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise DataError(f"--size {text}: give height and width as in 32x48")
    return int(height), int(width)


SEED_MAX = 2**63 - 1
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", min=0, max=SEED_MAX)]


def consent_to(allow_python: bool) -> None:
    """Apply `--allow-python` to the running command."""
    from netspec.layers import consent

    if allow_python:
        consent.allow_python()
