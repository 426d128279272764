"""Seconds on 2 cores until 98.5 % of MNIST's test images with every second pixel missing are right.

    python -m tools.bench.leaderboard [--net nets/ht_cac_mnist.prototxt] [--iterations 25000] [--every 500]
                                      [--what TEXT] [--out docs/results/leaderboard.json]

Trains on MNIST with two threads, from nothing, with the solver file as it is but for `max_iter`; steps of its learning
rate keep their share of the run. Snapshots are judged afterwards, the first half that is good enough by bisection, on
10,000 test images of which each pixel is missing with probability 1/2 (the laboratory's iid:0.5, its fixed seed, one
pass, no averaging). The seconds of a snapshot are those from the call of `fit` to the moment at which it lies on the
disk: reading, unsupervised initialisation, compiling and snapshots count, judging does not. A run adds a row to the
record, also one that never gets there, and writes the page beside it. Rows of different machines are not compared: the
page has a table for each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import netspec
from netspec import schema
from netspec.lab import circumstances
from netspec.lab.assemble import assemble
from netspec.lab.missing import images
from netspec.lab.run import run as run_lab
from netspec.lab.settings import parse_all
from tools.bench.timing import machine

ROOT = Path(__file__).parent.parent.parent
RECORD = ROOT / "docs" / "results" / "leaderboard.json"
GOAL, SETTING, THREADS, SEED = 98.5, "0.5", 2, 2018


def shortened(solver: Any, iterations: int) -> list[str]:
    """Overrides of a solver that make its plan so long: steps of the learning rate keep their share of the run."""
    share = iterations / solver.max_iter
    steps = [max(1, round(step * share)) for step in solver.stepvalue]
    lines = [f"max_iter={iterations}", "test_interval=1000000000", "test_initialization=false"]
    return lines + [f"stepvalue[{i}]={step}" for i, step in enumerate(steps)]


def train(net: Path, iterations: int, every: int, folder: Path) -> list[tuple[int, float, Path]]:
    """(iteration, seconds since the start, weights) of every snapshot of one training."""
    solver = schema.read_solver(net.with_name(f"{net.stem}_solver.prototxt")).message
    started = time.time()
    netspec.fit(
        net,
        overrides=[*shortened(solver, iterations), f"snapshot={every}"],
        out=folder,
        device="cpu",
        progress=True,
    )
    snapshot = []
    for weights in folder.rglob("*.safetensors"):
        digits = weights.stem.rpartition("_")[2]
        if digits.isdigit():
            snapshot.append((int(digits), round(weights.stat().st_mtime - started, 1), weights))
    return sorted(snapshot)


def judge(folder: Path) -> Callable[[Path], float]:
    """Accuracy in per cent of weights of a run, on the laboratory's images."""

    def accuracy(weights: Path) -> float:
        models = [netspec.load(folder, weights=str(weights))]
        pixels, labels = images(models, "test", 0, None)
        settings = parse_all([SETTING], [], [], clean=False)
        table = run_lab(assemble(models, seed=SEED), settings, pixels, labels, repeats=1, seed=SEED)
        (row,) = (table.accuracy(method) for method in table.cells)
        return row[f"iid:{SETTING}"]

    return accuracy


def first_good(
    snapshots: Sequence[tuple[int, float, Path]], accuracy: Callable[[Path], float]
) -> tuple[dict[str, Any], bool]:
    """(what the first snapshot at GOAL, snapshot by bisection, or else the last, has; whether it is good enough)."""
    seen: dict[int, float] = {}

    def good(i: int) -> bool:
        if i not in seen:
            seen[i] = accuracy(snapshots[i][2])
            print(f"iteration {snapshots[i][0]}: {seen[i]:.2f} %", flush=True)
        return seen[i] >= GOAL

    low, high = 0, len(snapshots) - 1
    reached = good(high)
    while reached and low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle + 1, high)
    iteration, seconds, _ = snapshots[high]
    return {"iteration": iteration, "seconds": seconds, "accuracy": seen[high]}, reached


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The record as a page: a table for each processor, the best row first."""
    lines = [
        "# Seconds to 98.5 % with every second pixel missing",
        "",
        f"MNIST, {THREADS} threads, from nothing to {GOAL} % of 10,000 test images of which each pixel is missing with "
        "probability 1/2; reading, initialisation and compiling count. Rows of different processors are not compared. "
        "`python -m tools.bench.leaderboard` adds a row ([leaderboard.json](leaderboard.json)).",
    ]
    for processor in dict.fromkeys(row["processor"] for row in rows):
        own = [row for row in rows if row["processor"] == processor]
        own.sort(key=lambda row: (not row["reached"], row["seconds"]))
        lines += [
            "",
            f"## {processor}",
            "",
            "| seconds | accuracy, % | iterations | what | date | commit | load |",
        ]
        lines += ["| ---: | ---: | ---: | --- | --- | --- | ---: |"]
        for row in own:
            seconds = f"{row['seconds']:.0f}" if row["reached"] else f"not in {row['seconds']:.0f}"
            cells = [seconds, f"{row['accuracy']:.2f}", str(row["iteration"]), row["what"], row["date"]]
            lines.append(f"| {' | '.join(cells)} | {row['commit']} | {row['load_average']} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--net", type=Path, default=ROOT / "nets" / "ht_cac_mnist.prototxt")
    parser.add_argument("--iterations", type=int, default=25000)
    parser.add_argument("--every", type=int, default=500, help="iterations between snapshots (default 500)")
    parser.add_argument("--what", default="", help="what is new, in a few words, for the row")
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    before = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        snapshots = train(options.net, options.iterations, options.every, folder)
        snapshot, reached = first_good(snapshots, judge(folder))
    facts = circumstances("cpu")
    row = {
        **snapshot,
        "reached": reached,
        "net": options.net.stem,
        "iterations_planned": options.iterations,
        "what": options.what or f"{options.net.stem}, {options.iterations} iterations planned",
        **{key: facts[key] for key in ("date", "commit", "torch", "command")},
        **{key: before[key] for key in ("processor", "processors", "load_average")},
        "threads": THREADS,
        "load_average_after": round(os.getloadavg()[0], 2),
    }
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    rows.append(row)
    options.out.write_text(
        json.dumps({"goal": GOAL, "setting": f"iid:{SETTING}", "rows": rows}, indent=1) + "\n"
    )
    options.out.with_suffix(".md").write_text(page(rows))
    print(f"{'reached' if reached else 'NOT reached'}: {row['accuracy']:.2f} % after {row['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
