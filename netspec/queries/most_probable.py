"""The most probable completion: max-product upwards, back-tracking downwards."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.queries.tree import Tree


def argmax(logits: Tensor) -> Tensor:
    """The `Choose` of back-tracking."""
    return logits.argmax(-1)


def most_probable_states(tree: Tree, x: Tensor, y: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
    """(states of every blob (B, h, w), leaf first; log joint (B,) in nats) of the most probable explanation of x.

    Jointly over all latent variables, the missing pixels (at their modes) and, without y, the class, whose uniform
    prior is left out of the figure.
    """
    values = tree.up_max(x)
    top = values[-1].flatten(1)
    root = top.argmax(1) if y is None else y
    states = tree.down(values, root.view(-1, 1, 1), argmax)
    return states, top.gather(1, root.view(-1, 1)).squeeze(1)


def most_probable_completion(tree: Tree, x: Tensor, y: Tensor | None = None) -> Tensor:
    """x with its missing pixels at the mode of the most probable explanation: (B, C, H, W)."""
    states, _ = most_probable_states(tree, x, y)
    return torch.where(x.isnan(), tree.leaf.mean_image(tree.one_hot(states[0])), x)
