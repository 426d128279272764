"""Learning from incomplete data (section 4 of Sharir et al. 2018): accuracy against the share missing in training.

    python -m tools.results.incomplete [--shares 0,0.25,0.5,0.75,0.9] [--seeds 1,2,3] [--iterations N] [--quick]

nets/ht_cac_digits.prototxt (8x8 digits of scikit-learn, 1,507 of them) is trained on images that lack a share of their
pixels for ever: an image lacks the same pixels in every epoch. Rows: marginalised, where what is missing is integrated
out in the fit of the Gaussians and in the loss; and black, the same net on the same images with black written where
pixels are missing. Both are tested on all 290 test images, whole and with the share missing that they trained with;
there the first marginalises, and the second sees black. Resumable a training at a time.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from netspec.draw.canvas import figure, write
from netspec.lab import Direct, parse, wilson
from netspec.model import model
from tools.results.reproduction import Results, markdown, page, parser, trained

NET = Path("nets/ht_cac_digits.prototxt")
WAYS = {"marginalised": "nan", "black": "-0.5"}
"""What is written at missing pixels, after the transform."""


def net_text(share: str, way: str) -> str:
    """The net with its training images incomplete."""
    missing = f'missing {{ kind: "iid" probability: {share} fixed: true seed: 7 value: {WAYS[way]} }}'
    split = 'split: "whole_train" batch_size: 100 shuffle: true'
    text = NET.read_text()
    if split not in text:
        raise SystemExit(f"{NET}: has no {split!r}")
    return text.replace(split, f"{split} {missing}" if float(share) else split)


def measured(args: Any, share: str, way: str, seed: int) -> dict[str, int]:
    """Right answers on whole test images and on those with the share missing, and the number of images."""
    folder: Path = args.runs / "incomplete"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{way}_{share}"
    (folder / f"{name}.prototxt").write_text(net_text(share, way))
    solver = NET.with_name(f"{NET.stem}_solver.prototxt").read_text()
    file = folder / f"{name}_solver.prototxt"
    file.write_text(solver.replace(NET.as_posix(), str((folder / f"{name}.prototxt").resolve())))
    overrides = [f"random_seed={seed}", f"test_interval={args.iterations}"]
    overrides += [f"stepvalue={args.iterations * 3 // 5},{args.iterations}"]
    run = trained(
        str(file), folder / f"{name}_{seed}_{args.iterations}", args.iterations, overrides, args.device
    )
    net = model.load(run, device=args.device)
    pixels, labels = net.images("test")
    observed = parse(f"iid:{share}").observed(pixels, np.arange(len(pixels)), args.seed)
    everything = np.ones_like(observed)
    shown = (pixels, observed) if way == "marginalised" else (pixels * observed, everything)
    method = Direct(net, way)
    return {
        "whole": int((method.predict(pixels, everything) == labels).sum()),
        "incomplete": int((method.predict(*shown) == labels).sum()),
        "images": len(labels),
    }


def averages(results: Results, share: str, way: str, test: str) -> tuple[float, float, float]:
    """(mean accuracy over seeds, interval of Wilson for that accuracy on the test images: low, high)."""
    trials = [value for key, value in results.values.items() if key.rsplit(" | ", 1)[0] == f"{way} | {share}"]
    mean = float(np.mean([one[test] / one["images"] for one in trials]))
    return mean, *wilson(mean, trials[0]["images"])


def report(out: Path, results: Results) -> Path:
    """The page and its plot, from the record alone."""
    shares = list(dict.fromkeys(key.split(" | ")[1] for key in results.values))
    ways = [way for way in WAYS if any(key.startswith(f"{way} | ") for key in results.values)]
    tests = ("whole", "incomplete")
    cells = {
        (way, test): [averages(results, share, way, test) for share in shares]
        for way in ways
        for test in tests
    }
    rows = [
        [f"{way}, tested {'on whole images' if test == 'whole' else 'with the same share missing'}",
         *(f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})" for mean, low, high in values)]
        for (way, test), values in cells.items()
    ]  # fmt: skip
    fig = figure(6, 4)
    axes: Any = fig.subplots()
    for (way, test), values in cells.items():
        colour = "#0072b2" if way == "marginalised" else "#d55e00"
        look = "o-" if test == "whole" else "s--"
        axes.plot(
            [float(s) for s in shares],
            [100 * one[0] for one in values],
            look,
            color=colour,
            label=f"{way}, {test}",
        )
    axes.set_xlabel("share missing in training")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=8, frameon=False)
    write(fig, out.with_suffix(".png"))
    seeds = sorted({key.rsplit(" | ", 1)[1] for key in results.values})
    text = (
        "THIS IS A REDUCED RUN, AND NOT ON MNIST: the 8x8 digits of scikit-learn (1,507 training and 290 test images), "
        f"`nets/ht_cac_digits.prototxt`, {results.settings['iterations']:,} iterations, mean over seeds "
        f"{', '.join(seeds)}, in brackets the 95 % interval (Wilson) of 290 images. The paper states the advantage and "
        "prints no experiment."
    )
    parts = [text, markdown(["share missing in training", *shares], rows), f"![plot]({out.name}.png)"]
    return page(
        out.with_suffix(".md"),
        "Learning from incomplete data",
        parts,
        {**results.settings, **results.facts()},
    )


def main() -> None:
    """Train and test what is missing, print and write."""
    options = parser(__doc__, "docs/results/incomplete")
    options.add_argument("--shares", default="0,0.25,0.5,0.75,0.9")
    options.add_argument("--seeds", default="1,2,3")
    options.add_argument("--iterations", type=int, default=1000)
    args = options.parse_args()
    if args.quick:
        args.shares, args.seeds, args.iterations = "0.5", "1", 10
    results = Results(
        args.out.with_suffix(".json"), {"iterations": args.iterations, "seed": args.seed}, args.device
    )
    for seed in map(int, args.seeds.split(",")):
        for share in args.shares.split(","):
            for way in WAYS if float(share) else ("marginalised",):
                key = f"{way} | {share} | {seed}"
                print(key, results.get(key, partial(measured, args, share, way, seed)), flush=True)
    print(report(args.out, results).read_text())


if __name__ == "__main__":
    main()
