"""Timings taken in turns, and what they depend on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Run = Callable[[], object]


@dataclass(frozen=True)
class Taken:
    """Seconds of one run."""

    wall: float
    cpu: float


def rounds(runs: dict[str, Run], count: int) -> dict[str, list[Taken]]:
    """Time of every run in each of `count` rounds, after two rounds that warm up (and compile)."""
    taken: dict[str, list[Taken]] = {name: [] for name in runs}
    for number in range(count + 2):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if number >= 2:
                taken[name].append(Taken(time.perf_counter() - wall, time.process_time() - cpu))
    return taken


def ratios(name: str, above: list[Taken], below: list[Taken]) -> dict[str, float]:
    """Medians over the rounds of above / below, in wall and in processor time."""
    pairs = list(zip(above, below, strict=True))
    return {
        name: round(statistics.median(a.wall / b.wall for a, b in pairs), 3),
        f"{name}_cpu": round(statistics.median(a.cpu / b.cpu for a, b in pairs), 3),
    }


def milliseconds(taken: list[Taken]) -> dict[str, float]:
    wall = [one.wall for one in taken]
    cpu = statistics.median(one.cpu for one in taken)
    return {
        "median_ms": round(1e3 * statistics.median(wall), 3),
        "least_ms": round(1e3 * min(wall), 3),
        "cpu_ms": round(1e3 * cpu, 3),
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    names = [line.split(":")[1].strip() for line in cpu_lines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "processors": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }


def cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
