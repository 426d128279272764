"""Static, dynamic and thresholded binarisation, and the clean top beside the corrupted one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.data.binarising import binarised
from netspec.data.sources.named import DatasetSource
from netspec.errors import SpecError
from netspec.schema import spec

LEVELS = np.repeat(np.array([[0, 64, 200, 255]], np.uint8), 4000, 0).reshape(4000, 1, 1, 4)
KEYS = np.arange(4000)


def test_each_level_is_white_as_often_as_it_is_bright() -> None:
    for kind in ("static", "dynamic"):
        drawn = binarised(LEVELS, kind, 1, KEYS, KEYS + 7)
        assert set(np.unique(drawn)) == {0, 255}
        often = (drawn == 255).mean(0).ravel()
        assert np.abs(often - LEVELS[0].ravel() / 255).max() < 0.03
        assert often[0] == 0
        assert often[3] == 1
    assert (binarised(LEVELS, "threshold", 1, KEYS, KEYS)[0].ravel() == [0, 0, 255, 255]).all()


def test_a_static_draw_belongs_to_the_example_and_a_dynamic_one_to_its_place_in_the_stream() -> None:
    static = binarised(LEVELS, "static", 1, KEYS, KEYS)
    assert (static == binarised(LEVELS, "static", 1, KEYS, KEYS + 60000)).all()
    assert (static[::-1] == binarised(LEVELS, "static", 1, KEYS[::-1], KEYS)).all()
    assert (static != binarised(LEVELS, "static", 2, KEYS, KEYS)).any()
    assert (
        binarised(LEVELS, "dynamic", 1, KEYS, KEYS) != binarised(LEVELS, "dynamic", 1, KEYS, KEYS + 4000)
    ).any()


def batch(options: str, tops: str = "data label mask clean", phase: str = "TRAIN") -> list[Tensor]:
    names = " ".join(f'top: "{top}"' for top in tops.split())
    text = f'layer {{ name: "d" type: "Dataset" {names} {options} }}'
    layer = spec.net(schema.parse_net(text, "d.prototxt"), phase).layers[0]
    return list(DatasetSource(layer, phase, seed=3).next())


DIGITS = 'transform_param { scale: 0.0625 } dataset_param { name: "digits" batch_size: 50 %s }'


def test_the_clean_top_is_the_data_before_anything_went_missing() -> None:
    data, _, mask, clean = batch(DIGITS % 'missing { kind: "iid" probability: 0.5 value: 1 }')
    whole = batch(DIGITS % "", "data label")[0]
    assert torch.equal(clean, whole)
    assert torch.equal(data, torch.where(mask > 0, clean, 1.0))
    assert 0.4 < float(mask.mean()) < 0.6


def test_binarised_pixels_are_zero_and_one_after_the_scale() -> None:
    scaled = DIGITS.replace("0.0625", "0.00392156862745098")
    tops = batch(scaled % 'binarize: "static" binarize_seed: 1 missing { kind: "mar" }')
    assert set(tops[3].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(tops[0].isnan(), tops[2] == 0)
    again = batch(scaled % 'binarize: "static" binarize_seed: 1', "data")
    assert torch.equal(tops[3], again[0])


def test_an_unknown_way_is_an_error_at_its_field() -> None:
    with pytest.raises(
        SpecError, match=r"d.prototxt:1:\d+: layer 'd' \(Dataset\): .*'statc'; did you mean 'static'"
    ):
        batch(DIGITS % 'binarize: "statc"')
