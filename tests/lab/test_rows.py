"""Tables with cells taken away: figures by hand, and a trained net beside scikit-learn's imputers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import KNNImputer
from typer.testing import CliRunner

from netspec.cli import app
from netspec.errors import DataError
from netspec.lab.baselines.tables import boosted, imputed
from netspec.lab.rows import calibration_error, cell_errors, hidden_cells, missing_cells, names_of
from tests.command import call


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    y = np.array([0, 1, 0, 1])
    # Bins of width 0.1: 0.9 twice with half of them right, 0.6 right, 0.8 right.
    expected = 0.5 * abs(0.5 - 0.9) + 0.25 * 0.4 + 0.25 * 0.2
    assert calibration_error(p, y, 10) == pytest.approx(expected)
    assert calibration_error(np.eye(2)[[0, 1]], np.array([0, 1])) == 0


def test_errors_of_cells_by_hand() -> None:
    whole = np.array([[1.0, 2.0, 3.0], [1.0, -2.0, 0.0]])
    filled = np.array([[2.0, 2.0, 3.4], [1.0, 1.0, 1.0]])
    hidden = np.array([[True, False, True], [False, True, True]])
    errors = cell_errors(whole, filled, hidden, np.array([False, False, True]))
    assert errors == pytest.approx({"rmse": np.sqrt((1 + 9) / 2), "mae": 2.0, "category": 0.5})
    assert cell_errors(whole, filled, np.zeros_like(hidden), np.array([False] * 3)) == {}


def test_cells_that_are_hidden_were_observed() -> None:
    rows = np.where(np.random.default_rng(0).random((400, 5)) < 0.3, np.nan, 1.0)
    hidden = hidden_cells(rows, 0.5, 1)
    assert not (hidden & np.isnan(rows)).any()
    assert hidden[~np.isnan(rows)].mean() == pytest.approx(0.5, abs=0.05)
    assert np.array_equal(hidden, hidden_cells(rows, 0.5, 1))
    assert not np.array_equal(hidden, hidden_cells(rows, 0.5, 2))


def test_baselines_are_scikit_learns() -> None:
    x, y = load_iris(return_X_y=True)
    holed = np.where(np.random.default_rng(0).random(x.shape) < 0.3, np.nan, x)
    expected = KNNImputer(n_neighbors=5).fit(holed[::2]).transform(holed[1::2])
    np.testing.assert_allclose(imputed("KNNImputer", holed[::2], holed[1::2], 1), expected)
    means = np.where(np.isnan(holed[1::2]), np.nanmean(holed[::2], 0), holed[1::2])
    np.testing.assert_allclose(imputed("mean", holed[::2], holed[1::2], 1), means)
    labels = np.where(y == 1, np.nan, y)[::2]
    known = ~np.isnan(labels)
    model = HistGradientBoostingClassifier(random_state=1).fit(holed[::2][known], labels[known])
    probabilities = boosted(holed[::2], labels, holed[1::2], 3, 1)
    np.testing.assert_allclose(probabilities[:, [0, 2]], model.predict_proba(holed[1::2]))
    assert not probabilities[:, 1].any()
    with pytest.raises(DataError, match="did you mean 'KNNImputer'"):
        imputed("KNNImputr", holed, holed, 1)


def test_runs_of_one_name_are_told_apart() -> None:
    assert names_of(["a/run", "b/run", "c", "c/"]) == {"a/run": "a/run", "b/run": "b/run", "c": "c"}
    with pytest.raises(DataError, match="no run"):
        missing_cells([])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_nets_figures_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call("arrange", "sklearn_iris", "-o", "iris.prototxt", "--set", "iterations=30")
    call("train", "iris.prototxt")
    told = call("missing", "runs/iris", "--iid", "0.5", "--repeats", 2, "--metric", "rmse,accuracy,ece",
               "--out", "f.json", "--out", "f.md")  # fmt: skip
    assert told.splitlines()[-9].split()[:3] == ["metric", "method", "0.5"]
    figures = json.loads((tmp_path / "f.json").read_text())["figures"]
    assert set(figures) == {"rmse", "accuracy", "ece"}
    assert set(figures["rmse"]) == {"iris", "mean", "KNNImputer", "IterativeImputer"}
    assert set(figures["accuracy"]) == {"iris", "HistGradientBoosting"}
    assert np.mean(figures["rmse"]["iris"]["0.5"]) < np.mean(figures["rmse"]["mean"]["0.5"])
    assert np.mean(figures["accuracy"]["iris"]["0.5"]) > 0.7
    assert "| rmse | iris |" in (tmp_path / "f.md").read_text()
    for words, said in (
        (("--metric", "rmes"), "did you mean 'rmse'"),
        (("--baselines", "knn"), "no baseline 'knn'"),
        (("--iid", "1.5"), "above 0 and below 1"),
        (("--rects", "1x2"), "--rects: for images"),
    ):
        result = CliRunner().invoke(app, ["missing", "runs/iris", *words])
        assert said in str(result.exception)
    assert missing_cells(["runs/iris"], ["rmse"], [0.5], baselines=()).values["rmse"].keys() == {"iris"}
