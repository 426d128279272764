"""Timer: how long something took."""

from __future__ import annotations

import time

import torch

from netspec.pycaffe import mode


class Timer:
    """`start()`, `stop()`, then `ms` and `us`; on a GPU both wait for what was asked of it."""

    def __init__(self) -> None:
        self._started = self._seconds = 0.0

    @staticmethod
    def _now() -> float:
        if mode.device().type == "cuda":
            torch.cuda.synchronize(mode.device())
        return time.perf_counter()

    def start(self) -> None:
        """Begin."""
        self._started = self._now()

    def stop(self) -> None:
        """End."""
        self._seconds = self._now() - self._started

    @property
    def ms(self) -> float:
        """Milliseconds from start to stop."""
        return self._seconds * 1e3

    @property
    def us(self) -> float:
        """Microseconds from start to stop."""
        return self._seconds * 1e6
