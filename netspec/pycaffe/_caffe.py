"""What pycaffe's compiled module has; some scripts import from it."""

from __future__ import annotations

import uuid

from netspec import schema
from netspec.layers import registry
from netspec.layers.blob import Blob, BlobVec
from netspec.layers.python_layer import PythonLayer as Layer
from netspec.pycaffe import mode
from netspec.pycaffe.mode import (
    CaffeError,
    Timer,
    has_nccl,
    init_log,
    log,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from netspec.pycaffe.net import Net
from netspec.pycaffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    Solver,
    get_solver,
)


def layer_type_list() -> list[str]:
    """Names of all layer types, sorted."""
    return sorted(registry)


class NCCL:
    """Stands beside the one solver that trains; there is nobody to send gradients to.

    CaffeError where `set_solver_count` announced more solvers than one.
    """

    def __init__(self, solver: Solver, uid: bytes | str = b""):
        if mode.solver_count() > 1:
            raise CaffeError(
                f"{mode.solver_count()} solvers: netspec.pycaffe trains with one; "
                "for several GPUs run netspec train with torchrun"
            )
        self.solver = solver

    @staticmethod
    def new_uid() -> bytes:
        """A name for a group of solvers."""
        return uuid.uuid4().bytes

    def bcast(self) -> None:
        """Send the weights to the other solvers, of which there are none."""

    def __call__(self, layer: int = 0) -> None:
        """Called after a layer's backward or before an update, as a callback."""


__version__ = "1.0.0"
"""The version of Caffe whose interface this is."""

LayerParameter = schema.message_class("LayerParameter")
BoolVec = DtypeVec = IntVec = LayerVec = NetVec = RawBlobVec = StringVec = list
"""What pycaffe's lists are; scripts compare types."""

__all__ = [
    "NCCL",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "BoolVec",
    "DtypeVec",
    "IntVec",
    "Layer",
    "LayerParameter",
    "LayerVec",
    "NesterovSolver",
    "Net",
    "NetVec",
    "RMSPropSolver",
    "RawBlobVec",
    "SGDSolver",
    "Solver",
    "StringVec",
    "Timer",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "log",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]
