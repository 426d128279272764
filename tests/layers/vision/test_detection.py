"""The detection layers against plain loops that follow the descriptions of SSD, Faster R-CNN and R-FCN box by
box."""

from __future__ import annotations

from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from netspec import pycaffe, schema
from netspec.errors import DataError, SpecError
from netspec.layers.loss.average_precision import Detections
from netspec.layers.vision.proposal import anchors
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.pycaffe import glog
from netspec.run.tests import average
from netspec.solver import Solver
from tests.cases.detection import MULTIBOX, multibox
from tests.cases.loss import text

Box = list[float]


def make(prototxt: str, phase: str = "TEST") -> Net:
    return make_net(schema.parse_net(prototxt, "net.prototxt"), phase, seed=1)


def area(box: Box, extra: float = 0) -> float:
    return max(box[2] - box[0] + extra, 0) * max(box[3] - box[1] + extra, 0)


def iou(a: Box, b: Box, extra: float = 0) -> float:
    meet = [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]
    shared = area(meet, extra)
    return shared / (area(a, extra) + area(b, extra) - shared) if shared > 0 else 0.0


def decode(code: str, prior: Box, variance: Box, coded: Box) -> Box:
    w, h = prior[2] - prior[0], prior[3] - prior[1]
    c = [coded[i] * variance[i] for i in range(4)]
    if code == "CORNER":
        return [prior[i] + c[i] for i in range(4)]
    if code == "CORNER_SIZE":
        return [prior[i] + c[i] * (w, h)[i % 2] for i in range(4)]
    x, y = (prior[0] + prior[2]) / 2 + c[0] * w, (prior[1] + prior[3]) / 2 + c[1] * h
    w, h = w * exp(c[2]), h * exp(c[3])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def encode(code: str, prior: Box, variance: Box, box: Box) -> Box:
    w, h = prior[2] - prior[0], prior[3] - prior[1]
    if code == "CORNER":
        raw = [box[i] - prior[i] for i in range(4)]
    elif code == "CORNER_SIZE":
        raw = [(box[i] - prior[i]) / (w, h)[i % 2] for i in range(4)]
    else:
        raw = [
            (box[0] + box[2] - prior[0] - prior[2]) / 2 / w,
            (box[1] + box[3] - prior[1] - prior[3]) / 2 / h,
            log((box[2] - box[0]) / w),
            log((box[3] - box[1]) / h),
        ]
    return [raw[i] / variance[i] for i in range(4)]


def suppress(boxes: list[Box], threshold: float, eta: float = 1, extra: float = 0) -> list[int]:
    kept: list[int] = []
    for i, box in enumerate(boxes):
        if all(iou(box, boxes[k], extra) <= threshold for k in kept):
            kept.append(i)
            if eta < 1 and threshold > 0.5:
                threshold *= eta
    return kept


def random_boxes(n: int, random: np.random.Generator) -> list[Box]:
    low = random.uniform(0, 0.6, (n, 2))
    return np.concatenate((low, low + random.uniform(0.1, 0.4, (n, 2))), 1).tolist()


# PriorBox


def test_priors_equal_a_loop_over_cells() -> None:
    fields = "min_size: [4, 6] max_size: [8, 9] aspect_ratio: [2, 3, 2]"
    layer = f"PriorBox prior_box_param {{ {fields} variance: [0.1, 0.2, 0.3, 0.4] }}"
    (top,) = make(text(layer, "x data", "p", x=(1, 1, 3, 2), data=(1, 3, 12, 10)))(
        torch.zeros(1, 1, 3, 2), torch.zeros(1, 3, 12, 10)
    )
    expected = []
    for row in range(3):
        for column in range(2):
            x, y = (column + 0.5) * 5, (row + 0.5) * 4
            for low, high in ((4, 8), (6, 9)):
                sides = [(low, low), (sqrt(low * high), sqrt(low * high))]
                sides += [(low * sqrt(r), low / sqrt(r)) for r in (2, 1 / 2, 3, 1 / 3)]
                for w, h in sides:
                    expected.append([(x - w / 2) / 10, (y - h / 2) / 12, (x + w / 2) / 10, (y + h / 2) / 12])
    assert top.shape == (1, 2, len(expected) * 4)
    torch.testing.assert_close(top[0, 0].reshape(-1, 4), torch.tensor(expected))
    assert top[0, 1].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4] * len(expected))


