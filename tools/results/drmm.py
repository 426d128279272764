"""Train rendering models as Patel et al. 2016 report them, and gather what came of it in one table.

    python -m tools.results.drmm train rfm_mnist supervised --epochs 20 --out runs/drmm
    python -m tools.results.drmm train drmm2_mnist semi --labels 100 --epochs 10 --out runs/drmm
    python -m tools.results.drmm em rfm_mnist --iterations 10 --images 10000 --out runs/drmm
    python -m tools.results.drmm table --out runs/drmm [--test]
    python -m tools.results.drmm published

Modes: supervised (EG), dcn (the DCN of the same configuration), labelled (EG on the labelled examples alone),
labelled-dcn, semi (cross entropy and reconstruction), semi-nnkl (with nonnegativity and KL), unsupervised.
The number of steps is counted in epochs of the training split; the rate falls exponentially from --rate to
--end. A run that was cut off goes on where it stopped. Test errors are those of the last step, never of the
best one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from netspec import data, schema
from netspec.data.files.whole import write_whole
from netspec.interchange.snapshot_files import iteration_of, newest
from netspec.net.make import make_net
from netspec.rendering import RenderingModel, relative_error
from netspec.run.evaluate import evaluate
from netspec.run.fit import fit
from netspec.run.folder import parse_lines
from netspec.schema import Document
from tools.generate import render_nets
from tools.results.reproduction import markdown
from tools.results.reproduction import published as published_table

BATCH = 100
TEST_IMAGES = 10000
STAGES = {
    "supervised": (),
    "dcn": ("dcn",),
    "labelled": ("labelled",),
    "labelled-dcn": ("labelled", "dcn"),
    "semi": ("semi",),
    "semi-nnkl": ("semi", "nnkl"),
    "unsupervised": ("unsupervised",),
}
app = typer.Typer(add_completion=False)


def solver_text(
    net: Path,
    mode: str,
    steps: int,
    every: int,
    rate: float,
    end: float,
    kind: str,
    validate: bool,
    decay: float,
    moved: Sequence[str],
) -> str:
    """A solver of one mode; `moved`: the stages that move images."""
    stages = " ".join(f'stage: "{stage}"' for stage in (*STAGES[mode], *moved))
    test = 'stage: "dcn"' if "dcn" in STAGES[mode] else ""
    test += ' stage: "validation"' if validate else ""
    extra = " momentum: 0.9" if kind != "Adam" else ""
    extra += f" weight_decay: {decay:g}" if decay else ""
    gamma = (end / rate) ** (1 / steps)
    return (
        f'net: "{net}" type: "{kind}" base_lr: {rate:g} lr_policy: "exp" gamma: {gamma:.8f}\n'
        f"train_state {{ {stages} }} test_state {{ {test} }}{extra}\n"
        f"max_iter: {steps} display: 50 average_loss: 50 test_iter: 100 test_interval: {every} "
        f"test_initialization: false snapshot: {max(every, 500)} random_seed: 1 compile: false\n"
    )


@app.command()
def train(
    name: str,
    mode: str,
    epochs: Annotated[float, typer.Option(help="Of the training split.")] = 20,
    labels: Annotated[int, typer.Option(help="Labelled examples; 0 = all.")] = 0,
    widths: Annotated[str, typer.Option(help="Filters a level, as 16,32; empty = the net's own.")] = "",
    few: Annotated[int, typer.Option(help="Labelled images among the 100 of a semi-supervised batch.")] = 50,
    split: Annotated[str, typer.Option(help="Training split.")] = "whole_train",
    tests: Annotated[int, typer.Option(help="Tests during training.")] = 10,
    rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 1e-3,
    end: Annotated[float, typer.Option(help="Learning rate at the end.")] = 1e-6,
    kind: Annotated[str, typer.Option(help="Type of the solver; all but Adam have momentum 0.9.")] = "Adam",
    decay: Annotated[float, typer.Option(help="Weight decay (L2).")] = 0,
    shift: Annotated[bool, typer.Option(help="Move the images of a batch by up to one pixel.")] = False,
    warp: Annotated[bool, typer.Option(help="Turn, resize, shear and move each training image.")] = False,
    validate: Annotated[bool, typer.Option(help="Test on the held-out training images.")] = False,
    weights: Annotated[Path | None, typer.Option(help="Run folder to start from: its weights.")] = None,
    tag: Annotated[str, typer.Option(help="Put behind the name of the run's folder.")] = "",
    seed: int = 1,
    rc: float = 0.2,
    kl: float = 0.2,
    nn: float = 1.0,
    out: Path = Path("runs/drmm"),
) -> None:
    """Train one net in one mode, or go on with it."""
    values: dict[str, Any] = {"rc": rc, "kl": kl, "nn": nn, "few": few}
    if widths:
        values["widths"] = [int(width) for width in widths.split(",")]
    run = (
        out
        / f"{name}{'-' + widths.replace(',', '-') if widths else ''}_{mode}_{labels or 'all'}_seed{seed}{tag}"
    )
    run.mkdir(parents=True, exist_ok=True)
    net, solver = run / "spec.prototxt", run / "spec_solver.prototxt"
    text = render_nets.rendered(name, **values).replace('split: "train"', f'split: "{split}"')
    if labels:
        text = text.replace("labels: 100", f"labels: {labels}")
    examples = {"mnist": 50000, "cifar10": 40000}["cifar10" if "cifar" in name else "mnist"]
    steps = round(epochs * (examples + 10000 * (split == "whole_train")) / BATCH)
    net.write_text(text)
    moved = ["shifted"] * shift + ["warped"] * warp
    solver.write_text(
        solver_text(net, mode, steps, max(1, steps // tests), rate, end, kind, validate, decay, moved)
    )
    resume = (
        run if (run / "snapshots").exists() and any((run / "snapshots").glob("*.state.safetensors")) else None
    )
    fit(solver, out=run, weights=None if resume else weights, resume=resume, seed=seed)


@app.command()
def em(
    name: str,
    iterations: int = 10,
    images: int = 10000,
    seed: int = 1,
    out: Path = Path("runs/drmm"),
) -> None:
    """Train one net by hard EM."""
    solver = Path("nets") / f"{name}_em_solver.prototxt"
    overrides = [f"hard_em_param.images={images}", f"test_interval={iterations}"]
    run = out / f"{name}_hard-em_all_seed{seed}"
    fit(solver, out=run, iterations=iterations, overrides=overrides, seed=seed)


def model_of(run: Path) -> tuple[RenderingModel, Document]:
    """The rendering model of a run folder, with the newest weights."""
    document = schema.read_net(run / "net.prototxt")
    net = make_net(document).requires_grad_(False)
    net.load_weights(newest(run)[0].weights)
    return RenderingModel(net), document


def test_images(model: RenderingModel, count: int) -> Tensor:
    """The first `count` test images."""
    feeder = data.feeder(model.net, 1)
    try:
        return torch.cat([feeder.next()[0] for _ in range(-(-count // BATCH))])[:count]
    finally:
        feeder.close()


@torch.no_grad()
def error_of(run: Path, images: int = 2000) -> float:
    """|I - s I_hat|^2 / |I|^2 over the first test images."""
    model, _ = model_of(run)
    return float(relative_error(model, test_images(model, images)).mean())


def tested(run: Path, stages: Sequence[str]) -> dict[str, Any]:
    """The error of the newest snapshot on the test images, with its step; no stage `validation`."""
    stages = [stage for stage in stages if stage != "validation"]
    (outputs,) = evaluate(
        run / "net.prototxt", run, iterations=TEST_IMAGES // BATCH, stages=stages, device="cpu"
    )
    return {
        "tested_at": iteration_of(newest(run)[0].path),
        "test_error": round(100 * (1 - outputs["accuracy"]), 2),
    }


@app.command()
def table(out: Path = Path("runs/drmm"), reconstruction: bool = True, test: bool = False) -> None:
    """Print what every run under `out` came to, as JSON lines.

    test: runs whose tests were on held-out images are tested on the test images, once, with their newest snapshot.
    """
    for run in sorted(path.parent for path in out.glob("*/metrics.jsonl")):
        lines, _ = parse_lines((run / "metrics.jsonl").read_bytes())
        tests = [line for line in lines if line["kind"] == "test"]
        if not tests:
            continue
        errors = [(line["iteration"], 100 * (1 - line["outputs"]["accuracy"])) for line in tests]
        asked = run / "spec_solver.prototxt"  # of `train`
        solver = schema.read_solver(asked if asked.is_file() else run / "solver.prototxt").message
        stages = [stage for state in solver.test_state for stage in state.stage]
        kind = "held_out_error" if "validation" in stages else "test_error"
        row: dict[str, Any] = {"run": run.name, "steps": errors[-1][0], kind: round(errors[-1][1], 2)}
        row["steps_wanted"] = solver.max_iter
        row["curve"] = [[step, round(error, 2)] for step, error in errors]
        row["seconds"] = lines[-1].get("seconds")
        saved = any((run / "snapshots").glob("*.state.safetensors"))
        if reconstruction and saved and "dcn" not in run.name:
            row["reconstruction"] = round(error_of(run), 5)
        if test and saved and kind == "held_out_error":
            row |= tested(run, stages)
        print(json.dumps(row), flush=True)


HEADING = "### Published beside them"
NEXT = "\n## "


def published_rows() -> str:
    """Every row of the paper's tables 1, 3 and 5 as Markdown, from docs/results/published.json."""
    rows = [
        [name, source, *("" if one is None else str(one) for one in [*values, None][:5])]
        for source, table in (("1, 3", "drmm"), ("5", "drmm_table5"))
        for name, values in published_table(table).items()
    ]
    return markdown(("method", "table", "100", "600", "1000", "3000", "all"), rows)


@app.command()
def published(page: Path = Path("docs/results/drmm.md")) -> None:
    """Write the published rows into the page, under their heading."""
    before, _, after = page.read_text().partition(HEADING)
    _, _, rest = after.partition(NEXT)
    text = (
        "Test error (%) as the paper prints it, with 100, 600, 1000, 3000 labels and all: every row of tables 1 and 3, "
        "and of table 5, where no other image is used (`python -m tools.results.drmm published`)."
    )
    write_whole(page, f"{before}{HEADING}\n\n{text}\n\n{published_rows()}\n{NEXT}{rest}".encode())


if __name__ == "__main__":
    app()
