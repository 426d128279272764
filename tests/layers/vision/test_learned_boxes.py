"""What detectors learn from and how they are judged, against loops written from the formulas, or worked by hand."""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from tests.cases import all_cases
from tests.cases.learned_boxes import CELLS, MAPS, MATCHED, OBJECTS, REGIONS, ROWS, TRUTH

CASES = {case.name: case for case in all_cases()}


def made(name: str, **changes: str) -> Net:
    case = CASES[name]
    text = case.text
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return make_net(schema.parse_net(text, name), case.phase, seed=1)


def gradient(net: Net, x: Tensor, *others: Tensor) -> tuple[float, Tensor]:
    """The loss and its gradient for x, in float64."""
    x = x.double().requires_grad_(True)
    loss = net.double()(x, *(other.double() for other in others))[-1]
    loss.sum().backward()
    assert x.grad is not None
    return float(loss.detach().sum()), x.grad


def iou(a: list[float], b: list[float]) -> float:
    """Of boxes (x, y, width, height) about their middles."""
    w, h = (
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2)
        for i in (0, 1)
    )
    shared = w * h if w > 0 and h > 0 else 0.0
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


@pytest.mark.parametrize("name", ["yolo1_loss", "yolo1_loss_plain"])
def test_yolo1_loss(name: str) -> None:
    constriant, root = name == "yolo1_loss", name == "yolo1_loss"
    x = torch.rand(2, 108)
    value, grad = gradient(made(name), x, CELLS)
    off, sums, count = np.zeros((2, 12, 9)), dict.fromkeys(("class", "box", "one", "none"), 0.0), 0
    for n in range(2):
        y = x[n].double().view(12, 9).numpy()
        labels = CELLS[n].double().numpy()
        for cell in range(9):
            for k in range(2):
                off[n, 2 + k, cell] = 0.5 * y[2 + k, cell]
                sums["none"] += 0.5 * y[2 + k, cell] ** 2
            if not labels[9 + cell]:
                continue
            count += 1
            truth = labels[27 + 4 * cell : 31 + 4 * cell].tolist()
            for c in range(2):
                d = y[c, cell] - (c == labels[18 + cell])
                off[n, c, cell] = d
                sums["class"] += d * d
            best, most, nearest = 0, 0.0, 20.0
            for k in range(2):
                box = y[4 + 4 * k : 8 + 4 * k, cell].tolist()
                if constriant:
                    box[:2] = [(cell % 3 + box[0]) / 3, (cell // 3 + box[1]) / 3]
                if root:
                    box[2:] = [box[2] ** 2, box[3] ** 2]
                value_k = iou(box, truth)
                error = sqrt(sum((a - b) ** 2 for a, b in zip(box, truth, strict=True)))
                if most > 0 or value_k > 0:
                    if value_k > most:
                        best, most = k, value_k
                elif error < nearest:
                    best, nearest = k, error
            aim = list(truth)
            if constriant:
                aim[:2] = [aim[0] * 3 - cell % 3, aim[1] * 3 - cell // 3]
            if root:
                aim[2:] = [sqrt(aim[2]), sqrt(aim[3])]
            sums["none"] -= 0.5 * y[2 + best, cell] ** 2
            sums["one"] += (y[2 + best, cell] - 1) ** 2
            off[n, 2 + best, cell] = y[2 + best, cell] - most
            for o in range(4):
                d = 5 * (y[4 + 4 * best + o, cell] - aim[o])
                off[n, 4 + 4 * best + o, cell] = d
                sums["box"] += d * d / 5
    wanted = (sums["class"] + sums["box"] + sums["one"]) / count + sums["none"] / (36 - count)
    assert value == pytest.approx(wanted)
    np.testing.assert_allclose(grad.view(2, 12, 9).numpy(), off / 2, atol=1e-9)


def test_yolo1_without_objects_is_finite() -> None:
    labels = torch.zeros(2, 63)
    value, grad = gradient(made("yolo1_loss"), torch.rand(2, 108), labels)
    assert np.isfinite(value)
    assert grad.isfinite().all()


def known(annotated: bool) -> list[list[list[float]]]:
    """The objects of both images as (class, x, y, width, height)."""
    if not annotated:
        return [ROWS[0].view(3, 5)[:2].double().tolist(), ROWS[1].view(3, 5)[:1].double().tolist()]
    per_image: list[list[list[float]]] = [[], []]
    for row in OBJECTS[0, 0].double().tolist():
        if row[0] >= 0:
            x1, y1, x2, y2 = row[3:7]
            per_image[int(row[0])].append([row[1] - 1, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
    return per_image


@pytest.mark.parametrize("name", ["yolo2_loss", "yolo2_loss_rows"])
def test_yolo2_loss(name: str) -> None:
    rows = name == "yolo2_loss_rows"
    coord, thresh, objects, match, rescore = (1, 0.2, 5, False, False) if rows else (2, 0.1, 1, True, True)
    thresh = float(np.float32(thresh))
    x = torch.randn(2, 14, 3, 3)
    value, grad = gradient(made(name), x, CASES[name].inputs["b"])
    anchors = [[1.0, 1.5], [2.0, float(np.float32(0.7))]]
    off = np.zeros((2, 2, 7, 3, 3))
    for n, truths in enumerate(known(not rows)):
        y = x[n].double().view(2, 7, 3, 3).numpy()

        def predicted(k: int, j: int, i: int, y: np.ndarray = y) -> list[float]:
            v = y[k, :, j, i]
            size = [exp(v[2]) * anchors[k][0] / 3, exp(v[3]) * anchors[k][1] / 3]
            return [(i + sigmoid(v[0])) / 3, (j + sigmoid(v[1])) / 3, *size]

        for k in range(2):
            for j in range(3):
                for i in range(3):
                    p = sigmoid(y[k, 4, j, i])
                    best = max(iou(predicted(k, j, i), truth[1:]) for truth in truths)
                    off[n, k, 4, j, i] = 0 if best > thresh else p * p * (1 - p)
        for truth in truths:
            i, j = int(truth[1] * 3), int(truth[2] * 3)
            sides = [predicted(k, j, i)[2:] if not match else [a / 3 for a in anchors[k]] for k in range(2)]
            k = int(np.argmax([iou([0, 0, *side], [0, 0, *truth[3:]]) for side in sides]))
            v = y[k, :, j, i]
            for o, middle in ((0, truth[1] * 3 - i), (1, truth[2] * 3 - j)):
                s = sigmoid(v[o])
                off[n, k, o, j, i] = coord * (s - middle) * s * (1 - s)
                off[n, k, 2 + o, j, i] = coord * (v[2 + o] - log(truth[3 + o] * 3 / anchors[k][o]))
            p = sigmoid(v[4])
            aim = iou(predicted(k, j, i), truth[1:]) if rescore else 1
            off[n, k, 4, j, i] = objects * (p - aim) * p * (1 - p)
            share = np.exp(v[5:]) / np.exp(v[5:]).sum()
            off[n, k, 5:, j, i] = share - np.eye(2)[int(truth[0])]
    assert value == pytest.approx((off**2).sum(), rel=1e-6)
    np.testing.assert_allclose(grad.view(2, 2, 7, 3, 3).numpy(), off / 2, atol=1e-7)


@pytest.mark.parametrize("name", ["yolo3_loss", "yolo3_loss_slope"])
def test_yolo3_loss(name: str) -> None:
    slope = name == "yolo3_loss_slope"
    x = torch.randn(2, 14, 3, 3)
    value, grad = gradient(made(name), x, CASES[name].inputs["b"])
    anchors = np.array([[20, 30], [50, 40], [90, 60], [30, 30]]) / 96
    mask = [1, 3]
    off = np.zeros((2, 2, 7, 3, 3))
    y = x.double().view(2, 2, 7, 3, 3).numpy().copy()
    for o in (0, 1, 4, 5, 6):
        y[:, :, o] = 1 / (1 + np.exp(-y[:, :, o]))
    for n, truths in enumerate(known(not slope)):
        for k in range(2):
            for j in range(3):
                for i in range(3):
                    v = y[n, k, :, j, i]
                    box = [(i + v[0]) / 3, (j + v[1]) / 3, *(np.exp(v[2:4]) * anchors[mask[k]])]
                    off[n, k, 4, j, i] = 0 if max(iou(box, t[1:]) for t in truths) > 0.5 else v[4]
        for truth in truths:
            best = int(np.argmax([iou([0, 0, *side], [0, 0, *truth[3:]]) for side in anchors.tolist()]))
            if best not in mask:
                continue
            k, i, j = mask.index(best), int(truth[1] * 3), int(truth[2] * 3)
            v, weight = y[n, k, :, j, i], 2 - truth[3] * truth[4]
            off[n, k, 0, j, i] = weight * (v[0] - (truth[1] * 3 - i))
            off[n, k, 1, j, i] = weight * (v[1] - (truth[2] * 3 - j))
            off[n, k, 2:4, j, i] = weight * (v[2:4] - np.log(np.array(truth[3:]) / anchors[best]))
            off[n, k, 4, j, i] = (3 if slope else 1) * (v[4] - 1)
            off[n, k, 5:, j, i] = v[5:] - np.eye(2)[int(truth[0])]
    assert np.abs(off[:, :, :4]).sum() > 0, "no object belongs to this map"
    assert value == pytest.approx((off**2).sum() / 2, rel=1e-6)
    if slope:
        for o in (0, 1, 4, 5, 6):
            off[:, :, o] *= y[:, :, o] * (1 - y[:, :, o])
    np.testing.assert_allclose(grad.view(2, 2, 7, 3, 3).numpy(), off / 2, atol=1e-6)


def test_yolo_class_that_does_not_exist() -> None:
    rows = ROWS.clone()
    rows[0, 0] = 7
    net = made("yolo2_loss_rows")
    with pytest.raises(SpecError, match="an object has class 7, num_class is 2"):
        net(torch.randn(2, 14, 3, 3), rows)


def test_yolo1_evaluation_by_hand() -> None:
    """Two boxes on the object of class 1 (the better one is right), one on the difficult object, one on nothing."""
    x = torch.zeros(2, 12, 9)
    x[:, 0] = 0.1
    x[0, 1, 4], x[0, 1, 5] = 0.9, 0.8
    x[0, 2:4] = 0.001

    def put(cell: int, k: int, score: float, box: tuple[float, ...]) -> None:
        x[0, 2 + k, cell] = score
        middle = (box[0] * 3 - cell % 3, box[1] * 3 - cell // 3)
        x[0, 4 + 4 * k : 8 + 4 * k, cell] = torch.tensor([*middle, sqrt(box[2]), sqrt(box[3])])

    put(4, 0, 0.9, (0.5, 0.45, 0.4, 0.3))
    put(5, 1, 0.8, (0.52, 0.45, 0.4, 0.3))
    put(6, 0, 0.7, (0.2, 0.9, 0.3, 0.2))
    (top,) = made("yolo1_evaluation", **{"nms: 0.5": "nms: -1"})(x.view(2, -1), CELLS)
    assert top.shape == (2, 2 + 4 * 18)
    assert top[0, :2].tolist() == [0, 1]  # the difficult object of class 0 does not count
    rows = top[0, 2:].view(-1, 4)
    assert rows[0, 0] == 0
    torch.testing.assert_close(rows[0], torch.tensor([0, 0.07, 0, 0]))  # on the difficult object: neither
    ones = rows[rows[:, 0] == 1]
    torch.testing.assert_close(ones[0], torch.tensor([1, 0.81, 1, 0]))
    torch.testing.assert_close(ones[1], torch.tensor([1, 0.64, 0, 1]))
    (top,) = made("yolo1_evaluation")(x.view(2, -1), CELLS)
    rows = top[0, 2:].view(-1, 4)
    assert (rows[:, 1] > 0.6).sum() == 1  # the second box on the object is suppressed


def test_yolo2_evaluation_by_hand() -> None:
    x = torch.full((2, 2, 7, 3, 3), -9.0)
    x[:, :, :2] = 0
    truth = ROWS[1, :5].tolist()  # class 1 at (0.6, 0.5), 0.6 wide, 0.8 high: cell (1, 1)
    middle = [truth[1] * 3 - 1, truth[2] * 3 - 1]
    x[1, 1, :2, 1, 1] = torch.tensor([log(m / (1 - m)) for m in middle])
    x[1, 1, 2:4, 1, 1] = torch.tensor([log(truth[3] * 3 / 2), log(truth[4] * 3 / 0.7)])
    x[1, 1, 4:, 1, 1] = torch.tensor([9.0, -9, 9])
    (top,) = made("yolo2_evaluation")(x.view(2, 14, 3, 3), ROWS)
    assert top[0, :2].tolist() == [1, 1]
    assert top[1, :2].tolist() == [0, 1]
    torch.testing.assert_close(top[1, 2:6], torch.tensor([1.0, 1, 1, 0]), atol=1e-3, rtol=0)
    assert float(top[1, 6:].abs().sum() + top[0, 2:].abs().sum()) == 0


# MS-CNN and Cascade R-CNN


def corner_iou(a: list[float], b: list[float]) -> float:
    """Of boxes (x, y, width, height) from their corners."""
    w, h = (max(min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    return w * h / (a[2] * a[3] + b[2] * b[3] - w * h)


def smooth(d: float) -> float:
    return 0.5 * d * d if abs(d) < 1 else abs(d) - 0.5


def test_mscnn_loss() -> None:
    """All cells of background and the two of objects; squares; then the hardest, weighed."""
    x = torch.randn(2, 7, 3, 4)
    for name in ("mscnn_loss_all", "mscnn_loss"):
        hardest = name == "mscnn_loss"
        top = made(name).double()(x.double(), MAPS.double())[0]
        logp = x[:, :3].double().log_softmax(1)
        kept = []
        for n in range(2):
            ground = [
                (h, w) for h in range(3) for w in range(4) if MAPS[n, 0, h, w] == 0 and MAPS[n, 5, h, w] < 0.5
            ]
            if hardest:
                chosen = set()
                for k in (1, 2):
                    order = sorted(ground, key=lambda cell, n=n, k=k: -float(x[n, k, cell[0], cell[1]]))
                    chosen |= set(order[:4])  # one object of a class at most: 4 at least
                ground = sorted(chosen)
            kept += [(n, h, w, 0) for h, w in ground]
        objects = [(0, 1, 2, 1), (1, 2, 0, 2)]
        total = len(kept) + 2
        overlap = {(n, h, w): float(MAPS[n, 5, h, w]) for n, h, w, _ in objects}
        own = sum(overlap.values())
        class_loss = 0.0
        for n, h, w, c in kept + objects:
            weight = 1.0
            if hardest:
                weight = overlap[n, h, w] * 0.2 * total / own if c else 0.8 * total / len(kept)
            class_loss -= weight * float(logp[n, c, h, w])
        box_loss = 0.0
        for n, h, w, _ in objects:
            label = MAPS[n, 1:5, h, w].double().tolist()
            aim = [
                (label[0] - (w + 0.5) * 8) / 20,
                (label[1] - (h + 0.5) * 8) / 16,
                log(label[2] / 20),
                log(label[3] / 16),
            ]
            for o in range(4):
                limit = 5.0 if o < 2 else log(8)
                d = min(max(float(x[n, 3 + o, h, w]), -limit), limit) - aim[o]
                box_loss += smooth(d) if hardest else 0.5 * d * d
        box_loss *= (0.7 if hardest else 1) / 8
        wanted = torch.tensor([class_loss / total + box_loss, box_loss]).double()
        torch.testing.assert_close(top.flatten(), wanted, atol=1e-5, rtol=1e-5)


def test_mscnn_random_cells_are_of_background_alone() -> None:
    """Scores that are sure of background everywhere but in the cell that is too near an object: it never counts."""
    x = torch.zeros(2, 7, 3, 4)
    x[:, 0] = 30
    x[0, :3, 1, 2], x[1, :3, 2, 0] = torch.tensor([0.0, 30, 0]), torch.tensor([0.0, 0, 30])
    x[0, :3, 0, 0] = torch.tensor([0.0, 30, 0])
    for seed in range(5):
        torch.manual_seed(seed)
        top = made("mscnn_loss_random")(x, MAPS)[0]
        assert float(top.flatten()[0] - top.flatten()[1]) < 1e-6


def test_group_loss() -> None:
    """The two maps are boxes of one image's cells: they choose together."""
    x, boxes = torch.randn(2, 3, 3, 4).double(), torch.randn(2, 4, 3, 4).double()
    top = made("group_loss").double()(x, boxes, MAPS.double())[0]
    logp = x.log_softmax(1)
    ground = [
        (n, h, w)
        for n in range(2)
        for h in range(3)
        for w in range(4)
        if MAPS[n, 0, h, w] == 0 and MAPS[n, 5, h, w] < 0.5
    ]
    ground = sorted(ground, key=lambda cell: float(logp[cell[0], 0, cell[1], cell[2]]))[:5]  # min_num_neg
    cells = [(n, 0, h, w) for n, h, w in ground] + [(0, 1, 1, 2), (1, 2, 2, 0)]
    class_loss = -sum(float(logp[cell]) for cell in cells) / len(cells)
    box_loss = 0.0
    for n, h, w in ((0, 1, 2), (1, 2, 0)):
        wide, high = ((20, 16), (14, 30))[n]
        label = MAPS[n, 1:5, h, w].double().tolist()
        aim = [
            (label[0] - (w + 0.5) * 8) / wide,
            (label[1] - (h + 0.5) * 8) / high,
            log(label[2] / wide),
            log(label[3] / high),
        ]
        box_loss += sum(smooth(float(boxes[n, o, h, w]) - aim[o]) for o in range(4)) / 8
    torch.testing.assert_close(
        top.flatten().tolist(), [class_loss + box_loss, box_loss], atol=1e-6, rtol=1e-6
    )


def test_mscnn_accuracy() -> None:
    x = torch.randn(2, 7, 3, 4)
    x[0, :3, 1, 2] = torch.tensor([0.0, 5, 1])  # right
    iou_, top = made("mscnn_accuracy")(x, MAPS)
    right = asked = 0
    value = 0.0
    for n in range(2):
        for h in range(3):
            for w in range(4):
                c = int(MAPS[n, 0, h, w])
                if not c and MAPS[n, 5, h, w] >= 0.5:
                    continue
                asked += 1
                right += int(x[n, :3, h, w].argmax()) == c
                if c:
                    limit = [0.25, 0.25, log(2), log(2)]
                    code = [min(max(float(x[n, 3 + o, h, w]), -limit[o]), limit[o]) for o in range(4)]
                    wide, high = 20 * exp(code[2]), 16 * exp(code[3])
                    left, above = (
                        code[0] * 20 + (w + 0.5) * 8 - wide / 2,
                        code[1] * 16 + (h + 0.5) * 8 - high / 2,
                    )
                    label = MAPS[n, 1:5, h, w].tolist()
                    truth = [label[0] - label[2] / 2, label[1] - label[3] / 2, label[2], label[3]]
                    value += corner_iou([left, above, wide, high], truth) / 2
    fore = (1 + (int(x[1, :3, 2, 0].argmax()) == 2)) / 2
    torch.testing.assert_close(top.flatten(), torch.tensor([right / asked, fore]))
    assert float(iou_) == pytest.approx(value, abs=1e-5)


def test_box_accuracy() -> None:
    """Moves that take the first region onto its object, and leave the second; the fourth is its object itself."""
    moves = torch.zeros(4, 12)
    before, truth = [2, 3, 19, 28], [3, 3, 19, 27]
    code = [
        (truth[0] + truth[2] / 2 - before[0] - before[2] / 2) / before[2] / 0.1,
        (truth[1] + truth[3] / 2 - before[1] - before[3] / 2) / before[3] / 0.1,
        log(truth[2] / before[2]) / 0.2,
        log(truth[3] / before[3]) / 0.2,
    ]
    moves[0, 8:12] = torch.tensor(code)
    was, top = made("box_accuracy")(moves, REGIONS, MATCHED)
    other = corner_iou([40, 8, 31, 33], [41, 9, 31, 34])
    assert float(top) == pytest.approx((1 + other) / 2, abs=1e-5)
    assert float(was) == pytest.approx((corner_iou([2, 3, 19, 28], [3, 3, 19, 27]) + other) / 2, abs=1e-5)


def test_proposal_target() -> None:
    """All regions, the objects among them: classes, moves and weights of each."""
    net = made("proposal_target", **{"append_gtbox: false": "append_gtbox: true"})
    top = net.outputs(net(REGIONS, TRUTH))
    rois, label = top["y"], top["c"].flatten()
    assert rois.shape == (6, 5)
    assert sorted(label.tolist()) == [0, 1, 1, 2, 2, 2]
    for row, c, aim, inside, match in zip(rois, label.tolist(), top["d"], top["e"], top["g"], strict=True):
        x, y, wide, high = (
            float(row[1]),
            float(row[2]),
            float(row[3] - row[1] + 1),
            float(row[4] - row[2] + 1),
        )
        assert float(inside.sum()) == (4 if c else 0)
        if not c:
            assert float(aim.abs().sum() + match.abs().sum()) == 0
            continue
        t = TRUTH[0 if c == 2 else 1].tolist()
        tw, th = t[3] - t[1] + 1, t[4] - t[2] + 1
        wanted = [
            (t[1] + tw / 2 - x - wide / 2) / wide,
            (t[2] + th / 2 - y - high / 2) / high,
            log(tw / wide),
            log(th / high),
        ]
        torch.testing.assert_close(
            aim[4 * int(c) : 4 * int(c) + 4], torch.tensor(wanted), atol=1e-5, rtol=1e-5
        )
        assert float(aim.abs().sum()) == pytest.approx(sum(map(abs, wanted)), abs=1e-4)
        assert float(match[5]) == pytest.approx(
            corner_iou([x, y, wide, high], [t[1], t[2], tw, th]), abs=1e-5
        )
    weight = top["h"].flatten()
    assert float(weight[label > 0].sum()) == pytest.approx(6 * 0.25)
    assert float(weight.sum()) == pytest.approx(6)


def test_proposal_target_without_regions() -> None:
    net = made("proposal_target")
    far = torch.tensor([[0.0, 0, 0, 1, 1]] * 4)
    text = {"batch_size: -1": "batch_size: 4", "bg_thr_lw: 0 ": "bg_thr_lw: 0.4 pickup_discard: false "}
    net_ = made("proposal_target", **text)
    top = net_.outputs(net_(far, TRUTH))
    assert top["y"].shape == (1, 5)
    assert float(top["c"]) == 0
    assert float(top["d"].abs().sum()) == 0
    assert len(net.outputs(net(far, TRUTH))["y"]) == 4


def test_scale_route() -> None:
    net = made("scale_route", **{"low_scale: 1 ": "low_scale: 15 high_scale: 25 "})
    y, z = net(REGIONS, torch.arange(12.0).view(4, 3))
    assert y[:, 1].tolist() == [2, 3]  # 19 x 28 and 20 x 27
    assert z[:, 0].tolist() == [0, 9]
    net = made("scale_route", **{"low_scale: 1 ": "low_scale: 1000 "})
    y, _ = net(REGIONS, torch.zeros(4, 3))
    assert y[:, 1].tolist() == [40]


def test_hard_mining() -> None:
    (y,) = made("hard_mining")(torch.tensor([0.1, 3, 0.2, 2]), REGIONS)
    assert y[:, 1].tolist() == [40, 3]


def test_frcnn_output() -> None:
    """Moves of nothing: the regions, clipped to the picture; the worse of two that overlap goes."""
    probability = torch.tensor([[0.1, 0.2, 0.7], [0.1, 0.9, 0], [0.8, 0.1, 0.1], [0.4, 0, 0.6]])
    net = made("frcnn_output", **{"iou_thr: 1 conf_thr: -100": "iou_thr: 0.5 conf_thr: 0.5"})
    (top,) = net(probability, torch.zeros(4, 12), REGIONS, torch.tensor([[35.0, 60]]))
    assert top[0].tolist() == [0, -1, -1, -1, -1, -1, -1]
    torch.testing.assert_close(top[1:], torch.tensor([[0, 40, 8, 60, 35, 1, 0.9], [0, 2, 3, 20, 30, 2, 0.7]]))


def test_roi_pooling_with_a_margin() -> None:
    """A quarter of the sides on each side: pixels 2 to 5 become 1 to 6."""
    shape = "input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } }"
    text = f"""layer {{ name: "x" type: "Input" top: "x" {shape} }}
        layer {{ name: "r" type: "Input" top: "r" input_param {{ shape {{ dim: 1 dim: 5 }} }} }}
        layer {{ name: "p" type: "ROIPooling" bottom: "x" bottom: "r" top: "y"
                 roi_pooling_param {{ pooled_h: 1 pooled_w: 1 pad_ratio: 0.25 }} }}"""
    net = make_net(schema.parse_net(text, "roi"), "TEST", seed=1)
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 6, 1], x[0, 0, 7, 7], x[0, 0, 0, 0] = 1, 2, 3
    (y,) = net(x, torch.tensor([[0.0, 2, 2, 5, 5]]))
    assert float(y) == 1
