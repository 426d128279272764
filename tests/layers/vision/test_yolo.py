"""The boxes of YOLO against loops over cells, boxes and classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec.errors import SpecError
from netspec.net.make import make_net
from tests.cases.shape import several
from tests.cases.yolo import V2, V3


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def overlap(a: list[float], b: list[float]) -> float:
    """Of boxes (xmin, ymin, xmax, ymax)."""
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in range(2)]
    shared = sides[0] * sides[1] if min(sides) > 0 else 0.0
    return shared / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared)


def found_by_loops(maps: list[np.ndarray], sizes: list[list[tuple[float, float]]], v3: bool, least: float, nms: float
                   ) -> list[list[float]]:  # fmt: skip
    rows = []
    for n in range(len(maps[0])):
        boxes = []
        for x, mine in zip(maps, sizes, strict=True):
            side = x.shape[2]
            for row, column, (b, (width, height)) in ((r, c, m) for r in range(side) for c in range(side)
                                                      for m in enumerate(mine)):  # fmt: skip
                v = x[n, b * 8 : b * 8 + 8, row, column]
                middle = (column + sigmoid(v[0])) / side, (row + sigmoid(v[1])) / side
                half = math.exp(v[2]) * width / 2, math.exp(v[3]) * height / 2
                corners = [middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]]
                scores = [sigmoid(s) for s in v[5:]] if v3 else list(np.exp(v[5:]) / np.exp(v[5:]).sum())
                for label, score in enumerate(scores):
                    confidence = sigmoid(v[4]) * score
                    if confidence > least and (v3 or score == max(scores)):
                        boxes.append([n, label + 1, confidence, *corners])
        boxes.sort(key=lambda box: -box[2])
        kept: list[list[float]] = []
        for box in boxes:
            if all(overlap(box[3:], other[3:]) < nms for other in kept):
                kept.append(box)
        rows += kept
    return rows


def run(source: str, *values: np.ndarray) -> np.ndarray:
    net = make_net(source, seed=None).double()
    top: Tensor = net(*map(torch.from_numpy, values))[0]
    return top.numpy()


def test_version_2() -> None:
    maps = list(np.random.default_rng(1).normal(size=(2, 2, 16, 4, 4)))
    source = several(
        "YoloDetectionOutput",
        f"yolo_detection_output_param {{ {V2} confidence_threshold: 0.2 nms_threshold: 0.3 }}",
        maps[0].shape,
        maps[1].shape,
    )
    sizes = [[(1 / 4, 1.5 / 4), (2 / 4, 0.7 / 4)]] * 2
    expected = found_by_loops(maps, sizes, False, 0.2, 0.3)
    assert len(expected) > 10
    np.testing.assert_allclose(run(source, *maps)[0, 0], expected, atol=1e-6)


def test_version_3() -> None:
    chance = np.random.default_rng(2)
    maps = [chance.normal(size=(2, 16, side, side)) for side in (3, 6)]
    source = several(
        "Yolov3DetectionOutput",
        f"yolov3_detection_output_param {{ {V3} confidence_threshold: 0.3 nms_threshold: 0.4 }}",
        *(m.shape for m in maps),
    )
    sizes = [[(90 / 96, 60 / 96), (120 / 96, 30 / 96)], [(20 / 96, 30 / 96), (50 / 96, 40 / 96)]]
    expected = found_by_loops(maps, sizes, True, 0.3, 0.4)
    assert len(expected) > 10
    np.testing.assert_allclose(run(source, *maps)[0, 0], expected, atol=1e-6)
    nothing = [np.full_like(m, -9.0) for m in maps]
    nothing[0][0, 4] = np.nan
    np.testing.assert_array_equal(run(source, *nothing)[0, 0], [[0] + [-1] * 6, [1] + [-1] * 6])


def test_boxes_that_overlap_by_the_threshold_go() -> None:
    """Two classes of one box overlap entirely; with a threshold of 0 the best box goes with no other."""
    field, cell = "num_classes: 3 num_box: 1 biases: [1, 1] nms_threshold:", np.full((1, 8, 2, 2), 3.0)
    cell[0, 7, 1, 1], cell[0, 5:, 0, 0] = 5, [4, -9, -9]
    v3 = f"yolov3_detection_output_param {{ {field} 1 mask: 0 mask_group_num: 1 anchors_scale: 1 }}"
    assert run(several("Yolov3DetectionOutput", v3, cell.shape), cell)[0, 0, :, 1].tolist() == [3, 1, 1, 1]
    v2 = f"yolo_detection_output_param {{ {field} 0 confidence_threshold: 0 }}"
    assert run(several("YoloDetectionOutput", v2, cell.shape), cell)[0, 0, :, :2].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("num_classes: 3 num_box: 2", "biases in pairs"),
        ("num_classes: 4 num_box: 2", r"needs a square map \(N, 18, H, H\)"),
        (
            "num_classes: 3 num_box: 2 biases: [1, 2] mask_group_num: 1 mask: [0, 1] anchors_scale: 8",
            "below 1",
        ),
        ("num_classes: 3 num_box: 2 biases: [1, 2] mask_group_num: 2", "mask_group_num 2 for 1 bottoms"),
        ("num_classes: 3 num_box: 2 biases: [1, 2] mask_group_num: 1 mask: [0, 0]", "anchors_scale > 0"),
    ],
)
def test_what_cannot_be(wrong: str, message: str) -> None:
    group = "" if "mask_group_num" in wrong else "mask_group_num: 1 anchors_scale: 1"
    source = several(
        "Yolov3DetectionOutput", f"yolov3_detection_output_param {{ {wrong} {group} }}", (2, 16, 3, 3)
    )
    with pytest.raises(SpecError, match=message):
        run(source)
