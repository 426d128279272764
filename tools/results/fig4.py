"""Fig. 4 (a) and (b) of Sharir et al. 2018: classification of MNIST with missing pixels, every method we have.

    python -m tools.results.fig4 RUN... [--record fig4/NAME] [--shifts] [--mix RUN...] [--alone] [--quick]
    python -m tools.results.fig4            the page alone, from the records

A record holds what one call measured: of each generative run, LeNet after each imputation, 5 nearest neighbours and
the robust linear classifier (--alone: of the runs alone) how many images are right and, where a row says probabilities,
its expected calibration error. Settings: clean, iid p of .25 .5 .75 .9 .95 .99, rectangles N of 1 2 3 times W of 7 11
15. Resumable a cell at a time. The page shows the rows of all records in two groups: *blind* in the paper's sense
(F.2.2: not biased toward the tested missingness) are those whose nets met none of the tested shares and squares of
missing pixels in training, but for the half that the authors' plan leaves out (Marginalize).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from netspec.data.masks import Missing
from netspec.interchange.snapshot_files import newest
from netspec.lab import FIG_4, IMPUTATIONS, Cell, Method, Rows, Setting, Table, assemble, plot
from netspec.lab.calibration import calibration_error
from netspec.lab.imputing import title
from netspec.lab.methods import SHIFTED, Direct
from netspec.model import model
from netspec.model.mixture import Mixture
from netspec.schema.read import read_net, read_solver
from netspec.schema.spec import TEST
from tools.results.reproduction import Results, markdown, page, parser

RECORDS, NETS = Path("docs/results"), Path("nets")
CNN, OURS = "cnn_missing_mnist", "ht_cac_mnist, 9 shifts"
"""The rows that the page compares first."""
TRANSCRIBED = "convolutional net that sees the mask, 14,000 steps (transcribed)"
MISSED = (
    "THE GOAL OF ONE NET THAT IS AHEAD OF A CONVOLUTIONAL NET THAT SEES THE MASK, IN ALL 16 SETTINGS, IS MISSED, "
    "so no row here is the best of all methods."
)
GOALS = {"clean": 99.3, "iid:0.25": 99.2, "iid:0.5": 99.1, "iid:0.75": 98.1, "iid:0.9": 92, "iid:0.95": 78,
         "iid:0.99": 33.5}  # fmt: skip
"""Accuracies in per cent that one blind net should have."""
BLIND = (
    "No net of these rows met a tested share or a tested square as missing data, except that `ht_cac_mnist` and "
    "`cp_cac_mnist` train with half of the pixels missing, as the authors' plan does, which is the share of iid:0.5; "
    "`cnn_missing_mnist` trained under other shares and rectangles than those tested. The paper's MP-DBM was read off "
    "a plot of its authors and is printed as a plot, without numbers, so it has no row."
)
TOLD = (
    "In training, pixels of each image were missing by a share drawn from the shares that the columns test, so only "
    "the rectangles are new to these nets, and to what fills in for LeNet here (expected, most probable and sampled "
    "pixels come from such a net). The paper's rules (F.2.2) exclude them."
)
ELSEWHERE = (
    "The transcribed row is not blind either: its training squares have sides from 5 to 17, the tested ones among "
    "them; its shares are uniform on [0, 1]."
)
CALIBRATION = (
    "Expected calibration error in per cent, 15 bins of certainty, of the rows that were measured since it is "
    "recorded. Nine shifts sum nine log likelihoods, which makes a posterior too certain."
)
CHUNK = 1000


def told(net: Path) -> bool:
    """Whether a net met tested shares or squares of missing pixels in training, as its Dataset layers say.

    What a Marginalize layer leaves out, half of the pixels in ht_cac_mnist and cp_cac_mnist, does not count.
    """
    settings = [
        Missing.of(layer.dataset_param.missing, 0)
        for layer in read_net(net).message.layer
        if layer.dataset_param.HasField("missing") and not any(rule.phase == TEST for rule in layer.include)
    ]
    return any(meets(how, setting.how) for how in settings for setting in FIG_4 if setting.how)


def meets(training: Missing, tested: Missing) -> bool:
    """Whether the tested way of going missing is one of those that training draws from."""
    if training.kind != tested.kind:
        return False
    if training.kind == "iid":
        return any(abs(p - tested.probability[0]) < 1e-6 for p in training.probability)
    square = not training.height or tested.width[0] in training.height
    return tested.width[0] in training.width and square and tested.count[0] in training.count


def measure(
    method: Method, setting: Setting, pixels: Any, labels: Any, seed: int
) -> tuple[int, float | None]:
    """(right answers, expected calibration error or None where the method says no probabilities)."""
    says = getattr(method, "probabilities", None)
    answered = []
    for begin in range(0, len(labels), CHUNK):
        places = np.arange(begin, min(begin + CHUNK, len(labels)))
        observed = setting.observed(pixels[places], places, seed)
        answered.append((says or method.predict)(pixels[places], observed))
    answers = np.concatenate(answered)
    if says is None:
        return int((answers == labels).sum()), None
    return int((answers.argmax(1) == labels).sum()), round(calibration_error(answers, labels), 5)


def rows(record: dict[str, Any]) -> tuple[Table, dict[str, dict[str, float]], set[str]]:
    """A record as (right answers, calibration errors, names of the methods that are not blind)."""
    table, errors = Table(facts=record["made"]), dict[str, dict[str, float]]()
    runs = {
        key.partition(" | ")[2]: value
        for key, value in record["results"].items()
        if key.startswith("told | ")
    }
    for key, value in record["results"].items():
        method, _, setting = key.partition(" | ")
        if method in ("told", "iterations"):
            continue
        if setting.endswith(" | ece"):
            errors.setdefault(method, {})[setting.removesuffix(" | ece")] = value
        else:
            table.put(method, setting, Cell(value, record["settings"]["images"]))
    order = [setting.name for setting in FIG_4]
    table.cells = {
        method: {name: row[name] for name in order if name in row} for method, row in table.cells.items()
    }
    names = [run for run, known in runs.items() if known]
    filled = [f", {title(kind)}" for kind in IMPUTATIONS[3:]]
    first = next(iter(runs), "")
    informed = {
        method
        for method in table.cells
        if any(name in method for name in names)
        or (first in names and method.removesuffix(SHIFTED).endswith(tuple(filled)))
    }
    return table, errors, informed


def records() -> list[dict[str, Any]]:
    """All records of this page, the first call's first."""
    paths = [RECORDS / "fig4.json", *sorted(RECORDS.glob("fig4/*.json"))]
    read = [json.loads(path.read_text()) for path in paths if path.exists()]
    return [record for record in read if "results" in record]


