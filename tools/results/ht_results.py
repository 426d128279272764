"""Write docs/results/ht_cac_mnist.json and .md: one trained model on clean and on missing test images.

    python -m tools.results.ht_results runs/ht_cac_mnist [--lenet runs/lenet_mnist] [--out docs/results]

No averaging over translations, no other tricks: the net as it was trained. A LeNet, when given, goes to
docs/results/lenet_mnist.json with its clean accuracy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from netspec.data.files.idx import Array
from netspec.data.files.whole import write_whole
from netspec.interchange.snapshot_files import iteration_of, newest
from netspec.lab import Direct, Table, circumstances, parse_all, run
from netspec.lab.layout import SEED
from netspec.model import model
from netspec.model.model import Model
from tools.results.reproduction import published

PROBABILITIES = ("0.25", "0.5", "0.75", "0.9", "0.95", "0.99")
SPECIALISTS = {p: published("fig3")[p][k] for k, p in enumerate(PROBABILITIES)}
"""Fig. 3 (a) of Sharir et al. 2018: LeNets trained on exactly the missingness they are tested on, per cent.
"""

INTRODUCTION = [
    "One model, trained once; missing pixels are integrated out; no averaging over translations.",
    "`iid:p`: each pixel is missing with probability p. Six specialists: the LeNets of Sharir et al. 2018,",
    "fig. 3 (a), each trained on exactly the missingness that it is tested on.",
]


class Whole:
    """A net on whole images."""

    def __init__(self, net: Model, name: str):
        self.net, self.name = net, name

    def predict(self, pixels: Array, observed: Array) -> Array:
        if not observed.all():
            raise ValueError("a net for whole images was shown missing pixels")
        return self.net.predict(self.net.from_pixels(pixels)).cpu().numpy()


def facts(folder: Path, net: Model, seed: int) -> dict[str, Any]:
    """What the result says of its making, besides the numbers."""
    training = json.loads((folder / "run.json").read_text()) if (folder / "run.json").is_file() else {}
    return {
        "data": net.dataset,
        "split": "test",
        "seed": seed,
        "train_command": f"netspec train {training.get('file', '')} --out runs/{folder.name}",
        "train_seed": training.get("seed"),
        "iterations": iteration_of(newest(folder)[0].path),
        **circumstances(net.device),
        "command": f"python -m tools.results.ht_results runs/{folder.name}",
    }


def measure(folder: Path, out: Path, stem: str, missing: bool, args: argparse.Namespace) -> Table:
    """Run one model and write <stem>.json and <stem>.md."""
    net = model.load(folder, device=args.device)
    pixels, labels = net.images("test", 0, args.images)
    method = Direct(net, stem) if missing else Whole(net, stem)
    settings = parse_all(PROBABILITIES if missing else ())
    table = run([method], settings, pixels, labels, seed=args.seed, progress=print)
    table.facts = facts(folder, net, args.seed)
    table.write(out / f"{stem}.json")
    write_whole(out / f"{stem}.md", page(table, stem, len(np.unique(labels)), missing).encode())
    return table


def page(table: Table, stem: str, classes: int, missing: bool) -> str:
    """The result as Markdown."""
    accuracy, facts = table.accuracy(stem), table.facts
    images = next(iter(table.cells[stem].values())).images
    told = INTRODUCTION if missing else []
    specialists = {f"iid:{p}": str(value) for p, value in SPECIALISTS.items()}
    beside = specialists if missing and facts["data"] == "mnist" else None
    lines = [
        f"# {stem}: {'missing pixels' if missing else 'whole images'}",
        "",
        f"Accuracy in per cent on {images} test images of {facts['data']} ({classes} classes), with 95 %",
        "confidence intervals (Wilson).",
        *told,
        "",
        "| setting | accuracy | interval |" + (" six specialists |" if beside else ""),
        "| --- | ---: | ---: |" + (" ---: |" if beside else ""),
    ]
    for setting, cell in table.cells[stem].items():
        low, high = cell.interval
        row = f"| {setting} | {accuracy[setting]:.2f} | {100 * low:.2f} to {100 * high:.2f} |"
        lines.append(row + (f" {beside.get(setting, '')} |" if beside else ""))
    return "\n".join([*lines, "", *(f"- {key}: {value}" for key, value in facts.items()), ""])


def main() -> None:
    """Read the command line, run, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder of the generative net")
    parser.add_argument("--lenet", type=Path, help="run folder of a LeNet, tested on whole images")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--name", default="ht_cac_mnist", help="stem of the files")
    parser.add_argument("--lenet-name", default="lenet_mnist")
    parser.add_argument("--seed", type=int, default=SEED, help="of the masks")
    parser.add_argument("--images", type=int, help="only the first so many test images")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(measure(args.run, args.out, args.name, True, args).text())
    if args.lenet:
        print(measure(args.lenet, args.out, args.lenet_name, False, args).text())


if __name__ == "__main__":
    main()
