"""Brute force over every latent configuration of a small generative net, in float64, from its parameters."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec import schema
from netspec.net.make import make_net
from netspec.net.net import Net

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """One MEX and the SUM pooling above it: `pattern` cells of distinct offsets along each axis."""

    states: int
    unshared: bool = False
    region: int = -1
    pool: int = 1


@dataclass(frozen=True)
class Model:
    """A tree to enumerate: image side, patch side, padding, components, levels from below, classes at the top."""

    side: int
    patch: int
    components: int
    levels: tuple[Level, ...]
    channels: int = 1
    pad: int = 0

    def text(self) -> str:
        """The prototxt of this model's TEST net."""
        layers = [
            f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 3 dim: {self.channels} '
            f"dim: {self.side} dim: {self.side} }} }} }}",
            'layer { name: "sim" type: "Similarity" bottom: "x" top: "sim" similarity_param { '
            f"num_instances: {self.components} normalization_term: true normalization_term_fudge: 0 "
            f"ignore_nan_input: true block_param {{ block_size: {self.patch} stride: {self.patch} pad: {self.pad} "
            'out_of_bounds_value: nan } template_filler { type: "gaussian" } '
            'weight_filler { type: "uniform" min: 0.5 max: 3 } } }',
        ]
        below = "sim"
        for i, level in enumerate(self.levels):
            kind = "unshared" if level.unshared else "shared"
            layers.append(
                f'layer {{ name: "mex{i}" type: "MEX" bottom: "{below}" top: "mex{i}" mex_param {{ '
                f"num_instances: {level.states} softmax_mode: true normalize_offsets: true "
                f"use_unshared_regions: {str(level.unshared).lower()} {kind}_offsets_region_size: {level.region} "
                'block_param { block_size: 1 } offsets_filler { type: "gaussian" std: 1.5 } } }'
            )
            below = f"mex{i}"
            if level.pool > 1:
                layers.append(
                    f'layer {{ name: "pool{i}" type: "Pooling" bottom: "{below}" top: "pool{i}" pooling_param {{ '
                    f"pool: SUM kernel_size: {level.pool} stride: {level.pool} }} }}"
                )
                below = f"pool{i}"
        return "\n".join(layers)

    def net(self, seed: int) -> Net:
        """The net, in float64, with random parameters."""
        return make_net(schema.parse_net(self.text(), "model.prototxt"), seed=seed).double()


