"""The record and the page of imputed and classified tables."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from netspec.lab.baselines.tables import BOOSTING, IMPUTERS
from tools.results import tables
from tools.results.reproduction import Results


def test_intervals_are_students() -> None:
    values = [0.1, 0.2, 0.4]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert tables.interval(values) == f"{np.mean(values):.3f} ± {(high - low) / 2:.3f}"
    assert tables.interval([0.5], 100, 1) == "50.0"
    assert tables.interval([]) == ""


def test_the_page_says_first_where_the_tree_is_beaten(tmp_path: Path) -> None:
    results = Results(tmp_path / "t.json", {"rows": 9})
    for name in ("banknote", "concrete"):
        for i, method in enumerate((*IMPUTERS, "GenerativeImputer")):
            error = 1.0 - 0.1 * i if name == "banknote" else 1.0 + 0.1 * i
            results.get(f"impute {method} {name} 1", lambda error=error: {"rmse": error, "mae": error / 2})
    for method, right in ((BOOSTING, 0.9), (tables.TREE, 0.8), (tables.TUNED, 0.85)):
        figures = {f"{share:g}": {"accuracy": right, "ece": 0.1} for share in tables.SHARES}
        results.get(f"classify {method} banknote 1", lambda figures=figures: figures)
    page = tables.report(argparse.Namespace(out=tmp_path / "t", rows=9), results).read_text()
    first = page.split("\n\n")[1]
    assert "lower rmse than GenerativeImputer on concrete;" in first
    assert "accuracy than NetClassifier at half of the cells hidden on banknote." in first
    assert "| GenerativeImputer | 0.700 | 1.300 |" in page
    assert "| NetClassifier, 0.5 hidden | 85.0 |" in page


def test_rows_are_cut_alike_and_standardised_by_those_learnt_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{a:.3f},{b:.3f},{'xyz'[i % 3]}" for i, (a, b) in enumerate(rng.normal(5, 2, (90, 2)))]
    (tmp_path / "uci").mkdir()
    (tmp_path / "uci" / "banknote.csv").write_text("a,b,class\n" + "\n".join(lines) + "\n")
    monkeypatch.setenv("NETSPEC_DATA", str(tmp_path))
    train, test, kinds, truth = tables.parts("banknote", 1, 60)
    assert (len(train), len(test)) == (42, 18)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(train.std(0), 1)
    assert set(kinds) == set(truth) == {0, 1, 2}
    again = tables.parts("banknote", 1, 60)
    np.testing.assert_array_equal(again[1], test)
    assert not np.isnan(tables.holed(test, 0, 1)).any()
    assert np.isnan(tables.holed(train, 0.5, 1)).mean() == pytest.approx(0.5, abs=0.2)
