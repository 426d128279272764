"""Solver: turns gradients into changes of parameters. Clip, scale, regularise, apply the rule, enforce bounds: Caffe's
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.data.pinned import Pinned
from netspec.errors import Position, Problem, SnapshotError, SpecError, did_you_mean
from netspec.layers import ranks
from netspec.layers.loss.average_precision import VERSIONS
from netspec.net.compiling import compile_method
from netspec.net.net import Net
from netspec.net.params import Param
from netspec.solver.policies import LINEAR, LearningRate, decay_share, momentum_at, policy_problems
from netspec.solver.regularisation import terms
from netspec.solver.rules import Number, Rule, rules
from netspec.solver.stages import Stages

State = dict[str, "int | Tensor"]
Decay = tuple[float, tuple[str, ...], bool]
"""Weight decay, the regularisations that it goes to, and whether values are logarithms."""
F = np.float32


@dataclass(frozen=True)
class Group:
    """Parameters that are updated together: their places in `active`, and within the group by rate and decay."""

    members: list[int]
    by_rate: dict[float, list[int]]
    by_decay: dict[Decay, list[int]]


class Solver:
    """Updates the parameters of a net as a SolverParameter says.

    One step: `clip_gradients` on the gradients summed over `iter_size` passes, division by `iter_size`,
    regularisation, the rule of `type` with rate * lr_mult, then each parameter's min_value and max_value.
    A parameter with lr_mult 0 is left as it is but for its bounds; one that no gradient reaches still decays.

    compiled: run the update as one torch.compile'd function: one pass over memory in place of one per operation.
    at: place of a field of `message`, for errors (a Document's `at`).
    """

    def __init__(
        self,
        net: Net | Sequence[Param],
        message: Any,
        *,
        compiled: bool = False,
        at: Callable[..., Position | None] | None = None,
    ):
        self.message = message
        self.params = list(net.params if isinstance(net, Net) else net)
        self.active = [param for param in self.params if param.lr_mult != 0]
        problems = [Problem(text, at(*path) if at else None) for text, *path in self.problems()]
        if problems:
            raise SpecError(problems)
        self.schedule = LearningRate(message, at)
        self.stages = Stages(message, at)
        self.rule: Rule = rules[message.type](message)
        self.iteration = 0
        self.history = [
            [torch.full_like(param.value, self.rule.start.get(slot, 0.0)).detach() for param in self.active]
            for slot in self.rule.slots
        ]
        """For each slot of the rule, one tensor for each parameter in `active`."""
        self.hold = bool(message.on_off_stage_hold and self.stages.names)
        """Whether weights of an inactive stage stand still."""
        stages = dict.fromkeys(param.on_off_stage for param in self.active) if self.hold else [""]
        self.decays = message.weight_decay_policy != "fixed"
        """Whether the share of the weight decay that counts changes from step to step."""
        self._groups = {stage: self._group(stage) for stage in stages}
        self._zeros: dict[int, Tensor] = {}
        self._pinned = Pinned()
        self.cut = False
        """Whether the parameters are parts of blobs that are cut among ranks."""
        self.compiled = False
        self._change: Callable[..., None] = self._update
        if compiled:
            self.compile()

    def problems(self) -> Iterator[tuple[Any, ...]]:
        """(what is wrong, path of the field) for each mistake in the message."""
        m = self.message
        if m.type not in rules:
            yield f"unknown solver type {m.type!r}{did_you_mean(m.type, rules)}", "type"
        else:
            yield from ((text, field) for field, text in rules[m.type](m).problems())
        if m.regularization_type not in terms:
            text = f"unknown regularization_type {m.regularization_type!r}"
            yield text + did_you_mean(m.regularization_type, terms), "regularization_type"
        if m.ap_version not in VERSIONS:
            yield f"unknown ap_version {m.ap_version!r}{did_you_mean(m.ap_version, VERSIONS)}", "ap_version"
        yield from policy_problems(m)
        if m.type in rules and m.type not in LINEAR and (m.larc or m.momentum_policy != "fixed"):
            field = "larc" if m.larc else "momentum_policy"
            yield f"{field} is built for types {' and '.join(LINEAR)}, not {m.type!r}", field
        if m.iter_size < 1:
            yield f"iter_size must be at least 1, found {m.iter_size}", "iter_size"
        stages = m.on_off_stage_name
        for param in self.params:
            if stages and param.on_off_stage and param.on_off_stage not in stages:
                text = f"{param.name}: on_off_stage {param.on_off_stage!r} is no stage of the solver"
                yield text + did_you_mean(param.on_off_stage, stages), "on_off_stage_name"
            for name in param.regularization_types:
                if name not in terms:
                    text = f"parameter {param.name}: unknown regularization_type {name!r}"
                    yield (text + did_you_mean(name, terms),)

    def compile(self) -> None:
        """From now on run the update as one compiled function."""
        self.compiled = True
        self._change = compile_method(self, "_update")

    # One step

    def rate(self) -> float:
        """The global learning rate of the coming step."""
        return self.schedule.peek(self.iteration)

    def observe(self, loss: float | Tensor) -> None:
        """Take note of the coming step's loss, averaged over `average_loss`; policy "plateau" needs it."""
        if self.schedule.observes:
            self.schedule.observe(self.iteration, float(loss))

    def step(self, gradients: Sequence[Tensor | None] | None = None) -> None:
        """One update. `gradients` are in the order of `params`; by default the `.grad`s, which are let go."""
        if gradients is None:
            gradients = [param.value.grad for param in self.params]
            for param in self.params:
                param.value.grad = None
        rate = self.schedule.next(self.iteration)
        with torch.no_grad():
            for stage, group in self._groups.items():
                if group.members and self.stages.on(stage):
                    self.change(group, gradients, self._send(self.numbers(group, rate, stage)))
            self.clip()
        self.iteration += 1
        self.stages.advance()

    def numbers(self, group: Group, rate: float, stage: str = "") -> tuple[float, ...]:
        """What changes from step to step for a group: the rate of each lr_mult, and the rule's own numbers, which count
        the updates that the group has had.
        """
        lrs = [float(F(rate) * F(lr_mult)) for lr_mult in group.by_rate]
        m, scalars = self.message, self.rule.scalars(self.stages.turns(stage, self.iteration) + 1)
        if m.momentum_policy != "fixed":
            scalars = (*scalars, momentum_at(m, self.iteration, float(F(rate))))
        if self.decays:  # the last number, taken off again in `_update`
            scalars = (*scalars, decay_share(m, self.iteration))
        return (*lrs, *scalars)

    def change(self, group: Group, gradients: Sequence[Tensor | None], numbers: Sequence[Number]) -> None:
        """Update a group's weights. `gradients` are in the order of `params`; `numbers` are floats, or one tensor."""
        live = [self._live(param, gradient) for param, gradient in zip(self.params, gradients, strict=True)]
        pairs = list(zip(self.params, live, strict=True))
        own = [g for param, g in pairs if param.lr_mult != 0 and g is not None]
        others = [g for param, g in pairs if param.lr_mult == 0 and g is not None]
        values = [self.active[i].value for i in group.members]
        history = [[slot[i] for i in group.members] for slot in self.history]
        mine = [own[i] for i in group.members]
        self._change(values, mine, others, history, numbers, group.by_rate, group.by_decay)

    def clip(self) -> None:
        """Clip every parameter to its min_value and max_value; call it once before the first step."""
        with torch.no_grad():
            for param in self.params:
                low = None if isnan(param.min_value) else param.min_value
                high = None if isnan(param.max_value) else param.max_value
                if low is not None or high is not None:
                    param.value.clamp_(low, high)

    def _live(self, param: Param, gradient: Tensor | None) -> Tensor | None:
        """The gradient to use: zeros for an updated parameter that has none or whose stage is inactive."""
        if gradient is not None and self.stages.on(param.on_off_stage):
            return gradient
        if param.lr_mult == 0:
            return None
        return self._zeros.setdefault(id(param), torch.zeros_like(param.value).detach())

    def _send(self, numbers: Sequence[float]) -> Sequence[Number]:
        """The step's numbers in the form that the update takes: floats, or one tensor on the parameters' device."""
        if not self.compiled:
            return numbers
        packed = torch.tensor(numbers, dtype=torch.float32)
        device = self.active[0].value.device
        return [self._pinned.send(packed, device)] if device.type == "cuda" else [packed]

    def _update(
        self,
        values: list[Tensor],
        gradients: list[Tensor],
        others: list[Tensor],
        history: list[list[Tensor]],
        numbers: Sequence[Number],
        by_rate: Mapping[float, list[int]],
        by_decay: Mapping[Decay, list[int]],
    ) -> None:
        if isinstance(numbers[0], Tensor) and numbers[0].dim():
            numbers = numbers[0].unbind()
        gradients = self._scaled(gradients, others)
        share: Number = 1.0
        if self.decays:
            numbers, share = numbers[:-1], numbers[-1]
        factors = self._factors(values, gradients, numbers[0]) if self.message.larc else None
        for (decay, types, logspace), indices in by_decay.items():
            if decay == 0:
                continue
            amount: Any = decay * share if self.decays else decay
            now = [gradients[i] for i in indices]
            for name in types:
                now = terms[name]([values[i] for i in indices], now, amount, logspace)
            for i, gradient in zip(indices, now, strict=True):
                gradients[i] = gradient
        if factors is not None:
            gradients = [gradient * factor for gradient, factor in zip(gradients, factors, strict=True)]
        scalars = numbers[len(by_rate) :]
        for lr, indices in zip(numbers, by_rate.values(), strict=False):
            mine = [[slot[i] for i in indices] for slot in history]
            self.rule.update([values[i] for i in indices], [gradients[i] for i in indices], mine, lr, scalars)

    def _factors(self, values: list[Tensor], gradients: list[Tensor], rate: Number) -> list[Tensor]:
        """For each parameter what its gradient is multiplied by, so that the step is that of its own rate (LARC).

        eta |w| / |g|, 1 where one of the norms is 0 or NaN; by policy "clip" at most 1 once the rate is divided out.
        The gradient's norm is that before regularisation, as in NVIDIA's kernels, which regularise in the update.
        """
        factors = []
        for w, g in zip(values, gradients, strict=True):
            norms = torch.linalg.vector_norm(w), torch.linalg.vector_norm(g)
            usable = (norms[0] > 0) & (norms[1] > 0)
            own = torch.where(
                usable, self.message.larc_eta * norms[0] / torch.where(usable, norms[1], 1.0), 1.0
            )
            factors.append(own if self.message.larc_policy == "scale" else (own / rate).clamp(max=1.0))
        return factors

    def _scaled(self, gradients: list[Tensor], others: list[Tensor]) -> list[Tensor]:
        """Gradients after clip_gradients (by the norm of all of them together) and division by iter_size."""
        limit, share = self.message.clip_gradients, 1.0 / self.message.iter_size
        if limit >= 0:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([*gradients, *others])))
            if self.cut:
                norm = (ranks.mean(norm.square()) * ranks.current().world).sqrt()
            return list(torch._foreach_mul(gradients, torch.where(norm > limit, limit / norm, 1.0) * share))
        return list(torch._foreach_mul(gradients, share)) if share != 1 else list(gradients)

    def _group(self, stage: str) -> Group:
        """The active parameters of a stage ("": of no stage); without `on_off_stage_hold` all of them."""
        members = [i for i, p in enumerate(self.active) if not self.hold or p.on_off_stage == stage]
        mine = [self.active[i] for i in members]
        by_decay = grouped(self._decay_of(param) for param in mine)
        rates = (1.0 if self.message.larc else param.lr_mult for param in mine)
        return Group(members, grouped(rates), by_decay)

    def counted(self) -> str | None:
        """The stage whose losses count now; None: all losses count."""
        return self.stages.current if self.hold else None

    def _decay_of(self, param: Param) -> Decay:
        decay = float(F(self.message.weight_decay) * F(param.decay_mult))
        return decay, param.regularization_types or (self.message.regularization_type,), param.is_logspace

    # State

    def state_dict(self) -> State:
        """Iteration, schedule, stage, and history as 'history/<slot>/<parameter>'; the tensors are live."""
        state: State = {
            "iteration": self.iteration,
            "current_step": self.schedule.current_step,
            "stage": self.stages.index,
            "stage_iteration": self.stages.iteration,
        }
        if self.schedule.observes:
            state |= {"last_event": self.schedule.last_event, "lowest_loss": self.schedule.lowest}
        for slot, tensors in zip(self.rule.slots, self.history, strict=True):
            state |= {f"history/{slot}/{p.name}": h for p, h in zip(self.active, tensors, strict=True)}
        return state

    def load_state_dict(self, state: Mapping[str, int | Tensor], source: str = "solver state") -> None:
        """Restore a saved state; SnapshotError when it belongs to another net or type of solver."""
        ours = self.state_dict()
        for key, mine in ours.items():
            theirs = state.get(key)
            if theirs is None:
                raise SnapshotError(f"{source}: has no {key!r}, which solver {self.message.type!r} needs")
            if isinstance(mine, Tensor) and isinstance(theirs, Tensor) and mine.shape != theirs.shape:
                raise SnapshotError(
                    f"{source}: {key} has shape {tuple(theirs.shape)}, the net's is {tuple(mine.shape)}"
                )
            if isinstance(mine, Tensor) != isinstance(theirs, Tensor):
                kind = type(theirs).__name__
                raise SnapshotError(f"{source}: {key} is {kind}, expected {type(mine).__name__}")
        for key, mine in ours.items():
            theirs = state[key]
            if isinstance(mine, Tensor) and isinstance(theirs, Tensor):
                mine.copy_(theirs)
        self.iteration = int(state["iteration"])
        self.schedule.current_step = int(state["current_step"])
        self.schedule.last_event = int(state.get("last_event", 0))
        self.stages.index, self.stages.iteration = int(state["stage"]), int(state["stage_iteration"])


def grouped(keys: Iterator[Any]) -> dict[Any, list[int]]:
    """Indices by key, in order of first appearance."""
    groups: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return groups
