"""Bottoms of shapes that a layer cannot take are refused when the net is made, at the bottom that is to blame."""

from __future__ import annotations

import pytest

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from tests.cases import all_cases

CASES = {case.name: case.text for case in all_cases()}
WRONG = {
    "labels of YOLOv2's evaluation that are no rows": ("yolo2_evaluation", {1: (2, 2)}, "needs objects"),
    "labels of other images": ("yolo2_evaluation", {1: (1, 5)}, "needs objects"),
    "labels without an axis": ("yolo2_loss", {1: ()}, "needs objects"),
    "no image": ("yolo2_loss", {0: (0, 14, 3, 3)}, "needs one image at least"),
    "a side of nothing": ("resample_mixed", {0: (1, 2, 5, 0)}, "needs a side of one pixel"),
    "nothing to spread": ("deconvolution_1d", {0: (2, 2, 5, 0)}, "leaves nothing of bottom 0"),
    "a single number": ("batch_reindex", {0: ()}, "needs items along a first axis"),
    "a map of nothing": ("roi_align", {0: (2, 3, 9, 0)}, "needs a map with values"),
    "masks of nothing": ("mask_resize", {0: (2, 2, 0, 5)}, "needs a side of one pixel"),
    "no object": ("rpn_anchor_target", {1: (0, 5)}, "needs one object at least"),
    "no picture size": ("rpn_anchor_target", {2: (1,)}, "needs height and width"),
}


@pytest.mark.parametrize("what", WRONG)
def test_shapes_that_cannot_be_taken(what: str) -> None:
    name, shapes, reason = WRONG[what]
    message = schema.parse_net(CASES[name]).message
    inputs = [shape for layer in message.layer if layer.type == "Input" for shape in layer.input_param.shape]
    for i, shape in shapes.items():
        inputs[i].dim[:] = shape
    with pytest.raises(SpecError, match=reason) as caught:
        make_net(schema.print_text(message), "TRAIN", seed=1)
    assert "layer " in str(caught.value)
