"""Pictures of latent trees and of a model's answers: everything given is on the page, at its place."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from netspec import draw
from netspec.draw import answers, latent
from netspec.draw.scene import Curve, Image, Scene, Text
from netspec.draw.text import width


def level(name: str, n: int, first: int = 0, pixels: int = 2) -> draw.Level:
    states = torch.arange(first, first + n * n).reshape(n, n)
    return draw.Level(name, states, torch.rand(n, n, 1, pixels, pixels))


def capture(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[Scene]:
    scenes: list[Scene] = []
    monkeypatch.setattr(module, "save", lambda scene, path, page=None: scenes.append(scene))
    return scenes


def texts(scene: Scene) -> list[str]:
    return [item.text for item in scene.items if isinstance(item, Text)]


def inside(scene: Scene) -> bool:
    spans = []
    for item in scene.items:
        if isinstance(item, Text):
            w = width(item.text, item.size, item.bold)
            left = {"start": item.x, "end": item.x - w, "middle": item.x - w / 2}[item.anchor]
            spans.append((left, left + w, item.y - item.size / 2, item.y + item.size / 2))
        elif isinstance(item, Image):
            xs = [item.x, item.x + item.across[0], item.x + item.down[0]]
            spans.append((min(xs), max(xs), item.y, item.y + item.down[1]))
    return all(a >= 0 and b <= scene.width and c >= 0 and d <= scene.height for a, b, c, d in spans)


def test_every_node_is_drawn_with_its_state_and_a_link_to_its_parent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scenes = capture(monkeypatch, latent)
    draw.tree([level("top", 1), level("middle", 2, 10), level("leaf", 4, 100)], tmp_path / "t.svg", title="x")
    (scene,) = scenes
    assert sum(isinstance(item, Image) for item in scene.items) == 1 + 4 + 16
    assert {"0", *map(str, range(10, 14)), *map(str, range(100, 116))} <= set(texts(scene))
    links = [item for item in scene.items if isinstance(item, Curve) and item.colour == latent._LINK]
    assert len(links) == 4 + 16
    assert inside(scene)


def test_children_are_the_nodes_that_cover_the_same_part_of_the_image() -> None:
    children = latent._children((2, 2), (4, 6))
    assert children[0, 1] == [(0, 3), (0, 4), (0, 5), (1, 3), (1, 4), (1, 5)]
    assert Counter(map(len, children.values())) == {6: 4}


def test_patches_keep_their_order_and_do_not_overlap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scenes = capture(monkeypatch, latent)
    draw.tree([level("leaf", 4)], tmp_path / "t.svg")
    images = [item for item in scenes[0].items if isinstance(item, Image)]
    for row in np.array(range(16)).reshape(4, 4):
        for a, b in pairwise(row):
            assert images[a].x + images[a].across[0] < images[b].x
    for a, b in zip(range(12), range(4, 16), strict=True):
        assert images[a].y + images[a].down[1] < images[b].y


def test_a_crowd_of_children_is_linked_by_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scenes = capture(monkeypatch, latent)
    draw.tree([level("a", 8), level("b", 16)], tmp_path / "t.svg")
    links = [item for item in scenes[0].items if isinstance(item, Curve) and item.colour == latent._LINK]
    assert len(links) == 2 * 64


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_pictures_in_every_format(tmp_path: Path, suffix: str) -> None:
    x = torch.rand(2, 1, 4, 4)
    x[0, :, 1] = nan
    heat = torch.randn(2, 3, 2, 2)
    heat[0, 0, 0, 0] = nan
    paths = [
        draw.tree([level("top", 1), level("leaf", 2)], tmp_path / f"t.{suffix}", page=(4.0, 4.0)),
        draw.neurons(torch.rand(2, 2, 3, 1, 4, 4), tmp_path / f"n.{suffix}"),
        draw.completion(tmp_path / f"c.{suffix}", x, expected=x.nan_to_num(), deviation=x.isnan().float()),
        draw.explain(tmp_path / f"e.{suffix}", x, heat),
    ]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_neurons_stand_in_the_area_of_their_position(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scenes = capture(monkeypatch, latent)
    pictures = torch.linspace(0, 1, 12).reshape(2, 2, 3, 1, 1, 1).expand(2, 2, 3, 1, 5, 4)
    states = torch.arange(12).reshape(2, 2, 3)
    draw.neurons(pictures, tmp_path / "n.svg", states=states, columns=2, title="level 3")
    scene = scenes[0]
    images = [item for item in scene.items if isinstance(item, Image)]
    middle = scene.width / 2
    assert [image.x > middle for image in images] == [False] * 3 + [True] * 3 + [False] * 3 + [True] * 3
    assert [int(image.pixels[0, 0, 0]) for image in images] == [round(k / 11 * 255) for k in range(12)]
    assert set(map(str, range(12))) <= set(texts(scene))
    assert inside(scene)


def test_completion_shows_what_is_given_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scenes = capture(monkeypatch, answers)
    x = torch.rand(3, 1, 4, 4)
    seen = torch.where(torch.rand(3, 1, 4, 4) < 0.5, nan, x)
    draw.completion(
        tmp_path / "c.png",
        seen,
        original=x,
        expected=x,
        deviation=0.25 * torch.ones_like(x),
        samples=torch.stack([x, x], 1),
        most_probable=x,
        row_labels=["a", "b", "c"],
    )
    shown = " ".join(texts(scenes[0]))
    words = [
        "original",
        "observed",
        "expected",
        "deviation,",
        "sample",
        "1",
        "sample",
        "2",
        "most",
        "probable",
    ]
    assert [word for word in shown.split() if word in words] == words
    assert "0.25" in shown
    assert "missing" in shown
    assert sum(isinstance(item, Image) for item in scenes[0].items) == 3 * 7
    assert inside(scenes[0])


def test_heat_maps_share_one_symmetric_scale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scenes = capture(monkeypatch, answers)
    heat = np.zeros((1, 2, 2, 2))
    heat[0, 0, 0, 0], heat[0, 1, 1, 1] = -2.5, 1.25
    draw.explain(tmp_path / "e.png", np.zeros((1, 1, 4, 4)), heat, column_labels=["for 3", "for 8"])
    (scene,) = scenes
    assert {"-2.5", "0", "+2.5 nats"} <= set(texts(scene))
    panels = [item.pixels for item in scene.items if isinstance(item, Image)]
    image, first, second, bar = panels
    assert image.shape == first.shape == second.shape == (4, 4, 3)
    blue, white = bar[0, 0], bar[0, 50]
    assert (first[:2, :2] == blue).all()
    assert (first[2:] == white).all()
    assert 255 > second[3, 3, 0] > second[3, 3, 2] > bar[0, -1, 2]
    assert inside(scene)


def bad() -> list[tuple[str, Any]]:
    x = np.zeros((2, 1, 4, 4))
    plane: npt.NDArray[np.float64] = np.zeros((2, 2, 1, 2, 2))
    return [
        ("at least one level", lambda p: draw.tree([], p)),
        ("states must be", lambda p: draw.tree([draw.Level("l", np.zeros((2, 3)), plane)], p)),
        ("pictures must have shape", lambda p: draw.neurons(plane, p)),
        (
            "states must have shape",
            lambda p: draw.neurons(np.zeros((1, 1, 2, 1, 2, 2)), p, states=np.zeros((1, 1, 3))),
        ),
        ("expected must have the shape", lambda p: draw.completion(p, x, expected=x[:1])),
        ("samples must have shape", lambda p: draw.completion(p, x, samples=x)),
        ("1 row labels given for 2", lambda p: draw.completion(p, x, row_labels=["a"])),
        ("heat must have shape", lambda p: draw.explain(p, x, np.zeros((3, 2, 2)))),
        (
            "column labels given for 1",
            lambda p: draw.explain(p, x, np.zeros((2, 2, 2)), column_labels=["a", "b"]),
        ),
    ]


@pytest.mark.parametrize("case", range(len(bad())))
def test_wrong_shapes_and_counts_are_told(case: int, tmp_path: Path) -> None:
    message, call = bad()[case]
    with pytest.raises(draw.DrawError, match=message):
        call(tmp_path / "x.png")
