"""Page faults and processor time with and without `netspec.net.allocator`: forward passes and training steps.

    python -m tools.bench.page_faults [--rounds 5] [--record docs/results/page_faults.json]

Each measurement is a process of its own with one thread; the two ways take turns. Ratios are of one round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from netspec.net.allocator import keep_freed_memory
from netspec.net.make import make_net
from tools.bench.timing import machine

NETS = ("ht_cac_digits", "ht_cac_mnist", "lenet_mnist", "drmm2_mnist")
REPEATS = 10


def measure(net: str, keep: bool, training: bool) -> dict[str, float]:
    """Faults and milliseconds of processor time of one pass over 100 images, after a first one."""
    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()
    made = make_net(f"nets/{net}.prototxt")
    shape = tuple(made.shapes[made.graph.inputs[0]][1:])
    x, y = torch.rand(100, *shape) - 0.5, torch.zeros(100, dtype=torch.long)

    def once() -> None:
        with torch.set_grad_enabled(training):
            outputs = made(x, y)
            if training:
                sum(one.sum() for one in outputs if one.requires_grad).backward()

    once()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    for _ in range(REPEATS):
        once()
    spent = time.process_time() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "faults": (after.ru_minflt - before.ru_minflt) / REPEATS,
        "cpu_ms": 1e3 * spent / REPEATS,
        "peak_mb": after.ru_maxrss / 1024,
    }


def child(net: str, keep: bool, training: bool) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tools.bench.page_faults",
        "--child",
        net,
        str(int(keep)),
        str(int(training)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Measure and print, a line per net and pass."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--record", type=Path)
    options.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(measure(given.child[0], given.child[1] == "1", given.child[2] == "1")))
        return
    rows: dict[str, Any] = {}
    for net in NETS:
        for training in (False, True):
            rounds = [[child(net, keep, training) for keep in (False, True)] for _ in range(given.rounds)]
            before, after = zip(*rounds, strict=True)
            rows[f"{net}, {'forward and backward' if training else 'forward'}"] = row = {
                "faults, without": median(one["faults"] for one in before),
                "faults, with": median(one["faults"] for one in after),
                "processor time, with / without": median(b["cpu_ms"] / a["cpu_ms"] for a, b in rounds),
                "peak memory, MB, without": median(one["peak_mb"] for one in before),
                "peak memory, MB, with": median(one["peak_mb"] for one in after),
            }
            print(list(rows)[-1], {key: round(value, 3) for key, value in row.items()}, flush=True)
    if given.record:
        content = {"rounds": given.rounds, "batch": 100, "machine": machine(), "results": rows}
        given.record.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