# DetectionOutput


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("code", ["CORNER", "CENTER_SIZE", "CORNER_SIZE"])
@pytest.mark.parametrize("share", [True, False])
def test_detections_equal_a_loop_over_boxes(seed: int, code: str, share: bool) -> None:
    random = np.random.default_rng(seed)
    classes, number, images, background = 3, 20, 2, seed % 3
    locations = 1 if share else classes
    fields = (
        f"num_classes: 3 share_location: {str(share).lower()} code_type: {code} "
        f"background_label_id: {background} "
        "nms_param { nms_threshold: 0.6 top_k: 12 eta: 0.9 } confidence_threshold: 0.2 keep_top_k: 9"
    )
    net = make(
        text(
            f"DetectionOutput detection_output_param {{ {fields} }}",
            "loc conf prior",
            "found",
            loc=(images, number * locations * 4),
            conf=(images, number * classes),
            prior=(1, 2, number * 4),
        )
    ).double()
    prior, variance = random_boxes(number, random), random.uniform(0.1, 0.3, (number, 4)).tolist()
    coded = random.normal(0, 0.3, (images, number, locations, 4))
    score = random.uniform(0, 1, (images, number, classes))
    score[0, 3, 1] = np.nan
    (top,) = net(
        torch.from_numpy(coded).reshape(images, -1),
        torch.from_numpy(score).reshape(images, -1),
        torch.tensor([prior, variance], dtype=torch.float64).reshape(1, 2, -1),
    )
    expected: list[list[float]] = []
    for n in range(images):
        rows = []
        for label in range(classes):
            if label == background:
                continue
            order = [i for i in range(number) if score[n, i, label] > 0.2]
            order = sorted(order, key=lambda i: -score[n, i, label])[:12]
            boxes = [
                decode(code, prior[i], variance[i], coded[n, i, 0 if share else label].tolist())
                for i in order
            ]
            rows += [[n, label, score[n, order[k], label], *boxes[k]] for k in suppress(boxes, 0.6, 0.9)]
        best = sorted(rows, key=lambda row: -row[2])[:9]
        expected += sorted(best, key=lambda row: (row[1], -row[2]))
    torch.testing.assert_close(top[0, 0], torch.tensor(expected, dtype=torch.float64))


def test_an_image_without_detections_has_a_row_of_its_own() -> None:
    layer = "DetectionOutput detection_output_param { num_classes: 2 confidence_threshold: 0.9 }"
    net = make(text(layer, "loc conf prior", "found", loc=(2, 8), conf=(2, 4), prior=(1, 2, 8)))
    (top,) = net(torch.zeros(2, 8), torch.zeros(2, 4), torch.zeros(1, 2, 8))
    assert top.tolist() == [[[[0.0] + [-1.0] * 6, [1.0] + [-1.0] * 6]]]


# MultiBoxLoss


def match(
    priors: list[Box], objects: list[Box], threshold: float | None, cross: bool
) -> tuple[list[int], list[float]]:
    """SSD's two passes, pair by pair."""
    out = [cross and (min(box) < 0 or max(box) > 1) for box in priors]
    overlaps = {
        (i, j): value
        for i, box in enumerate(priors)
        for j, other in enumerate(objects)
        if not out[i] and (value := iou(box, other)) > 1e-6
    }
    best = [
        max([overlaps.get((i, j), 0.0) for j in range(len(objects))], default=0.0) for i in range(len(priors))
    ]
    matched = [-2 if o else -1 for o in out]
    pool = set(range(len(objects)))
    while pool:
        pairs = [(value, -i, -j) for (i, j), value in overlaps.items() if matched[i] == -1 and j in pool]
        if not pairs:
            break
        _, i, j = max(pairs)
        matched[-i] = -j
        pool.remove(-j)
    if threshold is not None:
        for i in range(len(priors)):
            near = [
                (overlaps[i, j], -j) for j in range(len(objects)) if overlaps.get((i, j), -1) >= threshold
            ]
            if matched[i] == -1 and near:
                matched[i] = -max(near)[1]
    return matched, best


