"""Which rows of Fig. 4 are blind, and what its records say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from netspec.data.masks import Missing
from netspec.lab import FIG_4, Cell, Table
from tests.places import ROOT
from tools.results import fig4


@pytest.mark.parametrize(
    ("net", "known"),
    [
        ("ht_cac_mnist", False),
        ("cp_cac_mnist", False),
        ("cnn_missing_mnist", False),
        ("lenet_mnist", False),
        ("ht_cac_missing_mnist", True),
        ("lenet_iid_mnist", True),
        ("lenet_rects_mnist", True),
    ],
)
def test_which_nets_are_blind(net: str, known: bool) -> None:
    assert fig4.told(ROOT / f"nets/{net}.prototxt") is known


def test_rectangles_that_are_not_tested_squares() -> None:
    tested = Missing("rects", count=(2,), width=(11,))
    assert fig4.meets(Missing("rects", count=(1, 2), width=(11, 13)), tested)
    assert not fig4.meets(Missing("rects", count=(1, 2), width=(11, 13), height=(9,)), tested)
    assert not fig4.meets(Missing("rects", count=(3,), width=(11,)), tested)
    assert not fig4.meets(Missing("iid", probability=(0.5,)), tested)


class Half:
    """A method that holds class 0 and 1 for equally probable, and says 0."""

    name = "half"

    def predict(self, pixels: np.ndarray, observed: np.ndarray) -> np.ndarray:
        return np.zeros(len(pixels), int)

    def probabilities(self, pixels: np.ndarray, observed: np.ndarray) -> np.ndarray:
        return np.full((len(pixels), 2), 0.5)


def test_measure_counts_right_answers_and_calibration() -> None:
    pixels, labels = np.zeros((2500, 1, 2, 2), np.uint8), (np.arange(2500) % 4 == 0).astype(int)
    assert fig4.measure(Half(), FIG_4[1], pixels, labels, 1) == (1875, 0.25)


def test_rows_of_a_record() -> None:
    record = {
        "settings": {"images": 10},
        "made": {"command": "c"},
        "results": {
            "told | a": True,
            "told | lenet": False,
            "iterations | a": 5,
            "a | clean": 9,
            "a | clean | ece": 0.02,
            "lenet, zero | clean": 8,
            "lenet, expected | clean": 7,
        },
    }
    table, errors, informed = fig4.rows(record)
    assert {name: row["clean"].right for name, row in table.cells.items()} == {
        "a": 9,
        "lenet, zero": 8,
        "lenet, expected": 7,
    }
    assert errors == {"a": {"clean": 0.02}}
    assert informed == {"a", "lenet, expected"}


def test_a_training_that_was_cut_short_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fig4, "NETS", ROOT / "nets")
    assert fig4.plan("ht_cac_mnist", 25_000) == "25,000"
    assert fig4.plan("cnn_missing_mnist", 1200) == "1,200 OF 14,000"


def test_the_sentence_about_who_is_ahead() -> None:
    said = fig4.against({"clean": Cell(90, 100), "iid:0.5": Cell(50, 100)}, {"clean": 95.0, "iid:0.5": 40.0})
    assert said == "ahead in 1 settings: iid:0.5 (+10.00); not ahead in 1: clean (-5.00)"


def test_the_page_follows_from_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's tables are those that its own records give."""
    shutil.copytree(ROOT / "docs/results/fig4", tmp_path / "fig4")
    shutil.copy(ROOT / "docs/results/fig4.json", tmp_path)
    monkeypatch.setattr(fig4, "RECORDS", tmp_path)
    monkeypatch.setattr(fig4, "NETS", ROOT / "nets")
    made = fig4.report().read_text()
    kept = (ROOT / "docs/results/fig4.md").read_text()
    assert [line for line in made.splitlines() if line.startswith("|")] == [
        line for line in kept.splitlines() if line.startswith("|")
    ]


def test_settings_of_the_transcribed_row() -> None:
    row = fig4.transcribed()
    assert row["settings"] == [setting.name for setting in FIG_4]
    assert len(row["accuracy"]) == len(FIG_4)


def test_goals_that_are_missed_are_said_first() -> None:
    table = Table()
    for name, goal in fig4.GOALS.items():
        table.put(fig4.OURS, name, Cell(round(100 * goal) - (10 if name == "iid:0.9" else 0), 10_000))
    assert fig4.who_is_ahead(table, {}) == [
        "The goals for one blind net are missed on iid:0.9 (91.90 for 92)."
    ]
    assert fig4.who_is_ahead(Table(), {}) == []
