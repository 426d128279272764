"""The record of speed: steps of the four nets over the machine's limit and floor, before and after, and its page.

    python -m tools.bench.speed --before BEFORE.json [--commit TEXT] [--out docs/results/speed.json] [--threads 1]
                                [--rounds 15]
    python -m tools.bench.speed --page docs/results/speed.json

The first measures nets (`tools.bench.nets`, whose file of an earlier commit on the same machine is BEFORE) and writes
`{"nets": {NET: {"step_over_limit": ..., "step_over_floor": ...}}, "before": ..., ...}`. The second writes speed.md from
it, with the tables of input.json and scaling.json where these lie beside it. Figures of different processors are never
put side by side: a BEFORE of another processor is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from netspec.lab import circumstances
from tools.bench.limit import rates
from tools.bench.nets import GOALS, steps
from tools.bench.timing import machine

ROOT = Path(__file__).parent.parent.parent
NETS = ("ht_cac_mnist", "cp_cac_mnist", "ht_cac_digits", "lenet_mnist")
KINDS = ("limit", "floor")
PREDICTED = {"ht_cac_mnist": (2.6, 1.6)}
"""Step over limit and over floor as written down before the operator of tiles.py was measured: 28 ms of processor time
for the step in place of 45, counted from the passes over memory that it saves.
"""


def measure(before: Path, threads: int, count: int, commit: str = "") -> dict[str, Any]:
    """The record; commit: of `before`."""
    torch.set_num_threads(threads)
    earlier = json.loads(before.read_text())
    facts = machine()
    if earlier["machine"]["processor"] != facts["processor"]:
        raise SystemExit(f"{before} is of another processor: {earlier['machine']['processor']}")
    results: dict[str, Any] = {"machine": facts, "rounds": count, "rates": rates()}
    results |= steps([ROOT / "nets" / f"{name}.prototxt" for name in NETS], None, count)
    facts["load_average_after"] = round(os.getloadavg()[0], 2)
    results["circumstances"] = circumstances("cpu")
    results["goals"] = {name: dict(zip(KINDS, goals, strict=True)) for name, goals in GOALS.items()}
    results["predicted"] = {name: dict(zip(KINDS, both, strict=True)) for name, both in PREDICTED.items()}
    return {**results, "before": {**earlier, "commit": commit or earlier.get("commit", "")}}


def table(record: dict[str, Any]) -> Iterator[str]:
    """Goal, before, now, for every net."""
    yield "| net | step over | goal | before | now | predicted | |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | --- |"
    for name, now in record["nets"].items():
        before = record["before"]["nets"].get(name, {})
        for kind in KINDS:
            key, goal = f"step_over_{kind}_cpu", record["goals"].get(name, {}).get(kind)
            predicted = record["predicted"].get(name, {}).get(kind)
            verdict = "" if goal is None else "reached" if now[key] <= goal else "MISSED"
            cells = [
                f"{one:.2f}" if one is not None else ""
                for one in (goal, before.get(key), now[key], predicted)
            ]
            yield f"| {name} | {kind} | {' | '.join(cells)} | {verdict} |"
        key = "eager_step_over_limit_cpu"
        cells = ["", *(f"{one[key]:.2f}" if key in one else "" for one in (before, now)), ""]
        yield f"| {name}, layer by layer | limit | {' | '.join(cells)} | |"


def input_table(record: dict[str, Any]) -> Iterator[str]:
    yield "| layer/workers | of cores times one core's decoding | goal | of DataLoader with Pillow | goal |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    goals = record["goals"]
    for name, ratio in record["ratios"].items():
        cells = [ratio["of_decode"], goals["of_decode"], ratio["of_loader"], goals["of_loader"]]
        yield f"| {name} | {' | '.join(f'{one:.2f}' for one in cells)} |"


def scaling_table(record: dict[str, Any]) -> Iterator[str]:
    yield "| grows | sizes | ms | exponent | expected |"
    yield "| --- | --- | --- | ---: | ---: |"
    for name, curve in record["curves"].items():
        sizes, ms = (", ".join(map(str, curve[key])) for key in ("sizes", "ms"))
        yield f"| {name} | {sizes} | {ms} | {curve['exponent']:.2f} | {curve['expected']:.0f} |"


def facts_of(record: dict[str, Any]) -> Iterator[str]:
    facts = record["machine"]
    for name in (
        "processor",
        "processors",
        "threads",
        "load_average",
        "load_average_after",
        "torch",
        "python",
    ):
        yield f"- {name}: {facts[name]}"


def page(path: Path) -> str:
    """speed.md for a record."""
    record = json.loads(path.read_text())
    lines = ["# Speed: before and after", ""]
    missed = sum("MISSED" in line for line in table(record))
    lines += [f"Goals that are missed: {missed}. " if missed else "All goals are reached. "]
    lines[-1] += (
        "Ratios of processor time within a round, medians over the rounds; limit and floor as on "
        "`python -m tools.bench.nets`. Before: commit "
        f"{record['before']['commit'] or 'unknown'}, same processor."
    )
    lines += [
        "",
        "## The training step, compiled and layer by layer",
        "",
        *table(record),
        "",
        *facts_of(record),
    ]
    for name, title, rows in (
        ("input", "Decoding pictures with several workers", input_table),
        ("scaling", "Cost against size (layer by layer)", scaling_table),
    ):
        beside = path.with_name(f"{name}.json")
        if beside.exists():
            other = json.loads(beside.read_text())
            lines += ["", f"## {title}", "", *rows(other), "", *facts_of(other)]
            lines += ["", f"![{title}]({name}.png)"] if beside.with_suffix(".png").exists() else []
            lines += ["", f"`python -m tools.bench.{name}` wrote [{name}.json]({name}.json)."]
    lines += [
        "",
        f"`{record['circumstances']['command']}` wrote [{path.name}]({path.name}), and with `--page` this page.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--before", type=Path, help="a file of tools.bench.nets of an earlier commit")
    parser.add_argument("--commit", default="", help="the commit of that file, where it does not say")
    parser.add_argument("--page", type=Path, metavar="JSON", help="write the page of a record")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "speed.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if options.page:
        options.page.with_suffix(".md").write_text(page(options.page))
        return 0
    if not options.before:
        parser.error("give --before FILE, or --page FILE")
    record = measure(options.before, options.threads, options.rounds, options.commit)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
