"""Averages of a test's outputs over its batches, and the average precision of detections over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from netspec.layers.loss.average_precision import Detections


class Averages:
    """Sums up the outputs of a test, batch by batch."""

    def __init__(self, detected: Iterable[str] = (), solver: Any = None):
        """detected: names of the outputs that are rows of detections; solver: the SolverParameter whose ap_version
        scores them (by default "Integral").
        """
        version = {} if solver is None else {"version": solver.ap_version}
        self.detections = {name: Detections(**version) for name in detected}
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Take the output of a batch."""
        if name in self.detections:
            self.detections[name].add(value)
        else:
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()

    def means(self, batches: int) -> dict[str, Tensor]:
        """Each output except detections, averaged over `batches` batches."""
        return {name: total / batches for name, total in self.sums.items()}
