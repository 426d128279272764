"""The module in which pycaffe has its classes; scripts name it."""

from __future__ import annotations

from collections import OrderedDict

from netspec.pycaffe import io
from netspec.pycaffe._caffe import NCCL
from netspec.pycaffe.mode import Timer
from netspec.pycaffe.net import Net
from netspec.pycaffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
)

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
