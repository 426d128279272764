"""NCCL: what scripts that train on several GPUs ask for, here with one solver."""

from __future__ import annotations

import uuid

from netspec.pycaffe import mode
from netspec.pycaffe.mode import CaffeError
from netspec.pycaffe.solver import Solver


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
