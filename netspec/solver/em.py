"""EM: latent trees learn by expectation maximisation; one backward pass gives all expected counts.

The gradient of log p(x) by a log probability is the expected number of times that the probability is used given x
(Darwiche 2003). So the loss, minus the mean log likelihood, runs backward as for any solver, and each layer of the tree
turns its counts into the probabilities under which they are most likely. `base_lr` is the share of the new counts in
the running average: 1 with all images in one update (batch size times iter_size) is the full-batch algorithm, whose
likelihood never falls (Dempster, Laird and Rubin 1977); less than 1 the stepwise one for mini-batches (Cappe and
Moulines 2009).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from netspec.errors import Position, Problem, SnapshotError, SpecError
from netspec.layers import ranks
from netspec.layers.tree import TreeLayer
from netspec.net.net import Net
from netspec.net.params import Param
from netspec.solver.solver import Solver, State


class EMSolver(Solver):
    """Updates the layers of a latent tree from expected counts; layers whose blobs all have lr_mult 0 stay.

    Raises SpecError where a layer learns that is no part of a tree, and where layers share a blob.
    """

    def __init__(
        self,
        net: Net | Sequence[Param],
        message: Any,
        *,
        compiled: bool = False,
        at: Callable[..., Position | None] | None = None,
    ):
        super().__init__(net, message, at=at)
        if not isinstance(net, Net):
            raise TypeError("the solver of type 'EM' needs a Net")
        self.layers = learners(net)
        self.names = [layer.spec.name for layer in self.layers]
        batch = net.shapes[net.graph.inputs[0]][0] * ranks.current().world if net.graph.inputs else 1
        self.images = message.em_param.images or batch * message.iter_size
        self.averages: dict[str, list[Tensor]] = {}
        """Expected counts of each layer, a running average over images."""
        self.gathers = False

    def compile(self) -> None:
        """Does nothing: the update is not gradient descent."""

    def clip(self) -> None:
        super().clip()
        self.gather()

    def gather(self) -> None:
        """Tell the layers that expected counts refer to the present values of their blobs."""
        for layer in self.layers:
            layer.gather()
        self.gathers = True

    def step(self, gradients: Sequence[Tensor | None] | None = None) -> None:
        """One update from the counts that backward left in the layers' `evidence`."""
        share = float(self.schedule.next(self.iteration))
        if not 0 < share <= 1:
            raise SpecError(f"type 'EM' needs a base_lr in (0, 1], found a rate of {share:g}")
        m = self.message.em_param
        with torch.no_grad():
            for name, layer in zip(self.names, self.layers, strict=True):
                counts = self.averaged(name, layer, share)
                layer.maximise(counts, m.prior_states / self.images, m.prior_values / self.images)
            super().clip()
        self.gather()
        self.iteration += 1
        self.stages.advance()

    def averaged(self, name: str, layer: TreeLayer, share: float) -> list[Tensor]:
        """The running averages of a layer, with the newest counts in."""
        evidence = layer.evidence or []
        if name not in self.averages:
            begun = layer.first_counts
            self.averages[name] = begun or [torch.zeros_like(one) for one in evidence]
            layer.first_counts = None
            self.refuse_other_losses(layer, evidence)
        for average, one in zip(self.averages[name], evidence, strict=True):
            average.mul_(1 - share)
            if one.grad is not None:
                average.add_(ranks.mean(one.grad), alpha=-share / self.message.iter_size)
        return self.averages[name]

    def refuse_other_losses(self, layer: TreeLayer, evidence: Sequence[Tensor]) -> None:
        """Raise SpecError where the loss cannot be minus a log likelihood: no count would be negative."""
        if evidence and evidence[0].grad is not None:
            counts = -evidence[0].grad
            if bool(counts.min() < -1e-4 * counts.abs().max()):
                raise SpecError([layer.spec.problem(
                    "gets negative counts: type 'EM' needs minus the mean log likelihood as the only loss "
                    "(LogLikelihoodLoss, or SumLoss of log likelihoods)"
                )])  # fmt: skip

    def state_dict(self) -> State:
        state = super().state_dict()
        for name, layer in zip(self.names, self.layers, strict=True):
            kept = self.averages.get(name) or layer.first_counts
            kept = kept or [torch.zeros_like(one) for one in layer.new_evidence()]
            state |= {f"history/em/{name}/{i}": one for i, one in enumerate(kept)}
        return state

    def load_state_dict(self, state: Mapping[str, int | Tensor], source: str = "solver state") -> None:
        for name, layer in zip(self.names, self.layers, strict=True):
            kept = []
            for i, one in enumerate(layer.new_evidence()):
                value = state.get(f"history/em/{name}/{i}")
                if not isinstance(value, Tensor) or value.shape != one.shape:
                    raise SnapshotError(
                        f"{source}: has no counts of layer {name!r} that fit, as type 'EM' needs"
                    )
                kept.append(value.clone().to(one))
            self.averages[name] = kept
            layer.first_counts = None
        super().load_state_dict(state, source)


def learners(net: Net) -> list[TreeLayer]:
    """The layers that have a blob to learn, in net order; SpecError for one that cannot learn by counts."""
    problems: list[Problem] = []
    layers: dict[int, TreeLayer] = {}
    for param in net.params:
        if param.lr_mult == 0 or not param.value.requires_grad:
            continue
        places = sorted({i for i, _ in param.users})
        layer = net.made[places[0]]
        if not isinstance(layer, TreeLayer):
            text = "learns, and is no part of a latent tree, as type 'EM' needs; set lr_mult: 0"
            problems.append(layer.spec.problem(text))
        elif len(places) > 1:
            problems.append(
                layer.spec.problem("shares a blob with another layer, which type 'EM' cannot learn")
            )
        elif problem := layer.tree_problem():
            problems.append(problem)
        else:
            layers[places[0]] = layer
    if problems:
        raise SpecError(problems)
    return [layers[i] for i in sorted(layers)]


def solver_of(kind: str) -> type[Solver]:
    """The class for a solver type."""
    return EMSolver if kind == "EM" else Solver
