"""How many threads a run on a processor uses: as asked, as before, or as measured where other programs are at work.

With a thread for each core, every parallel loop waits for the thread whose core another program holds: on two busy
cores a small net took six times the wall and processor time of one thread. So where the machine is loaded, some loops
of a training are timed at the start with every number of threads, and the least number that is about as fast as the
fastest is taken. On a machine at rest nothing is measured, and runs of one seed are equal to the bit. A resumed run
uses the number of threads that its snapshot names.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

ASKED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NETSPEC_THREADS", "LOCAL_WORLD_SIZE")
"""Environment variables by which somebody has said how many (NETSPEC_THREADS=0: as many as torch takes)."""
BUSY = 0.5
"""Programs that wish to run, for each processor, from which it is measured."""
ROUNDS, ROOM = 5, 1.1
"""Timings of each number; what a number may take beside the fastest."""
MOST = 4096
"""No snapshot is believed that names more threads."""
OWN = torch.get_num_threads()
"""What torch takes by itself; another number was asked for."""


def choose(before: int | None = None) -> tuple[int, str]:
    """(number of threads, why in words; "" for torch's own or what was asked for).

    before: the number of the run that is resumed.
    """
    now = torch.get_num_threads()
    if any(os.environ.get(name) for name in ASKED):
        return now, ""
    if before is not None:
        return before, f"{before} threads, as before the snapshot" if before != now else ""
    if now == 1 or now != OWN or not busy():
        return now, ""
    number = fewest(timed(candidates(now)))
    if number == now:
        return now, ""
    return (
        number,
        f"{number} of {now} threads: other programs are at work, and more were no faster when timed",
    )


def busy() -> bool:
    """Whether other programs are at work, by the load of the last minute."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


def candidates(most: int) -> list[int]:
    """`most`, its halves, and 1."""
    numbers = [most]
    while numbers[-1] > 1:
        numbers.append(numbers[-1] // 2)
    return numbers


def loops() -> Callable[[], object]:
    """Work of the kinds that a training does: a batched product and a function of many values."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(16, 128, 128, generator=generator) for _ in range(2))

    def run() -> None:
        for _ in range(4):
            torch.bmm(a, b).exp_().amax(2)

    return run


def timed(numbers: Sequence[int]) -> dict[int, list[float]]:
    """Seconds of `loops` by number of threads, taken in turns; torch is left with the number that it had."""
    own, run = torch.get_num_threads(), loops()
    seconds: dict[int, list[float]] = {number: [] for number in numbers}
    try:
        for turn in range(ROUNDS + 1):
            for number in numbers:
                torch.set_num_threads(number)
                started = time.perf_counter()
                run()
                if turn:  # the first one warms up
                    seconds[number].append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(own)
    return seconds


def fewest(seconds: Mapping[int, Sequence[float]]) -> int:
    """The least number of threads that is about as fast as the fastest."""
    medians = {number: statistics.median(times) for number, times in seconds.items()}
    limit = ROOM * min(medians.values())
    return min(number for number, median in medians.items() if median <= limit)
