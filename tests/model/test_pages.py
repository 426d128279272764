"""Pictures of trained models: every state's patch is the part of the image that it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netspec import draw, schema
from netspec.draw import latent
from netspec.model import latent_pages, model
from netspec.model import pages as pictures
from netspec.model.deploy import deploy
from netspec.net.make import make_net
from netspec.queries import most_probable
from netspec.schema import spec
from tests.oracle import Level, Model

ODD = Model(5, 1, 3, (Level(2, pool=2), Level(2, pool=2), Level(2, pool=2)))
"""5, 3, 2 and 1 positions: the last pooling windows of two levels stick out of the image."""


def trained(shape: Model) -> model.Model:
    deployed = deploy(spec.net(schema.parse_net(shape.text(), "model.prototxt"), "TEST"))
    return model.Model(make_net(deployed.spec, seed=1), deployed, "model")


def test_receptive_fields_where_windows_stick_out() -> None:
    ours = trained(ODD)
    assert latent_pages.fields(ours) == [(1, 1), (1, 1), (2, 2), (2, 2), (4, 4), (4, 4), (8, 8)]
    pixels = np.arange(25.0, dtype=np.float32).reshape(1, 1, 5, 5)
    cells = latent_pages.cut(ours, pixels, (3, 3), (2, 2))[0]
    assert cells.shape == (3, 3, 1, 2, 2)
    assert cells[0, 1, 0].tolist() == [[2, 3], [7, 8]]
    assert cells[0, 2, 0, :, 0].tolist() == [4, 9]
    assert np.isnan(cells[0, 2, 0, :, 1]).all()


def test_receptive_fields_start_in_the_padding() -> None:
    ours = trained(Model(3, 2, 3, (Level(2, pool=2),), pad=1))
    assert latent_pages.fields(ours)[0] == (2, 2)
    cells = latent_pages.cut(ours, np.arange(9.0, dtype=np.float32).reshape(1, 1, 3, 3), (2, 2), (2, 2))[0]
    assert np.isnan(cells[0, 0, 0, 0]).all()
    assert cells[0, 0, 0, 1, 1] == 0
    assert cells[1, 1, 0].tolist() == [[4, 5], [7, 8]]


def test_trees_and_neurons_of_odd_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, given = trained(ODD), []
    real = draw.tree
    monkeypatch.setattr(
        draw, "tree", lambda levels, *rest, **more: given.append(levels) or real(levels, *rest, **more)
    )
    assert latent_pages.tree_page(ours, tmp_path / "t.svg").stat().st_size > 1000
    assert [level.extent for level in given[0]] == [(1, 1), (2, 2), (4, 4), (8, 8)]
    for name in latent_pages.latent_blobs(ours):
        assert latent_pages.neurons_page(ours, tmp_path / "n.svg", name).stat().st_size > 1000
    assert latent._children((4, 4), (8, 8), (5, 5))[2, 2] == [(4, 4)]
    assert latent._children((4, 4), (8, 8), (5, 5))[0, 1] == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_a_net_of_leaves_alone_has_neurons(tmp_path: Path) -> None:
    """Its components are the classes; there is no level below them."""
    leaves = "\n".join(ODD.text().split("\n")[:2])
    pool = (
        'layer { name: "pool" type: "Pooling" bottom: "sim" top: "pool"'
        " pooling_param { pool: SUM global_pooling: true } }"
    )
    deployed = deploy(spec.net(schema.parse_net(leaves + pool, "model.prototxt"), "TEST"))
    ours = model.Model(make_net(deployed.spec, seed=1), deployed, "model")
    assert list(latent_pages.latent_blobs(ours)) == ["pool"]
    assert latent_pages.neurons_page(ours, tmp_path / "n.svg").exists()


def test_the_tree_of_an_image_given_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, asked = trained(ODD), []
    real = most_probable.most_probable_states

    def states(tree: Any, x: torch.Tensor, y: torch.Tensor | None = None) -> Any:
        asked.append(y)
        return real(tree, x, y)

    monkeypatch.setattr(most_probable, "most_probable_states", states)
    image = np.zeros((1, 5, 5), np.uint8)
    for y in (None, 0, 1):
        latent_pages.tree_page(ours, tmp_path / "t.svg", image, y)
        text = (tmp_path / "t.svg").read_text()
        assert y is None or f"class {y}" in text
    assert [None if y is None else y.tolist() for y in asked] == [None, [0], [1]]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_contributions_are_drawn_where_their_patches_are(size: int) -> None:
    n = -(-5 // size)
    values = torch.arange(float(n * n)).view(1, n, n)
    whole = pictures.spread(values, size, (5, 5))
    assert whole.shape == (1, 5, 5)
    for i, j in np.ndindex(5, 5):
        assert whole[0, i, j] == values[0, i // size, j // size]
