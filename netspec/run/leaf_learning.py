"""Initial components of Leaves and the tree of a LatentTree, from clusters of the neighbourhood of each position.

A cluster of neighbourhoods stands for a state: its images' values give a component of the leaf, and how often clusters
of two positions meet in an image gives the probabilities of the tree. Missing values are left out: distances and means
are over what is observed.
Shape letters: N images; P positions; K values of a position; F features of a neighbourhood; M clusters.
Sources: k-means with missing values (Chi, Chi and Baraniuk 2016); trees of greatest mutual information (Chow and Liu
1968); states from clusters (latent variable distillation, Liu, Zhang and Van den Broeck 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from torch import Tensor

from netspec.layers.simnets.latent_tree import LatentTree
from netspec.layers.simnets.leaves import Leaves

Images = Callable[[], Tensor]
"""Gives the leaf's patches (P, N, K) of the next mini-batch, NaN where missing."""
SAMPLE = 4096
"""Images that clusters are sought among; all that `num_batches` gives are then assigned to them."""
BINS = 8
"""Intervals that values are sorted into for mutual information."""
ROUNDS = 5
"""Rounds of fitting, to the first images, for kinds without a closed form."""
SMOOTH = 10.0
"""Weight, in images, of the average over all components that is mixed into each component."""


@dataclass
class Clusters:
    """Clusters of the neighbourhoods of every position."""

    windows: list[Tensor]
    """For each position (or once, for whole images) the positions around it."""
    weights: list[Tensor]
    """For each, the weight (F,) of every feature."""
    centres: list[Tensor]
    """For each, (M, F)."""
    origin: Tensor
    """(P, K): what is taken off all values."""
    scale: Tensor
    """(P, K): what they are then divided by."""

    def assign(self, x_PNK: Tensor) -> Tensor:
        """The cluster (P, N) of each position of each image; -1 where nothing around it is observed."""
        numbers = []
        for i in range(len(self.windows)):
            x, seen = features(self, i, x_PNK)
            numbers.append(torch.where(seen.any(1), nearest(x, seen, self.centres[i]), -1))
        return torch.stack(numbers).expand(x_PNK.shape[0], -1)


def features(clusters: Clusters, i: int, x_PNK: Tensor) -> tuple[Tensor, Tensor]:
    """(weighted features (N, F) with 0 where missing, whether observed) of neighbourhood i."""
    own = clusters.windows[i]
    x = (
        ((x_PNK[own] - clusters.origin[own].unsqueeze(1)) / clusters.scale[own].unsqueeze(1))
        .transpose(0, 1)
        .flatten(1)
    )
    seen = ~x.isnan()
    return torch.where(seen, x, 0.0) * clusters.weights[i], seen


def nearest(x_NF: Tensor, seen_NF: Tensor, centres_MF: Tensor) -> Tensor:
    """The nearest centre over what is observed."""
    whole = bool(seen_NF.all())
    squares = centres_MF.square()
    own = squares.sum(1) if whole else seen_NF.to(x_NF.dtype) @ squares.t()
    return (x_NF @ centres_MF.t() - 0.5 * own).argmax(1)


