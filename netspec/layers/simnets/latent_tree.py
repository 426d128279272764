"""LatentTree: a hidden variable for each position, joined to a tree of any shape.

Shape letters: B batch; P positions, ordered by depth (the root first); n those of one depth; K states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from netspec.errors import Problem, did_you_mean
from netspec.layers.base import Shape, register
from netspec.layers.simnets.logsumexp import finite, max_plus, may_look, product
from netspec.layers.tree import Choose, Inner, share, with_rows

FIELD = "latent_tree_param"


class Structure:
    """A rooted tree over positions, by depth."""

    def __init__(self, parents: Sequence[int]):
        self.given = list(parents)
        children: list[list[int]] = [[] for _ in parents]
        for i, parent in enumerate(parents):
            if parent >= 0:
                children[parent].append(i)
        levels = [[i for i, parent in enumerate(parents) if parent < 0]]
        while levels[-1]:
            levels.append([child for i in levels[-1] for child in children[i]])
        levels.pop()
        self.order = [i for level in levels for i in level]
        """Positions by depth."""
        self.bounds = [0]
        """Where each depth begins among `order`, and where the last ends."""
        for level in levels:
            self.bounds.append(self.bounds[-1] + len(level))
        place = {position: i for i, position in enumerate(self.order)}
        self.above = [place[parents[i]] if parents[i] >= 0 else -1 for i in self.order]
        """For each of `order`, where its parent stands there."""
        self.back = [place[i] for i in range(len(parents))] if len(place) == len(parents) else []

    def depths(self) -> range:
        """Depths from the deepest to 1."""
        return range(len(self.bounds) - 2, 0, -1)

    def span(self, depth: int) -> slice:
        """Where the positions of a depth stand in `order`."""
        return slice(self.bounds[depth], self.bounds[depth + 1])

    def parents(self, depth: int) -> list[int]:
        """For each position of a depth, the number of its parent among the depth above."""
        return [i - self.bounds[depth - 1] for i in self.above[self.span(depth)]]


MOST_POSITIONS = 1 << 18
"""Of a tree: they are joined one by one."""


@register("LatentTree")
class LatentTree(Inner):
    """y_k = log p(everything below | the root's state is k): a hidden Markov tree with one variable a position.

    Each position i has a hidden state z_i that its bottom's channels stand for, and
    p(z) = p(z_root) prod_i p(z_i | z_parent(i)); the layer sums over all z but the root's, for which a MEX above
    holds p(z_root). Shapes: bottom (N, K, h, w) of log probabilities below each state, top (N, K, 1, 1), nats; blobs:
    the positions' parents (1, 1, 1, P), -1 at the root, and logits (P, 1, K, K) of a state (last axis) given its
    parent's state; the root's are not used.
    NaN in the bottom spreads to its image; -inf drops out.
    Raises SpecError for parents that are no tree.
    Source: hidden Chow-Liu trees (Liu and Van den Broeck 2021, Tractable regularization of probabilistic circuits).
    """

    family, roles, mixes = "similarity, MEX", ("image",), True
    param_field = FIELD
    looks_for = ("parents",)

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[0]) != 4:
            self.fail(f"needs a bottom of 4 axes (N, C, H, W), found {shapes[0]}", "bottom", 0)
        self.states, self.grid = shapes[0][1], shapes[0][2:]
        self.positions = self.grid[0] * self.grid[1]
        fits = self.positions <= MOST_POSITIONS
        self.require(fits, ("bottom", 0), f"{self.positions} positions are more than {MOST_POSITIONS}")
        given = list(self.param.parent) or [(i + 1) // 2 - 1 for i in range(self.positions)]
        if len(given) != self.positions:
            self.fail(f"names {len(given)} parents for {self.positions} positions", FIELD, "parent")
        if wrong := no_tree(given):
            self.fail(f"the parents are no tree: {wrong}", FIELD, "parent")
        kind = self.param.unsupervised_init.type
        if kind not in ("none", "chow_liu"):
            text = f"knows no unsupervised_init of type {kind!r}{did_you_mean(kind, ['chow_liu'])}; there is chow_liu"
            self.fail(text, FIELD, "unsupervised_init", "type")
        self.first = given
        self.parents = given
        """The parent of each position; compiled code keeps what was seen last."""
        self.structure = Structure(given)
        self.add_blob((1, 1, 1, self.positions), None, 0.0)
        self.add_blob((self.positions, 1, self.states, self.states), self.offsets_filler())

    def offsets_filler(self) -> Any:
        """The filler of the logits: normal unless given, so that states differ."""
        chosen = self.param.offsets_filler
        if self.param.HasField("offsets_filler"):
            return chosen
        gaussian = type(chosen)()
        gaussian.type, gaussian.std = "gaussian", 1.0
        return gaussian

    def fill(self, blobs: Iterable[int], generator: torch.Generator) -> None:
        wanted = list(blobs)
        super().fill(wanted, generator)
        if 0 in wanted:
            self.join(self.first)

    def join(self, parents: Sequence[int]) -> None:
        """Take these parents of the positions."""
        with torch.no_grad():
            self.blobs[0].copy_(torch.tensor(parents, dtype=torch.float64).view(self.blob_shapes[0]))
        self.look()

    def look(self) -> None:
        """Note the tree. Compiled code keeps what was seen last."""
        blob = self.blobs[0].detach()
        if may_look(blob) and self.changed(blob):
            parents = [round(parent) for parent in blob.flatten().tolist()]
            if wrong := no_tree(parents):
                self.fail(f"blob 0 holds parents that are no tree: {wrong}")
            self.parents = parents
        if self.structure.given != self.parents:
            self.structure = Structure(self.parents)

    def rows(self) -> Tensor:
        """Log probabilities (P, K, K) of a state (last) given the parent's, by depth."""
        return torch.log_softmax(self.blob(1).squeeze(1), 2)[self.structure.order]

    def ordered(self, x_BKhw: Tensor) -> Tensor:
        """Activations (P, B, K) by depth."""
        return x_BKhw.flatten(2).permute(2, 0, 1)[self.structure.order]

    def forward(self, *bottoms: Tensor) -> Tensor:
        self.glance()
        if self.evidence is not None:
            x_PBK = bottoms[0].flatten(2).permute(2, 0, 1)
            top: Tensor = passed(x_PBK, self.evidence[0], self.structure)[0]
            return top[:, :, None, None]
        b_PKK = self.blob(1).squeeze(1)[self.structure.order]
        return self.levels(self.ordered(bottoms[0]), b_PKK, False)[0][0][:, :, None, None]

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].new_empty(bottoms[0].shape[0], self.states, 1, 1),)

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """A product for each state of a position and of its parent (of exponentials)."""
        return bottoms[0][0] * (self.positions - 1) * self.states**2

    def levels(self, x_PBK: Tensor, b_PKK: Tensor, best: bool) -> list[Tensor]:
        """Activations (n, B, K) of each depth, the root first, with all that lies below counted in."""
        s, activations = self.structure, []
        below: Tensor | None = None
        for depth in s.depths():
            v = x_PBK[s.span(depth)] if below is None else x_PBK[s.span(depth)] + below
            activations.append(v)
            b = b_PKK[s.span(depth)]
            message = max_plus(v, torch.log_softmax(b, 2)) if best else product(v, b, True)
            index = torch.tensor(s.parents(depth), device=v.device)
            count = s.bounds[depth] - s.bounds[depth - 1]
            below = v.new_zeros(count, *v.shape[1:]).index_add(0, index, message)
        activations.append(x_PBK[s.span(0)] if below is None else x_PBK[s.span(0)] + below)
        return activations[::-1]

    # In a latent tree: the root's state chooses its children's states, and so on downwards

    def tree_problem(self) -> Problem | None:
        return None

    def cells(self) -> tuple[int, int]:
        return self.grid[0], self.grid[1]

    def upward_max(self, below: Tensor) -> Tensor:
        b_PKK = self.blob(1).squeeze(1)[self.structure.order]
        return self.levels(self.ordered(below), b_PKK, True)[0][0][:, :, None, None]

    def downward(self, states: Tensor, below: Tensor, choose: Choose, best: bool = False) -> Tensor:
        s, rows_PKK = self.structure, self.rows()
        levels = self.levels(self.ordered(below), self.blob(1).squeeze(1)[s.order], best)
        drawn = [states.flatten().unsqueeze(0)]
        for depth in range(1, len(s.bounds) - 1):
            parent_nB = drawn[-1][s.parents(depth)]
            own = torch.arange(len(parent_nB), device=parent_nB.device).unsqueeze(1)
            drawn.append(choose(rows_PKK[s.span(depth)][own, parent_nB] + levels[depth]))
        by_position = torch.cat(drawn)[s.back]
        return by_position.t().view(-1, *self.grid)

    # Expectation maximisation

    def new_evidence(self) -> list[Tensor]:
        with torch.no_grad():
            return [self.rows().contiguous()]

    def maximise(self, counts: list[Tensor], prior_states: float, prior_values: float) -> None:
        (counts_PKK,) = counts
        if prior_states:
            counts_PKK = counts_PKK + prior_states * share(counts_PKK.sum(1, keepdim=True))
        new = with_rows(counts_PKK, self.rows())
        self.blobs[1].copy_(new[self.structure.back].view(self.blob_shapes[1]))


