"""The imputers of Fig. 4 of Sharir et al. 2018 that are nets (NADE-5, NICE, GSN, DPM), and baselines, before LeNet.

    python -m tools.results.imputers [--images 200] [--impute knn:5 pca:50 ...] [--nets nice_mnist:500 ...] [--quick]

A row is LeNet after an imputation, on the first so many test images, with the masks of tools.results.fig4; rows of its
record stand beside them. Nets are taken from --runs, trained there first where they are not (each by its solver in
nets/, or --iterations), and a run that was stopped counts as it is. Resumable a cell at a time. --quick: all nets for a
few steps, 10 images, two settings.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from netspec.interchange.snapshot_files import newest, states
from netspec.lab import FIG_4, Cell, Table, parse, run
from netspec.lab.imputing import Imputations, title
from netspec.lab.methods import Imputed
from netspec.model import model
from netspec.model.model import Model
from tools.results.reproduction import Results, page, parser, trained

NETS = ("nade_mnist", "nice_mnist:500", "gsn_mnist:12", "dpm_mnist")
"""Nets, with the number that `netspec missing --impute` takes behind a run: steps of NICE, passes of GSN."""
BASELINES = ("zero", "mean", "knn:5", "pca:50")
FIG4 = Path("docs/results/fig4.json")
BESIDE = (
    "ht_cac_missing_mnist, 9 shifts",
    "ht_cac_missing_mnist",
    "cp_cac_mnist",
    "lenet_mnist, expected",
    "5 nearest neighbours",
)
"""Rows of FIG4's record that are shown beside ours."""
LENET = "lenet_mnist"


def main() -> None:
    """Command line."""
    command = parser(__doc__, "docs/results/imputers")
    command.add_argument("--images", type=int, default=200)
    command.add_argument("--nets", nargs="*", default=list(NETS))
    command.add_argument("--impute", nargs="*", default=list(BASELINES))
    command.add_argument("--iterations", type=int, help="in place of the solvers' max_iter")
    command.add_argument("--settings", nargs="*", help="names such as iid:0.5; by default those of Fig. 4")
    options = command.parse_args()
    if options.quick:
        options.images, options.iterations = 10, 5
        options.settings = options.settings or ["iid:0.5", "rects:1x11"]
        options.nets = ["nade_mnist", "nice_mnist:5", "gsn_mnist:1", "dpm_mnist"]
    classifier = model.load(one_run(options, LENET), device=options.device)
    chosen = [parse(name) for name in options.settings] if options.settings else list(FIG_4)
    pixels, labels = classifier.images("test", 0, options.images)
    results = Results(
        options.out.with_suffix(".json"),
        {"images": len(labels), "seed": options.seed, "quick": options.quick},
    )
    rows = [(name.partition(":")[0], name) for name in options.nets] + [("", name) for name in options.impute]
    for net, name in rows:
        text = name if not net else str(one_run(options, net)) + name[len(net) :]
        method = row_of(text, classifier, options.seed)
        if net:
            results.get(f"iterations | {net}", partial(iterations, options.runs / net))
        for setting in chosen:
            key = f"{title(text)} | {setting.name}"
            figures = results.get(key, partial(right, method, setting, pixels, labels, options.seed))
            print(key, figures, flush=True)
    results.get(f"iterations | {LENET}", partial(iterations, options.runs / LENET))
    print(report(options.out, results).read_text())


def one_run(options: Any, net: str) -> Path:
    """A net's run folder: as it is, or trained now."""
    folder: Path = options.runs / net
    if folder.is_dir() and any(states(folder)):
        return folder
    return trained(f"nets/{net}_solver.prototxt", folder, options.iterations, device=options.device)


def iterations(folder: Path) -> int:
    """Updates of the snapshot that a run is loaded with."""
    return newest(folder)[0].iteration


def row_of(text: str, classifier: Model, seed: int) -> Imputed:
    """The classifier behind an imputation."""
    return Imputed(Imputations(None, seed).make(text, classifier), classifier, title(text))


def right(method: Imputed, setting: Any, pixels: Any, labels: Any, seed: int) -> int:
    """How many images the method has right."""
    made = run([method], [setting], pixels, labels, seed=seed)
    return made.cells[method.name][setting.name].right


def table_of(results: Results) -> Table:
    """The record as a table."""
    table, images = Table(), results.settings["images"]
    for key, count in results.values.items():
        name, _, setting = key.partition(" | ")
        if name != "iterations":
            table.put(f"LeNet after {name}", setting, Cell(count, images))
    return table


def beside(settings: list[str]) -> Table:
    """The rows of Fig. 4's record, on all test images, in these settings."""
    data = json.loads(FIG4.read_text())
    table = Table()
    for name in BESIDE:
        for setting in settings:
            if (count := data["results"].get(f"{name} | {setting}")) is not None:
                table.put(name, setting, Cell(count, data["settings"]["images"]))
    return table


def best(table: Table) -> str:
    """Who is best in each setting, and who is within its interval."""
    lines = []
    for setting in table.settings:
        cells = {name: row[setting] for name, row in table.cells.items() if setting in row}
        top = max(cells, key=lambda name: cells[name].accuracy)
        near = [
            name for name, cell in cells.items() if name != top and cell.interval[1] >= cells[top].interval[0]
        ]
        lines.append(f"- {setting}: {top}" + (f"; not told apart: {', '.join(near)}" if near else ""))
    return "\n".join(lines)


def report(out: Path, results: Results) -> Path:
    """The page, from the record alone."""
    ours = table_of(results)
    theirs = beside(ours.settings)
    both = Table({**theirs.cells, **ours.cells})
    done = {
        key.partition(" | ")[2]: n for key, n in results.values.items() if key.startswith("iterations | ")
    }
    trainings = ", ".join(f"{name} {n:,} iterations" for name, n in done.items())
    parts = [
        "Fig. 4 of the paper is a plot: there are no published numbers to put beside these.",
        "Accuracy in per cent with 95 % intervals (Wilson). Rows that begin with LeNet after: the first "
        f"{results.settings['images']} test images, a LeNet and small imputers that were trained briefly, so these "
        f"rows are no reproduction: {trainings}; nets are smaller than published (see their files), NICE takes as "
        "many steps as its row says (published: 8,555), GSN as many passes of four steps (published: 49 steps; here "
        "its hidden units begin anew in each pass). The other rows are those of [fig4.md](fig4.md), all 10,000 test "
        "images and a LeNet of 10,000 iterations, under the same masks.",
        both.markdown(),
        f"Highest in each setting, though the rows are of {results.settings['images']} and of 10,000 images and of two "
        "LeNets, and what the intervals do not tell from it:",
        best(both),
    ]
    facts = {**results.settings, **results.facts()}
    return page(out.with_suffix(".md"), "Imputers before LeNet", parts, facts)


if __name__ == "__main__":
    main()
