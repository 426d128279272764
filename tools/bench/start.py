"""How long a new process takes until a model is loaded, beside what torch itself takes.

    python -m tools.bench.start RUN [--rounds 10] [--record docs/results/start.json]

Wall and processor time of whole processes that take turns. The second row is torch with one operation on its meta
device, where netspec infers shapes: torch imports sympy for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from tools.bench.timing import machine

PROGRAMS = {
    "import torch": "import torch",
    "import torch, one operation on meta": "import torch; torch.empty(2, device='meta') * 2",
    "netspec.load(RUN)": "import netspec; netspec.load({run!r})",
    "netspec check": "from netspec.cli import app; app(['check', {net!r}], standalone_mode=False)",
}


def spent(program: str) -> tuple[float, float]:
    """Seconds (wall, processor) of a process."""
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure, print, record."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("run", type=Path, help="run folder of a small net")
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--record", type=Path)
    given = options.parse_args()
    fill = {"run": str(given.run), "net": str(given.run / "net.prototxt")}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(given.rounds):
        for name, program in PROGRAMS.items():
            taken[name].append(spent(program.format(**fill)))
    rows = {}
    for name, times in taken.items():
        ratios = [
            (one[0] / torch[0], one[1] / torch[1])
            for one, torch in zip(times, taken["import torch"], strict=True)
        ]
        rows[name] = {
            "seconds": round(median(wall for wall, _ in times), 3),
            "processor seconds": round(median(cpu for _, cpu in times), 3),
            "over import torch": round(median(wall for wall, _ in ratios), 3),
            "over import torch, processor": round(median(cpu for _, cpu in ratios), 3),
        }
        print(name, rows[name], flush=True)
    if given.record:
        content = {"rounds": given.rounds, "machine": machine(), "results": rows}
        given.record.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
