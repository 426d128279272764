"""Pictures of the latent variables of a trained model: one latent tree, and what the neurons of a level stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec import draw
from netspec.data.files.idx import Array
from netspec.errors import NetspecError, did_you_mean
from netspec.layers.simnets.mex import MEX
from netspec.model.model import Model
from netspec.model.pages import GREY, Page, check_classes
from netspec.queries import most_probable, sampling


def latent_blobs(trained: Model) -> dict[str, int]:
    """Blobs whose states are latent variables of their own, by name from the leaf up: numbers as `Tree.up` counts.

    A blob below a SUM pooling only repeats the states of its parents, and is left out.
    """
    tree = trained.tree
    names = {tree.names[i]: i for i, layer in enumerate(tree.inner) if isinstance(layer, MEX)}
    return {**names, tree.names[-1]: len(tree.inner)}


def fields(trained: Model) -> list[tuple[int, int]]:
    """(height, width) in pixels of the patch behind one state, blob by blob as `Tree.up` counts."""
    tree = trained.tree
    above, below, left, right = tree.leaf.margins()
    h, w = tree.grid
    _, rows, columns = trained.image_shape
    sizes = [((above + rows + below) // h, (left + columns + right) // w)]
    for layer in tree.inner:
        down, across = layer.cells()
        sizes.append((sizes[-1][0] * down, sizes[-1][1] * across))
    return sizes


def cut(trained: Model, pixels: Array, grid: tuple[int, int], field: tuple[int, int]) -> Array:
    """The receptive fields (N, h, w, C, ph, pw) of a level with `grid` positions, NaN beyond the image."""
    above, _, left, _ = trained.tree.leaf.margins()
    n, c, rows, columns = pixels.shape
    (h, w), (down, across) = grid, field
    frame = np.full((n, c, h * down, w * across), np.nan, np.float32)
    frame[:, :, above : above + rows, left : left + columns] = pixels
    cells = frame.reshape(n, c, h, down, w, across)
    parts: Array = cells.transpose(0, 2, 4, 1, 3, 5)
    return parts


def tree_page(
    trained: Model,
    path: str | Path,
    pixels: Array | None = None,
    y: int | None = None,
    seed: int = 1,
    page: Page = None,
) -> Path:
    """One latent tree: of a sample of class y, or the most probable one for an image (C, H, W), given y where set."""
    tree, sizes = trained.tree, fields(trained)
    check_classes(trained, [] if y is None else [y])
    classes = None if y is None else torch.tensor([y], device=trained.device)
    empty = torch.full((1, *trained.image_shape), torch.nan, device=trained.device)
    with torch.no_grad():
        if pixels is None:
            states = sampling.sample_states(tree, empty, classes, trained.generator(seed))
            title = "a sample"
        else:
            states, _ = most_probable.most_probable_states(tree, trained.from_pixels(pixels[None]), classes)
            title = "the most probable tree of an image"
        image = trained.to_pixels(tree.leaf.mean_image(tree.one_hot(states[0])))
    levels = []
    for name, i in reversed(latent_blobs(trained).items()):
        grid = (states[i].shape[1], states[i].shape[2])
        extent = (sizes[-1][0] // sizes[i][0], sizes[-1][1] // sizes[i][1])
        patches = cut(trained, image, grid, sizes[i])[0]
        levels.append(draw.Level(name, states[i][0].cpu().numpy(), patches, extent))
    return draw.tree(levels, path, title=f"{title}, class {int(states[-1])}", limits=GREY, page=page)


def neurons_page(
    trained: Model,
    path: str | Path,
    level: str | None = None,
    count: int = 16,
    kind: str = "sample",
    seed: int = 1,
    page: Page = None,
) -> Path:
    """What the states of a level stand for, laid out by position (Sharir et al. 2018, Fig. 6).

    level: name of its blob, default the one below the classes. count: states shown at each position, spread evenly.
    kind: "sample" (a draw below the state, component means as pixels), "mean" (of 32 draws), "most_probable".
    """
    blobs = latent_blobs(trained)
    name = list(blobs)[max(len(blobs) - 2, 0)] if level is None else level
    if name not in blobs:
        raise NetspecError(
            f"no level is called {name!r}" + did_you_mean(name, blobs, f"there are {', '.join(blobs)}")
        )
    kinds = ("sample", "mean", "most_probable")
    if kind not in kinds:
        raise NetspecError(f"kind {kind!r} is none of {', '.join(kinds)}")
    shape = trained.tree.up(torch.full((1, *trained.image_shape), torch.nan, device=trained.device))[
        blobs[name]
    ].shape
    chosen = torch.linspace(0, shape[1] - 1, min(count, shape[1])).round().long()
    states = chosen.to(trained.device).view(-1, 1, 1).expand(-1, *shape[2:])
    pixels = trained.to_pixels(states_below(trained, blobs[name], states, kind, seed))
    patches = cut(trained, pixels, (shape[2], shape[3]), fields(trained)[blobs[name]]).transpose(
        1, 2, 0, 3, 4, 5
    )
    numbers = np.broadcast_to(chosen.numpy(), patches.shape[:3])
    title = f"{name}: {len(chosen)} of {shape[1]} states at each position"
    return draw.neurons(
        patches,
        path,
        states=numbers if shape[2] * shape[3] <= 4 else None,
        title=title,
        limits=GREY,
        page=page,
    )


def states_below(trained: Model, level: int, states: Tensor, kind: str, seed: int) -> Tensor:
    """Images (B, C, H, W) that given states (B, h, w) of blob `level` stand for."""
    tree, generator = trained.tree, trained.generator(seed)
    with torch.no_grad():
        if kind == "most_probable":
            empty = torch.full((len(states), *trained.image_shape), torch.nan, device=trained.device)
            leaves = tree.down(tree.up_max(empty), states, most_probable.argmax, level)[0]
            return tree.leaf.mean_image(tree.one_hot(leaves))
        draws = 32 if kind == "mean" else 1
        images = [sampling.sample_from(tree, level, states, generator, noise=False) for _ in range(draws)]
        return torch.stack(images).mean(0)
