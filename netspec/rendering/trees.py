"""The evolutionary DRMM: templates that mutate from level to level, its decision tree, and forests of it.

A template is its parent's plus a mutation, mu_child = mu_parent + alpha (Patel et al. 2016, appendix F); an
image is a leaf's template and noise. Inference goes from the root to the best child at each level, which is a
decision tree; hard EM is k-means within each node. Shape suffixes: N examples, D values, M nodes of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class EvolutionaryTree:
    """Levels of templates: `templates[l]` is (branching^l, D), the children of node i are i branching + 0, 1, ...

    `views[l]` (M, D) is 1 at the values that node i looks at to choose among its children; `histograms`
    (leaves, classes) are shares of labels, None when the tree was made without labels.
    """

    templates: list[Tensor]
    views: list[Tensor]
    histograms: Tensor | None = None

    @property
    def branching(self) -> int:
        """Children of a node."""
        return len(self.templates[1])

    def mutations(self, level: int) -> Tensor:
        """alpha of each node of a level from 1 on, (M, D)."""
        return self.templates[level] - self.templates[level - 1].repeat_interleave(self.branching, 0)

    def route(self, x: Tensor) -> Tensor:
        """The leaf of each row of x (N, D), by one choice per level: the filter <mu, x> - |mu|^2 / 2 on the node's
        view.
        """
        node = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for level, view in enumerate(self.views):
            node = node * self.branching + choose_child(
                x, node, self.templates[level + 1], view, self.branching
            )
        return node

    def nearest(self, x: Tensor) -> Tensor:
        """The leaf with the largest <mu, x> - |mu|^2 / 2 of all of them: exhaustive inference."""
        leaves = self.templates[-1]
        return (x @ leaves.t() - leaves.square().sum(1) / 2).argmax(1)

    def posterior(self, x: Tensor) -> Tensor:
        """Shares of the classes in each row's leaf, (N, classes)."""
        if self.histograms is None:
            raise ValueError("a tree made without labels has no classes")
        return self.histograms[self.route(x)]

    def sample(self, n: int, sigma: float, generator: torch.Generator | None = None) -> Tensor:
        """n draws: a leaf with equal chances, noise of standard deviation sigma; (n, D)."""
        leaves = self.templates[-1]
        chosen = leaves[torch.randint(len(leaves), (n,), generator=generator).to(leaves.device)]
        return chosen + sigma * torch.randn(chosen.shape, generator=generator, dtype=chosen.dtype).to(chosen)


def choose_child(x: Tensor, node: Tensor, below: Tensor, view: Tensor, branching: int) -> Tensor:
    """Which child (0, 1, ...) of its node each row goes to."""
    choice = torch.zeros_like(node)
    for i in torch.unique(node).tolist():
        mine = node == i
        seen = view[i] != 0
        children = below[i * branching : (i + 1) * branching][:, seen]
        choice[mine] = (x[mine][:, seen] @ children.t() - children.square().sum(1) / 2).argmax(1)
    return choice


def grow(
    x: Tensor,
    labels: Tensor | None = None,
    classes: int = 0,
    depth: int = 6,
    branching: int = 2,
    share: float = 1.0,
    rounds: int = 10,
    generator: torch.Generator | None = None,
) -> EvolutionaryTree:
    """A tree by hard EM, from the root down: k-means among the examples of each node, one mutation per cluster.

    share: of the values that a node looks at, drawn anew in each node. labels (N,) fill the leaves'
    histograms, with one example's worth of all labels' shares added, so that none is empty. x may lie on any
    device, where the tree then is; draws are made in main memory, by the generator.
    """
    templates, views = [x.mean(0, keepdim=True)], []
    node = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for level in range(depth):
        count = branching**level
        view = (
            torch.rand((count, x.shape[1]), generator=generator) < share
            if share < 1
            else torch.ones(count, x.shape[1])
        )
        view = view.to(x)
        below = templates[-1].repeat_interleave(branching, 0).clone()
        for i in torch.unique(node).tolist():
            mine = x[node == i]
            below[i * branching : (i + 1) * branching] = cluster(
                mine, templates[-1][i], view[i] != 0, branching, rounds, generator
            )
        templates.append(below)
        views.append(view)
        node = node * branching + choose_child(x, node, below, view, branching)
    histograms = None
    if labels is not None:
        labels = labels.to(x.device)
        counts = torch.zeros(branching**depth, classes, device=x.device).index_put_(
            (node, labels.long()), torch.ones(len(x), device=x.device), accumulate=True
        )
        counts += torch.bincount(labels.long(), minlength=classes) / len(x)
        histograms = counts / counts.sum(1, keepdim=True)
    return EvolutionaryTree(templates, views, histograms)


