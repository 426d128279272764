"""Draw TPE beside random search from the records of two sweeps: the best value so far against the number of runs.

python -m tools.results.sweep_page docs/results/sweep_random.json docs/results/sweep_tpe.json -o docs/results/sweep.svg
"""

from __future__ import annotations

import argparse
import json
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

from netspec.draw.canvas import figure, write


def values(record: dict[str, Any]) -> list[float]:
    """The metric of each run in the order of the runs; one that failed counts as 0."""
    runs = sorted(record["runs"].items(), key=lambda entry: int(entry[0].rsplit("_", 1)[1]))
    return [run["value"] or 0.0 for _, run in runs]


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


if __name__ == "__main__":
    main()
