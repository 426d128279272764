"""Fig. 3 of Sharir et al. 2018: LeNets trained on one missingness, tested on others.

    python -m tools.results.fig3 [--quick] [--only a|b] [--iterations N]

(a) i.i.d.: trained with each p, with random p, and with random rectangles; tested on each p.
(b) rectangles: trained with each N and W and tested on the same, against training with random N and W.
Trainings lie in runs/fig3/ and are gone on with when interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netspec.draw.canvas import figure
from netspec.draw.canvas import write as write_figure
from netspec.lab import Cell, Direct, Table, parse_all, run
from netspec.model import model
from tools.results.reproduction import Results, markdown, page, parser, published, trained

P = ("0.25", "0.5", "0.75", "0.9", "0.95", "0.99")
RECTS = tuple(f"{n}x{w}" for n in (1, 2, 3) for w in (7, 11, 15))
PUBLISHED = published("fig3")
"""Fig. 3 (a) as printed; (b) is a plot only."""
IID, RECT = "nets/lenet_iid_mnist.prototxt", "nets/lenet_rects_mnist.prototxt"
PAPER = 20_000
"""Iterations of the paper."""
FIELD = "data.dataset_param.missing"


def nets(only: str, quick: bool) -> dict[str, tuple[str, list[str]]]:
    """Row: (net, overrides) of every training."""
    chosen: dict[str, tuple[str, list[str]]] = {"iid (rand)": (IID, []), "rects (rand)": (RECT, [])}
    if only in ("", "a"):
        chosen |= {p: (IID, [f"{FIELD}.probability={p}"]) for p in (P[1::2] if quick else P)}
    if only in ("", "b"):
        for name in RECTS[::4] if quick else RECTS:
            count, width = name.split("x")
            chosen[name] = (RECT, [f"{FIELD}.count={count}", f"{FIELD}.width={width}"])
    return chosen


def measured(folder: Path, row: str, args: Any, n: int | None) -> dict[str, list[int]]:
    """Right answers and images of one training in all settings of (a) and (b)."""
    net = model.load(folder, device=args.device)
    pixels, labels = net.images("test", 0, n)
    table = run([Direct(net, row)], parse_all(P, RECTS), pixels, labels, seed=args.seed)
    return {setting: [cell.right, cell.images] for setting, cell in table.cells[row].items()}


def main() -> None:
    """Train and test what is missing, print and write."""
    options = parser(__doc__, "docs/results/fig3")
    options.add_argument("--only", default="", choices=("", "a", "b"))
    options.add_argument(
        "--iterations",
        type=int,
        help="in place of the 20,000 of nets/lenet_*_solver.prototxt; the schedule shrinks alike",
    )
    args = options.parse_args()
    iterations = args.iterations or (100 if args.quick else None)
    n = 500 if args.quick else None
    settings = {"iterations": iterations or PAPER, "images": n or 10000, "seed": args.seed}
    results = Results(args.out.with_suffix(".json"), settings, args.device)
    table = Table()
    schedule = [f"stepvalue={iterations // 2},{iterations * 3 // 4},{iterations}"] if iterations else []
    for row, (net, missing) in nets(args.only, args.quick).items():
        overrides = missing + schedule
        folder = (
            args.runs
            / "fig3"
            / (row.replace(" ", "_").strip("()") + (f"_{iterations}" if iterations else ""))
        )

        def compute(
            net: str = net, overrides: list[str] = overrides, folder: Path = folder, row: str = row
        ) -> Any:
            return measured(trained(net, folder, iterations, overrides, args.device), row, args, n)

        for setting, (right, images) in results.get(row, compute).items():
            table.put(row, setting, Cell(right, images))
    table.facts = {**settings, **results.made}
    write(table, args.out)
    print(table.text())


def write(table: Table, out: Path) -> None:
    """The page with both parts, and the plot of the published rows beside ours."""
    ours = table.cells
    rows = []
    for row in [name for name in PUBLISHED if name in ours]:
        rows.append([row, *(100 * ours[row][f"iid:{p}"].accuracy for p in P)])
        rows.append([f"{row}, published", *PUBLISHED[row]])
    part_a = markdown(("trained with", *P), rows)
    rows_b: list[list[object]] = [["the same N and W", *(_own(table, name) for name in RECTS)]]
    for row in ("rects (rand)", "iid (rand)"):
        rows_b.append([row, *(100 * ours[row][f"rects:{name}"].accuracy for name in RECTS)])
    part_b = markdown(("trained with", *RECTS), rows_b)
    few = f"THE PAPER'S {PAPER:,} ITERATIONS WERE NOT RUN: each net had {table.facts['iterations']:,} of 64 images."
    parts = [*([few] if table.facts["iterations"] < PAPER else []),
             "(a) Accuracy in per cent by the p of the test.", part_a,
             "(b) The same by the N x W of the test (published as a plot only).", part_b,
             f"![each training, ours and published]({out.name}.png)"]  # fmt: skip
    page(
        out.with_suffix(".md"),
        "Fig. 3: LeNets trained on one missingness, tested on others",
        parts,
        table.facts,
    )
    panels(table, out.with_suffix(".png"))


def panels(table: Table, path: Path) -> Path:
    """A panel for each row of (a), ours beside the published values, and one for the rectangles of (b)."""
    ours = table.cells
    names = [name for name in PUBLISHED if name in ours]
    fig = figure(12, 2.6 * -(-(len(names) + 1) // 3), constrained=True)
    axes: Any = fig.subplots(-(-(len(names) + 1) // 3), 3, squeeze=False, sharey=True).ravel()
    for one, name in zip(axes, names, strict=False):
        one.plot(P, [100 * ours[name][f"iid:{p}"].accuracy for p in P], "o-", color="#0072b2", label="ours")
        one.plot(P, PUBLISHED[name], "s--", color="#d55e00", markerfacecolor="white", label="published")
        one.set_title(f"trained with {name}", fontsize=9)
        one.set_xlabel("p of the test", fontsize=8)
    last = axes[len(names)]
    looks = {"the same N and W": "^-", "rects (rand)": "o-", "iid (rand)": "s:"}
    for (name, look), colour in zip(looks.items(), ("#009e73", "#0072b2", "#cc79a7"), strict=True):
        row = [
            _own(table, place) if name not in ours else 100 * ours[name][f"rects:{place}"].accuracy
            for place in RECTS
        ]
        last.plot(RECTS, row, look, color=colour, label=name)
    last.set_title("(b) rectangles, trained with", fontsize=9)
    for one in axes[len(names) + 1 :]:
        one.set_visible(False)
    axes[0].set_ylabel("accuracy, %")
    for one in (axes[0], last):
        one.legend(fontsize=7, frameon=False)
    return write_figure(fig, path)


def _own(table: Table, name: str) -> float | None:
    row = table.cells.get(name)
    return None if row is None else 100 * row[f"rects:{name}"].accuracy


if __name__ == "__main__":
    main()
