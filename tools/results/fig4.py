"""Fig. 4 (a) and (b) of Sharir et al. 2018: classification of MNIST with missing pixels, every method we have.

    python -m tools.results.fig4 runs/ht_cac_mnist runs/cp_cac_mnist runs/lenet_mnist [--shifts] [--quick]
        [--mix RUN...] [--alone]

Nets that trained under the shares of missing pixels that they are tested on are not blind in the paper's sense
(F.2.2); the page says which did.

Rows: each generative run, LeNet after each imputation, 5 nearest neighbours, the robust linear classifier.
Columns:
clean, iid p of .25 .5 .75 .9 .95 .99, rectangles N of 1 2 3 times W of 7 11 15. Resumable a column at a time.
"""

from __future__ import annotations

from pathlib import Path

from netspec.lab import FIG_4, IMPUTATIONS, Cell, Table, assemble, circumstances, plot, run
from netspec.lab.methods import SHIFTED, Direct
from netspec.model import model
from netspec.model.mixture import Mixture
from netspec.schema.read import read_net
from netspec.schema.spec import TEST
from tools.results.reproduction import Results, page, parser

UNMEASURED = (
    "Not measured here: a convolutional net that sees the mask as a channel of its input. Until it is, no row can be "
    "called the best of all methods."
)


def told(run: Path) -> bool:
    """Whether the run's net learned under missing pixels of the tested kind, as its own net file says."""
    layers = read_net(run / "net.prototxt").message.layer
    return any(
        layer.dataset_param.HasField("missing")
        for layer in layers
        if not any(rule.phase == TEST for rule in layer.include)
    )


def groups(runs: list[Path]) -> str:
    """Which rows are blind."""
    names = [run.name for run in runs if told(run)]
    if not names:
        return "Blind: no net learned under missing pixels."
    return (
        f"{', '.join(names)}: not blind. In training, pixels of each image were missing by a share drawn from the "
        "shares that the columns test, so only the rectangles are new to it; the paper's models learn from complete "
        "images. All other rows are blind."
    )


def main() -> None:
    """Run what is missing, print and write the table and the plot."""
    options = parser(__doc__, "docs/results/fig4")
    options.add_argument("run", nargs="+", type=Path, help="run folders: generative nets, and LeNet")
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
    args = options.parse_args()
    n = args.images or (300 if args.quick else None)
    models = [model.load(folder, device=args.device) for folder in args.run]
    generative = any(one.generative for one in models)
    known = IMPUTATIONS if generative else IMPUTATIONS[:3]
    if not generative:
        print(f"no run is generative: no rows for the imputations {', '.join(IMPUTATIONS[3:])}", flush=True)
    if args.alone:
        methods = assemble(models, seed=args.seed)
    else:
        methods = assemble(models, known, neighbours=5, robust=[(5, 0.1)], seed=args.seed)
    if args.mix:
        parts = [models[0], *(model.load(folder, device=args.device) for folder in args.mix)]
        mixed = Mixture(parts, f"mixture of {len(parts)} {args.run[0].name}")
        methods += [
            Direct(mixed, mixed.name + SHIFTED * shifts, shifts)
            for shifts in (False, True)[: 1 + args.shifts]
        ]
    if args.shifts:
        methods += assemble([one for one in models if one.generative], shifts=True)
    pixels, labels = models[0].images("test", 0, n)
    settings = {"runs": [folder.name for folder in args.run], "images": len(labels), "seed": args.seed}
    results = Results(args.out.with_suffix(".json"), settings, args.device)
    table = Table(facts={**settings, "data": models[0].dataset, **circumstances(args.device)})
    for setting in FIG_4:
        for method in methods:
            key = f"{method.name} | {setting.name}"

            def right(method: object = method, setting: object = setting) -> int:
                made = run([method], [setting], pixels, labels, seed=args.seed)  # type: ignore[list-item]
                return next(iter(made.cells.values()))[setting.name].right  # type: ignore[attr-defined]

            table.put(method.name, setting.name, Cell(results.get(key, right), len(labels)))
            print(f"{key}: {100 * table.cells[method.name][setting.name].accuracy:.2f} %", flush=True)
    text = (
        f"Accuracy in per cent on {len(labels)} test images of {models[0].dataset}, 95 % intervals (Wilson)."
    )
    page(args.out.with_suffix(".md"), "Fig. 4: classification under missing data",
         [groups([*args.run, *args.mix]), UNMEASURED, text, table.markdown(), f"![plot]({args.out.name}.png)"],
         table.facts)  # fmt: skip
    plot(table, args.out.with_suffix(".png"), page=(12, 5))
    print(table.text())


if __name__ == "__main__":
    main()
