"""Several solvers that train one net, as Caffe's `-gpu 0,1`: a process each, gradients averaged before each update.

Each takes the batch that the file says, every N-th sample of the data, and has batch statistics of its own; the solver
of rank 0 logs, tests and writes snapshots (BVLC Caffe, src/caffe/parallel.cpp, NCCL).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist

from netspec.pycaffe import mode
from netspec.pycaffe.solver import Solver
from netspec.run.launch import launch
from netspec.run.spread import LOCAL, average_, from_lead, joined, launched

__all__ = ["Together", "side_by_side", "start_on", "started"]


def started() -> bool:
    """Whether this process is one of several."""
    return launched()


def start_on(gpus: Sequence[int], argv: Sequence[str]) -> int:
    """Run `caffe argv...` in a process for each of these GPUs; gives the exit status."""
    own = [word for i, word in enumerate(argv) if not gpu_flag(argv, i)]
    return launch([[sys.executable, "-m", "netspec", "caffe", *own, f"-gpu={gpu}"] for gpu in gpus])


def gpu_flag(argv: Sequence[str], i: int) -> bool:
    """Whether word i is the flag -gpu or its value."""
    names = ("-gpu", "--gpu")
    return argv[i] in names or argv[i].startswith(("-gpu=", "--gpu=")) or (i > 0 and argv[i - 1] in names)


@contextmanager
def side_by_side() -> Iterator[None]:
    """This process as one of several solvers, with a seed that all of them have."""
    device = mode.device()
    with joined(LOCAL, device) as ranks:
        mode.set_solver_count(ranks.world)
        mode.set_solver_rank(ranks.rank)
        mode.set_multiprocess(True)
        mode.set_random_seed(from_lead(int(torch.seed() % 2**31)))
        try:
            yield
        finally:
            mode.set_solver_count(1)
            mode.set_solver_rank(0)
            mode.set_multiprocess(False)


class Together:
    """A solver's part among several: weights of rank 0 before the first iteration, gradients averaged in each."""

    def __init__(self, solver: Solver):
        self.solver, self.begun = solver, False
        solver.add_callback(self.begin, self.average)

    def begin(self) -> None:
        """Give all solvers the weights of rank 0, and each a stream of random numbers of its own."""
        if self.begun:
            return
        self.begun = True
        running = self.solver.net._running
        running.to(mode.device())
        for param in running.synced().params:
            dist.broadcast(param.value.data, 0)
        running.changed()
        torch.manual_seed(torch.initial_seed() + mode.solver_rank())

    def average(self) -> None:
        """Average the gradients of all learned blobs."""
        running = self.solver.net._running
        running.to(mode.device())
        blobs = [running.diffs[id(param.value)] for param in self.solver._core.params if param.lr_mult]
        average_([blob.gradient.tensor(running.device) for blob in blobs])
        for blob in blobs:
            blob.gradient.changed(running.device)
