"""Confusion matrices against scikit-learn's, the hardest examples against a full sort, and their pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score

from netspec.cli import app
from netspec.errors import SpecError
from netspec.run.confusion import Confusion, Hard, add, classes, confusion, draw_confusion, draw_hardest, hold

NET = """name: "n" layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  data_filler { type: "gaussian" } data_filler { type: "constant" value: %s } shape { dim: 8 dim: 1 dim: 6 dim: 6 }
  shape { dim: 8 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
%s"""
ACCURACY = 'layer { name: "a" type: "Accuracy" bottom: "ip" bottom: "y" top: "a" }'


def test_the_matrix_is_scikit_learns() -> None:
    chance = torch.Generator().manual_seed(1)
    scores = torch.randn(60, 4, generator=chance)
    labels = torch.randint(0, 4, (60,), generator=chance).float()
    counted = Confusion(add(add(None, scores[:25], labels[:25]), scores[25:], labels[25:]), [])
    taken = scores.argmax(1)
    assert counted.counts.tolist() == confusion_matrix(labels, taken).tolist()
    assert counted.per_class == pytest.approx(recall_score(labels, taken, average=None).tolist())
    assert counted.accuracy == pytest.approx(float((taken == labels).double().mean()))


def test_labels_that_are_no_class_are_left_out() -> None:
    labels = torch.tensor([0.0, float("nan"), 255.0, -1.0, 1.0])
    own, known = classes(labels, 2)
    assert known.tolist() == [True, False, False, False, True]
    assert int(add(None, torch.zeros(5, 2), labels).sum()) == 2
    assert own.tolist() == [0, 0, 0, 0, 1]


def test_positions_count_one_by_one() -> None:
    scores, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5)).float()
    assert add(None, scores.movedim(1, -1), labels).tolist() == confusion_matrix(
        labels.flatten(), scores.argmax(1).flatten(), labels=[0, 1, 2]
    ).tolist()  # fmt: skip
    with pytest.raises(SpecError, match="whole examples"):
        hold([], 3, scores.movedim(1, -1), labels, None, 0)


@pytest.mark.parametrize("most", [1, 7, 100])
def test_the_hardest_are_the_least_likely(most: int) -> None:
    scores = torch.randn(50, 4)
    labels = torch.randint(0, 4, (50,)).float()
    hard: list[tuple[float, int, Hard]] = []
    for begin in range(0, 50, 20):
        hold(hard, most, scores[begin : begin + 20], labels[begin : begin + 20], None, begin)
    own = scores.softmax(1)[torch.arange(50), labels.long()]
    expected = own.argsort()[:most].tolist()
    assert [one.index for _, _, one in sorted(hard, key=lambda entry: -entry[0])] == expected
    assert {one.taken_for for _, _, one in hard} <= {0, 1, 2, 3}


@pytest.mark.parametrize("last", [ACCURACY, ""])
def test_of_a_net(last: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET % (1, last))
    solver = tmp_path / "s_solver.prototxt"
    solver.write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 test_iter: 5 test_interval: 1 '
                      "random_seed: 1 compile: false")  # fmt: skip
    app(["train", str(solver), "-o", str(tmp_path / "run")], standalone_mode=False)
    (counted,) = confusion(tmp_path / "run", hardest=4)
    assert counted.counts.sum(1).tolist() == [0, 40, 0]
    assert [one.label for one in counted.hardest] == [1] * 4
    assert counted.hardest == sorted(counted.hardest)
    assert counted.as_json()["per_class"] == [None, pytest.approx(counted.accuracy), None]
    capsys.readouterr()
    command = ["test", str(tmp_path / "run"), "--confusion", "--hardest", "4", "-o", str(tmp_path / "out")]
    app([*command, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["confusion"] == counted.counts.tolist()
    app(command, standalone_mode=False)
    text = capsys.readouterr().out
    assert f"accuracy {counted.accuracy:.6g} of 40" in text
    assert text.count("example ") == 4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"confusion.svg", "hardest.png"}


def test_a_net_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'name: "n" layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } }'
    )
    with pytest.raises(SpecError, match="no layer compares scores with labels"):
        confusion(path)


def test_pictures_of_names(tmp_path: Path) -> None:
    counted = Confusion(torch.tensor([[5, 1], [0, 0]]), [Hard(0.1, 3, 0, 1, torch.rand(1, 8, 8))])
    assert draw_confusion(counted, tmp_path / "c.svg", ["cat", "catfish"]).read_text().count("catfish")
    assert draw_hardest(counted, tmp_path / "h.png", ["cat", "catfish"]).stat().st_size > 200
    assert counted.lines(["cat", "catfish"])[2].endswith("-")
    with pytest.raises(SpecError, match="no picture"):
        draw_hardest(Confusion(counted.counts, [Hard(0.1, 3, 0, 1)]), tmp_path / "h.png")
