"""Grids of images and training curves: pixels come out as they went in, labels have room, errors are told."""

from __future__ import annotations

import json
import math
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netspec import draw
from netspec.draw import grids, pixels, plots
from netspec.draw.scene import Image, Scene, Text
from netspec.draw.text import fit, width


def read(path: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image as Pillow

    with Pillow.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


# Pixels


def test_bitmaps_are_rounded_grey_levels_and_nan_has_its_colour() -> None:
    made = pixels.bitmaps(torch.tensor([[[[0.0, 0.5], [nan, 1.0]]]]), missing="#102030")
    assert made.tolist() == [[[[0, 0, 0], [128, 128, 128]], [[16, 32, 48], [255, 255, 255]]]]


def test_values_outside_the_unit_interval_are_scaled_and_given_limits_clip() -> None:
    x = np.array([[[-1.0, 0.0, 3.0]]])
    assert pixels.value_range(x) == (-1.0, 3.0)
    assert pixels.bitmaps(x)[0, 0, :, 0].tolist() == [0, 64, 255]
    assert pixels.bitmaps(x, (0.0, 1.0))[0, 0, :, 0].tolist() == [0, 0, 255]


def test_infinities_and_constant_images_are_drawn() -> None:
    assert pixels.bitmaps(np.array([[[np.inf, -np.inf]]]))[0, 0, :, 0].tolist() == [255, 0]
    assert pixels.bitmaps(np.full((1, 2, 2), 7.0)).max() == 128
    assert pixels.bitmaps(np.full((1, 2, 2), nan)).shape == (1, 2, 2, 3)


def test_colour_images_keep_their_channels_and_bgr_turns_them() -> None:
    x = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 3, 1, 1)
    assert pixels.bitmaps(x)[0, 0, 0].tolist() == [255, 128, 0]
    assert pixels.bitmaps(x, bgr=True)[0, 0, 0].tolist() == [0, 128, 255]


def test_signed_maps_are_blue_white_and_red() -> None:
    blue, white, red, gone = pixels.diverging(np.array([-2.0, 0.0, 2.0, nan]), 2.0).tolist()
    assert blue[2] > 150 > blue[0]
    assert min(white) > 240
    assert red[0] > 150 > red[2]
    assert gone == [128, 128, 128]


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (3,), (1, 1, 0, 4), (1, 1, 1, 2, 2)])
def test_shapes_that_are_no_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(draw.DrawError, match="must have shape"):
        pixels.images(np.zeros(shape))


@pytest.mark.parametrize("code", ["red", "#12345", "#gggggg"])
def test_colours_are_checked(code: str) -> None:
    with pytest.raises(draw.DrawError, match="#rrggbb"):
        pixels.colour(code)


# Grids