@dataclass
class Enumeration:
    """Every configuration of the latent variables of one image, with its log joint probability."""

    model: Model
    net: Net
    image: Array
    """(C, H, W), NaN where missing."""
    grids: list[int] = field(default_factory=list)
    """Positions along an axis at each level: leaves first, then above each pooling."""
    configurations: list[tuple[Array, ...]] = field(default_factory=list)
    """For each: states at the leaves, at every level above, the last being the class."""
    log_joint: Array = field(default_factory=lambda: np.zeros(0))
    """log p(observed pixels, states | class) for each configuration."""
    log_mode: Array = field(default_factory=lambda: np.zeros(0))
    """The same with the missing pixels at their most probable values instead of integrated out."""

    def __post_init__(self) -> None:
        model = self.model
        leaves = (model.side + 2 * model.pad) // model.patch
        self.grids = [leaves]
        for level in model.levels:
            self.grids.append(self.grids[-1] // level.pool)
        if self.grids[-1] != 1:
            raise ValueError("the top of the model has more than one position")
        self.tables = [self.table(i) for i in range(len(model.levels))]
        self.leaf, self.leaf_mode = self.leaf_scores()
        sizes = [model.components, *(level.states for level in model.levels)]
        spaces = [itertools.product(range(m), repeat=g * g) for m, g in zip(sizes, self.grids, strict=True)]
        for flat in itertools.product(*spaces):
            self.configurations.append(
                tuple(np.array(s).reshape(g, g) for s, g in zip(flat, self.grids, strict=True))
            )
        scores = [self.score(states) for states in self.configurations]
        self.log_joint = np.array([score[0] for score in scores])
        self.log_mode = np.array([score[1] for score in scores])

    def table(self, i: int) -> Any:
        """log p(child | parent, cell) of level i as a function of (row, column) of the cell."""
        blob = self.net.layer(f"mex{i}").blobs[1].detach().numpy()[:, 0]
        rows = blob - np.log(np.exp(blob).sum(-1, keepdims=True))
        level, grid = self.model.levels[i], self.grids[i]
        size = grid if level.region < 0 else min(level.region, grid)
        count = size if level.unshared else -(-grid // size)

        def region(h: int, w: int) -> Array:
            place = (h % size, w % size) if level.unshared else (h // size, w // size)
            row: Array = rows[place[0] * count + place[1]]
            return row

        return region

    def leaf_scores(self) -> tuple[Array, Array]:
        """log density of each patch under each component (grid, grid, M): observed part; with modes of the missing."""
        model, layer, g = self.model, self.net.layer("sim"), self.grids[0]
        t, w = (blob.detach().numpy() for blob in layer.blobs)
        padded = np.pad(self.image, ((0, 0), (model.pad,) * 2, (model.pad,) * 2), constant_values=np.nan)
        inside = np.pad(np.ones_like(self.image), ((0, 0), (model.pad,) * 2, (model.pad,) * 2))
        seen, mode = np.zeros((g, g, model.components)), np.zeros((g, g, model.components))
        for h, v, d in itertools.product(range(g), range(g), range(model.components)):
            rows, columns = (
                slice(h * model.patch, (h + 1) * model.patch),
                slice(v * model.patch, (v + 1) * model.patch),
            )
            patch = padded[:, rows, columns]
            peak = 0.5 * (np.log(w[d]) - np.log(2 * np.pi))
            known = ~np.isnan(patch)
            density = peak - 0.5 * w[d] * (np.where(known, patch, 0) - t[d]) ** 2
            seen[h, v, d] = density[known].sum()
            mode[h, v, d] = seen[h, v, d] + peak[~known & (inside[:, rows, columns] == 1)].sum()
        return seen, mode

    def score(self, states: tuple[Array, ...]) -> tuple[float, float]:
        total = 0.0
        for i, level in enumerate(self.model.levels):
            below, above = states[i], states[i + 1]
            for h, w in np.ndindex(*below.shape):
                parent = above[h // level.pool, w // level.pool]
                total += self.tables[i](h, w)[parent, below[h, w]]
        leaf = sum(self.leaf[h, w, d] for (h, w), d in np.ndenumerate(states[0]))
        mode = sum(self.leaf_mode[h, w, d] for (h, w), d in np.ndenumerate(states[0]))
        return total + leaf, total + mode

    @property
    def posterior(self) -> Array:
        """p(configuration | observed pixels), classes equally likely before."""
        weights = np.exp(self.log_joint - self.log_joint.max())
        return weights / weights.sum()

    def class_log_likelihood(self) -> Array:
        """log p(observed pixels | class) for each class."""
        classes = np.array([int(states[-1].item()) for states in self.configurations])
        return np.array([
            np.logaddexp.reduce(self.log_joint[classes == y]) for y in range(self.model.levels[-1].states)
        ])  # fmt: skip

    def marginal(self, level: int, states: int, given: Array) -> Array:
        """p(state | observed) (states, grid, grid) at a level, under configuration weights `given`."""
        table = np.zeros((states, self.grids[level], self.grids[level]))
        for weight, configuration in zip(given, self.configurations, strict=True):
            for (h, w), state in np.ndenumerate(configuration[level]):
                table[int(state), h, w] += weight
        return table

    def moments(self, given: Array) -> tuple[Array, Array]:
        """E[pixel] and E[pixel^2] (C, H, W) of the model's pixels under configuration weights `given`."""
        model, layer = self.model, self.net.layer("sim")
        t, w = (blob.detach().numpy() for blob in layer.blobs)
        q = self.marginal(0, model.components, given)
        side = self.grids[0] * model.patch
        first, second = np.zeros((model.channels, side, side)), np.zeros((model.channels, side, side))
        for d, h, v in np.ndindex(*q.shape):
            rows, columns = (
                slice(h * model.patch, (h + 1) * model.patch),
                slice(v * model.patch, (v + 1) * model.patch),
            )
            first[:, rows, columns] += q[d, h, v] * t[d]
            second[:, rows, columns] += q[d, h, v] * (t[d] ** 2 + 1 / w[d])
        cut = slice(model.pad, model.pad + model.side)
        return first[:, cut, cut], second[:, cut, cut]
