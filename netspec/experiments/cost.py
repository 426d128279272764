"""What a run will cost: one step of its net, timed on random input of its data's shape."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from netspec import schema
from netspec.check.report import Report
from netspec.check.shapes import shaped
from netspec.check.trial import random_inputs
from netspec.errors import NetspecError
from netspec.net.graph import Graph, compile
from netspec.net.net import Net, build
from netspec.run.experiment import Experiment

ENOUGH, MOST_STEPS = 0.3, 20
"""Most seconds, and most steps, over which a step is timed."""


@dataclass(frozen=True)
class Step:
    """Seconds of a forward and backward pass of the training net, and of a forward pass."""

    train: float
    forward: float


class Stopwatch:
    """Times the step of each net once; after `budget` seconds it answers with the mean of the nets timed so far."""

    def __init__(self, budget: float = 60.0):
        self.budget, self.spent = budget, 0.0
        self.known: dict[str, Step | None] = {}

    def step(self, plan: Experiment) -> Step | None:
        """The time of a step; None where it cannot be measured, for example because the data is not here."""
        key = schema.print_text(unnamed(plan.nets[0]))
        if key not in self.known:
            if self.spent > self.budget:
                return self.mean()
            started = time.monotonic()
            self.known[key] = timed(compile(plan.train))
            self.spent += time.monotonic() - started
        return self.known[key]

    def mean(self) -> Step | None:
        steps = [step for step in self.known.values() if step is not None]
        if not steps:
            return None
        return Step(*(sum(getattr(s, name) for s in steps) / len(steps) for name in ("train", "forward")))


def unnamed(net: Any) -> Any:
    """A net without its name, which has no influence on the time."""
    copy = type(net)()
    copy.CopyFrom(net)
    copy.ClearField("name")
    return copy


def timed(graph: Graph) -> Step | None:
    """Time the passes of a net; None where it cannot be built, or where the size of its data would be a guess."""
    try:
        meta, assumed, _ = shaped(graph, Report(""))
        if meta is None or assumed:
            return None
        net = build(graph, seed=0)
        inputs = random_inputs(net)
        full = least(lambda: step_of(net, inputs))
        with torch.no_grad():
            return Step(full, least(lambda: net(*inputs)))
    except (NetspecError, RuntimeError, MemoryError):  # what the run itself will say in full
        return None


def step_of(net: Net, inputs: Any) -> None:
    """A forward pass, and the way back where there is a loss."""
    total = net.objective(net(*inputs))
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]


def least(work: Any) -> float:
    """The shortest of some repetitions, after one that warms up."""
    work()
    times: list[float] = []
    while sum(times) < ENOUGH and len(times) < MOST_STEPS:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def seconds(plan: Experiment, step: Step, task: str = "train") -> float:
    """An estimate for a whole run: its iterations and its tests."""
    message: Any = plan.solver
    tests = sum(test.iterations for test in plan.tests)
    if task == "test":
        return tests * step.forward
    often = message.max_iter // message.test_interval + 1 if message.test_interval else 1
    return float(message.max_iter * message.iter_size * step.train + often * tests * step.forward)
