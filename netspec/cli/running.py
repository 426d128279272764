"""Commands that train, test and check."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from netspec.cli.options import (
    AllowPython,
    Device,
    Reader,
    Seed,
    Shapes,
    SolverFile,
    Weights,
    consent_to,
    settings_of,
    shapes_of,
)

app = typer.Typer()
Dialect = Annotated[
    str,
    typer.Option(help="Whose BN a net means where its fields do not tell: segnet, pspnet or yjxiong."),
]


@app.command()
def train(
    file: SolverFile,
    weights: Annotated[
        list[Path] | None, typer.Option("--weights", "-w", help="Weights to start from; may be given again.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="A run folder or a solver state to go on from.")] = None,
    device: Device = None,
    seed: Seed = None,
    iterations: Annotated[
        int | None, typer.Option("--iterations", "-n", min=1, help="In place of max_iter.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field: base_lr=0.01, conv1.phase=TEST.",
            autocompletion=settings_of,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; default runs/<name>.")] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the step; by default in long runs.")
    ] = None,
    dialect: Dialect = "",
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Metrics, filters and samples for TensorBoard, in the run folder."
        ),
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="Also tell a module with wandb's API: trackio, wandb."),
    ] = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Let blobs take 4G at most: compute layers again in backward.")
    ] = "",
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Under torchrun each process takes the file's batch, as Caffe's GPUs do."
        ),
    ] = False,
    shard: Annotated[
        bool, typer.Option("--shard", help="Under torchrun each process keeps a part of the weights (FSDP2).")
    ] = False,
    allow_python: AllowPython = False,
) -> None:
    """Train a net. Ctrl-C saves a snapshot and stops; SIGHUP saves one and goes on.

    With torchrun --nproc-per-node N -m netspec train FILE the batch of the file is shared among N processes.
    """
    from netspec.model.pages import draw_run
    from netspec.run.fit import fit
    from netspec.run.spread import LOCAL, WHOLE, launched

    consent_to(allow_python)
    several = launched()
    run = fit(
        file,
        weights=list(weights or []) or None,
        resume=resume,
        device=device,
        seed=seed,
        iterations=iterations,
        overrides=[*(settings or ()), *([f"dialect={dialect}"] if dialect else [])],
        out=out,
        compiled=compiled,
        track=[*(["tensorboard"] if tensorboard else []), *(track or ())],
        memory=memory,
        shard=shard,
        spread=(LOCAL if local else WHOLE) if several else "",
    )
    if run.interrupted:
        raise typer.Exit(130)
    if several and os.environ["RANK"] != "0":
        return
    for outputs in run.results:
        print(
            ", ".join(
                f"test {name} {value:.6g}" for name, value in outputs.items() if isinstance(value, float)
            )
        )
    for what, path in draw_run(run).items():
        print(f"{what}: {path}")


@app.command("test")
def evaluate_nets(
    file: Annotated[Path, typer.Argument(help="A run folder, a solver, or a net.")],
    weights: Weights = None,
    iterations: Annotated[
        int | None,
        typer.Option("--iterations", "-n", min=1, help="Batches; default the solver's test_iter, else 50."),
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="Stage of the test net; may be given again.")
    ] = None,
    device: Device = None,
    seed: Seed = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per test net.")] = False,
    allow_python: AllowPython = False,
    matrix: Annotated[
        bool, typer.Option("--confusion", help="What is taken for what, per class; also as a picture.")
    ] = False,
    hardest: Annotated[
        int, typer.Option(min=0, metavar="N", help="Draw the N examples whose label is least likely.")
    ] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the pictures.")] = Path(),
) -> None:
    """Average the outputs of the test nets over batches of their data."""
    from netspec.run.evaluate import evaluate

    consent_to(allow_python)
    if matrix or hardest:
        from netspec.cli.confusing import show_confusion

        how = {"iterations": iterations, "stages": stage or (), "device": device, "hardest": hardest}
        show_confusion(file, weights, how, 1 if seed is None else seed, out, as_json)
        return
    averages = evaluate(
        file,
        weights,
        iterations=iterations,
        stages=stage or (),
        device=device,
        seed=1 if seed is None else seed,
    )
    for i, outputs in enumerate(averages):
        numbers = ", ".join(f"{name} {value}" for name, value in outputs.items())
        print(json.dumps({"net": i, **outputs}) if as_json else f"test net {i}: {numbers}")


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Nets and solvers.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per file.")] = False,
    strict: Annotated[bool, typer.Option(help="Refuse every field that the schema does not know.")] = False,
    run: Annotated[
        bool, typer.Option(help="Also walk each net on random input, and back from its loss.")
    ] = False,
    dialect: Dialect = "",
    weights: Weights = None,
    shape: Shapes = None,
    reader: Reader = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Check again whenever a file, or a net that it names, is saved.")
    ] = False,
) -> None:
    """Read, compile and shape spec files; say what each needs and lacks."""
    from netspec.check import check as check_file

    def check_all() -> int:
        reports = [
            check_file(
                file,
                strict=strict,
                run=run,
                dialect=dialect,
                weights=weights,
                shapes=shapes_of(shape),
                reader=reader,
            )
            for file in files
        ]
        for report in reports:
            print(json.dumps(report.as_json()) if as_json else report, flush=True)
        return sum(not report.ok for report in reports)

    if watch:
        from netspec.check.watching import again

        for _ in again(files):
            print("checking", flush=True)
            print(f"checked: {check_all()} of {len(files)} not ok; waiting for changes", flush=True)
    elif check_all():
        raise typer.Exit(1)
