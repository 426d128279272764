"""A latent-variable net, or one that runs backwards, behind the same questions as a tree: draws, in batches."""

from __future__ import annotations

from math import isnan, log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from netspec import draw
from netspec.errors import SpecError
from netspec.layers.latent.flow import LogisticPriorLoss
from netspec.layers.latent.sampling import Sampler
from netspec.model.model import Model
from netspec.queries import backwards, latent
from netspec.queries.backwards import Flow
from netspec.queries.latent import Latent

DRAWS = 1000
"""Draws of the latent variable behind a completion or a likelihood."""
GREY = (0.0, 255.0)

Page = tuple[float, float] | None


def find(trained: Model) -> Latent | Flow | None:
    """The model as a latent-variable net or as an invertible one; None where it is another kind of net."""
    layers = trained.net.made
    if any(isinstance(layer, Sampler) for layer in layers):
        return Latent(trained.net, 0.0 if isnan(trained.fill) else trained.fill)
    if any(isinstance(layer, LogisticPriorLoss) for layer in layers):
        return Flow(trained.net)
    return None


def seeded(trained: Model, seed: int) -> None:
    """Seed torch's generators, from which the net's own layers draw."""
    torch.manual_seed(seed)
    if trained.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def log_likelihood(trained: Model, model: Latent | Flow, x: Tensor, seed: int = 1) -> Tensor:
    """log p(observed) of each row, in nats: a lower bound from 1000 draws; for an invertible net exact, but for
    noise.
    """
    seeded(trained, seed)
    if isinstance(model, Flow):
        if bool(x.isnan().any()):
            raise SpecError(f"{trained.name}: an invertible net has no likelihood of a part of its values")
        return trained.batched(lambda part: backwards.log_likelihood(model, part), x)
    return trained.batched(lambda part: latent.bound(model, part, DRAWS), x)


def samples(trained: Model, model: Latent | Flow, rows: int, seed: int = 1, noise: bool = False) -> Tensor:
    """(rows, C, H, W): decoded draws of the prior; with `noise` drawn observations, else their means."""
    seeded(trained, seed)
    with torch.no_grad():
        if isinstance(model, Flow):
            return backwards.sample(model, rows)
        return latent.sample(model, rows, noise)


def sample_grid(
    trained: Model, model: Latent | Flow, path: str | Path, count: int, seed: int, noise: bool, page: Page
) -> Path:
    """A page of `count` samples per row and as many rows."""
    drawn = trained.to_pixels(samples(trained, model, count * count, seed, noise))
    return draw.grid(drawn, path, columns=count, limits=GREY, page=page)


def answers(trained: Model, x: Tensor, first: int = 0) -> list[dict[str, Any]]:
    """For each image its number, observed values, log p of them in nats, and bits for each (None where none is)."""
    kind = find(trained)
    if kind is None:
        raise SpecError(f"{trained.name}: no latent-variable net")
    logp, seen = log_likelihood(trained, kind, x).tolist(), (~x.isnan()).flatten(1).sum(1).tolist()
    name = "log_likelihood" if isinstance(kind, Flow) else "log_likelihood_bound"
    return [
        {"image": first + i, "observed": count, name: value, "bits_per_dimension": bits(value, count)}
        for i, (value, count) in enumerate(zip(logp, seen, strict=True))
    ]


def bits(logp: float, count: int) -> float | None:
    """Bits for each of `count` values."""
    return -logp / count / log(2) if count else None


def table(rows: list[dict[str, Any]]) -> str:
    """`answers` as lines under a head."""
    bound = "log_likelihood_bound" in rows[0]
    lines = [f"image  observed   bits  {f'log p, at least ({DRAWS} draws)' if bound else 'log p'}"]
    for row in rows:
        value = row["log_likelihood_bound" if bound else "log_likelihood"]
        rate = "" if row["bits_per_dimension"] is None else f"{row['bits_per_dimension']:.3f}"
        lines.append(f"{row['image']:>5}  {row['observed']:>8}  {rate:>5}  {value:.2f}")
    return "\n".join(lines)
