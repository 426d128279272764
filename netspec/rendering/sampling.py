"""Images drawn from a rendering model: classes, switches and templates, rendered down to pixels.

Switches drawn independently by their frequencies give blurry images; switches taken from one training image at a time
(a bank) stay consistent with each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from netspec.rendering.levels import Level, RenderingModel, Switches


@dataclass
class Frequencies:
    """Frequencies of the switches over some images, as RenderStats keeps them during training.

    `on` and `won` hold for each level the shares (C, H, W) of a = 1 and of being a window's maximum (None
    where nothing is pooled).
    """

    on: list[Tensor] = field(default_factory=list)
    won: list[Tensor | None] = field(default_factory=list)
    classes: Tensor | None = None
    """Shares of the classes that won, (K,)."""


@torch.no_grad()
def frequencies(model: RenderingModel, batches: Iterable[Tensor]) -> Frequencies:
    """Shares over all images of the batches (N, C, H, W)."""
    total, shares = 0, Frequencies()
    for x in batches:
        messages, switches = model.up(x)
        c = model.scores(messages[-1])
        sums = [(s.a.sum(0), won_places(s)) for s in switches]
        tally = torch.bincount(c.argmax(1), minlength=c.shape[1]).to(x.dtype)
        if not total:
            shares.on, shares.won, shares.classes = [a for a, _ in sums], [t for _, t in sums], tally
        else:
            shares.on = [old + a for old, (a, _) in zip(shares.on, sums, strict=True)]
            shares.won = [
                old if old is None or t is None else old + t
                for old, (_, t) in zip(shares.won, sums, strict=True)
            ]
            shares.classes = tally if shares.classes is None else shares.classes + tally
        total += len(x)
    if not total:
        raise ValueError("no images to count switches of")
    shares.on = [a / total for a in shares.on]
    shares.won = [None if t is None else t / total for t in shares.won]
    shares.classes = None if shares.classes is None else shares.classes / total
    return shares


def won_places(switches: Switches) -> Tensor | None:
    """How many images had their maximum at each place, (C, H, W)."""
    a, t = switches
    if t is None:
        return None
    places = torch.zeros_like(a).flatten(2).scatter(2, t.flatten(2), 1.0).view_as(a)
    return places.sum(0)


def draw_switches(
    model: RenderingModel, shares: Frequencies, n: int, generator: torch.Generator | None = None
) -> list[Switches]:
    """Switches of n images, each drawn by itself: t in its window, a at its place."""
    drawn = []
    for level, on, won in zip(model.levels, shares.on, shares.won, strict=True):
        a = (torch.rand((n, *on.shape), generator=generator, dtype=on.dtype) < on.cpu()).to(on)
        drawn.append(Switches(a, None if won is None else draw_places(level, won, n, generator)))
    return drawn


def draw_places(level: Level, won: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """t (n, C, h, w), places drawn by their shares within each window (by the Gumbel-max trick)."""
    if level.pool is None:
        raise ValueError("a level without pooling has no places to draw")
    uniform = torch.rand((n, *won.shape), generator=generator, dtype=won.dtype)
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-30, 1 - 1e-7))).to(won)
    frame = level.pool.frame
    logs = won.clamp(min=1e-12).log() + gumbel
    return max_pool2d(logs, frame.kernel, frame.stride, ceil_mode=frame.ceil, return_indices=True)[1]


@torch.no_grad()
def sample(
    model: RenderingModel,
    c: Tensor,
    switches: list[Switches],
    top: Tensor | None = None,
    sigma: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images (N, C, H, W) of classes c (N,) under the given switches; `top` (N, C, h, w) in place of templates."""
    if top is None:
        level, (a, t) = model.levels[-1], switches[-1]
        shape = t.shape if t is not None else (a.shape if level.pool is None else (*a.shape[:2], 1, 1))
        top = model.template(c, shape)
    image = model.down(top, switches)[0]
    if sigma:
        image = image + sigma * torch.randn(image.shape, generator=generator, dtype=image.dtype).to(image)
    return image


class Bank:
    """Switches and top messages of known images, to draw from by class."""

    @torch.no_grad()
    def __init__(self, model: RenderingModel, x: Tensor, labels: Tensor | None = None):
        messages, self.switches = model.up(x)
        self.model, self.top = model, messages[-1]
        self.labels = model.scores(self.top).argmax(1) if labels is None else labels.long()

    def draw(self, c: Tensor, generator: torch.Generator | None = None) -> tuple[list[Switches], Tensor]:
        """(switches, top messages) of a random image of each class in c (N,)."""
        chosen = []
        for kind in c.tolist():
            mine = (self.labels == kind).nonzero().flatten()
            if not len(mine):
                raise ValueError(f"the bank has no image of class {kind}")
            chosen.append(mine[torch.randint(len(mine), (), generator=generator)])
        rows = torch.stack(chosen)
        taken = [Switches(a[rows], None if t is None else t[rows]) for a, t in self.switches]
        return taken, self.top[rows]

    def sample(self, c: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images of classes c (N,): the class's template, or the image's own factors, under its switches."""
        switches, top = self.draw(c, generator)
        return sample(self.model, c, switches, None if self.model.by_class else top)
