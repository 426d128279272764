"""Leaves: log probabilities of values of any kind; a kind for each column of a table, where columns differ.

Shape letters: B batch; c, h, w grid of windows, P = c * h * w positions; M components; K values of a patch;
L levels of a discrete value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan, prod
from typing import Any

import torch
from torch import Tensor

from netspec.errors import Problem, did_you_mean
from netspec.layers.base import Shape, register
from netspec.layers.simnets.block import Block, read_block
from netspec.layers.simnets.distributions import Distribution, chosen, kinds
from netspec.layers.traits import Field
from netspec.layers.tree import Leaf

FIELD = "leaves_param"


@dataclass
class Group:
    """The positions that share one kind."""

    distribution: Distribution
    columns: list[int]
    blobs: slice
    """Where its parameters stand among the layer's blobs."""


@register("Leaves")
class Leaves(Leaf):
    """y_m = sum_k log p_m(x_k): log probability of a patch under each component, one kind of value a position.

    Kinds: gaussian, student_t (log densities); discretised_logistic, categorical, bernoulli, binomial, poisson
    (log probabilities of the levels low, low + step, ...).
    Shapes: bottom (N, C, H, W); top (N, M, h, w) in nats; blobs: 0, whether anything is known of a value
    (positions, 1, 1, K); then for each `distribution` in turn, P its positions (1 with `shared`): location and log
    scale (P, M, K); categorical: logits (P, K, L, M); others: logits or log rates (P, M, K).
    NaN in the bottom: the value is missing and integrated out (adds exactly 0); so is every value of which blob 0
    says that nothing is known, because an initialisation never saw one. A value that a kind cannot have (off its
    levels, infinite) gives -inf.
    Raises SpecError for an unknown kind, settings that it cannot have, and positions of two kinds or none.
    Source: the leaves of probabilistic circuits (Poon and Domingos 2011; mixed kinds as in Molina et al. 2018).
    """

    family, roles = "similarity, MEX", ("image",)
    param_field = FIELD

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        if not p.num_instances:
            self.fail("needs num_instances > 0", FIELD, "num_instances")
        self.components = int(p.num_instances)
        self.block = self.windows(shapes[0])
        self.positions = self.block.grid[0] * self.block.grid[1] * self.block.grid[2]
        self.values = self.block.values
        if self.block.grid[0] != 1:
            self.fail("needs blocks over all channels", FIELD, "block_param")
        self.groups: list[Group] = []
        self.add_blob((self.positions, 1, 1, self.values), None, 0.0)
        for i, columns in enumerate(self.read_columns()):
            distribution = self.read(i)
            first = len(self.blob_shapes)
            for shape, filler in distribution.blobs(
                1 if p.shared else len(columns), self.components, self.values
            ):
                self.add_blob(shape, self.filler(i, filler))
            self.groups.append(Group(distribution, columns, slice(first, len(self.blob_shapes))))
        order = [column for group in self.groups for column in group.columns]
        self.back = sorted(range(len(order)), key=order.__getitem__)
        """Where each position stands in the groups' order."""
        kind = p.unsupervised_init.type
        if kind not in ("none", "kmeans", "neighbourhood"):
            near = did_you_mean(kind, ("kmeans", "neighbourhood"))
            text = f"knows no unsupervised_init of type {kind!r}{near}; there are kmeans and neighbourhood"
            self.fail(text, FIELD, "unsupervised_init", "type")

    def windows(self, shape: Shape) -> Block:
        """The windows of `block_param`; without it, single positions over all channels."""
        p = self.param
        if p.HasField("block_param"):
            return read_block(self, p.block_param, shape, can_round_up=False)
        if len(shape) != 4:
            self.fail(f"needs a bottom of 4 axes (N, C, H, W), found {shape}", "bottom", 0)
        cell, grid = (shape[1], 1, 1), (1, shape[2], shape[3])
        return Block((shape[1], shape[2], shape[3]), cell, cell, (0, 0, 0), grid, float("nan"))

    def read(self, i: int) -> Distribution:
        """The distribution of entry i; SpecError for one that cannot be."""
        p = self.param.distribution[i]
        if p.kind not in kinds:
            near = did_you_mean(p.kind, kinds) or f"; there are {', '.join(sorted(kinds))}"
            self.fail(f"unknown kind {p.kind!r} of leaf{near}", FIELD, "distribution", i, "kind")
        distribution = kinds[p.kind](p)
        wrong = distribution.problem()
        if wrong:
            self.fail(wrong[0], FIELD, "distribution", i, wrong[1])
        return distribution

    def read_columns(self) -> list[list[int]]:
        """The positions of each entry; SpecError unless every position has one kind."""
        entries = self.param.distribution
        if not entries:
            self.fail(f"needs a distribution {{ kind: ... }}; there are {', '.join(sorted(kinds))}", FIELD)
        if self.param.shared and len(entries) > 1:
            self.fail("shared components need one distribution", FIELD, "shared")
        fits = self.positions <= self.MOST_ENTRIES
        self.require(fits, ("bottom", 0), f"{self.positions} positions are more than {self.MOST_ENTRIES}")
        owner: dict[int, int] = {}
        for i, entry in enumerate(entries):
            for j, column in enumerate(entry.column):
                at = (FIELD, "distribution", i, "column", j)
                if column >= self.positions:
                    self.fail(f"column {column}: the bottom has positions 0 to {self.positions - 1}", *at)
                if owner.setdefault(column, i) != i or list(entry.column).index(column) != j:
                    self.fail(f"column {column} is named twice", *at)
        rest = [i for i, entry in enumerate(entries) if not entry.column]
        if len(rest) > 1:
            self.fail(
                "two distributions without `column`: one can have the rest", FIELD, "distribution", rest[1]
            )
        free = [column for column in range(self.positions) if column not in owner]
        if free and not rest:
            self.fail(f"no distribution names column {free[0]}", FIELD)
        if rest and not free:
            self.fail("no column is left for it", FIELD, "distribution", rest[0])
        return [sorted(entry.column) if entry.column else free for entry in entries]

    def filler(self, i: int, field: str) -> Any:
        """The filler that entry i names, or a normal one (0 for log scales)."""
        entry = self.param.distribution[i]
        chosen = getattr(entry, field)
        if entry.HasField(field) or field == "log_scale_filler":
            return chosen
        own = type(chosen)()
        own.type, own.std = "gaussian", 1.0
        return own

    def fill(self, blobs: Iterable[int], generator: torch.Generator) -> None:
        wanted = list(blobs)
        super().fill(wanted, generator)
        if 0 in wanted:
            with torch.no_grad():
                self.blobs[0].fill_(1)

    # Forward

    def forward(self, *bottoms: Tensor) -> Tensor:
        return self.top(self.densities(self.patches(bottoms[0])))

    def densities(self, x_PBK: Tensor) -> Tensor:
        """log p of the patches under each component (P, B, M), nats."""
        evidence = iter(self.evidence) if self.evidence is not None else None

        def log_prob(group: Group, x: Tensor, seen: Tensor) -> Tensor:
            blobs = self.of(group)
            if evidence is None:
                return group.distribution.log_prob(blobs, x, seen)
            own = [next(evidence) for _ in range(group.distribution.statistics)]
            return group.distribution.gathering(blobs, own, x, seen)

        return self.joined(x_PBK, log_prob)

    @property
    def known(self) -> Tensor:
        """Whether anything is known of a value (P, 1, K)."""
        return self.blob(0).detach().squeeze(2) > 0

    def patches(self, x_BCHW: Tensor) -> Tensor:
        """The patches (P, B, K), NaN where a value is missing."""
        return self.block.patches(x_BCHW).flatten(1, 3).transpose(0, 1)

    def of(self, group: Group) -> list[Tensor]:
        """A group's parameters."""
        return [self.blob(i) for i in range(group.blobs.start, group.blobs.stop)]

    def joined(self, x_PBK: Tensor, ask: Callable[[Group, Tensor, Tensor], Tensor]) -> Tensor:
        """`ask(group, values without NaN, whether seen)` (P, ...) for every group, in the order of positions."""
        parts = []
        for group in self.groups:
            x = x_PBK if len(self.groups) == 1 else x_PBK[group.columns]
            known = self.known if len(self.groups) == 1 else self.known[group.columns]
            seen = ~x.isnan() & known
            parts.append(ask(group, torch.where(seen, x, 0.0), seen))
        return self.ordered(parts)

    def ordered(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts (P, ...) of the groups, in the order of positions."""
        if len(parts) == 1:
            return parts[0].expand(self.positions, *parts[0].shape[1:])
        return torch.cat(list(parts))[self.back]

    def top(self, y_PBM: Tensor) -> Tensor:
        """(P, B, M) as a blob (B, M, h, w); a view."""
        return torch.unflatten(y_PBM.permute(1, 2, 0), 2, self.block.grid[1:])

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below.grown(self.block.size[1:], self.block.stride[1:], self.block.pad[1:])

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """A product for each value of a patch under each component, whatever its distribution."""
        return sum(prod(top) for top in tops) * self.values

    # As the leaf of a latent tree

    @property
    def discrete(self) -> bool:
        return all(group.distribution.discrete for group in self.groups)

    def tree_problem(self) -> Problem | None:
        if not self.block.tiles:
            return self.spec.problem(
                f"has windows of {self.block.size} with stride {self.block.stride} over {self.block.shape}; "
                "every pixel must lie in one window: set stride to the block's size, pad until covered",
                FIELD, "block_param",
            )  # fmt: skip
        if any(self.margins()) and not isnan(self.block.outside):
            return self.spec.problem(
                f"has windows that reach beyond the image and see pixels of {self.block.outside:g} there, which are "
                "part of no image; set out_of_bounds_value: nan",
                FIELD, "block_param", "out_of_bounds_value",
            )  # fmt: skip
        return None

    def margins(self) -> tuple[int, int, int, int]:
        return self.block.margins

    def illegal(self, x: Tensor) -> Tensor:
        legal = self.joined(self.patches(x), lambda group, x_PBK, _: group.distribution.legal(x_PBK))
        return ~self.image(legal) & ~x.isnan()

    def range_at(self, channel: int, row: int, column: int) -> str:
        b = self.block
        position = (row + b.pad[1]) // b.size[1] * b.grid[2] + (column + b.pad[2]) // b.size[2]
        return next(group.distribution.range() for group in self.groups if position in group.columns)

    def image(self, values_PBK: Tensor) -> Tensor:
        """Values (P, B, K) as pixels (B, C, H, W)."""
        return self.block.image(torch.unflatten(values_PBK.transpose(0, 1), 1, self.block.grid[1:]))

    def each(self, ask: Callable[[Distribution, Sequence[Tensor]], Tensor]) -> Tensor:
        """`ask(distribution, its blobs in double precision)` (P, M, K) of every position."""
        answers = []
        for group in self.groups:
            answer = ask(group.distribution, [blob.detach().double() for blob in self.of(group)])
            answers.append(answer.expand(len(group.columns), *answer.shape[1:]))
        return self.ordered(answers)

    def upward_max(self, x: Tensor) -> Tensor:
        x_PBK = self.patches(x)
        inside = ~self.patches(torch.zeros_like(x)).isnan() & self.known
        peaks_PMK = self.each(lambda distribution, blobs: distribution.peak(blobs)).to(x.dtype)
        gain_PBM = (x_PBK.isnan() & inside).to(x.dtype) @ peaks_PMK.mT
        return self.forward(x) + self.top(gain_PBM)

    def mean_image(self, weights: Tensor) -> Tensor:
        q_PBM = weights.double().flatten(2).permute(2, 0, 1)
        mean_PMK = self.each(lambda distribution, blobs: distribution.mean(blobs))
        origin = mean_PMK.mean(1, keepdim=True)
        return self.told(q_PBM @ (mean_PMK - origin) + origin * q_PBM.sum(2, keepdim=True))

    def variance_image(self, weights: Tensor, centre: Tensor) -> Tensor:
        q_PBM = weights.double().flatten(2).permute(2, 0, 1)
        mean_PMK = self.each(lambda distribution, blobs: distribution.mean(blobs))
        variance_PMK = self.each(lambda distribution, blobs: distribution.variance(blobs))
        centre_PBK = self.patches(centre.double())
        total = q_PBM @ variance_PMK
        for m in range(self.components):
            total = total + q_PBM[:, :, m : m + 1] * (mean_PMK[:, m].unsqueeze(1) - centre_PBK).square()
        return self.told(total)

    def mode_image(self, states: Tensor) -> Tensor:
        return self.drawn(states, lambda distribution, blobs, s_PB: chosen(distribution.mode(blobs), s_PB))

    def sample_image(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.drawn(
            states, lambda distribution, blobs, s_PB: distribution.sample(blobs, s_PB, generator)
        )

    def drawn(
        self, states: Tensor, ask: Callable[[Distribution, Sequence[Tensor], Tensor], Tensor]
    ) -> Tensor:
        s_PB = states.flatten(1).t()
        parts = [
            ask(group.distribution, [blob.detach().double() for blob in self.of(group)], s_PB[group.columns])
            for group in self.groups
        ]
        return self.told(self.ordered(parts))

    def told(self, values_PBK: Tensor) -> Tensor:
        """Values (P, B, K) as pixels (B, C, H, W), NaN where nothing is known of them."""
        return self.image(torch.where(self.known, values_PBK, float("nan")))

    def level_image(self, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        largest = max((g.distribution.levels for g in self.groups if g.distribution.finite), default=0)
        if not largest:
            return None
        q_PBM = weights.double().flatten(2).permute(2, 0, 1)
        per_group = [self.level_rows(group, q_PBM[group.columns], largest) for group in self.groups]
        values, masses = (self.ordered([pair[i] for pair in per_group]) for i in (0, 1))  # P 1 K L, P B K L
        pictures = [
            torch.stack([self.image(table[..., level]) for level in range(largest)], -1)
            for table in (values, masses)
        ]
        return pictures[0][0], pictures[1]

    def level_rows(self, group: Group, q_PBM: Tensor, largest: int) -> tuple[Tensor, Tensor]:
        """(values (P, 1, K, L), probabilities (P, B, K, L)) of a group's positions; NaN and 0 where it has none."""
        d, positions = group.distribution, len(group.columns)
        if not d.finite:
            none = q_PBM.new_zeros(positions, q_PBM.shape[1], self.values, largest)
            return torch.full_like(none[:, :1], float("nan")), none
        table_PMKL = d.table([blob.detach().double() for blob in self.of(group)]).exp()
        probabilities = torch.einsum(
            "pbm,pmkl->pbkl", q_PBM, table_PMKL.expand(positions, *table_PMKL.shape[1:])
        )
        more = (0, largest - d.levels)
        level = d.value(torch.arange(d.levels, device=q_PBM.device, dtype=q_PBM.dtype))
        level = torch.nn.functional.pad(level, more, value=float("nan"))
        return level.expand(positions, 1, self.values, largest), torch.nn.functional.pad(probabilities, more)

    # Expectation maximisation

    def new_evidence(self) -> list[Tensor]:
        with torch.no_grad():
            return [counts for group in self.groups for counts in group.distribution.evidence(self.of(group))]

    def begin(self, mean_PK: Tensor, deviation_PK: Tensor) -> None:
        """Let every component start from the mean and deviation of the data at its position."""
        for group in self.groups:
            own = [moment[group.columns].unsqueeze(1) for moment in (mean_PK, deviation_PK)]
            if self.param.shared:
                own = [moment.mean(0, keepdim=True) for moment in own]
            group.distribution.begin(self.of(group), *own)

    @property
    def exact(self) -> bool:
        """Whether one `maximise` is enough for given states."""
        return all(group.distribution.exact for group in self.groups)

    def maximise(self, counts: list[Tensor], prior_states: float, prior_values: float) -> None:
        left = iter(counts)
        with torch.no_grad():
            for group in self.groups:
                blobs = self.of(group)
                own = [next(left) for _ in range(group.distribution.statistics)]
                group.distribution.maximise(blobs, own, prior_values)
