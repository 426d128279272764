"""Files that reading public prototxt files got wrong: each a kind of fault, with its right verdict."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from netspec import schema
from netspec.check import check
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.schema import spec
from tests.places import CORPUS

FAULTS = CORPUS / "faults"

RUN = (
    "annotated_noise",
    "bn_early_slope",
    "detection_output_4",
    "proposal_4",
    "proposal_pvanet",
    "reorg_default",
)
"""Files that run, and were refused."""


def net(text: str, phase: str = "TEST") -> Net:
    return make_net(text, phase)


def inputs(**shapes: tuple[int, ...]) -> str:
    return "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {size}" for size in shape)
        + " } } }\n"
        for name, shape in shapes.items()
    )


@pytest.mark.parametrize("name", [*RUN, "softmax_three_tops"])
def test_what_was_refused_runs(name: str) -> None:
    report = check(FAULTS / f"{name}.prototxt", run=True)
    assert report.ok, str(report)
    assert any("run" in phase for phase in report.phases.values())


def test_the_early_layer_of_yjxiong_is_called_so() -> None:
    assert check(FAULTS / "bn_early_slope.prototxt").dialects == ["yjxiong"]


def test_a_picture_to_draw_into_changes_no_detection() -> None:
    text = (FAULTS / "detection_output_4.prototxt").read_text()
    four, three = net(text), net(text.replace('bottom: "prior" bottom: "data"', 'bottom: "prior"'))
    torch.manual_seed(0)
    values = [torch.randn(four.shape(name)) for name in four.input_names]
    assert torch.equal(four.blobs(*values)["out"], three.blobs(*values)["out"])


def test_only_four_numbers_of_an_image_count_for_proposals() -> None:
    text = (FAULTS / "proposal_pvanet.prototxt").read_text()
    six, four = net(text), net(text.replace("dim: 1 dim: 6", "dim: 1 dim: 4"))
    torch.manual_seed(0)
    scores, moves = torch.rand(1, 50, 10, 10), 0.1 * torch.randn(1, 100, 10, 10)
    info = torch.tensor([[160.0, 160, 1, 1, 9, 7]])
    ours, theirs = six.blobs(scores, moves, info), four.blobs(scores, moves, info[:, :4])
    assert all(torch.equal(ours[name], theirs[name]) for name in ("rois", "scores"))


def test_three_tops_are_the_loss_the_probabilities_and_the_loss_of_each() -> None:
    from torch.nn.functional import cross_entropy

    loss = net((FAULTS / "softmax_three_tops.prototxt").read_text())
    x, label = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    blobs = loss.blobs(x, label.float())
    total, probabilities, each = blobs["loss"], blobs["prob"], blobs["per_roi"]
    torch.testing.assert_close(each.flatten(), cross_entropy(x, label, reduction="none"))
    torch.testing.assert_close(probabilities, x.softmax(1))
    torch.testing.assert_close(total, each.sum() / 4)


def test_statistics_of_deconvnets_layer() -> None:
    layer = (
        'layer { name: "bn" type: "BN" bottom: "x" top: "y" top: "m" top: "v" bn_param { bn_mode: LEARN } }'
    )
    x = torch.randn(4, 3, 5, 5)
    blobs = net(inputs(x=(4, 3, 5, 5)) + layer).blobs(x)
    mean, variance = blobs["m"], blobs["v"]
    torch.testing.assert_close(mean.flatten(), x.mean((0, 2, 3)))
    torch.testing.assert_close(variance.flatten(), x.var((0, 2, 3), correction=0))


def test_zoom_alone_is_intels_where_the_net_does_not_fit_otherwise() -> None:
    zoomed = 'layer { name: "up" type: "Interp" bottom: "x" top: "up" interp_param { zoom_factor: 2 } }\n'
    joined = 'layer { name: "sum" type: "Eltwise" bottom: "up" bottom: "z" top: "sum" }\n'
    assert net(inputs(x=(1, 2, 5, 4)) + zoomed).shape("up") == (1, 2, 9, 7)
    assert net('dialect: "intel"\n' + inputs(x=(1, 2, 5, 4)) + zoomed).shape("up") == (1, 2, 10, 8)
    assert net(inputs(x=(1, 2, 5, 4), z=(1, 2, 10, 8)) + zoomed + joined).shape("up") == (1, 2, 10, 8)
    assert net(inputs(x=(1, 2, 5, 4), z=(1, 2, 9, 7)) + zoomed + joined).shape("up") == (1, 2, 9, 7)


def test_textboxes_have_each_prior_twice() -> None:
    prior = 'layer { name: "p" type: "PriorBox" bottom: "f" bottom: "data" top: "p" prior_box_param { min_size: 4 } }\n'
    output = 'layer { name: "o" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "p" top: "o" '
    output += "detection_output_param { num_classes: 2 nms_param { nms_threshold: 0.5 } } }\n"
    maps = {"f": (1, 1, 2, 2), "data": (1, 3, 8, 8)}
    assert net(inputs(**maps) + prior).shape("p") == (1, 2, 16)
    twice = net(inputs(**maps, loc=(1, 32), conf=(1, 16)) + prior + output)
    assert twice.shape("p") == (1, 2, 32)
    values = [torch.zeros(twice.shape(name)) for name in twice.input_names]
    boxes = twice.blobs(*values)["p"][0, 0].view(-1, 4)
    assert (boxes[1] - boxes[0]).tolist() == [0, 0.25, 0, 0.25]  # half a step of 4 of 8 pixels


def test_regions_may_be_placeholders_without_the_image() -> None:
    pool = 'layer { name: "p" type: "ROIPooling" bottom: "x" bottom: "r" top: "p" roi_pooling_param { pooled_h: 1 '
    pool += "pooled_w: 1 spatial_scale: 1 } }"
    x, rows = torch.randn(1, 2, 6, 6), torch.tensor([[1.0, 2, 3, 4]])
    ours = net(inputs(x=(1, 2, 6, 6), r=(1, 4)) + pool).blobs(x, rows)["p"]
    assert torch.equal(ours.flatten(), x[0, :, 2:5, 1:4].amax((1, 2)))


def test_a_selector_alone_selects_from_itself() -> None:
    layer = 'layer { name: "f" type: "Filter" bottom: "x" top: "y" }'
    y = net(inputs(x=(4,)) + layer).blobs(torch.tensor([0.0, 3, 0, 2]))["y"]
    assert y.tolist() == [3, 2]


def test_layers_of_phase_run_are_in_neither_of_the_others() -> None:
    text = (
        inputs(x=(1, 3)) + 'layer { name: "p" type: "Power" bottom: "x" top: "y" include { phase: RUN } }\n'
    )
    text += 'layer { name: "q" type: "Dropout" bottom: "x" top: "z" phase: RUN }'
    document = schema.parse_net(text)
    assert [len(spec.net(document, phase).layers) for phase in ("TRAIN", "TEST", "RUN")] == [2, 2, 3]
    assert spec.net(document, "TRAIN").layers[1].phase("TRAIN") == "TEST"


def test_phase_run_is_checked_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        inputs(x=(1, 3)) + 'layer { name: "p" type: "Power" bottom: "x" top: "y" include { phase: RUN } }'
    )
    assert set(check(path, run=True).phases) == {"TRAIN", "TEST", "RUN"}
    shutil.copy(FAULTS / "reorg_default.prototxt", path)
    assert set(check(path).phases) == {"TRAIN", "TEST"}


def test_refined_priors_are_those_that_the_first_locations_move() -> None:
    """With first locations of 0 and full objectness, RefineDet's layers are SSD's."""
    torch.manual_seed(0)
    corners = torch.rand(6, 2, 2)
    priors = torch.stack(
        (torch.cat((corners.amin(1), corners.amax(1)), 1).flatten(), torch.full((24,), 0.1))
    )[None]
    shapes = {"loc": (2, 24), "conf": (2, 18), "prior": (1, 2, 24)}
    more = {"object": (2, 12), "first": (2, 24)}
    layer = (
        'layer {{ name: "o" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" {} top: "o" '
    )
    layer += "detection_output_param {{ num_classes: 3 code_type: CENTER_SIZE nms_param {{ nms_threshold: 0.5 }} }} }}"
    plain = net(inputs(**shapes) + layer.format(""))
    refined = net(inputs(**shapes, **more) + layer.format('bottom: "object" bottom: "first"'))
    values, ones = [0.1 * torch.randn(2, 24), torch.randn(2, 18), priors], torch.ones(2, 12)
    torch.testing.assert_close(
        refined.blobs(*values, ones, torch.zeros(2, 24))["o"], plain.blobs(*values)["o"]
    )
    nothing = refined.blobs(*values, 0 * ones, torch.zeros(2, 24))["o"]
    assert set(nothing[0, 0, :, 2].tolist()) == {0.0}  # no class but the background's has a score