def cluster(
    x: Tensor, parent: Tensor, seen: Tensor, k: int, rounds: int, generator: torch.Generator | None
) -> Tensor:
    """k means (k, D) of the rows, clustered by the values seen; a cluster that stays empty is the parent's template."""
    start = [int(torch.randint(len(x), (), generator=generator))]
    gaps = (x[:, seen] - x[start[0], seen]).square().sum(1)
    while len(start) < min(k, len(x)) and float(gaps.sum()) > 0:  # k-means++
        start.append(int(torch.multinomial(gaps.cpu(), 1, generator=generator)))
        gaps = torch.minimum(gaps, (x[:, seen] - x[start[-1], seen]).square().sum(1))
    means = x[start]
    for _ in range(rounds):
        part = means[:, seen]
        chosen = (x[:, seen] @ part.t() - part.square().sum(1) / 2).argmax(1)
        counts = torch.bincount(chosen, minlength=len(means)).to(x.dtype)[:, None]
        sums = torch.zeros_like(means).index_add_(0, chosen, x)
        fresh = torch.where(counts > 0, sums / counts.clamp(min=1), means)
        if torch.equal(fresh, means):
            break
        means = fresh
    return torch.cat((means, parent.expand(k - len(means), -1)))


class Forest:
    """Trees that saw different examples (bootstrap) and, in each node, different values; posteriors are averaged."""

    def __init__(self, trees: Sequence[EvolutionaryTree]):
        self.trees = list(trees)

    @classmethod
    def grow(
        cls,
        x: Tensor,
        labels: Tensor,
        classes: int,
        trees: int = 20,
        depth: int = 8,
        branching: int = 2,
        share: float = 0.3,
        generator: torch.Generator | None = None,
    ) -> Forest:
        """A forest of `trees` trees."""
        grown = []
        for _ in range(trees):
            bag = torch.randint(len(x), (len(x),), generator=generator).to(x.device)
            grown.append(grow(x[bag], labels[bag], classes, depth, branching, share, generator=generator))
        return cls(grown)

    def posterior(self, x: Tensor) -> Tensor:
        """Mean of the trees' class shares, (N, classes)."""
        return torch.stack([tree.posterior(x) for tree in self.trees]).mean(0)


class ClassTrees:
    """A tree for each class, whose root is the class's ancestor: argmax over c of max over g, greedy within a tree."""

    def __init__(self, trees: Sequence[EvolutionaryTree]):
        self.trees = list(trees)

    @classmethod
    def grow(
        cls, x: Tensor, labels: Tensor, classes: int, depth: int = 6, generator: torch.Generator | None = None
    ) -> ClassTrees:
        """One tree per class, from the class's own examples."""
        return cls([grow(x[labels == c], depth=depth, generator=generator) for c in range(classes)])

    def scores(self, x: Tensor) -> Tensor:
        """<mu, x> - |mu|^2 / 2 of the leaf that each class's tree finds, (N, classes)."""
        per_class = []
        for tree in self.trees:
            leaf = tree.templates[-1][tree.route(x)]
            per_class.append((leaf * x).sum(1) - leaf.square().sum(1) / 2)
        return torch.stack(per_class, 1)
