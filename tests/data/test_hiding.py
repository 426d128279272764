"""`missing { }` means the same in every data layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netspec.data import feeder
from netspec.data.files.images import encode
from netspec.net.make import make_net

PICTURES = np.random.default_rng(0).integers(1, 256, (6, 1, 4, 4), dtype=np.uint8)


def tops(text: str, batches: int) -> list[np.ndarray]:
    """The layer's first tops, one array a top, of so many batches in training."""
    net = make_net(text, "TRAIN", seed=3)
    feed = feeder(net, 3)
    shown = [[top.numpy().copy() for top in feed.next()] for _ in range(batches)]
    return [np.concatenate(top) for top in zip(*shown, strict=True)]


def test_masks_of_a_file_belong_to_the_pictures(tmp_path: Path) -> None:
    """Also when they are shown a second time, in another order."""
    for i, picture in enumerate(PICTURES):
        (tmp_path / f"{i}.png").write_bytes(encode(picture, "png", f"{i}.png"))
    masks = np.random.default_rng(1).random((6, 4, 4)) < 0.5
    np.save(tmp_path / "masks.npy", masks)
    data, mask = tops(
        f'layer {{ name: "d" type: "Pictures" top: "data" top: "label" top: "mask" pictures_param {{'
        f' source: "{tmp_path}" split {{ part: "all" }} shuffle: true batch_size: 6'
        f' missing {{ kind: "file" source: "{tmp_path}/masks.npy" value: 0 }} }} }}',
        3,
    )[::2]
    for shown, observed in zip(data, mask, strict=True):
        match = [i for i in range(6) if np.array_equal(shown, np.where(masks[i], PICTURES[i], 0))]
        assert match
        assert np.array_equal(observed[0], masks[match[0]])


@pytest.mark.parametrize("value", ["nan", "0"])
def test_the_mask_of_a_table_has_what_was_hidden_and_what_was_empty(tmp_path: Path, value: str) -> None:
    lines = [f"{1 + i},{2 + i},{'' if i % 3 == 0 else 3 + i}" for i in range(30)]
    (tmp_path / "t.csv").write_text("a,b,c\n" + "\n".join(lines) + "\n")
    data, mask = tops(
        f'layer {{ name: "d" type: "Table" top: "data" top: "label" top: "mask" table_param {{'
        f' source: "{tmp_path}/t.csv" split {{ part: "all" }} batch_size: 30'
        f' missing {{ kind: "iid" probability: 0.5 value: {value} }} }} }}',
        1,
    )[::2]
    empty = np.isnan(data) if value == "nan" else np.isnan(data) | (data == 0)
    np.testing.assert_array_equal(mask == 0, empty)
    assert 0.3 < empty[..., :2].mean() < 0.7
