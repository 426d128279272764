"""What pycaffe's compiled module has; some scripts import from it."""

from __future__ import annotations

from netspec import schema
from netspec.layers.blob import Blob, BlobVec
from netspec.layers.python_layer import PythonLayer as Layer
from netspec.pycaffe.layer_types import layer_type_list
from netspec.pycaffe.mode import (
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
from netspec.pycaffe.nccl import NCCL
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
from netspec.pycaffe.timer import Timer

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
