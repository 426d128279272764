"""ClassPrior: the shares of the classes, at the top of a latent tree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netspec.errors import Problem
from netspec.layers.base import Shape, register
from netspec.layers.tree import Choose, Inner, share, with_rows


@register("ClassPrior")
class ClassPrior(Inner):
    """y_k = x_k + log p(k): of log p(observed | class k), log p(observed, class k), with learned shares of the classes.

    Shapes: bottom (N, K, 1, 1), nats; top alike; blob (1, 1, 1, K): logits, whose softmax are the shares. At the top of
    a latent tree, where classes are equally probable without it. NaN in the bottom stays in its class; -inf drops out.
    Raises SpecError for a bottom of more than one position. Source: Bayes' rule.
    """

    family, roles = "similarity, MEX", ("image",)
    param_field = "class_prior_param"
    joint = True

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) != 4 or shapes[0][2:] != (1, 1):
            self.fail(f"needs scores of classes (N, K, 1, 1), found {shapes[0]}", "bottom", 0)
        chosen = self.param.HasField("logit_filler")
        self.add_blob((1, 1, 1, shapes[0][1]), self.param.logit_filler if chosen else None)

    def shares(self) -> Tensor:
        """log p(k) (K,)."""
        return torch.log_softmax(self.blob(0).flatten(), 0)

    def forward(self, *bottoms: Tensor) -> Tensor:
        logs = self.shares() if self.evidence is None else self.evidence[0][0]
        return bottoms[0] + logs.view(1, -1, 1, 1)

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """None: it adds."""
        return 0

    # In a latent tree: the class chooses itself

    def keeps_common(self) -> bool:
        """No: classes differ in their shares."""
        return False

    def tree_problem(self) -> Problem | None:
        return None

    def upward_max(self, below: Tensor) -> Tensor:
        return below + self.shares().view(1, -1, 1, 1)

    def downward(self, states: Tensor, below: Tensor, choose: Choose, best: bool = False) -> Tensor:
        return states

    # Expectation maximisation

    def new_evidence(self) -> list[Tensor]:
        with torch.no_grad():
            return [self.shares().clone()[None]]

    def maximise(self, counts: list[Tensor], prior_states: float, prior_values: float) -> None:
        (counts_1K,) = counts
        if prior_states:
            counts_1K = counts_1K + prior_states * share(torch.ones_like(counts_1K))
        with torch.no_grad():
            self.blob(0).copy_(with_rows(counts_1K, self.shares()[None]).view(self.blob_shapes[0]))
