"""MEX: a soft maximum over log weights plus inputs; with softmax_mode and normalised offsets, a layer of
mixtures.

Shape letters: B batch; c, h, w output grid; R regions; L cells of a region over the batch; M instances; K
patch values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import log, prod
from typing import Any

import torch
from torch import Tensor

from netspec.errors import Problem, SpecError
from netspec.layers.base import Layer, Shape, at_least, register
from netspec.layers.simnets.block import normalise, read_block, same_shapes
from netspec.layers.simnets.logsumexp import (
    entropy_gradient,
    extremum,
    finite,
    fork_epsilon_gradient,
    fork_mean,
    inf,
    max_plus,
    may_look,
    product,
)
from netspec.layers.simnets.regions import read_regions
from netspec.layers.simnets.tiles import Windows, mixtures, tiles_pay
from netspec.layers.traits import Field
from netspec.layers.tree import Choose, Inner, share, with_rows

Pair = tuple[int, int]
SPECIAL = {inf: "max", -inf: "min", 0.0: "mean", 1.0: "one"}
"""Values of epsilon at which the formula is a limit, or needs no scaling."""


@register("MEX")
class MEX(Inner):
    """y_m = (1/eps) log( (1/K) sum_k exp(eps (x_k + b_mk)) ) per patch x; `softmax_mode` leaves out the 1/K.

    eps = +inf gives the maximum, -inf the minimum (every tie takes the full gradient); eps = 0 the limit: the
    mean, or infinity in softmax_mode. With softmax_mode, eps 1 and `normalize_offsets` the offsets are log
    probabilities and each instance is a mixture: if x are log densities, so is y (nats).
    Shapes: bottoms (N, C, H, W); tops (N, M * c, h, w), instance slowest; blobs: epsilon (1, 1, 1, 1) and
    offsets (R, 1, M, K), R regions of the output grid (contiguous tiles, or a repeated pattern with
    `use_unshared_regions`). Without `epsilon_filler` epsilon is the constant 1.
    `normalize_offsets`: rows less their own MEX; `normalize_offsets_projected`: the blob itself is
    overwritten so in every forward and the gradient is the plain one. `use_log_space_parameters: false`: the
    blob holds exp(b), kept at or above `linear_space_min_value`. `maximum_entropy_regularization_coeff` adds
    its gradient once a backward.
    NaN in a bottom spreads to its own cell; -inf drops out, and a cell of only -inf gives -inf.
    Raises SpecError for a block or regions that do not fit, and for unsupervised_init, which no released net
    uses.
    Source: Cohen, Sharir and Shashua 2016 (SimNets); mex_layer.cpp of the SimNets fork.
    """

    family, roles = "similarity, MEX", ("image",)
    bottoms = at_least(1)
    tops = at_least(1)
    paired = True
    param_field = "mex_param"
    looks_for = ("limit",)

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        if p.unsupervised_init.type != "none":
            self.fail(
                f"unsupervised_init of type {p.unsupervised_init.type!r} is read, but not run, for MEX",
                "unsupervised_init",
                "type",
            )
        if not p.num_instances:
            self.fail("needs num_instances > 0", "num_instances")
        if not p.use_log_space_parameters and p.linear_space_min_value <= 0:
            self.fail("linear_space_min_value must be > 0", "linear_space_min_value")
        self.block = read_block(self, p.block_param, same_shapes(self, shapes), can_round_up=True)
        self.regions = read_regions(self, p, self.block.grid)
        self.log_k = 0.0 if p.softmax_mode else log(self.block.values)
        b = self.block
        at_positions = b.size == (b.shape[0], 1, 1) and b.stride[1:] == (1, 1) and not any(b.pad)
        self.is_mixture = at_positions and not (self.strict or p.normalize_patches)
        """Mixes the states of one position, in the plain formula."""
        self.limit = "any"
        """What epsilon is: "one", a limit ("max", "min" or "mean"), or "any" other value."""
        chosen = p.HasField("epsilon_filler") or self.strict
        self.add_blob(
            (1, 1, 1, 1),
            p.epsilon_filler if chosen else constant_one(p.epsilon_filler),
            1.0 if chosen else 0.0,
        )
        self.add_blob((self.regions.number, 1, p.num_instances, self.block.values), p.offsets_filler)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        self.glance()
        if windows := self.windows((1, 1), bottoms):
            return self.tiled(windows, bottoms)
        mix = self.mixer()
        tops = []
        for x_BCHW in bottoms:
            y_BchwM = self.regions.join(mix(self.patches(x_BCHW)))
            tops.append(y_BchwM.permute(0, 4, 1, 2, 3).flatten(1, 2))
        return tuple(tops)

    def with_reader(self, reader: Layer, *bottoms: Tensor) -> tuple[Tensor, ...] | None:
        if reader.adds_tiles is None or not tiles_pay(*bottoms):
            return None
        self.glance()
        windows = self.windows(reader.adds_tiles, bottoms)
        return self.tiled(windows, bottoms) if windows else None

    def windows(self, window: Pair, bottoms: Sequence[Tensor]) -> Windows | None:
        """How mixtures and their sums over windows of so many cells are one operator; None where they are not."""
        plain = self.is_mixture and self.limit == "one" and self.evidence is None
        if not plain or self.epsilon().requires_grad or not tiles_pay(*bottoms):
            return None
        if any(x.dtype != self.blobs[1].dtype or not x.is_floating_point() for x in bottoms):
            return None
        rows, columns = self.block.grid[1:]
        if rows % window[0] or columns % window[1]:
            return None
        if self.regions.number == rows * columns and self.regions.cells == (1, 1, 1):
            return Windows((rows, columns), window, False)
        by_place = self.regions.unshared or self.regions.number == 1
        return (
            Windows((rows, columns), window, True) if by_place and self.regions.count[1:] == window else None
        )

    def tiled(self, windows: Windows, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
        b_RMK = self.rows()
        return tuple(mixtures(x, b_RMK, windows, self.normalises, self.log_k) for x in bottoms)

    def mixer(self) -> Callable[[Tensor], Tensor]:
        """The function from patches (R, L, K) to y (R, L, M), with the offsets as they are now."""
        if self.evidence is not None:
            given = self.evidence[0]
            return lambda x_RLK: product(x_RLK, given, False, self.log_k)
        if self.limit in ("one", "any") and not self.strict:
            eps, b_RMK = self.epsilon(), self.rows()
            if self.limit == "one" and not eps.requires_grad:
                return lambda x_RLK: product(x_RLK, b_RMK, self.normalises, self.log_k)
            b_RMK = scale(eps, b_RMK)
            return lambda x_RLK: product(scale(eps, x_RLK), b_RMK, self.normalises, self.log_k) / eps
        b_RMK = self.offsets()
        return lambda x_RLK: self.mix(x_RLK, b_RMK)

    def patches(self, x_BCHW: Tensor) -> Tensor:
        """The patches grouped by region (R, L, K); normalised where asked for."""
        patches, p = self.block.patches(x_BCHW), self.param
        if p.normalize_patches:
            patches = normalise(patches, p.normalize_variance, p.normalization_fudge_factor)
        return self.regions.split(patches)

    def mix(self, x_RLK: Tensor, b_RMK: Tensor) -> Tensor:
        """y (R, L, M) of patches x and offsets b as they count: at limits of epsilon, and as in the fork."""
        eps = self.epsilon()
        if self.limit == "mean" and not self.strict:
            mean = x_RLK.mean(2).unsqueeze(2) + b_RMK.mean(2).unsqueeze(1)
            return mean + inf if self.param.softmax_mode else mean
        z_RLMK = x_RLK.unsqueeze(2) + b_RMK.unsqueeze(1)
        if self.limit in ("max", "min"):
            return extremum(z_RLMK, self.limit == "max", self.strict)
        y_RLM = fork_mean(z_RLMK, eps.detach(), self.log_k)
        if not eps.requires_grad:
            return y_RLM
        own = self.param.normalize_offsets and not self.param.normalize_offsets_projected
        return fork_epsilon_gradient(y_RLM, z_RLMK, b_RMK.unsqueeze(1) if own else None, eps)

    def epsilon(self) -> Tensor:
        """Epsilon as a scalar tensor."""
        return self.blob(0).view(())

    def look(self) -> None:
        """Note what epsilon is. Compiled code keeps what was seen last, outside it."""
        eps = self.blobs[0].detach()
        if may_look(eps) and (eps.device.type == "cpu" or self.changed(eps)):
            self.limit = SPECIAL.get(eps.item(), "any")

    def fill(self, blobs: Iterable[int], generator: torch.Generator) -> None:
        super().fill(blobs, generator)
        self.look()

    # Offsets

    @property
    def normalises(self) -> bool:
        """Whether rows are normalised on the fly."""
        return bool(self.param.normalize_offsets and not self.param.normalize_offsets_projected)

    def offsets(self) -> Tensor:
        """The offsets as they count (R, M, K): logarithms, normalised where asked for."""
        return self.normed(self.rows()) if self.normalises else self.rows()

    def rows(self) -> Tensor:
        """The offsets (R, M, K) as logarithms, before normalisation on the fly."""
        p, blob = self.param, self.blob(1)
        used_RMK = self.project_blob(blob)
        # The clone is what log keeps for its gradient: the blob itself changes in place at the next forward.
        b_RMK = (blob if p.use_log_space_parameters else blob.clone().log()).squeeze(1)
        if used_RMK is not None:
            b_RMK = b_RMK - b_RMK.detach() + used_RMK.squeeze(1)
        coefficient = p.maximum_entropy_regularization_coeff
        if coefficient and p.normalize_offsets and (p.use_log_space_parameters or not self.strict):
            return entropy_gradient(b_RMK, self.normed(b_RMK.detach()), coefficient)
        return b_RMK

    @classmethod
    def repeatable(cls, message: Any) -> bool:
        return not (message.mex_param.normalize_offsets and message.mex_param.normalize_offsets_projected)

    def project_blob(self, blob: Tensor) -> Tensor | None:
        """Overwrite the offsets blob by what its mode allows: values above the least one, normalised rows.

        Returns the normalised logarithms where the blob holds them clipped: the fork clips, takes the logarithm,
        normalises, uses that, and clips its exponential, so what is used has mass 1 and what is kept may have more.
        """
        p = self.param
        least = None if p.use_log_space_parameters else p.linear_space_min_value
        with torch.no_grad():
            if least is not None:
                blob.clamp_(min=least)
            if not (p.normalize_offsets and p.normalize_offsets_projected):
                return None
            normed = self.normed(blob if least is None else blob.log())
            if least is None:
                blob.copy_(normed)
                return None
            blob.copy_(normed.exp().clamp(min=least))
            return normed

    def normed(self, b_RMK: Tensor) -> Tensor:
        """Rows (last axis) less their MEX over zero inputs."""
        eps = self.epsilon().detach() if self.strict else self.epsilon()
        if self.limit in ("one", "any") or (self.strict and self.limit == "mean"):
            return b_RMK - (torch.logsumexp(eps * b_RMK, -1, keepdim=True) - self.log_k) / eps
        if self.limit == "mean":
            return b_RMK - b_RMK.mean(-1, keepdim=True)
        return b_RMK - extremum(b_RMK, self.limit == "max", self.strict).unsqueeze(-1)

    @property
    def is_norm(self) -> bool:
        """Whether it is logsumexp over the channels: one instance, not trained."""
        specs = self.spec.message.param
        fixed = len(specs) > 1 and specs[1].HasField("lr_mult") and specs[1].lr_mult == 0
        return self.param.num_instances == 1 and fixed

    def keeps_common(self) -> bool:
        return self.is_norm or self.tree_problem() is None

    # In a latent tree: a state at the top chooses a state at the bottom, with probability exp(offset)

    def tree_problem(self) -> Problem | None:
        p, field = self.param, "mex_param"
        if not p.softmax_mode:
            return self.spec.problem(
                "gives means, not mixtures; set softmax_mode: true", field, "softmax_mode"
            )
        if not p.normalize_offsets:
            return self.spec.problem(
                "has offsets that are no log probabilities; set normalize_offsets: true",
                field,
                "normalize_offsets",
            )
        eps = float(self.blob(0).detach())
        if eps != 1:
            return self.spec.problem(f"has epsilon {eps:g}; a mixture has 1", field, "epsilon_filler")
        b = self.block
        if b.size != (b.shape[0], 1, 1) or b.stride[1:] != (1, 1) or any(b.pad) or p.normalize_patches:
            return self.spec.problem(
                f"has windows of {b.size} over {b.shape} (channels, rows, columns); a state belongs to one "
                "position: use 1x1 blocks over all channels, stride 1, no padding, and pool above",
                field, "block_param",
            )  # fmt: skip
        return None

    def upward_max(self, below: Tensor) -> Tensor:
        y_RLM = max_plus(self.patches(below), self.offsets())
        return self.regions.join(y_RLM).permute(0, 4, 1, 2, 3).flatten(1, 2)

    def downward(self, states: Tensor, below: Tensor, choose: Choose, best: bool = False) -> Tensor:
        rows_BhwK = self.offsets()[self.regions.map(states.device), states]
        return choose(rows_BhwK + below.movedim(1, -1))

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """A product for each value of a patch and each instance (of exponentials)."""
        return sum(prod(top) for top in tops) * self.block.values

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below.grown(self.block.size[1:], self.block.stride[1:], self.block.pad[1:])

    # Expectation maximisation

    def new_evidence(self) -> list[Tensor]:
        if problem := self.tree_problem():
            raise SpecError([problem])
        with torch.no_grad():
            return [self.offsets().clone()]

    def maximise(self, counts: list[Tensor], prior_states: float, prior_values: float) -> None:
        (counts_RMK,) = counts
        if prior_states:
            counts_RMK = counts_RMK + prior_states * share(counts_RMK.sum(1, keepdim=True))
        with torch.no_grad():
            new = with_rows(counts_RMK, self.offsets())
            if not self.param.use_log_space_parameters:
                new = new.exp().clamp(min=self.param.linear_space_min_value)
            self.blob(1).copy_(new.unsqueeze(1))


def scale(eps: Tensor, x: Tensor) -> Tensor:
    """eps * x; where x is -inf (left out of the sum) it gives epsilon the gradient 0, not NaN."""
    return torch.where(x == -inf, x, eps * finite(x)) if eps.requires_grad else eps * x


def constant_one(filler: Any) -> Any:
    """A filler message like the given one that fills with 1."""
    constant = type(filler)()
    constant.type, constant.value = "constant", 1.0
    return constant
