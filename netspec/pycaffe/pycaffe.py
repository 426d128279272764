"""The module in which pycaffe has its classes; scripts name it."""

from __future__ import annotations

from collections import OrderedDict

from netspec.pycaffe import io
from netspec.pycaffe.nccl import NCCL
from netspec.pycaffe.net import Net
from netspec.pycaffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
)
from netspec.pycaffe.timer import Timer

__all__ = [
    "NCCL",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "Net",
    "OrderedDict",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "io",
]
