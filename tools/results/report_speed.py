"""How large and how fast a report of many runs is: made-up runs, their page opened in Chromium, a record of both.

python -m tools.results.report_speed --runs 100 --points 10000 -o docs/results/report.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from netspec.experiments.index import Index
from netspec.experiments.report import report
from tools.site.browser import Browser

SOLVER = 'net: "net.prototxt" base_lr: {rate} max_iter: {points} type: "SGD"\n'
NET = """name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
"""


def write_run(folder: Path, number: int, points: int) -> None:
    """A run of a sweep with so many displays, and a test every twentieth of them."""
    rng = random.Random(number)
    rate, keep = 10 ** rng.uniform(-3, -0.5), rng.uniform(0.5, 1)
    best = 0.9 - 0.15 * abs(math.log10(rate) + 1.5) + 0.05 * keep
    folder.mkdir(parents=True)
    (folder / "solver.prototxt").write_text(SOLVER.format(rate=rate, points=points))
    (folder / "net.prototxt").write_text(NET)
    (folder / "run.json").write_text(json.dumps({"seed": number, "file": "small.prototxt"}))
    point = {
        "values": {"base_lr": rate, "keep": keep, "width": rng.choice([8, 16])},
        "source": "small.prototmp",
    }
    (folder / "point.json").write_text(json.dumps(point))
    (folder / "result.json").write_text(json.dumps({"run": folder.name, "status": "done"}))
    lines: list[dict[str, Any]] = []
    for t in range(points):
        loss = 2.3 * math.exp(-3 * t / points) + 0.2 * rng.random()
        lines.append({"kind": "train", "iteration": t, "loss": loss, "lr": rate, "seconds": t / 100})
        if t % (points // 20) == 0:
            outputs = {"accuracy": best * (1 - math.exp(-5 * t / points))}
            lines.append({"kind": "test", "iteration": t, "net": 0, "outputs": outputs})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=5, help="how often the page is opened")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for i in range(given.runs):
            write_run(Path(place) / "sweep" / f"run_{i:03}", i, given.points)
        started = time.monotonic()
        page = report([Path(place) / "sweep"], test=False)
        making = time.monotonic() - started
        started = time.monotonic()
        with Index(Path(place) / "sweep"):
            indexing = time.monotonic() - started
        started = time.monotonic()
        with Index(Path(place) / "sweep"):
            again = time.monotonic() - started
        text = page.read_text(encoding="utf-8")
        (data,) = re.findall(r'id="data">(.*?)</script>', text, re.S)
        ready, working, errors, asked = list[int](), list[int](), list[str](), 0
        with Browser() as browser:
            for _ in range(given.times):
                with browser.page() as opened:
                    opened.call("Performance.enable", timeDomain="threadTicks")
                    opened.goto(page.as_uri())
                    opened.wait("window.netspecReady > 0")
                    ready.append(round(opened.evaluate("window.netspecReady")))
                    told = opened.call("Performance.getMetrics")["metrics"]
                    working.append(round(1000 * {m["name"]: m["value"] for m in told}["TaskDuration"]))
                    errors += opened.errors
                    asked += len(opened.requests) - 1
    record = {
        "command": f"python -m tools.results.report_speed --runs {given.runs} --points {given.points}",
        "runs": given.runs,
        "points": given.points,
        "bytes": len(text.encode()),
        "bytes_without_data": len(text.encode()) - len(data.encode()),
        "milliseconds_until_drawn": sorted(ready),
        "milliseconds_of_processor": sorted(working),
        "console_errors": errors,
        "requests": asked,
        "seconds_to_make": round(making, 1),
        "seconds_to_index": round(indexing, 1),
        "seconds_to_index_again": round(again, 2),
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }
    given.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
