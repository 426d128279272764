"""Hard EM for rendering models (Patel et al. 2016, algorithm 1): training without a derivative.

E-step: bottom-up for class and switches, top-down for templates. M-step: each level on its own, filters by
least squares from what it should render (the message below) on what renders it (its template at its
switches). Messages of matched filters count overlapping filters several times; so filters have norm 1 and
every image its own scale, <I_hat, I> / |I_hat|^2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import unfold

from netspec.rendering.least_squares import Gram
from netspec.rendering.levels import Level, RenderingModel, best_scale, relative_error, unexplained

Batch = tuple[Tensor, Tensor | None]
"""Images (N, C, H, W), and labels (N,) with NaN where there is none."""
FAINT = 0.3
"""Patches with less than this share of the mean norm are not used for filters."""


@dataclass
class Report:
    """Report on one iteration: the E-step's figures with the old filters, and the M-step's effect."""

    error: float
    """Mean of |I - s I_hat|^2 / |I|^2, s the best scale of each image."""
    before: list[float]
    """Objective of each level's least squares at the old filters, as a share of the targets' square."""
    after: list[float]
    """The same at the new ones, before they are normalised."""
    variance: float
    """sigma^2: mean square of what the lowest level leaves."""
    accuracy: float
    """Share of the labelled images whose winning class is the label; NaN without labels."""
    reseeded: int
    """Number of filters that were replaced."""


class HardEM:
    """The algorithm over a model; `param` is a HardEMParameter.

    Changes the model's filters, class templates and biases (0 for filters, -|mu_c|^2 / 2 for classes, which
    makes the class scores those of a Gaussian mixture), and the net's variance where it has one. Raises
    SpecError for nets with normalisation layers.
    """

    def __init__(self, model: RenderingModel, param: Any, generator: torch.Generator):
        self.model, self.param, self.generator = model, param, generator
        for level in model.levels:
            if level.after:
                level.after[0].fail("hard EM has no M-step for normalisation; leave the layer out")

    @torch.no_grad()
    def initialise(self, batches: Iterable[Batch]) -> None:
        """Filters by k-means on patches, level by level; templates by class means."""
        kept = list(batches)
        per_batch = max(1, self.param.patches // max(1, len(kept)))
        for number, level in enumerate(self.model.levels):
            patches = [self.patches(level, self.model.up(x)[0][number], per_batch) for x, _ in kept]
            centres = spherical_k_means(
                torch.cat(patches), level.weight.shape[0], self.param.rounds, self.generator
            )
            self.set_filters(level, centres.view(level.weight.shape))
        classes = ClassMeans(self.model)
        for x, labels in kept:
            classes.add(self.model.up(x)[0][-1], labels, None)
        self.set_classes(classes)
        self.fit_variance(kept)

    def patches(self, level: Level, below: Tensor, count: int) -> Tensor:
        """About `count` random patches of the level's size, flat; faint ones are left out."""
        cells = unfold(below, tuple(level.weight.shape[2:])).transpose(1, 2).flatten(0, 1)
        chosen = torch.randint(len(cells), (4 * count,), generator=self.generator)
        cells_chosen = cells[chosen]
        norms = cells_chosen.norm(dim=1)
        return cells_chosen[norms > FAINT * norms[norms > 0].mean()][:count]

    @torch.no_grad()
    def step(self, batches: Iterable[Batch]) -> Report:
        """One E-step over the batches, one M-step."""
        levels = self.model.levels
        grams = [gram_of(level) for level in levels]
        worst: list[list[tuple[float, Tensor]]] = [[] for _ in levels]
        classes, errors, hits = ClassMeans(self.model), [], []
        scales: list[list[Tensor]] = [[] for _ in levels]
        for x, labels in batches:
            messages, switches, z = self.model.infer(x, known(labels))
            for i, level in enumerate(levels):
                h = level.spread(z[i + 1], switches[i])
                rendered = level.transposed(h)
                scale = best_scale(rendered, messages[i])
                grams[i].add(h * scale, messages[i])
                scales[i].append(scale.flatten())
                self.remember(worst[i], level, messages[i] - scale * rendered)
            errors.append(unexplained(z[0], x))
            winners = self.model.scores(messages[-1]).argmax(1)
            if labels is not None:
                hits.append((winners == labels)[~labels.isnan()].float())
            classes.add(messages[-1], labels, winners)
        before = [
            gram.objective(level.weight) / gram.square for gram, level in zip(grams, levels, strict=True)
        ]
        solved = [gram.solve(self.param.ridge) for gram in grams]
        after = [gram.objective(filters) / gram.square for gram, filters in zip(grams, solved, strict=True)]
        variance = grams[0].objective(solved[0]) / grams[0].count
        reseeded = 0
        for level, gram, new, patches, level_scales in zip(levels, grams, solved, worst, scales, strict=True):
            filters = new * float(torch.cat(level_scales).mean())
            reseeded += self.reseed(filters, gram, patches)
            self.set_filters(level, filters)
        self.set_classes(classes)
        if self.model.variance is not None:
            self.model.variance.fill_(1.0)  # an M-step's filters are templates, of an image's own size
        hit = torch.cat(hits) if hits else torch.empty(0)
        return Report(
            float(torch.cat(errors).mean()), before, after, variance, float(hit.mean()) if len(hit) else float("nan"),
            reseeded,
        )  # fmt: skip

    @torch.no_grad()
    def fit_classes(self, batches: Iterable[Batch]) -> None:
        """Class templates for the filters as they are (a step's templates are of the filters before it)."""
        classes = ClassMeans(self.model)
        for x, labels in batches:
            top = self.model.up(x)[0][-1]
            classes.add(top, labels, self.model.scores(top).argmax(1))
        self.set_classes(classes)

    @torch.no_grad()
    def fit_variance(self, batches: Iterable[Batch]) -> None:
        """The one factor that brings all rendered images closest to the images, into the net's variance."""
        if self.model.variance is None:
            return
        dot = square = 0.0
        for x, labels in batches:
            image = self.model.reconstruct(x, known(labels))
            dot += float((image * x).sum(dtype=torch.float64))
            square += float(image.square().sum(dtype=torch.float64))
        if square > 0:
            self.model.variance.fill_(dot / square)

    @torch.no_grad()
    def error(self, batches: Iterable[Batch]) -> float:
        """The reconstruction error alone."""
        per_image = [relative_error(self.model, x, c=known(labels)) for x, labels in batches]
        return float(torch.cat(per_image).mean())

    def remember(self, worst: list[tuple[float, Tensor]], level: Level, rest: Tensor) -> None:
        """Keep the patch with most of what was not rendered, of a batch's worst image."""
        cells = unfold(rest, tuple(level.weight.shape[2:]))
        energy = cells.square().sum(1)
        image = int(energy.amax(1).argmax())
        place = int(energy[image].argmax())
        worst.append((float(energy[image, place]), cells[image, :, place].clone()))
        worst.sort(key=lambda pair: -pair[0])
        del worst[level.weight.shape[0] :]

    def reseed(self, filters: Tensor, gram: Gram, worst: list[tuple[float, Tensor]]) -> int:
        """Replace filters that hardly render by the remembered patches; gives how many."""
        dead = (gram.usage < self.param.dead * gram.usage.mean()).nonzero().flatten().tolist()
        for k, (_, patch) in zip(dead, worst, strict=False):
            filters[k] = patch.view(filters[k].shape)
        return min(len(dead), len(worst))

    def set_filters(self, level: Level, filters: Tensor) -> None:
        """The level's new filters, each with the geometric mean of its old norm and its new one; no bias.

        A response passes a filter twice, up and down: with old norm m, least squares asks for norm n on the way down,
        together m n.
        """
        filters = filters.to(level.weight.device)  # an M-step is solved in main memory
        norm, old = (
            w.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1) for w in (filters, level.weight)
        )
        level.weight.copy_(filters * (old / norm).sqrt())
        for bias in list(level.conv.blobs)[1:]:
            bias.zero_()

    def set_classes(self, classes: ClassMeans) -> None:
        """Class templates, and the biases that belong to them."""
        blobs = self.model.classes.blobs
        mu = torch.where(
            classes.count[:, None] > 0, classes.sum / classes.count.clamp(min=1)[:, None], blobs[0]
        )
        blobs[0].copy_(mu)
        if len(blobs) > 1:
            blobs[1].copy_(-mu.square().sum(1) / 2)


