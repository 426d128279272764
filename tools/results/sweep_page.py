"""Draw TPE beside random search from the records of two sweeps: the best value so far against the number of runs.

python -m tools.results.sweep_page docs/results/sweep_random.json docs/results/sweep_tpe.json -o docs/results/sweep.svg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

from netspec.draw.canvas import figure, write


def values(record: dict[str, Any]) -> list[float]:
    """The metric of each run in the order of the runs; one that failed counts as 0."""
    runs = sorted(record["runs"].items(), key=lambda entry: int(entry[0].rsplit("_", 1)[1]))
    return [run["value"] or 0.0 for _, run in runs]


def table(records: Sequence[dict[str, Any]]) -> list[str]:
    """The page's table, a column for each record."""

    def of_runs(record: dict[str, Any], name: str) -> list[Any]:
        return [run[name] for run in record["runs"].values()]

    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "runs that are over, of 24": lambda r: f"{len(r['runs'])}",
        "kills": lambda r: f"{r['kills']}",
        "runs made again after they were over": lambda r: f"{len(r['repeated'])}",
        "lines of metrics that are there twice": lambda r: f"{sum(of_runs(r, 'lines_twice'))}",
        "beginnings of runs, all together": lambda r: f"{sum(of_runs(r, 'beginnings'))}",
        "most beginnings of one run": lambda r: f"{max(of_runs(r, 'beginnings'))}",
        "best accuracy": lambda r: f"{100 * max(values(r)):.2f} %",
        "median accuracy": lambda r: f"{100 * median(values(r)):.2f} %",
        "worst accuracy": lambda r: f"{100 * min(values(r)):.2f} %",
        "seconds from first to last": lambda r: f"{r['seconds']:,.0f}",
    }
    return [f"| {name} | {' | '.join(row(record) for record in records)} |" for name, row in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path, nargs="+")
    parser.add_argument("--out", "-o", type=Path, required=True)
    given = parser.parse_args()
    fig = figure(7.0, 4.0, constrained=True)
    axes = fig.subplots()
    for path, colour in zip(given.records, ("#1f77b4", "#d62728", "#2ca02c"), strict=False):
        record = json.loads(path.read_text())
        scores = values(record)
        name = Path(record["plan"]).stem
        count = range(1, len(scores) + 1)
        axes.plot(count, scores, "o", color=colour, alpha=0.4, markersize=4)
        axes.plot(count, list(accumulate(scores, max)), color=colour, label=f"{name}: best {max(scores):.3f}")
        half = median(scores)
        print(f"{name}: {len(scores)} runs, best {max(scores):.4f}, median {half:.4f}")
    axes.set_xlabel("run")
    axes.set_ylabel("accuracy; best so far as a line")
    axes.grid(True, color="#e0e0e0", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    write(fig, given.out)
    print("\n".join(table([json.loads(path.read_text()) for path in given.records])))


if __name__ == "__main__":
    main()