def multibox_oracle(
    p: Any, loc: Any, conf: Any, prior: list[Box], variance: list[Box], objects: Any
) -> float:
    code = {1: "CORNER", 2: "CENTER_SIZE", 3: "CORNER_SIZE"}[p.code_type]
    mining = p.mining_type
    if p.HasField("do_neg_mining"):
        mining = p.MAX_NEGATIVE if p.do_neg_mining else p.NONE
    total, matches = 0.0, 0
    for n in range(len(loc)):
        mine = [g for g in objects if g[0] == n and (p.use_difficult_gt or g[7] == 0)]
        boxes = prior
        if not p.use_prior_for_matching:
            boxes = [decode(code, prior[i], variance[i], loc[n][i][0].tolist()) for i in range(len(prior))]
        threshold = p.overlap_threshold if p.match_type == p.PER_PREDICTION else None
        matched, best = match(boxes, [list(g[3:7]) for g in mine], threshold, p.ignore_cross_boundary_bbox)
        box_loss, class_loss = [0.0] * len(prior), [0.0] * len(prior)
        for i in range(len(prior)):
            label = int(mine[matched[i]][1]) if matched[i] >= 0 else p.background_label_id
            scores = conf[n][i]
            if p.conf_loss_type == p.SOFTMAX:
                class_loss[i] = log(sum(exp(s) for s in scores)) - scores[label]
            else:
                class_loss[i] = sum(log(1 + exp(-s if c == label else s)) for c, s in enumerate(scores))
            if matched[i] >= 0:
                scale = variance[i] if p.encode_variance_in_target else [1.0] * 4
                target = encode(
                    code,
                    prior[i],
                    [1.0] * 4 if p.encode_variance_in_target else variance[i],
                    mine[matched[i]][3:7],
                )
                guess = loc[n][i][0 if p.share_location else label]
                for k in range(4):
                    d = abs((guess[k] - target[k]) / scale[k])
                    if p.bp_inside and not 0 <= boxes[i][k] <= 1:
                        d = 0
                    box_loss[i] += 0.5 * d * d if d < 1 or p.loc_loss_type == p.L2 else d - 0.5
        positives = [i for i in range(len(prior)) if matched[i] >= 0]
        if mining == p.NONE:
            negatives = [i for i in range(len(prior)) if i not in positives]
        elif mining == p.MAX_NEGATIVE:
            near = [i for i in range(len(prior)) if matched[i] == -1 and best[i] < p.neg_overlap]
            most = min(int(len(positives) * p.neg_pos_ratio), len(near))
            negatives = sorted(near, key=lambda i: -class_loss[i])[:most]
        else:
            order = sorted(range(len(prior)), key=lambda i: -class_loss[i] - box_loss[i])
            chosen = order[: p.sample_size] if mine else []
            positives = [i for i in positives if i in chosen]
            negatives = [i for i in chosen if matched[i] == -1]
        total += sum(p.loc_weight * box_loss[i] + class_loss[i] for i in positives)
        total += sum(class_loss[i] for i in negatives)
        matches += len(positives)
    return total / max(matches, 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", [*MULTIBOX, "box_per_class"])
def test_multibox_loss_equals_a_loop_over_priors_and_objects(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    share = name != "box_per_class"
    fields = MULTIBOX[name] if share else "share_location: false mining_type: NONE code_type: CENTER_SIZE"
    net = make(multibox(fields, 1 if share else 3), "TRAIN").double()
    prior, variance = random_boxes(12, random), random.uniform(0.1, 0.3, (12, 4)).tolist()
    prior[2] = [-0.1, 0.2, 0.5, 0.8]
    loc, conf = random.normal(0, 0.5, (3, 12, 1 if share else 3, 4)), random.normal(0, 1, (3, 12, 3))
    heads = [(0, 1, 0), (2, 2, 0), (0, 2, 1), (-1, 1, 0), (2, 1, 0)]
    boxes = random_boxes(5, random)
    boxes[4] = boxes[1]  # two objects in one place: the first prior goes to the first of them
    objects = [[image, label, 0, *box, hard] for (image, label, hard), box in zip(heads, boxes, strict=True)]
    loss, *_ = net(
        torch.from_numpy(loc).reshape(3, -1),
        torch.from_numpy(conf).reshape(3, -1),
        torch.tensor([prior, variance], dtype=torch.float64).reshape(1, 2, -1),
        torch.tensor(objects, dtype=torch.float64).reshape(1, 1, 5, 8),
    )
    expected = multibox_oracle(net.layer("it").param, loc, conf, prior, variance, objects)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_multibox_loss_without_objects_is_zero_and_has_no_nan_gradient() -> None:
    net = make(multibox("code_type: CENTER_SIZE"), "TRAIN")
    loc, conf = torch.randn(3, 48, requires_grad=True), torch.randn(3, 36, requires_grad=True)
    loss, *_ = net(loc, conf, torch.zeros(1, 2, 48), torch.full((1, 1, 5, 8), -1.0))
    loss.backward()
    assert loss == 0
    assert loc.grad is not None
    assert (loc.grad == 0).all()


# DetectionEvaluate


@pytest.mark.parametrize("difficult", [True, False])
def test_a_box_is_right_once(difficult: bool) -> None:
    layer = (
        "DetectionEvaluate detection_evaluate_param { num_classes: 3 overlap_threshold: 0.5 "
        f"evaluate_difficult_gt: {str(difficult).lower()} }}"
    )
    net = make(text(layer, "found gt", "v", found=(1, 1, 6, 7), gt=(1, 1, 4, 8)))
    one, two, far = [0.0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1], [0.8, 0, 1, 0.2]
    detections = [
        [0, 1, 0.3, *one],
        [0, 1, 0.9, *one],
        [0, 1, 0.5, *far],
        [0, 2, 0.7, *two],
        [1, 1, 0.6, *two],
        [1, -1, -1, -1, -1, -1, -1],
    ]
    gt = [[0, 1, 0, *one, 0], [0, 2, 0, *two, 1], [1, 2, 0, *two, 0], [-1, 1, 0, *far, 0]]
    (verdict,) = net(torch.tensor([[detections]]), torch.tensor([[gt]]))
    expected = [
        [-1, 1, 1, -1, -1],
        [-1, 2, 2 if difficult else 1, -1, -1],
        [0, 1, 0.9, 1, 0],
        [0, 1, 0.5, 0, 1],
        [0, 1, 0.3, 0, 1],
        [0, 2, 0.7, *((1, 0) if difficult else (0, 0))],
        [1, 1, 0.6, 0, 1],
    ]
    torch.testing.assert_close(verdict[0, 0], torch.tensor(expected))


RIGHTS = [1, 0, 1, 1, 0]
"""Whether each box is right, by falling confidence; of 4 objects three are found."""


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("Integral", (1 + 2 / 3 + 3 / 4) / 4),
        ("MaxIntegral", (1 + 3 / 4 + 3 / 4) / 4),
        ("11point", (3 * 1 + 5 * 3 / 4) / 11),
    ],
)
def test_average_precision_by_hand(version: str, expected: float) -> None:
    gathered = Detections(version)
    rows = [[0, 1, 0.9 - i / 10, right, 1 - right] for i, right in enumerate(RIGHTS)]
    gathered.add(torch.tensor([[[[-1, 1, 3, -1, -1.0], [-1, 2, 0, -1, -1.0], *rows[3:]]]]))
    gathered.add(torch.tensor([[[[-1, 1, 1, -1, -1], *rows[:3], [0, 1, 0.99, 0, 0]]]]))
    assert gathered.by_label() == {1: pytest.approx(expected), 2: 0}
    assert gathered.mean() == pytest.approx(expected / 2)


