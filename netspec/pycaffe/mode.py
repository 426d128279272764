"""What pycaffe keeps for the whole program: CPU or GPU, random seed, solvers side by side, logging."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass

import torch

from netspec.errors import NetspecError
from netspec.pycaffe import glog

TRAIN, TEST = 0, 1
"""Phases, as numbers of the enum in caffe.proto."""


class CaffeError(NetspecError, RuntimeError):
    """What pycaffe raises as a RuntimeError: a file that cannot be opened, arrays of the wrong shape."""


@dataclass
class _State:
    device: torch.device
    index: int = 0
    solver_count: int = 1
    solver_rank: int = 0
    multiprocess: bool = False


_state = _State(torch.device("cpu"))


def set_mode_cpu() -> None:
    """Nets run on the CPU from their next forward on (the default)."""
    _state.device = torch.device("cpu")


def set_mode_gpu() -> None:
    """Nets run on the GPU chosen by `set_device` from their next forward on; without one, on the CPU, with a
    warning.
    """
    if not torch.cuda.is_available():
        warnings.warn("set_mode_gpu: there is no CUDA device here; nets run on the CPU", stacklevel=2)
        return
    _state.device = torch.device("cuda", _state.index)


def set_device(index: int) -> None:
    """Choose the GPU; CaffeError when there is none of that number."""
    if torch.cuda.is_available() and not 0 <= index < torch.cuda.device_count():
        raise CaffeError(f"set_device({index}): there are {torch.cuda.device_count()} CUDA devices")
    _state.index = index
    if _state.device.type == "cuda":
        _state.device = torch.device("cuda", index)


def device() -> torch.device:
    """Where layers run now."""
    return _state.device


def set_random_seed(seed: int) -> None:
    """Seed fillers, dropout and the order of data."""
    torch.manual_seed(seed)


def solver_count() -> int:
    """How many solvers train together; this module trains with one."""
    return _state.solver_count


def set_solver_count(count: int) -> None:
    """Kept for scripts that set it; has no effect on training."""
    _state.solver_count = count


def solver_rank() -> int:
    """Number of this process's solver."""
    return _state.solver_rank


def set_solver_rank(rank: int) -> None:
    """Kept for scripts that set it: solvers of a rank other than 0 do not log."""
    _state.solver_rank = rank


def set_multiprocess(multiprocess: bool) -> None:
    """Kept for scripts that set it."""
    _state.multiprocess = multiprocess


def has_nccl() -> bool:
    """False: there is no NCCL object here; train on several GPUs with torchrun and `netspec train`."""
    return False


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Log messages of at least this level (0 info, 1 warnings, 2 errors) to the standard error."""
    glog.threshold = level if stderr else glog.SILENT


def log(text: str) -> None:
    """Log a message of level info."""
    glog.info(text, "python")


def set_logging_disabled() -> None:
    """Log nothing from now on."""
    glog.threshold = glog.SILENT


glog.threshold = int(os.environ.get("GLOG_minloglevel", "0") or 0)  # noqa: SIM112 (glog's own name)


class Timer:
    """`start()`, `stop()`, then `ms` and `us`; on a GPU both wait for what was asked of it."""

    def __init__(self) -> None:
        self._started = self._seconds = 0.0

    @staticmethod
    def _now() -> float:
        if device().type == "cuda":
            torch.cuda.synchronize(device())
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