def transcribed() -> dict[str, Any]:
    """The row that was measured elsewhere, and what is known of it."""
    row: dict[str, Any] = json.loads((RECORDS / "fig4/transcribed.json").read_text())
    return row


def against(ours: dict[str, Cell], theirs: dict[str, float]) -> str:
    """Where one row lies above another, in points of accuracy, as a sentence part."""
    gaps = {name: 100 * ours[name].accuracy - theirs[name] for name in theirs if name in ours}
    ahead = [f"{name} ({gap:+.2f})" for name, gap in gaps.items() if gap > 0]
    behind = [f"{name} ({gap:+.2f})" for name, gap in gaps.items() if gap <= 0]
    return (
        f"ahead in {len(ahead)} settings: {', '.join(ahead) or 'none'}; "
        f"not ahead in {len(behind)}: {', '.join(behind) or 'none'}"
    )


def who_is_ahead(blind: Table, opponents: dict[str, dict[str, float]]) -> list[str]:
    """Our blind net against each opponent, as paragraphs."""
    if OURS not in blind.cells:
        return []
    values = blind.accuracy(OURS)
    below = [
        f"{name} ({values[name]:.2f} for {goal:g})"
        for name, goal in GOALS.items()
        if values.get(name, 0) < goal
    ]
    said = f"missed on {', '.join(below)}" if below else "met"
    return [f"The goals for one blind net are {said}."] + [
        f"`{OURS}` against {name}{few(name)}: {against(blind.cells[OURS], row)}."
        for name, row in opponents.items()
    ]


def few(name: str) -> str:
    """ ", N of M iterations" of a net whose training was cut short; else ""."""
    done = [record["results"].get(f"iterations | {name}") for record in records()]
    texts = [plan(name, one) for one in done if one is not None]
    return f" ({texts[0]} of its iterations)" if texts and " OF " in texts[0] else ""


def wide(values: dict[str, dict[str, float]], factor: float = 1) -> str:
    """Rows of numbers by setting as Markdown, with two decimals."""
    names = [setting.name for setting in FIG_4]
    return markdown(
        ["", *names],
        [
            [row, *(f"{factor * of[name]:.2f}" if name in of else "" for name in names)]
            for row, of in values.items()
        ],
    )


def lowest(errors: dict[str, dict[str, float]]) -> str:
    """In how many settings each row has the lowest calibration error."""
    best = [min((row[s.name], name) for name, row in errors.items() if s.name in row)[1] for s in FIG_4]
    return f"Lowest: {', '.join(f'{name} in {best.count(name)} settings' for name in dict.fromkeys(best))}."