class ClassMeans:
    """Sums of top messages by class: of the label where there is one, else of the winner."""

    def __init__(self, model: RenderingModel):
        weight = model.classes.blob(0)
        self.sum = torch.zeros_like(weight)
        self.count = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)

    def add(self, top: Tensor, labels: Tensor | None, winners: Tensor | None) -> None:
        """Add top messages (N, C, h, w); those with neither label nor winner go to a class by turns."""
        if winners is None:
            winners = torch.arange(len(top), device=top.device) % len(self.count)
        c = winners if labels is None else torch.where(labels.isnan(), winners, labels.nan_to_num()).long()
        self.sum.index_add_(0, c, top.flatten(1))
        self.count += torch.bincount(c, minlength=len(self.count)).to(self.count.dtype)


def known(labels: Tensor | None) -> Tensor | None:
    """Labels as classes, if every image has one."""
    return None if labels is None or bool(labels.isnan().any()) else labels.long()


def gram_of(level: Level) -> Gram:
    filters, below, height, width = level.weight.shape
    return Gram(filters, below, (height, width), level.pad)


def spherical_k_means(x: Tensor, k: int, rounds: int, generator: torch.Generator) -> Tensor:
    """k centres of norm 1 (k, D) of the rows' directions; empty clusters start anew at a random row.

    With fewer rows than k the centres that are left are random directions.
    """
    rows: Tensor = x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)
    if len(rows) < k:
        more = torch.randn((k - len(rows), x.shape[1]), generator=generator, dtype=x.dtype).to(x)
        return torch.cat((rows, more / more.norm(dim=1, keepdim=True)))
    centres = rows[torch.randperm(len(rows), generator=generator)[:k]].clone()
    for _ in range(rounds):
        cluster = (rows @ centres.t()).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, cluster, rows)
        empty = torch.bincount(cluster, minlength=k) == 0
        sums[empty] = rows[torch.randint(len(rows), (int(empty.sum()),), generator=generator)]
        centres = sums / sums.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return centres