@pytest.mark.parametrize(("rights", "places"), [(3, 4), (6, 7), (7, 7), (9, 9), (10, 11)])
def test_a_recall_is_a_float_as_in_the_original(rights: int, places: int) -> None:
    """7 of 10 is 0.69999999 there, and so less than 0.7; 6 of 10 is 0.60000002."""
    gathered = Detections("11point")
    rows = [[0, 1, 1 - i / 20, 1, 0] for i in range(rights)]
    gathered.add(torch.tensor([[[[-1, 1, 10, -1, -1.0], *rows]]]))
    assert gathered.mean() == pytest.approx(places / 11)


def test_integral_of_a_fine_curve_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(5)
    rights = torch.rand(300, generator=generator) < 0.3
    scores = torch.rand(300, generator=generator).double()
    gathered = Detections()
    rows = torch.stack([torch.zeros(300), torch.ones(300), scores, rights.double(), (~rights).double()], 1)
    gathered.add(torch.cat([torch.tensor([[-1.0, 1, int(rights.sum()), -1, -1]]), rows]))
    expected = average_precision_score(rights.numpy(), scores.numpy())
    assert gathered.mean() == pytest.approx(expected, rel=1e-9)


def test_unknown_versions_are_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'Integral'"):
        Detections("integral")
    with pytest.raises(SpecError, match="unknown ap_version '12point'; did you mean '11point'"):
        Solver([], schema.SolverParameter(lr_policy="fixed", base_lr=1, ap_version="12point"))


