"""The most probable completion: max-product upwards, back-tracking downwards."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.queries.precision import refuse_impossible
from netspec.queries.tree import Tree


def argmax(logits: Tensor) -> Tensor:
    """The `Choose` of back-tracking."""
    return logits.argmax(-1)


def most_probable_states(tree: Tree, x: Tensor, y: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
    """(states of every blob (B, h, w), leaf first; log joint (B,) in nats) of the most probable explanation of x.

    Jointly over all latent variables, the missing pixels (at their modes) and, without y, the class, whose uniform
    prior is left out of the figure.
    """
    asked, ready = tree.ready(x)
    values = asked.up_max(ready)
    top = values[-1].flatten(1)
    refuse_impossible(top, y)
    root = top.argmax(1) if y is None else y
    states = asked.down(values, root.view(-1, 1, 1), argmax, best=True)
    return states, top.gather(1, root.view(-1, 1)).squeeze(1).to(tree.dtype)


def most_probable_completion(tree: Tree, x: Tensor, y: Tensor | None = None) -> Tensor:
    """x with its missing pixels at the mode of the most probable explanation: (B, C, H, W)."""
    states, _ = most_probable_states(tree, x, y)
    x = x.to(tree.dtype)
    return torch.where(x.isnan(), tree.leaf.mode_image(states[0]).to(x), x)
