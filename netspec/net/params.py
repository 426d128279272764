"""Params: the learnable blobs of a net's layers, how they are shared, allocated, filled and frozen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from netspec.errors import Problem, SpecError
from netspec.layers.base import Layer
from netspec.net.graph import Graph
from netspec.net.tripped import at_layer


@dataclass
class Param:
    """A learnable blob and how the solver treats it; `users` are all places (layer, blob) that use it."""

    name: str
    """'<layer>/<blob index>' of its owner."""
    value: nn.Parameter
    lr_mult: float
    decay_mult: float
    min_value: float
    max_value: float
    is_logspace: bool
    regularization_types: tuple[str, ...]
    on_off_stage: str
    users: list[tuple[int, int]]


def numbered(graph: Graph) -> list[tuple[str, int]]:
    """(layer name, number) per step. The number tells layers of one name apart: 1 for the first, 2 for the second."""
    seen: Counter[str] = Counter()
    pairs = []
    for step in graph.steps:
        seen[step.layer.name] += 1
        pairs.append((step.layer.name, seen[step.layer.name]))
    return pairs


def share_by_name(
    graph: Graph, layers: Sequence[Layer], others: Mapping[tuple[str, int], Layer]
) -> list[Param]:
    """Make a Param for each blob, shared through `param { name }` and with `others`, the layers of another net by their
    key from `numbered`.

    Raises SpecError with every blob whose shape or multipliers differ from those of the one it is to share.
    """
    params: list[Param] = []
    by_key: dict[str, Param] = {}
    names = numbered(graph)
    problems: list[Problem] = []
    for i, (step, layer) in enumerate(zip(graph.steps, layers, strict=True)):
        twin = others.get(names[i])
        specs = step.layer.message.param
        if len(specs) > len(layer.blobs):
            problems.append(
                step.layer.problem(
                    f"{len(specs)} param entries for {len(layer.blobs)} blobs", "param", len(layer.blobs)
                )
            )
        for j in range(len(layer.blobs)):
            spec = specs[j] if j < len(specs) else None
            key = spec.name if spec is not None and spec.name else f"{i}/{j}"
            owner = by_key.get(key)
            if owner is not None:
                problems += _join(owner, layer, i, j, spec)
                continue
            if twin is not None and j < len(twin.blobs):
                if twin.blob_shapes[j] != layer.blob_shapes[j]:
                    problems.append(
                        step.layer.problem(
                            f"blob {j} has shape {layer.blob_shapes[j]}, "
                            f"the net it shares weights with has {twin.blob_shapes[j]}"
                        )
                    )
                    continue
                layer.blobs[j] = twin.blobs[j]
            param = _param({known.name for known in params}, layer, i, j, spec)
            by_key[key] = param
            params.append(param)
    if problems:
        raise SpecError(problems)
    return params


def _param(taken: Set[str], layer: Layer, i: int, j: int, spec: Any) -> Param:
    name = f"{layer.spec.name}/{j}"
    if name in taken:  # layers may bear equal names; later owners get a number
        name = next(n for k in range(2, len(taken) + 3) if (n := f"{layer.spec.name}#{k}/{j}") not in taken)
    written = spec is not None
    rate = spec.lr_mult if written and spec.HasField("lr_mult") else layer.blob_lr_mults[j]
    return Param(
        name=name,
        value=layer.blobs[j],
        lr_mult=0.0 if layer.spec.message.frozen else rate,
        decay_mult=spec.decay_mult if written else 1.0,
        min_value=spec.min_value if written else float("nan"),
        max_value=spec.max_value if written else float("nan"),
        is_logspace=bool(written and spec.is_logspace),
        regularization_types=tuple(spec.regularization_type) if written else (),
        on_off_stage=layer.spec.message.on_off_stage,
        users=[(i, j)],
    )


def _join(owner: Param, layer: Layer, i: int, j: int, spec: Any) -> list[Problem]:
    """Replace blob j of `layer` by the owner's; reports problems where shapes or multipliers disagree."""
    ours, theirs = layer.blob_shapes[j], tuple(owner.value.shape)
    permissive = spec.share_mode == spec.PERMISSIVE
    if ours != theirs and not (permissive and prod(ours) == prod(theirs)):
        return [
            layer.spec.problem(
                f"shares blob {j} as {spec.name!r} with {owner.name}, but has shape {ours} and not {theirs}",
                "param",
                j,
            )
        ]
    for name in ("lr_mult", "decay_mult"):
        if spec.HasField(name):
            mine, known = getattr(spec, name), getattr(owner, name)
            if mine != known and 0 not in (mine, known):
                return [
                    layer.spec.problem(
                        f"shares {spec.name!r} with {owner.name}, but {name} is {mine} here and {known} there",
                        "param",
                        j,
                        name,
                    )
                ]
            setattr(owner, name, mine or known)
    layer.blobs[j] = owner.value
    owner.users.append((i, j))
    return []


def materialise(params: Sequence[Param], layers: Sequence[Layer], seed: int | None) -> None:
    """Allocate and fill the blobs that are still on the meta device, in file order, from one CPU generator."""
    generator = torch.Generator()
    generator.manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)
    fresh: dict[int, nn.Parameter] = {}
    for layer in layers:
        own = [j for j, blob in enumerate(layer.blobs) if blob.is_meta and id(blob) not in fresh]
        for blob in layer.blobs:
            if blob.is_meta:
                fresh.setdefault(id(blob), nn.Parameter(torch.empty(blob.shape)))
        metas = list(layer.blobs)
        for j, blob in enumerate(metas):
            layer.blobs[j] = fresh.get(id(blob), blob)
        if own:
            with at_layer(layer.spec, "its blobs cannot be filled"):
                layer.fill(own, generator)
    for param in params:
        param.value = layers[param.users[0][0]].blobs[param.users[0][1]]


def freeze(params: Sequence[Param], graph: Graph) -> None:
    """Switch gradients off for parameters with lr_mult 0 and for those that reach no loss."""
    wanted = {slot for slot, _ in graph.losses}
    useful: set[int] = set()
    for i in reversed(range(len(graph.steps))):
        step = graph.steps[i]
        if wanted.intersection(step.writes) and step.kind.differentiable:
            useful.add(i)
            wanted.update(slot for slot, stop in zip(step.reads, step.stops, strict=True) if not stop)
    for param in params:
        reaches = any(i in useful for i, _ in param.users)
        forced = graph.spec.force_backward
        param.value.requires_grad_(forced or (reaches and param.lr_mult != 0))