EVALUATE = """
layer { name: "in" type: "Input" top: "found" top: "gt" top: "x" input_param {
  shape { dim: 1 dim: 1 dim: 2 dim: 7 } shape { dim: 1 dim: 1 dim: 2 dim: 8 } shape { dim: 2 } } }
layer { name: "eval" type: "DetectionEvaluate" bottom: "found" bottom: "gt" top: "detection_eval"
  detection_evaluate_param { num_classes: 2 overlap_threshold: 0.5 } }
layer { name: "copy" type: "Power" bottom: "x" top: "plain" }
"""
BOX = [0.0, 0, 0.4, 0.4]


def test_tests_score_detections_over_all_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two batches, of which the second has fewer boxes: AP is over both, the other output is averaged."""
    gt = torch.tensor([[[[0, 1, 0, *BOX, 0], [1, 1, 0, *BOX, 0]]]])
    wrong = [0.5, 0.5, 1, 1]
    batches = [
        torch.tensor([[[[0, 1, 0.9, *BOX], [1, 1, 0.8, *wrong]]]]),
        torch.tensor([[[[0, 1, 0.7, *BOX]]]]),
    ]
    expected = (1 + 2 / 3) / 4
    given = [(means, gt, torch.full((2,), float(i))) for i, means in enumerate(batches)]

    class Batches:
        def __init__(self) -> None:
            self.left, self.device = list(given), torch.device("cpu")

        def state(self) -> dict[str, Any]:
            return {}

        def next(self) -> Any:
            return self.left.pop(0)

    means = average(make(EVALUATE), Batches(), 2)  # type: ignore[arg-type]
    assert float(means["detection_eval"]) == pytest.approx(expected)
    assert means["plain"].tolist() == [0.5, 0.5]
    told = schema.SolverParameter(show_per_class_result=True, ap_version="11point")
    means = average(make(EVALUATE), Batches(), 2, told)  # type: ignore[arg-type]
    assert float(means["detection_eval/1"]) == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)

    (tmp_path / "net.prototxt").write_text(EVALUATE)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 1 lr_policy: "fixed" test_iter: 2 test_interval: 1 max_iter: 0 '
        'eval_type: "detection" show_per_class_result: true snapshot_after_train: false'
    )
    monkeypatch.setattr(glog, "threshold", 0)
    solver = pycaffe.get_solver(str(tmp_path / "solver.prototxt"))
    net, batch = solver.test_nets[0], Batches()

    def feed(layer: int) -> None:
        if layer == 0:
            for name, value in zip(("found", "gt", "x"), batch.next(), strict=True):
                net.blobs[name].reshape(*value.shape)
                net.blobs[name].data[...] = value

    net.before_forward(feed)
    capfd.readouterr()
    solver.solve()
    lines = [line.split("] ", 1)[1] for line in capfd.readouterr().err.splitlines() if "] " in line]
    assert f"class1: {expected:.6g}" in lines
    assert f"    Test net output #0: detection_eval = {expected:.6g}" in lines
    assert "    Test net output #1: plain = 0.5" in lines


# Proposal


def test_anchors_of_faster_rcnn() -> None:
    """The nine anchors that the paper's code prints for its defaults, counted from 0."""
    boxes = anchors(16, [0.5, 1, 2], [8, 16, 32])
    assert boxes[0].tolist() == [-84, -40, 99, 55]
    assert boxes[4].tolist() == [-120, -120, 135, 135]
    assert boxes[8].tolist() == [-168, -344, 183, 359]


