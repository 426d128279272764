"""The `netspec` command: every command is a few lines over the library."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from netspec.errors import NetspecError

app = typer.Typer(
    name="netspec",
    help="Networks and solvers as prototxt: compiled, trained, drawn and asked on PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NetFile = Annotated[Path, typer.Argument(metavar="FILE", help="A net's prototxt, or a run folder.")]
Weights = Annotated[
    Path | None, typer.Option("--weights", "-w", help="Weights: .safetensors, .caffemodel or .h5.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; by default the GPU where there is one.")]
Phase = Annotated[str, typer.Option(help="TRAIN or TEST.")]
Stages = Annotated[list[str] | None, typer.Option("--stage", help="A stage that is set; may be given again.")]
Level = Annotated[int, typer.Option(help="The level of the net's state.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="File to write; its suffix says the format.")]


@app.command()
def train(
    file: Annotated[
        Path, typer.Argument(help="A solver, or a net with its solver beside it as <stem>_solver.prototxt.")
    ],
    weights: Annotated[
        list[Path] | None, typer.Option("--weights", "-w", help="Weights to start from; may be given again.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="A run folder or a solver state to go on from.")] = None,
    device: Device = None,
    seed: Seed = None,
    iterations: Annotated[int | None, typer.Option("--iterations", "-n", help="In place of max_iter.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field: base_lr=0.01, conv1.param[0].lr_mult=0."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; default runs/<name>.")] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the step; by default in long runs.")
    ] = None,
) -> None:
    """Train a net. Ctrl-C saves a snapshot and stops; SIGHUP saves one and goes on."""
    from netspec.pictures import draw_run
    from netspec.train import fit

    run = fit(
        file,
        weights=list(weights or []) or None,
        resume=resume,
        device=device,
        seed=seed,
        iterations=iterations,
        overrides=settings or (),
        out=out,
        compiled=compiled,
    )
    if run.interrupted:
        raise typer.Exit(130)
    for outputs in run.results:
        print(", ".join(f"test {name} {value:.6g}" for name, value in outputs.items() if isinstance(value, float)))
    for what, path in draw_run(run).items():
        print(f"{what}: {path}")


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Nets and solvers.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file.")] = False,
    strict: Annotated[bool, typer.Option(help="Refuse every field that the schema does not know.")] = False,
    run: Annotated[bool, typer.Option(help="Also walk each net on random input, and back from its loss.")] = False,
) -> None:
    """Read, compile and shape spec files; say what each needs and lacks."""
    from netspec.check import check as check_file

    failed = 0
    for file in files:
        report = check_file(file, strict=strict, run=run)
        failed += not report.ok
        print(json.dumps(report.as_json()) if as_json else report)
    if failed:
        raise typer.Exit(1)


@app.command()
def test(
    file: Annotated[Path, typer.Argument(help="A run folder, a solver, or a net.")],
    weights: Weights = None,
    iterations: Annotated[
        int | None, typer.Option("--iterations", "-n", help="Batches; default the solver's test_iter, else 50.")
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Stage of the test net; may be given again.")] = None,
    device: Device = None,
    seed: Seed = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a test net.")] = False,
) -> None:
    """Average the outputs of the test nets over batches of their data."""
    from netspec.evaluate import evaluate

    found = evaluate(
        file, weights, iterations=iterations, stages=stage or (), device=device, seed=1 if seed is None else seed
    )
    for i, outputs in enumerate(found):
        numbers = ", ".join(f"{name} {value}" for name, value in outputs.items())
        print(json.dumps({"net": i, **outputs}) if as_json else f"test net {i}: {numbers}")


@app.command()
def summary(
    file: NetFile,
    phase: Phase = "TRAIN",
    stage: Stages = None,
    level: Level = 0,
) -> None:
    """Table of a net's layers: shapes, parameters, multiply-adds, memory, receptive field."""
    from rich.console import Console

    from netspec.check import shaped_net
    from netspec.summary import table

    found = table(shaped_net(file, phase, stage or (), level))
    Console(width=None if sys.stdout.isatty() else 160).print(found)


@app.command()
def draw(
    file: NetFile,
    out: Annotated[
        Path | None, typer.Argument(help="Picture to write: .svg, .png, .pdf, .gv (source); default <name>.svg.")
    ] = None,
    phase: Phase = "TRAIN",
    stage: Stages = None,
    level: Level = 0,
    rankdir: Annotated[str, typer.Option(help="Direction of the data: TB, BT, LR or RL.")] = "TB",
) -> None:
    """Draw a net as a graph of layers, shapes on its edges."""
    from netspec.check import shaped_net
    from netspec.draw import graph

    drawing = graph(shaped_net(file, phase, stage or (), level), out or Path(f"{file.stem}.svg"), rankdir=rankdir)
    for path in drawing.paths:
        print(path)
    for note in drawing.notes:
        print(f"note: {note}", file=sys.stderr)


def main() -> None:
    """Entry point: errors that the user can mend are printed without a traceback, and exit with 2."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except (NetspecError, BrokenPipeError) as error:
        if debug:
            raise
        print(f"error: {error}" if isinstance(error, NetspecError) else "", file=sys.stderr)
        sys.exit(2)


__all__: list[Any] = ["app", "main"]
