"""What a trained net puts in place of missing values, whatever kind of net it is; one interface for all of them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from netspec.errors import DataError, did_you_mean
from netspec.layers.latent.diffusion import DiffusionReverse
from netspec.model import latents
from netspec.model.model import Model
from netspec.queries import backwards, diffusion, latent
from netspec.queries.backwards import Flow
from netspec.queries.diffusion import Diffusion
from netspec.queries.latent import Latent

AT_ONCE = 10
"""Rows that a latent-variable net completes at a time."""


class Completer(Protocol):
    """Completes rows x (N, C, H, W), NaN where missing; what is observed stays as it is."""

    ways: tuple[str, ...]
    """How it can complete; the first is what it does unless told otherwise."""

    def complete(self, x: Tensor, way: str, effort: int, seed: int) -> Tensor:
        """The rows completed in one of the `ways`. effort: draws, steps or passes; 0 for the usual number."""


class OfTree:
    """A latent tree: the exact mean, the most probable values, or a draw given what is observed."""

    ways: tuple[str, ...] = ("expected", "most_probable", "sampled")

    def __init__(self, trained: Model):
        self.trained = trained
        self.tree = trained.tree  # raises SpecError where the net is none

    def complete(self, x: Tensor, way: str, effort: int, seed: int) -> Tensor:
        if way == "sampled":
            return self.trained.complete(x, seed=seed)  # type: ignore[no-any-return]
        if way == "most_probable":
            return self.trained.most_probable_completion(x)  # type: ignore[no-any-return]
        return self.trained.expected_completion(x)[0]  # type: ignore[no-any-return]


class OfLatent:
    """A latent-variable net: the mean by `effort` importance-weighted draws, or one of them."""

    ways: tuple[str, ...] = ("expected", "sampled")

    def __init__(self, trained: Model, model: Latent):
        self.trained, self.model = trained, model

    def complete(self, x: Tensor, way: str, effort: int, seed: int) -> Tensor:
        draws = effort or latents.DRAWS
        parts = [self.trained.taken(x[i : i + AT_ONCE]) for i in range(0, len(x), AT_ONCE)]
        with torch.no_grad():
            if way == "sampled":
                return torch.cat([latent.complete(self.model, part, 1, draws)[0] for part in parts])
            return torch.cat([latent.expected_completion(self.model, part, draws) for part in parts])


class OfFlow:
    """An invertible net: `effort` steps of noisy ascent on the likelihood."""

    ways: tuple[str, ...] = ("sampled",)

    def __init__(self, trained: Model, model: Flow):
        self.trained, self.model = trained, model

    def complete(self, x: Tensor, way: str, effort: int, seed: int) -> Tensor:
        steps = effort or backwards.STEPS
        return self.trained.batched(lambda part: backwards.inpaint(self.model, part, steps), x)


class OfDiffusion:
    """A diffusion net, from noise to data; "renoised" gives observed values each step's noise."""

    ways: tuple[str, ...] = ("sampled", "renoised")

    def __init__(self, trained: Model, model: Diffusion):
        self.trained, self.model = trained, model

    def complete(self, x: Tensor, way: str, effort: int, seed: int) -> Tensor:
        return self.trained.batched(lambda part: diffusion.complete(self.model, part, way == "renoised"), x)


class OfNamed:
    """A net with a blob "completed": that blob, after `effort` passes over its own completion; where its data are
    binary also "sampled", missing values drawn one after the other in a random order.
    """

    def __init__(self, trained: Model):
        self.trained = trained
        binary = bool(trained.data.message.dataset_param.binarize)
        self.ways: tuple[str, ...] = ("completed", "sampled") if binary else ("completed",)

    def complete(self, x: Tensor, way: str, effort: int, seed: int) -> Tensor:
        if way == "sampled":
            return self.trained.batched(lambda part: self.one_by_one(part, effort or part[0].numel()), x)
        return self.trained.batched(lambda part: self.passed(part, effort or 1), x)

    def passed(self, x: Tensor, passes: int) -> Tensor:
        """The completion of x after `passes` passes; from the second pass on the net sees its own completion in the
        holes.
        """
        inputs = self.trained.inputs(x)
        whole = x
        for _ in range(passes):
            whole = torch.where(x.isnan(), self.trained.net(*inputs)[0].reshape(x.shape), x)
            inputs = [whole, *inputs[1:]]
        return whole

    def one_by_one(self, x: Tensor, rounds: int) -> Tensor:
        """Draw missing binary values in a random order, each given all drawn before; every round draws an equal
        share.
        """
        high = 255 * self.trained.unit
        order = torch.where(x.isnan(), torch.rand_like(x), -1.0).flatten(1).argsort(1).argsort(1)
        known = (~x.isnan()).flatten(1).sum(1, keepdim=True)
        turn = (order - known) * rounds // (x[0].numel() - known).clamp_min(1)
        turn, partly = turn.reshape(x.shape), x
        for number in range(rounds):
            now = x.isnan() & (turn == number)
            if bool(now.any()):
                p = self.passed(partly, 1) / high
                partly = torch.where(now, high * (torch.rand_like(x) < p).to(x.dtype), partly)
        return partly


def find(trained: Model) -> Completer | None:
    """How the model completes rows; None where it does not."""
    if trained.deployed.completes:
        return OfNamed(trained)
    if any(isinstance(layer, DiffusionReverse) for layer in trained.net.made):
        return OfDiffusion(trained, Diffusion(trained.net))
    model = latents.find(trained)
    if isinstance(model, Latent):
        return OfLatent(trained, model)
    if isinstance(model, Flow):
        return OfFlow(trained, model)
    return OfTree(trained) if trained.generative else None


def is_other(trained: Model) -> bool:
    """Whether the model completes rows without being a latent tree, and so has no class scores."""
    kind = find(trained)
    return kind is not None and not isinstance(kind, OfTree)


def completer(trained: Model) -> Completer:
    """How the model completes rows; SpecError that says which layer makes it no model of its data."""
    return find(trained) or OfTree(trained)


def check_way(trained: Model, way: str) -> str:
    """The way as it is, or the model's usual one for ""; DataError where the model has no such way."""
    ways = completer(trained).ways
    if way and way not in ways:
        hint = did_you_mean(way, ways, f"{trained.name} has {', '.join(ways)}")
        raise DataError(f"no completion is called {way!r}{hint}")
    return way or ways[0]


def completed(trained: Model, x: Tensor, way: str = "", effort: int = 0, seed: int = 1) -> Tensor:
    """x (N, C, H, W) in the net's units with its missing values (NaN) filled in; observed ones stay to the bit.

    way: one of the completer's, default its first. effort: draws of a latent-variable net, steps of an
    invertible one, passes of a net with a blob "completed"; 0 for the usual number. seed: of all draws.
    """
    way = check_way(trained, way)
    latents.seeded(trained, seed)
    kind = completer(trained)
    values = kind.complete(x, way, effort, seed)
    if not isinstance(kind, OfTree) and bool(values.isnan().any()):
        raise DataError(
            f"{trained.name}: what it puts in place of missing values is NaN: a layer that reads them spreads NaN; "
            "put a LearnableFill before it, or give its data layer missing { value: 0 }"
        )
    return torch.where(x.isnan(), values.to(x), x)


def samples(trained: Model, rows: int, seed: int = 1) -> Tensor:
    """(rows, C, H, W): completions of rows of which nothing is observed."""
    empty = torch.full((rows, *trained.image_shape), torch.nan, device=trained.device)
    ways = completer(trained).ways
    return completed(trained, empty, "sampled" if "sampled" in ways else "", 0, seed)
