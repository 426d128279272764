"""The lines that Caffe's solver logs, in the words that parsers of its logs look for."""

from __future__ import annotations

import time
from collections.abc import Iterable

from netspec.pycaffe import glog, mode

SOLVER, SGD = "solver.cpp:1", "sgd_solver.cpp:1"
"""Where Caffe writes each line; some parsers look for it."""

Output = tuple[str, float, float]
"""Name of an output blob, one of its values, and its loss weight."""


class Log:
    """Writes the lines of one solver; only the solver of rank 0 does."""

    def __init__(self, display: int):
        self.display = display
        self.since, self.last = time.monotonic(), 0

    def start(self, iteration: int) -> None:
        """Training begins, or goes on, at this iteration."""
        self.since, self.last = time.monotonic(), iteration

    @staticmethod
    def line(text: str, source: str = SOLVER) -> None:
        """One line."""
        if mode.solver_rank() == 0:
            glog.info(text, source)

    def iteration(self, number: int, loss: float, outputs: Iterable[Output], rate: float) -> None:
        """Loss, speed since the last such line, outputs, learning rate."""
        now = time.monotonic()
        lapse = now - self.since
        speed = (number - self.last) / (lapse or 1.0)
        self.line(
            f"Iteration {number} ({speed:.6g} iter/s, {lapse:.6g}s/{self.display} iters), loss = {loss:.6g}"
        )
        self.outputs("Train", outputs)
        self.line(f"Iteration {number}, lr = {rate:.6g}", SGD)
        self.since, self.last = now, number

    def outputs(self, phase: str, outputs: Iterable[Output]) -> None:
        """Each value of a net's outputs; a loss with its weight."""
        for i, (name, value, weight) in enumerate(outputs):
            part = f" (* {weight:.6g} = {weight * value:.6g} loss)" if weight else ""
            self.line(f"    {phase} net output #{i}: {name} = {value:.6g}{part}")
