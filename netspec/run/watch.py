"""Looks inside a training pass: where it stopped being finite, and the statistics of `debug_info`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from netspec.errors import NetspecError
from netspec.layers import ranks
from netspec.net.net import Net
from netspec.net.random_state import random_state, set_random_state


class Diverged(NetspecError):
    """Loss or gradient became NaN or infinite; says in which iteration and at which layer."""


class Alarm:
    """Raises Diverged when a loss or a gradient is not finite.

    On a CPU it looks in every iteration. On a GPU a look would wait for the device, so it records the first bad
    iteration there and reports it when it is asked.
    """

    def __init__(self, net: Net, device: torch.device, on: bool = True):
        """on: False raises nothing, as `early_stop { nan: false }` asks for."""
        self.net, self.device, self.on = net, device, on
        self._bad = torch.full((), -1, device=device)
        """On a GPU: the first iteration that was not finite, -1 while there is none."""
        self._last: tuple[Sequence[Tensor], list[Tensor]] = ((), [])
        """On a GPU: the last batch, and the random state before it."""

    def look(self, t: int, loss: Tensor, batch: Sequence[Tensor], before: list[Tensor]) -> None:
        """Look at the loss and the gradients of iteration t, made from `batch` and the random state `before`."""
        if not self.on:
            return
        gradients = [param.value.grad for param in self.net.params if param.value.grad is not None]
        if self.device.type == "cpu":
            total = float(loss) + sum(float(gradient.sum()) for gradient in gradients)
            if not math.isfinite(total) and not all(finite(value) for value in (loss, *gradients)):
                self._fail(t, batch, before)
            return
        largest = torch._foreach_norm(gradients, math.inf) if gradients else ()
        measure = torch.stack([loss.abs(), *largest]).amax()
        bad = torch.where((self._bad < 0) & ~measure.isfinite(), t, self._bad)
        self._bad.copy_(bad)
        self._last = (batch, before)

    def check(self, t: int) -> None:
        """On a GPU: wait for the iterations so far, and raise when one was not finite."""
        if self.device.type != "cpu" and (bad := int(self._bad)) >= 0:
            self._fail(bad, *self._last, later=t - bad)

    def _fail(self, t: int, batch: Sequence[Tensor], before: list[Tensor], later: int = 0) -> None:
        after = random_state(self.device)
        set_random_state(self.device, before)
        with ranks.among(ranks.ALONE):  # the other processes may not have come here
            reason = blame(self.net, batch)
        set_random_state(self.device, after)
        where = f"iteration {t}" + (f" (traced {later} iterations later)" if later else "")
        raise Diverged(f"loss or gradient is not finite in {where}: {reason}")


@dataclass
class Pass:
    """One forward and backward, every blob and its gradient kept."""

    net: Net
    slots: Mapping[int, Tensor]
    loss: Tensor

    def gradient(self, slot: int) -> Tensor | None:
        return self.slots[slot].grad


def walk(net: Net, batch: Sequence[Tensor]) -> Pass:
    """Run `net` forward and backward on a batch; keep every blob, and put gradients into the parameters."""
    slots = net.slots(*batch)
    loss = torch.zeros((), device=next(iter(slots.values())).device)
    for slot, weight in net.graph.losses:
        loss = loss + weight * slots[slot].sum()
    if loss.requires_grad:
        for value in slots.values():
            if value.requires_grad:
                value.retain_grad()
        loss.backward()  # type: ignore[no-untyped-call]
    return Pass(net, slots, loss.detach())


def finite(value: Tensor | None) -> bool:
    return value is None or not value.is_floating_point() or bool(value.isfinite().all())


def unsound(net: Net) -> list[str]:
    """Names of parameters that hold NaN or +inf; -inf is the logarithm of 0 and legal."""
    return [param.name for param in net.params if not bool((param.value < math.inf).all())]


def blame(net: Net, batch: Sequence[Tensor]) -> str:
    """Which layer first turned finite numbers into NaN or infinity, in words.

    NaN between layers is legal (it marks missing values): only those blobs count from which an unbroken
    chain of values that are not finite leads to the loss.
    """
    broken = unsound(net)
    gradients = [param.value.grad for param in net.params]
    for param in net.params:
        param.value.grad = None
    try:
        seen = walk(net, batch)
        culprit = guilty_output(seen) or guilty_gradient(seen)
    finally:
        for param, gradient in zip(net.params, gradients, strict=True):
            param.value.grad = gradient
    text = culprit or "a repeated pass over the same batch was finite, so it cannot be traced to a layer"
    return text + (f"; parameter {broken[0]} was not finite before the pass" if broken else "")


def guilty_output(seen: Pass, broken: Sequence[int] | None = None) -> str | None:
    """The layer with finite bottoms whose output is not finite, if that output reaches the loss or one of the `broken`
    slots.
    """
    steps = seen.net.graph.steps
    maker = {slot: i for i, step in enumerate(steps) for slot in step.writes}
    ends = [slot for slot, _ in seen.net.graph.losses] if broken is None else broken
    pending = [slot for slot in ends if not finite(seen.slots[slot])]
    reached = set(pending)
    while pending:
        step = steps[maker[pending.pop()]]
        bad = {read for read in step.reads if not finite(seen.slots[read])} - reached
        reached |= bad
        pending += bad
    if not reached:
        return None
    slot = min(reached, key=lambda slot: maker[slot])  # what it is made of is made earlier, so that is finite
    layer = steps[maker[slot]].layer
    name = f"output {seen.net.graph.name(slot)!r}"
    return f"{layer.problem(f'is the first whose {name} is not finite ({counts(seen.slots[slot])})')}"


def guilty_gradient(seen: Pass) -> str | None:
    """The last layer that got finite gradients and passed on gradients that are not, and the first parameter
    affected.
    """
    graph = seen.net.graph
    first = next((param.name for param in seen.net.params if not finite(param.value.grad)), None)
    owners = {
        i: [p for p in seen.net.params if any(i == user for user, _ in p.users)]
        for i in range(len(graph.steps))
    }
    for i in reversed(range(len(graph.steps))):
        step = graph.steps[i]
        if not all(finite(seen.gradient(slot)) for slot in step.writes):
            continue
        results = {f"bottom {graph.name(slot)!r}": seen.gradient(slot) for slot in step.reads}
        results |= {f"parameter {param.name}": param.value.grad for param in owners[i]}
        for name, gradient in results.items():
            if gradient is not None and not finite(gradient):
                text = f"is the first in the backward pass whose gradient of its {name} is not finite"
                parameter = f"; first parameter with such a gradient: {first}" if first else ""
                return f"{step.layer.problem(f'{text} ({counts(gradient)})')}{parameter}"
    return None


def counts(value: Tensor) -> str:
    nans, infinities = int(value.isnan().sum()), int(value.isinf().sum())
    parts = [f"{n} {word}" for n, word in ((nans, "NaN"), (infinities, "infinite")) if n]
    return f"{' and '.join(parts)} of {value.numel()} values"


def statistics(seen: Pass, iteration: int) -> Iterator[str]:
    """Lines of `debug_info`: mean absolute value of every blob, gradient and parameter."""
    graph = seen.net.graph
    yield f"debug info of iteration {iteration}"
    for step in graph.steps:
        for slot in step.writes:
            value, gradient = seen.slots[slot], seen.gradient(slot)
            line = (
                f"  {step.layer.name}: top {graph.name(slot)} {tuple(value.shape)} mean |x| {mean_abs(value)}"
            )
            yield line + (f", |gradient| {mean_abs(gradient)}" if gradient is not None else "")
    for param in seen.net.params:
        gradient = param.value.grad
        line = f"  parameter {param.name} {tuple(param.value.shape)} mean |w| {mean_abs(param.value)}"
        yield line + (f", |gradient| {mean_abs(gradient)}" if gradient is not None else "")


def gradient_norms(net: Net, parts: int) -> dict[str, Any]:
    """L2 norms of the gradients over `parts` passes, divided by `parts`: of all parameters together, and of each."""
    norms = {
        param.name: float(torch.linalg.vector_norm(param.value.grad)) / parts
        for param in net.params
        if param.value.grad is not None
    }
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    return {"gradient_norm": total, "gradient_norms": norms}


def mean_abs(value: Tensor) -> str:
    return f"{float(value.detach().abs().double().mean()):.6g}" if value.numel() else "of nothing"
