"""pycaffe's interface on netspec: scripts that `import caffe` run with `import netspec.pycaffe as caffe`.

Where such scripts, or Python layers that a net names, cannot be changed, `netspec.pycaffe.install()` makes
this package known as `caffe`, and `python -m netspec.pycaffe script.py` does it for a whole program. To import it is
to consent to the Python layers of nets (netspec.layers.consent).
"""

from __future__ import annotations

import sys

from netspec.layers import consent
from netspec.layers.blob import Blob, BlobVec
from netspec.layers.python_layer import PythonLayer as Layer
from netspec.pycaffe import _caffe, alias, coord_map, draw, io, net_spec, proto, pycaffe
from netspec.pycaffe._caffe import NCCL, layer_type_list
from netspec.pycaffe.classifier import Classifier
from netspec.pycaffe.detector import Detector
from netspec.pycaffe.mode import (
    TEST,
    TRAIN,
    CaffeError,
    Timer,
    has_nccl,
    init_log,
    log,
    set_device,
    set_logging_disabled,
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
from netspec.pycaffe.net_spec import NetSpec, layers, params, to_proto
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

__version__ = "1.0.0"
"""The version of Caffe whose interface this is."""


def install(name: str = "caffe") -> None:
    """Make this package and its modules importable as `caffe`, for the rest of the program.

    `sys.modules["caffe"] = netspec.pycaffe` is all there is to it: modules follow the package's name.
    """
    sys.modules[name] = sys.modules[__name__]


alias.register()
consent.imported_pycaffe()

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "CaffeError",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "Timer",
    "_caffe",
    "coord_map",
    "draw",
    "get_solver",
    "has_nccl",
    "init_log",
    "install",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "net_spec",
    "params",
    "proto",
    "pycaffe",
    "set_device",
    "set_logging_disabled",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]