@pytest.mark.parametrize("seed", range(3))
def test_proposals_equal_a_loop_over_cells(seed: int) -> None:
    random = np.random.default_rng(seed)
    layer = (
        "Proposal proposal_param { ratio: [0.5, 1, 2] scale: [1, 2] base_size: 8 feat_stride: 8 min_size: 5 "
        "pre_nms_topn: 60 post_nms_topn: 12 nms_thresh: 0.4 }"
    )
    net = make(text(layer, "s d i", "rois scores", s=(2, 12, 4, 5), d=(2, 24, 4, 5), i=(2, 3))).double()
    scores, moves = random.uniform(0, 1, (2, 12, 4, 5)), random.normal(0, 0.3, (2, 24, 4, 5))
    sizes = [[32.0, 40, 1], [30, 35, 1.5]]
    rois, kept = net(
        torch.from_numpy(scores), torch.from_numpy(moves), torch.tensor(sizes, dtype=torch.float64)
    )
    shapes = anchors(8, [0.5, 1, 2], [1, 2]).tolist()
    expected: list[list[float]] = []
    for n, (height, width, scale) in enumerate(sizes):
        boxes = []
        for y in range(4):
            for x in range(5):
                for a, shape in enumerate(shapes):
                    w, h = shape[2] - shape[0] + 1, shape[3] - shape[1] + 1
                    dx, dy, dw, dh = moves[n, 4 * a : 4 * a + 4, y, x]
                    cx, cy = shape[0] + 8 * x + w / 2 + dx * w, shape[1] + 8 * y + h / 2 + dy * h
                    w, h = w * exp(dw), h * exp(dh)
                    box = [
                        min(max(value, 0), most - 1)
                        for value, most in zip(
                            (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), (width, height) * 2, strict=True
                        )
                    ]
                    if min(box[2] - box[0], box[3] - box[1]) + 1 >= 5 * scale:
                        boxes.append((scores[n, 6 + a, y, x], box))
        boxes = sorted(boxes, key=lambda pair: -pair[0])[:60]
        stay = suppress([box for _, box in boxes], 0.4, extra=1)[:12]
        expected += [[n, *boxes[k][1], boxes[k][0]] for k in stay]
    torch.testing.assert_close(torch.cat((rois, kept), 1), torch.tensor(expected, dtype=torch.float64))


# Hard examples of R-FCN


def test_the_hardest_regions_of_each_image_are_shown() -> None:
    layer = "BoxAnnotatorOHEM box_annotator_ohem_param { roi_per_img: 3 ignore_label: -1 }"
    net = make(
        text(
            layer, "rois losses label w", "shown weights", rois=(20, 5), losses=(20,), label=(20,), w=(20, 8)
        ),
        "TRAIN",
    )
    random = np.random.default_rng(0)
    image, losses = random.integers(0, 3, 20), random.permutation(20)
    rois = torch.from_numpy(image).float().unsqueeze(1).expand(20, 5)
    shown, weights = net(rois, torch.from_numpy(losses).float(), torch.arange(20.0), torch.ones(20, 8))
    for n in range(3):
        mine = [i for i in range(20) if image[i] == n]
        hardest = sorted(mine, key=lambda i: -losses[i])[:3]
        for i in mine:
            assert shown[i] == (i if i in hardest else -1)
            assert (weights[i] == (i in hardest)).all()


