"""What the children share; nothing but Python's own library and torch, as each runs in another environment."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Runs = dict[str, Callable[[], object]]


def sizes() -> dict[str, int]:
    """variables, states, batch and rounds, as the parent gave them."""
    given: dict[str, int] = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    return given


def images(given: dict[str, int]) -> Tensor:
    """A batch of values of all variables (B, V), the same for every library."""
    return torch.randn(given["batch"], given["variables"], generator=torch.Generator().manual_seed(1))


def hidden(given: dict[str, int]) -> Tensor:
    """Which of them are missing: each with probability 1/2."""
    shape = (given["batch"], given["variables"])
    return torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.5


def side(given: dict[str, int]) -> int:
    """The side of the square that the variables make."""
    return math.isqrt(given["variables"])


def step_of(log_likelihood: Callable[[], Tensor], parameters: Iterable[Tensor]) -> Callable[[], None]:
    """A step of Adam up the mean log likelihood."""
    optimizer = torch.optim.Adam(list(parameters), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        (-log_likelihood().mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def without_gradient(function: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return function()

    return run


def report(library: str, parameters: Iterable[Tensor], ways: dict[str, Runs], rounds: int) -> None:
    """Time every run of every way in turns, and print what the parent reads.

    A run that fails is left out, and named under "failed".
    """
    times: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    failed: dict[str, str] = {}
    for number in range(rounds + 2):
        for way, runs in ways.items():
            for task, run in runs.items():
                if f"{way}/{task}" in failed:
                    continue
                started = time.process_time()
                try:
                    run()
                except Exception as error:  # whatever a library raises: the others go on
                    failed[f"{way}/{task}"] = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
                    times[way].pop(task, None)
                    continue
                if number >= 2:
                    times[way].setdefault(task, []).append(time.process_time() - started)
    medians = {
        way: {task: round(1e3 * statistics.median(values), 3) for task, values in tasks.items()}
        for way, tasks in times.items()
    }
    count = sum(parameter.numel() for parameter in parameters)
    result: dict[str, Any] = {
        "library": library,
        "torch": torch.__version__,
        "parameters": count,
        "ms": medians,
    }
    print(json.dumps(result | ({"failed": failed} if failed else {})))
