"""What an update rule subtracts from each parameter, kept for the diffs, where Caffe leaves it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.solver.rules import History, Number, Rule, Tensors


class Moves(Rule):
    """A rule that lets another one make its moves from zero, notes them, and adds them to the values."""

    def __init__(self, rule: Rule):
        self.rule = rule
        self.made: dict[int, Tensor] = {}
        """The last move of each value, by its id: what was added to it."""

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        """The other rule's."""
        return self.rule.slots

    @property
    def start(self) -> dict[str, float]:  # type: ignore[override]
        """The other rule's."""
        return self.rule.start

    def scalars(self, t: int) -> tuple[float, ...]:
        """The other rule's."""
        return self.rule.scalars(t)

    def update(self, w: Tensors, g: Tensors, history: History, lr: Number, scalars: Sequence[Number]) -> None:
        """Change the values `w` and their history in place."""
        moves = [torch.zeros_like(value) for value in w]
        self.rule.update(moves, g, history, lr, scalars)
        torch._foreach_add_(w, moves)
        self.made.update({id(value): move for value, move in zip(w, moves, strict=True)})