@pytest.mark.parametrize(
    ("layer", "bottoms", "shapes", "message"),
    [
        ("PriorBox", "x y", {"x": (1, 1, 2, 2), "y": (1, 3, 4, 4)}, "needs min_size > 0"),
        (
            "PriorBox prior_box_param { min_size: 4 max_size: 3 }",
            "x y",
            {"x": (1, 1, 2, 2), "y": (1, 3, 4, 4)},
            "max_size 3 must be greater than min_size 4",
        ),
        (
            "PriorBox prior_box_param { min_size: 4 img_h: 3 }",
            "x y",
            {"x": (1, 1, 2, 2), "y": (1, 3, 4, 4)},
            "both of img_h and img_w",
        ),
        (
            "DetectionOutput detection_output_param { num_classes: 3 }",
            "l c p",
            {"l": (1, 8), "c": (1, 5), "p": (1, 2, 8)},
            r"needs shape \(1, 2 priors \* 3\), found \(1, 5\)",
        ),
        (
            "MultiBoxLoss multibox_loss_param { num_classes: 2 share_location: false }",
            "l c p g",
            {"l": (1, 16), "c": (1, 4), "p": (1, 2, 8), "g": (1, 1, 2, 8)},
            "share_location: true",
        ),
        (
            "Proposal",
            "s d i",
            {"s": (1, 12, 2, 2), "d": (1, 36, 2, 2), "i": (1, 3)},
            r"2 \* 9 anchors, H, W\), found \(1, 12, 2, 2\)",
        ),
    ],
)
def test_mistakes_are_told(
    layer: str, bottoms: str, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        make(text(layer, bottoms, "top", **shapes))


def test_multibox_loss_stops_at_an_object_of_the_background_class() -> None:
    net = make(multibox("code_type: CENTER_SIZE"), "TRAIN")
    values = [torch.zeros(net.shapes[slot]) for slot in net.graph.inputs]
    with pytest.raises(DataError, match="background's class 0"):
        net(*values)
    values[3][..., 0] = -1
    net(*values)


def test_detections_need_classes() -> None:
    shapes = {"loc": (1, 8), "conf": (1, 6), "prior": (1, 2, 8)}
    with pytest.raises(SpecError, match="needs num_classes > 0"):
        make(
            text(
                "DetectionOutput detection_output_param { num_classes: 0 }", "loc conf prior", "top", **shapes
            )
        )


def test_steps_of_priors_may_be_fractions_of_a_pixel() -> None:
    layer = "PriorBox prior_box_param {{ min_size: 4 step: {} }}"
    shapes = {"map": (1, 1, 2, 2), "image": (1, 3, 8, 8)}
    (top,) = make(text(layer.format(0.5), "map image", "top", **shapes))(
        torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 8, 8)
    )
    centres = (top[0, 0].view(-1, 4)[:, :2] + top[0, 0].view(-1, 4)[:, 2:]) / 2 * 8
    assert centres.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    with pytest.raises(SpecError, match="step must be > 0"):
        make(text(layer.format(0), "map image", "top", **shapes))


def test_boxes_of_class_0_count_where_another_class_is_the_background() -> None:
    layer = "DetectionEvaluate detection_evaluate_param { num_classes: 2 background_label_id: 1 }"
    net = make(text(layer, "found gt", "v", found=(1, 1, 2, 7), gt=(1, 1, 1, 8)))
    box = [0.0, 0.0, 0.5, 0.5]
    (verdict,) = net(
        torch.tensor([[[[0, 0, 0.9, *box], [1, -1, -1, -1, -1, -1, -1]]]]),
        torch.tensor([[[[0, 0, 0, *box, 0]]]]),
    )
    expected = torch.tensor([[-1, 0, 1, -1, -1], [0, 0, 0.9, 1, 0]])
    torch.testing.assert_close(verdict[0, 0], expected)