def cluster(x_NF: Tensor, seen_NF: Tensor, count: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Centres (count, F) by k-means over what is observed; empty clusters begin again at a random row."""

    def seeds() -> Tensor:
        jitter = 1e-3 * torch.randn(count, x_NF.shape[1], generator=generator, dtype=x_NF.dtype)
        return x_NF[torch.randint(len(x_NF), (count,), generator=generator)] + jitter

    centres, mask = seeds(), seen_NF.to(x_NF.dtype)
    for _ in range(rounds):
        assigned = nearest(x_NF, seen_NF, centres)
        sums = torch.zeros_like(centres).index_add_(0, assigned, x_NF)
        counts = torch.zeros_like(centres).index_add_(0, assigned, mask)
        alive = counts.sum(1, keepdim=True) > 0
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), torch.where(alive, 0.0, seeds()))
    return centres


def windows_of(layer: Leaves, radius: int) -> tuple[list[Tensor], list[Tensor]]:
    """(positions around each position, their weights): squares of `radius` in which near positions weigh more; all
    positions for a negative radius.
    """
    _, height, width = layer.block.grid
    if radius < 0:
        return [torch.arange(height * width)], [torch.ones(height * width)]
    rows, columns = torch.arange(height * width) // width, torch.arange(height * width) % width
    windows, weights = [], []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        near = ((rows - row).abs() <= radius) & ((columns - column).abs() <= radius)
        square = (rows[near] - row).square() + (columns[near] - column).square()
        windows.append(near.nonzero().flatten())
        weights.append((-0.25 * square / (0.7 * max(radius, 1)) ** 2).exp())
    return windows, weights


def gathered(stream: Images, batches: int) -> tuple[Tensor, int]:
    """(patches (P, N, K) of the first batches, about SAMPLE images; how many batches they are)."""
    parts: list[Tensor] = []
    while len(parts) < max(1, batches) and sum(part.shape[1] for part in parts) < SAMPLE:
        parts.append(stream())
    return torch.cat(parts, 1), len(parts)


def find_clusters(layer: Leaves, first: Tensor, generator: torch.Generator) -> Clusters:
    """Clusters of the neighbourhoods in the images `first` (P, N, K)."""
    p = layer.param
    neighbourhood = p.unsupervised_init.type == "neighbourhood" and not p.shared
    windows, weights = windows_of(layer, p.radius if neighbourhood else 0)
    origin, spread = moments(first)
    # Columns of a table have units of their own; pixels have one.
    alone = p.radius < 0 or not neighbourhood
    scale = spread if alone else spread.square().mean().sqrt().expand_as(spread)
    if p.shared:
        origin, scale = (moment.mean(0, keepdim=True).expand_as(moment) for moment in (origin, scale))
    scale = torch.where(scale > 0, scale, 1.0)
    weights = [weight.to(first).repeat_interleave(layer.values) for weight in weights]
    clusters = Clusters(windows, weights, [], origin, scale)
    rounds = p.unsupervised_init.max_iterations
    if p.shared:
        pairs = [features(clusters, i, first) for i in range(len(windows))]
        rows, seen = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        clusters.centres = [cluster(rows, seen, layer.components, rounds, generator)] * len(windows)
        return clusters
    for i in range(len(windows)):
        clusters.centres.append(cluster(*features(clusters, i, first), layer.components, rounds, generator))
    return clusters


def moments(x_PNK: Tensor) -> tuple[Tensor, Tensor]:
    """(means, deviations) (P, K) of what is observed; 0 where nothing is."""
    mean = x_PNK.nanmean(1).nan_to_num()
    return mean, (x_PNK - mean.unsqueeze(1)).square().nanmean(1).sqrt().nan_to_num()


@dataclass
class Learned:
    """What an initialisation used, for its report."""

    images: int = 0
    holes: int = 0
    """Of these, images with missing values."""
    root: Tensor | None = None
    """How often each state was that of the tree's root (K,)."""
    unseen: Tensor | None = None
    """Positions and values (n, 2) that were missing in all of them."""

    def report(self) -> str:
        some = f", {self.holes} of them with missing values" if self.holes else ""
        return f"learned from {self.images} images{some}"

    def warnings(self) -> list[str]:
        """A line for what is unknown."""
        if self.unseen is None or not len(self.unseen):
            return []
        places = ", ".join(str(int(position)) for position, _ in self.unseen[:10])
        more = f" and {len(self.unseen) - 10} more" if len(self.unseen) > 10 else ""
        return [f"never observed: column {places}{more}; completions there are unknown (NaN)"]


def learn_leaves(
    layer: Leaves, stream: Images, generator: torch.Generator, tree: LatentTree | None
) -> Learned:
    """Components from clusters of `num_batches` mini-batches, and the tree above with its probabilities.

    tree: a LatentTree right above the layer, to be learned too; None where there is none.
    """
    batches = layer.param.unsupervised_init.num_batches
    first, used = gathered(stream, batches)
    first = first.to(layer.blobs[0].dtype) if first.shape[0] > 64 else first.double()
    clusters = find_clusters(layer, first, generator)
    if tree is not None and tree.param.unsupervised_init.type == "chow_liu":
        tree.join(chow_liu(first))
    begin(layer, first, clusters)
    told, observed = Learned(), torch.zeros(first.shape[0], first.shape[2], device=first.device)
    counts = [torch.zeros_like(table) for table in layer.new_evidence()]
    met = None if tree is None else torch.zeros(tree.positions, tree.states**2, device=first.device)
    batch = first
    for more in range(used, max(batches, used) + 1):
        told.images += batch.shape[1]
        told.holes += int(batch.isnan().any(2).any(0).sum())
        observed += (~batch.isnan()).sum(1)
        states = clusters.assign(batch)
        for total, new in zip(counts, counted(layer, batch, states), strict=True):
            total += new
        if tree is not None and met is not None:
            meetings(met, states, tree.parents)
            root = tally(states[tree.structure.order[0]], tree.states)
            told.root = root if told.root is None else told.root + root
        batch = stream().to(first) if more < batches else batch
    told.unseen = (observed == 0).nonzero()
    layer.blobs[0].copy_((observed > 0).view(layer.blob_shapes[0]))
    counts = [total / told.images for total in counts]
    layer.maximise(counts, 0.0, SMOOTH / told.images)
    layer.first_counts = counts
    if tree is not None and met is not None:
        own = (met / told.images).view(tree.positions, tree.states, tree.states)[tree.structure.order]
        tree.maximise([own], 2 * SMOOTH / told.images, 0.0)
        tree.first_counts = [own]
    return told


def begin(layer: Leaves, first: Tensor, clusters: Clusters) -> None:
    """Move the parameters near the data before counts are taken; some kinds need a few rounds."""
    layer.begin(*moments(first))
    states = clusters.assign(first)
    for _ in range(0 if layer.exact else ROUNDS):
        counts = [count / first.shape[1] for count in counted(layer, first, states)]
        layer.maximise(counts, 0.0, SMOOTH / first.shape[1])


def counted(layer: Leaves, x_PNK: Tensor, states_PN: Tensor) -> list[Tensor]:
    """The layer's counts when the component of each position is known."""
    layer.gather()
    with torch.enable_grad():
        y_PNM = layer.densities(x_PNK.to(layer.blobs[0].dtype))
        # Where nothing is observed (state -1) the leaf gives 0, and no count, whatever the state.
        y_PNM.gather(2, states_PN.clamp_min(0).unsqueeze(2)).sum().backward()  # type: ignore[no-untyped-call]
    counts = [torch.zeros_like(table) if table.grad is None else table.grad for table in layer.evidence or []]
    layer.gather(False)
    return counts


def meetings(met: Tensor, states_PN: Tensor, parents: Sequence[int]) -> None:
    """Add to `met` (P, K * K) how often a position's state (last) meets its parent's."""
    size = round(met.shape[1] ** 0.5)
    for i, parent in enumerate(parents):
        if parent >= 0:
            known = (states_PN[parent] >= 0) & (states_PN[i] >= 0)
            met[i] += tally(torch.where(known, states_PN[parent] * size + states_PN[i], -1), size * size)


def tally(states_N: Tensor, count: int) -> Tensor:
    """How often each of `count` states occurs; -1 is none."""
    return torch.bincount(states_N + 1, minlength=count + 1)[1:]


def chow_liu(x_PNK: Tensor) -> list[int]:
    """The parent of each position in the tree of greatest mutual information, rooted at its middle."""
    information = mutual_information(x_PNK)
    information.fill_diagonal_(0)
    # The smallest tree of (more than any information - information); 0 would mean that there is no edge.
    costs = float(information.max()) + 1 - information.double().cpu().numpy()
    np.fill_diagonal(costs, 0)
    edges = minimum_spanning_tree(csr_matrix(costs))
    edges = edges + edges.T
    if len(costs) == 1:
        return [-1]
    one_end = farthest(edges, 0)[0]
    other_end, before = farthest(edges, one_end)
    path = [other_end]
    while path[-1] != one_end:
        path.append(int(before[path[-1]]))
    _, parents = breadth_first_order(edges, path[len(path) // 2], directed=False)
    return [max(int(parent), -1) for parent in parents]


def farthest(edges: Any, start: int) -> tuple[int, Any]:
    """(the position farthest from `start`, every position's predecessor from there)."""
    order, before = breadth_first_order(edges, start, directed=False)
    depth = np.zeros(len(before), int)
    for i in order[1:]:
        depth[i] = depth[before[i]] + 1
    return int(depth.argmax()), before


def mutual_information(x_PNK: Tensor) -> Tensor:
    """Mutual information (P, P), nats, of the positions' values sorted into intervals, where both are observed.

    The amount that so many intervals give by chance is subtracted (Miller 1955).
    """
    positions = x_PNK.shape[0]
    bins = max(2, min(BINS, 8192 // positions))
    hot = torch.stack([one_hot(x.mean(1), bins) for x in x_PNK]).float()  # P N bins
    filled = (hot.sum(1) > 0).sum(1).float()
    flat = hot.transpose(0, 1).flatten(1)
    nats = torch.zeros(positions, positions)
    for begin in range(0, positions, 64):
        own = slice(begin, min(begin + 64, positions))
        left = flat[:, begin * bins : own.stop * bins]
        both = (left.t() @ flat).view(-1, bins, positions, bins).transpose(1, 2)  # rows, columns, bins, bins
        total = both.sum((2, 3), keepdim=True).clamp_min(1)
        joint = both / total
        apart = joint.sum(3, keepdim=True) * joint.sum(2, keepdim=True)
        terms = torch.where(joint > 0, joint * (joint / apart.clamp_min(1e-30)).log(), 0.0)
        chance = (filled[own, None] - 1) * (filled - 1) / (2 * total.flatten(1))
        nats[own] = (terms.sum((2, 3)) - chance).clamp_min(0)
    return 0.5 * (nats + nats.t())


def one_hot(x_N: Tensor, bins: int) -> Tensor:
    """Which interval (N, bins) each value lies in; none where missing. Intervals hold as many distinct values each."""
    values = torch.unique(x_N[~x_N.isnan()])
    if len(values) > bins:
        picks = torch.arange(1, bins, device=values.device) * len(values) // bins
        index = torch.bucketize(x_N.nan_to_num(), values[picks].contiguous(), right=True)
    else:
        index = torch.bucketize(x_N.nan_to_num(), values.contiguous())
    hot = torch.nn.functional.one_hot(index.clamp_max(bins - 1), bins)
    return torch.where(x_N.isnan().unsqueeze(1), 0, hot)
