"""Exact samples: of images, of missing pixels, of latent trees; one pass up, one pass down."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec.errors import NetspecError
from netspec.layers.tree import Choose
from netspec.queries.precision import refuse_impossible
from netspec.queries.tree import Given, Tree


def drawing(generator: torch.Generator | None) -> Choose:
    """A `Choose` that draws from the softmax of the log weights (by the Gumbel-max trick)."""

    def choose(logits: Tensor) -> Tensor:
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
        tiny = torch.finfo(logits.dtype).tiny
        return (logits - torch.log(-torch.log(uniform.clamp_min(tiny)))).argmax(-1)

    return choose


def sample_states(
    tree: Tree,
    x: Tensor,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    given: Given | None = None,
) -> list[Tensor]:
    """A draw of every latent variable given the observed pixels, classes y (B,) and known states.

    States (B, h, w) of each blob from the leaf's top to the class; the last is (B, 1, 1). NetspecError where given
    states, or states and classes, exclude one another.
    """
    tree, x = tree.ready(x)
    values = tree.up(x, given=given)
    if not given:
        refuse_impossible(values[-1].flatten(1), y)
    choose = drawing(generator)
    root = choose(values[-1].flatten(1)) if y is None else y
    if given:
        possible = values[-1].flatten(1).gather(1, root.view(-1, 1)) > -torch.inf  # false for NaN too
        if not bool(possible.all()):
            raise NetspecError("no image of these classes has the given states: they exclude one another")
    return tree.down(values, root.view(-1, 1, 1), choose)


def complete(
    tree: Tree,
    x: Tensor,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: bool = True,
    given: Given | None = None,
) -> Tensor:
    """A draw of the missing pixels given the observed ones (and classes y): (B, C, H, W), observed pixels as they are.

    Exact: class, then states downwards from p(state | parent, pixels below), then missing values from the component.
    noise: False takes the mode of the drawn component; True draws from it. given: states of latent variables that are
    known as well. NaN stays where a missing value was never observed in training.
    """
    states = sample_states(tree, x, y, generator, given)[0]
    x = x.to(tree.dtype)
    return torch.where(x.isnan(), pixels(tree, states, generator, noise), x)


def pixels(tree: Tree, states: Tensor, generator: torch.Generator | None, noise: bool) -> Tensor:
    """Pixel values (B, C, H, W) of chosen components, states (B, h, w)."""
    leaf = tree.leaf
    return (leaf.sample_image(states, generator) if noise else leaf.mode_image(states)).to(tree.dtype)


def sample(
    tree: Tree,
    y: Tensor,
    generator: torch.Generator | None = None,
    noise: bool = True,
    given: Given | None = None,
) -> Tensor:
    """Samples (B, C, H, W) of the classes y (B,): the completion of wholly missing images.

    given: known states of latent variables, on which the images are conditioned.
    """
    empty = torch.full((len(y), *tree.image_shape), torch.nan, device=y.device, dtype=tree.dtype)
    return complete(tree, empty, y, generator, noise, given)


def sample_from(
    tree: Tree, level: int, states: Tensor, generator: torch.Generator | None = None, noise: bool = True
) -> Tensor:
    """Samples (B, C, H, W) given the states (B, h, w) of blob number `level`, as `Tree.up` numbers them."""
    empty = torch.full((len(states), *tree.image_shape), torch.nan, device=states.device,
                       dtype=tree.dtype)  # fmt: skip
    leaves = tree.down(tree.up(empty), states, drawing(generator), level)[0]
    return pixels(tree, leaves, generator, noise)