def no_tree(parents: Sequence[int]) -> str:
    """Why these parents are no tree, in words; "" where they are."""
    roots = [i for i, parent in enumerate(parents) if parent < 0]
    if len(roots) != 1:
        return f"{len(roots)} roots"
    outside = next((i for i, parent in enumerate(parents) if parent >= len(parents)), None)
    if outside is not None:
        return (
            f"position {outside} has parent {parents[outside]}, and the last position is {len(parents) - 1}"
        )
    if len(Structure(parents).order) != len(parents):
        return "some positions are their own ancestors"
    return ""


class Passed(torch.autograd.Function):
    """The upward pass in linear space, and the expected counts as its gradient: for training by counts."""

    @staticmethod
    def forward(x_PBK: Tensor, log_rows: Tensor, s: Structure) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u, rows = x_PBK.index_select(0, torch.tensor(s.order, device=x_PBK.device)), log_rows.exp()
        e_PBK, m_PBK = torch.empty_like(u), torch.empty_like(u)
        above = torch.tensor(s.above, device=u.device)
        for depth in s.depths():
            span = s.span(depth)
            # A state that no parent's state leads to has no say in the shift, or all others could round to 0.
            v = u[span].masked_fill(rows[span].amax(1).unsqueeze(1) == 0, -torch.inf)
            shift = finite(v.amax(2, keepdim=True))
            e = torch.sub(v, shift, out=e_PBK[span]).exp_()
            m = torch.bmm(e, rows[span].mT, out=m_PBK[span])
            message = m.log() + shift
            lost = (m == 0).any(2)
            if bool(lost.any()):  # sums that round to 0 beside the largest state, in logs
                i, b = lost.nonzero(as_tuple=True)
                message[i, b] = torch.logsumexp(v[i, b].unsqueeze(1) + log_rows[span][i], 2)
            u.index_add_(0, above[span], message)
        return u[0].clone(), e_PBK, m_PBK, rows

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.structure = inputs[2]

    @staticmethod
    def backward(ctx: Any, top: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None]:
        e_PBK, m_PBK, rows = ctx.saved_tensors
        s: Structure = ctx.structure
        flow, counts = torch.empty_like(e_PBK), torch.zeros_like(rows)
        above = torch.tensor(s.above, device=top.device)
        flow[0] = top
        for depth in reversed(s.depths()):
            span = s.span(depth)
            per_sum = flow[above[span]] / m_PBK[span]
            per_sum = torch.where(m_PBK[span] > 0, per_sum, 0.0)
            torch.bmm(per_sum, rows[span], out=flow[span]).mul_(e_PBK[span])
            torch.bmm(per_sum.mT, e_PBK[span], out=counts[span])
        back = torch.tensor(s.back, device=top.device)
        return flow.index_select(0, back), counts.mul_(rows), None


passed: Callable[..., tuple[Tensor, ...]] = Passed.apply