def test_png_shows_every_pixel_of_every_panel(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((6, 1, 5, 4))
    path = draw.grid(x, tmp_path / "g.png", columns=3, cell=50.0)
    seen = read(path)
    side = 50 / 5 * 2  # points a pixel, at two dots a point
    gap = 2.4 * 2
    for i in range(6):
        top = grids.MARGIN * 2 + (i // 3) * (100 + gap)
        left = grids.MARGIN * 2 + (i % 3) * (80 + gap)
        for r in range(5):
            for c in range(4):
                at = seen[int(top + (r + 0.5) * side), int(left + (c + 0.5) * side)]
                assert abs(int(at[0]) - x[i, 0, r, c] * 255) <= 1


def panels(n_rows: int, n_columns: int, **more: object) -> grids.Panels:
    cell = np.zeros((8, 6, 3), dtype=np.uint8)
    return grids.Panels([[cell] * n_columns for _ in range(n_rows)], **more)  # type: ignore[arg-type]


words = st.text("abcdefgh MW", min_size=1, max_size=30)


@given(st.data(), st.integers(1, 4), st.integers(1, 5), st.floats(20, 200))
def test_no_label_leaves_the_page_or_runs_into_another(
    data: st.DataObject, r: int, c: int, cell: float
) -> None:
    made = panels(
        r,
        c,
        row_labels=data.draw(st.lists(words, min_size=r, max_size=r)),
        column_labels=data.draw(st.lists(words, min_size=c, max_size=c)),
        titles=data.draw(st.lists(st.lists(words, min_size=c, max_size=c), min_size=r, max_size=r)),
        title=data.draw(words),
        missing="#6fa8dc",
    )
    scene = grids.scene_of(made, cell)
    spans = [span(item) for item in scene.items if isinstance(item, Text) and item.text.strip()]
    images = [item for item in scene.items if isinstance(item, Image)]
    spans += [(i.x, i.x + i.across[0], i.y, i.y + i.down[1]) for i in images]
    for left, right, top, bottom in spans:
        assert left >= 0
        assert right <= scene.width + 1e-6
        assert top >= 0
        assert bottom <= scene.height + 1e-6
    for i, a in enumerate(spans):
        for b in spans[:i]:
            assert a[0] >= b[1] - 1e-6 or b[0] >= a[1] - 1e-6 or a[2] >= b[3] - 1e-6 or b[2] >= a[3] - 1e-6


def span(item: Text) -> tuple[float, float, float, float]:
    w = width(item.text, item.size, item.bold)
    left = {"start": item.x, "end": item.x - w, "middle": item.x - w / 2}[item.anchor]
    return left, left + w, item.y - 0.5 * item.size, item.y + 0.5 * item.size


@pytest.mark.parametrize("page", [(3.0, 3.0), (8.3, 11.7), (20.0, 2.0)])
def test_a_page_is_filled_and_not_exceeded(page: tuple[float, float]) -> None:
    scene: Scene = grids.scene_of(panels(3, 7, row_labels=["one", "two", "three"]), page=page)
    assert scene.width <= page[0] * 72
    assert scene.height <= page[1] * 72
    assert max(scene.width / page[0], scene.height / page[1]) > 0.9 * 72


def test_wrong_counts_and_limits_are_told(tmp_path: Path) -> None:
    x = np.zeros((5, 4, 4))
    with pytest.raises(draw.DrawError, match="do not fit"):
        draw.grid(x, tmp_path / "g.png", rows=2, columns=2)
    with pytest.raises(draw.DrawError, match="2 row labels"):
        draw.grid(x, tmp_path / "g.png", row_labels=["a", "b"], columns=5)
    with pytest.raises(draw.DrawError, match="limits are"):
        draw.grid(x, tmp_path / "g.png", limits="every")
    with pytest.raises(draw.DrawError, match=r"written as \.png"):
        draw.grid(x, tmp_path / "g.jpg")


@pytest.mark.parametrize(("suffix", "head"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_grids_in_every_format(tmp_path: Path, suffix: str, head: bytes) -> None:
    x = torch.rand(4, 3, 6, 5)
    x[0, :, 2] = nan
    path = draw.grid(x, tmp_path / f"g.{suffix}", titles=["<a>", "$b$", "ç", "&"], limits="each")
    assert path.read_bytes().startswith(head)


@given(words, st.floats(20, 200))
def test_fitted_lines_are_narrow_and_complete(text: str, most: float) -> None:
    lines = fit(text, 9.0, most)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(width(line, 9.0) <= most for line in lines)


# Curves


def record(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_metrics_are_read_and_a_resumed_run_replaces_what_it_repeats(tmp_path: Path) -> None:
    path = record(
        tmp_path,
        {"iteration": 0, "loss": 2.0, "lr": 0.1, "seconds": 1, "outputs": {"acc": 0.1, "vector": [1, 2]}},
        {"iteration": 10, "loss": 9.0},
        "",
        {"iteration": 10, "loss": 1.0, "test": [{"accuracy": 0.5}, {"accuracy": 0.25}]},
        '{"iteration": 20, "lo',
    )
    metrics = plots.read_metrics(path)
    assert metrics.loss == {0: 2.0, 10: 1.0}
    assert metrics.lr == {0: 0.1}
    assert metrics.outputs == {"acc": {0: 0.1}}
    assert metrics.named_tests() == {"test 0: accuracy": {10: 0.5}, "test 1: accuracy": {10: 0.25}}


def test_metrics_of_a_run_folder_are_read(tmp_path: Path) -> None:
    path = record(
        tmp_path,
        {"kind": "test", "iteration": 0, "net": 0, "outputs": {"accuracy": 0.1, "each": [0.1, 0.2]}},
        {"kind": "train", "iteration": 0, "lr": 0.1, "loss": None, "outputs": {"loss": None}},
    )
    metrics = plots.read_metrics(path)
    assert metrics.named_tests() == {"test accuracy": {0: 0.1}}
    assert math.isnan(metrics.loss[0])
    draw.curves(path, tmp_path / "c.png")


@pytest.mark.parametrize("line", ["[1, 2]", '{"loss": 1}', '{"iteration": 1, "loss": "x"}', "{"])
def test_a_broken_record_is_left_out_and_counted(tmp_path: Path, line: str) -> None:
    path = record(tmp_path, {"iteration": 0, "loss": 1.0}, line, {"iteration": 2, "loss": 1.0})
    metrics = plots.read_metrics(path)
    assert metrics.damaged == 1
    assert len(metrics.loss) == 2


def test_missing_and_empty_metrics_are_told(tmp_path: Path) -> None:
    with pytest.raises(draw.DrawError, match="cannot be read"):
        draw.curves(tmp_path / "none.jsonl", tmp_path / "c.png")
    with pytest.raises(draw.DrawError, match="holds no metrics"):
        draw.curves(record(tmp_path, {"iteration": 0, "seconds": 1.0}), tmp_path / "c.png")


def test_smoothing_keeps_constants_and_skips_nan() -> None:
    assert plots.smooth(np.full(50, 3.0), 10).tolist() == pytest.approx([3.0] * 50)
    assert plots.smooth(np.array([nan, 1.0, nan, 1.0]), 5).tolist() == pytest.approx([1.0] * 4)
    assert np.isnan(plots.smooth(np.full(3, nan), 5)).all()


def test_smoothing_does_not_lag() -> None:
    line = np.arange(101.0)
    assert plots.smooth(line, 10)[0] == line[0]
    assert plots.smooth(line, 10)[50] == pytest.approx(50.0, abs=1e-3)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
@pytest.mark.parametrize("n", [1, 3, 200])
def test_curves_of_short_long_and_diverged_runs(tmp_path: Path, suffix: str, n: int) -> None:
    lines = [{"iteration": t, "loss": 2.0**-t, "lr": 0.1, "test": [{"accuracy": 0.5}]} for t in range(n)]
    lines[-1]["loss"] = nan
    path = draw.curves(record(tmp_path, *lines), tmp_path / f"c.{suffix}", title="a $run$ of _mine")
    assert path.stat().st_size > 3000


@pytest.mark.parametrize("key", ["loss", "lr", "test"])
def test_curves_with_one_kind_of_values_only(tmp_path: Path, key: str) -> None:
    value: object = [{"_accuracy$": 0.5, "top5": 0.7}] if key == "test" else 0.5
    draw.curves(record(tmp_path, {"iteration": 3, key: value}), tmp_path / "c.png", page=(4.0, 3.0))
    assert read(tmp_path / "c.png").shape == (450, 600, 3)


# Filters and feature maps


@pytest.mark.parametrize(
    ("make", "shape", "panels_", "words"),
    [
        (draw.filters, (20, 1, 5, 5), 20, ""),
        (draw.filters, (6, 3, 5, 5), 6, ""),
        (draw.filters, (40, 4, 3, 3), 32 * 4, "conv: the first 32 of 40 outputs"),
        (draw.feature_maps, (7, 6, 6), 7, "conv"),
        (draw.feature_maps, (1, 7, 6, 6), 7, "conv"),
        (draw.feature_maps, (3, 40, 6, 6), 3 * 32, "conv: the first 32 of 40 channels"),
        (draw.feature_maps, (5, 300), 5, "conv"),
    ],
)
def test_filters_and_feature_maps_show_every_panel_or_say_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    make: Any,
    shape: tuple[int, ...],
    panels_: int,
    words: str,
) -> None:
    scenes: list[Scene] = []
    monkeypatch.setattr(grids, "save", lambda scene, path, page=None: scenes.append(scene))
    make(torch.randn(shape), tmp_path / "f.png", title="conv")
    assert sum(isinstance(item, Image) for item in scenes[0].items) == panels_
    assert scenes[0].title.startswith(words)


def test_filters_and_feature_maps_of_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(draw.DrawError, match="filters must have shape"):
        draw.filters(torch.zeros(3, 3), tmp_path / "f.png")
    with pytest.raises(draw.DrawError, match="feature maps must have shape"):
        draw.feature_maps(torch.zeros(3), tmp_path / "f.png")
