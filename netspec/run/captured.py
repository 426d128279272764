"""Captured: forward, backward and update of a training step as one CUDA graph, recorded once and replayed.

A step of a small net is bound by the launches of its kernels; a graph launches them all at once. What a step reads lies
in tensors that stay where they are: the batch, and the numbers that change from step to step (learning rate, bias
corrections). Random numbers go on: the device's generator counts within a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from netspec.net.net import Net
from netspec.net.random_state import random_state, set_random_state
from netspec.solver import Solver

Record = Callable[[Callable[[], None], torch.device], Callable[[], None]]
"""(what to do, device) -> what does it again."""


def cuda_graph(body: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`body` recorded as a CUDA graph, after three runs on a stream of its own, as torch asks for."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            body()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    replay: Callable[[], None] = graph.replay
    return replay


def hindrance(message: Any, device: torch.device, world: int, sinks: bool) -> str:
    """Why a step cannot be captured, in words; "" where it can be tried."""
    reasons = {
        "there is no CUDA device": device.type != "cuda",
        f"type {message.type!r} goes by more than gradients": message.type in ("EM", "HardEM"),
        f"iter_size is {message.iter_size}": message.iter_size != 1,
        "stages change what learns": bool(message.on_off_stage_name),
        "debug_info looks at every layer": message.debug_info,
        "several processes exchange gradients in between": world > 1,
        "HDF5Output writes in every iteration": sinks,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


class Captured:
    """The step of a net and its solver. Call it with a batch: (objective, tops), and the weights are changed."""

    def __init__(
        self,
        net: Net,
        solver: Solver,
        batch: Sequence[Tensor],
        device: torch.device,
        record: Record = cuda_graph,
    ):
        """Weights, statistics, history and random numbers are as before when it is recorded."""
        self.net, self.solver, self.device = net, solver, device
        self.batch = [value.detach().clone() for value in batch]
        (self.group,) = solver._groups.values()
        self.numbers = torch.tensor(solver.numbers(self.group, solver.rate()), device=device)
        self.objective = torch.zeros((), device=device)
        self.tops: tuple[Tensor, ...] = ()
        values = [*net.parameters(), *net.buffers(), *(one for slot in solver.history for one in slot)]
        kept, before = [(value, value.detach().clone()) for value in values], random_state(device)
        self.replay = record(self.body, device)
        with torch.no_grad():
            for value, copy in kept:
                value.copy_(copy)
        set_random_state(device, before)

    def body(self) -> None:
        """One step on the batch and the numbers as they lie there."""
        for param in self.net.params:
            param.value.grad = None
        tops = self.net(*self.batch)
        objective = self.net.objective(tops)
        objective.backward()  # type: ignore[no-untyped-call]
        self.objective, self.tops = objective.detach(), tuple(top.detach() for top in tops)
        with torch.no_grad():
            self.solver.change(self.group, [param.value.grad for param in self.net.params], [self.numbers])
            self.solver.clip()

    def __call__(self, batch: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one step; what it returns is overwritten by the next."""
        for mine, value in zip(self.batch, batch, strict=True):
            mine.copy_(value, non_blocking=True)
        rate = self.solver.schedule.next(self.solver.iteration)
        now = torch.tensor(self.solver.numbers(self.group, rate))
        self.numbers.copy_(self.solver._pinned.send(now, self.device) if self.device.type == "cuda" else now)
        self.replay()
        self.solver.iteration += 1
        self.solver.stages.advance()
        return self.objective, self.tops