def report() -> Path:
    """The page and its plot, from the records alone."""
    kept, every, errors, informed = records(), Table(), dict[str, dict[str, float]](), set[str]()
    for record in kept:
        table, wrong, names = rows(record)
        every.cells |= table.cells
        errors |= wrong
        informed |= names
    blind = Table({name: row for name, row in every.cells.items() if name not in informed})
    shares = Table({name: row for name, row in every.cells.items() if name in informed})
    elsewhere = transcribed()
    opponents = {TRANSCRIBED: dict(zip([s.name for s in FIG_4], elsewhere["accuracy"], strict=True))}
    ours = {CNN: blind.accuracy(CNN)} if CNN in blind.cells else {}
    images = f"Accuracy in per cent on {kept[0]['settings']['images']} test images of mnist, 95 % intervals (Wilson)."
    parts = [
        MISSED, *who_is_ahead(blind, opponents | ours), elsewhere["note"], images, "## Blind", BLIND, blind.markdown(),
        "## Told the tested shares", TOLD, shares.markdown(), ELSEWHERE, wide(opponents),
        "## Calibration", CALIBRATION, lowest(errors), wide(errors, 100), "![plot](fig4.png)",
        "## How the rows were made", *map(made, kept),
    ]  # fmt: skip
    plot(every, RECORDS / "fig4.png", page=(12, 5))
    facts = {"command": "python -m tools.results.fig4"}
    return page(RECORDS / "fig4.md", "Fig. 4: classification under missing data", parts, facts)


def made(record: dict[str, Any]) -> str:
    """How one record was made."""
    facts, settings = record["made"], record["settings"]
    trained = [
        f"{key.partition(' | ')[2]} {plan(key.partition(' | ')[2], done)}"
        for key, done in record["results"].items()
        if key.startswith("iterations | ")
    ]
    return (
        f"{', '.join(settings['runs'])}: `{facts['command']}`, commit {facts['commit']}, {facts['machine']}, "
        f"torch {facts['torch']}, {facts['date']}, seed {settings['seed']}."
        + (f" Iterations: {'; '.join(trained)}." if trained else "")
    )


def plan(name: str, done: int) -> str:
    """How many iterations a net had, and of how many where its solver in nets/ has more."""
    wanted = int(read_solver(NETS / f"{name}_solver.prototxt").message.max_iter)
    return f"{done:,}" if done >= wanted else f"{done:,} OF {wanted:,}"


def methods(args: argparse.Namespace) -> tuple[list[Method], Any, Any]:
    """The rows that were asked for, and the images."""
    models = [model.load(folder, device=args.device) for folder in args.run]
    generative = any(one.generative for one in models)
    known = IMPUTATIONS if generative else IMPUTATIONS[:3]
    if args.alone:
        rows = assemble(models, seed=args.seed)
    else:
        if not generative:
            print(
                f"no run is generative: no rows for the imputations {', '.join(IMPUTATIONS[3:])}", flush=True
            )
        rows = assemble(models, Rows(known, neighbours=5, robust=[(5, 0.1)]), args.seed)
    if args.mix:
        parts = [models[0], *(model.load(folder, device=args.device) for folder in args.mix)]
        mixed = Mixture(parts, f"mixture of {len(parts)} {args.run[0].name}")
        rows += [
            Direct(mixed, mixed.name + SHIFTED * shifts, shifts)
            for shifts in (False, True)[: 1 + args.shifts]
        ]
    if args.shifts:
        rows += assemble([one for one in models if one.generative], Rows(shifts=True))
    n = args.images or (300 if args.quick else None)
    return rows, *models[0].images("test", 0, n)


def main(given: Sequence[str] | None = None) -> None:
    """Measure what is missing, print it, and write the page."""
    options = parser(__doc__, "docs/results/fig4")
    options.add_argument("run", nargs="*", type=Path, help="run folders: generative nets, and LeNet")
    options.add_argument(
        "--shifts", action="store_true", help="average over the nine one-pixel translations as well"
    )
    options.add_argument(
        "--mix",
        nargs="+",
        type=Path,
        default=[],
        help="runs that are mixed with the first one, as rows of their own",
    )
    options.add_argument("--alone", action="store_true", help="the runs themselves, no baselines beside them")
    options.add_argument("--images", type=int, help="only the first so many test images")
    args = options.parse_args(given)
    if not args.run:
        print(report())
        return
    rows_, pixels, labels = methods(args)
    settings = {"runs": [folder.name for folder in args.run], "images": len(labels), "seed": args.seed}
    results = Results(args.out.with_suffix(".json"), settings, args.device)
    for folder in [*args.run, *args.mix]:
        results.get(f"told | {folder.name}", lambda folder=folder: told(folder / "net.prototxt"))  # type: ignore[misc]
        results.get(f"iterations | {folder.name}", lambda folder=folder: newest(folder)[0].iteration)  # type: ignore[misc]
    for setting in FIG_4:
        for method in rows_:
            key = f"{method.name} | {setting.name}"
            if key not in results.values:
                right, error = measure(method, setting, pixels, labels, args.seed)
                results.values |= {key: right} | ({} if error is None else {f"{key} | ece": error})
                results.save()
            print(f"{key}: {100 * results.values[key] / len(labels):.2f} %", flush=True)


if __name__ == "__main__":
    main()
