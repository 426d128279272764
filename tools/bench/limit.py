"""What this machine can do at most: matrix products, copies, exponentials and logarithms a second.

The limit of a piece of work is max(floating-point operations / best rate of a matrix product, bytes / rate of a copy):
no program can be faster, whatever it does with its caches. Rates are measured in the same rounds as the work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tools.bench.timing import Run, Taken, rounds

SIDES = ((512, 512, 512), (1024, 1024, 1024), (2048, 512, 512), (4096, 256, 256))
"""(rows, inner, columns) of the products among which the fastest becomes the yardstick."""
ELEMENTS = 1 << 24
"""Floats that are copied or put through exp and log: 64 MB, more than the caches hold."""


@dataclass
class Yardstick:
    """A piece of work whose size is known: `size` operations, bytes or elements each time it runs."""

    run: Run
    size: float

    def seconds(self, size: float, taken: Taken) -> float:
        """What `size` takes at the rate of one measurement, in wall time."""
        return size * taken.wall / self.size


def product(rows: int, inner: int, columns: int) -> Yardstick:
    """One float32 matrix product, two operations a multiply-add."""
    a, b, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
    return Yardstick(lambda: torch.mm(a, b, out=out), 2.0 * rows * inner * columns)


def best_product(count: int = 5) -> Yardstick:
    """The product of SIDES with the highest rate here."""
    candidates = {str(sides): product(*sides) for sides in SIDES}
    taken = rounds({name: one.run for name, one in candidates.items()}, count)
    return max(
        candidates.items(), key=lambda entry: entry[1].size / min(one.wall for one in taken[entry[0]])
    )[1]


def copy() -> Yardstick:
    """Reads and writes 64 MB each."""
    source, target = torch.randn(ELEMENTS), torch.empty(ELEMENTS)
    return Yardstick(lambda: target.copy_(source), 2.0 * 4 * ELEMENTS)


def elementwise(function: str) -> Yardstick:
    """torch.exp or torch.log over floats that lie ready in the cache."""
    x, out, call = torch.rand(1 << 14) + 0.5, torch.empty(1 << 14), getattr(torch, function)

    def run() -> None:
        for _ in range(64):
            call(x, out=out)

    return Yardstick(run, 64.0 * (1 << 14))


def rates(count: int = 10) -> dict[str, float]:
    """The machine's rates: billions of operations, bytes and elements a second, the best of `count` times."""
    sticks = {"sgemm_gflops": best_product(), "copy_gbytes": copy()}
    sticks |= {f"{name}_gelements": elementwise(name) for name in ("exp", "log")}
    taken = rounds({name: stick.run for name, stick in sticks.items()}, count)
    return {
        name: round(stick.size / min(one.wall for one in taken[name]) / 1e9, 2)
        for name, stick in sticks.items()
    }
