"""The protocol of the tables with missing cells, and the short form of its page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from netspec.lab.baselines.matrices import column_means
from tests.places import ROOT
from tools.results import uci
from tools.results.uci import Holes


def table() -> Holes:
    whole = np.random.default_rng(0).normal(size=(40, 3))
    hidden = np.zeros(120, bool)
    hidden[::2] = True
    return Holes(whole, np.where(hidden.reshape(40, 3), np.nan, whole))


def test_errors_count_hidden_cells_alone() -> None:
    holes = table()
    hidden = np.isnan(holes.holed)
    assert holes.error(holes.whole) == 0
    assert holes.error(np.where(hidden, holes.whole + 2, -50)) == pytest.approx(4)
    filled = column_means(holes.holed)
    assert (filled[~hidden] == holes.whole[~hidden]).all()
    assert holes.error(filled) == pytest.approx(1, abs=0.35)


@pytest.mark.data
def test_half_of_the_cells_are_hidden_and_columns_are_standardised() -> None:
    first, again, other = uci.holes("banknote", 1), uci.holes("banknote", 1), uci.holes("banknote", 2)
    assert first.whole.shape == (1372, 4)
    assert np.isnan(first.holed).sum() == 1372 * 4 // 2
    assert np.allclose(first.whole.mean(0), 0)
    assert np.allclose(first.whole.std(0), 1)
    assert np.array_equal(np.isnan(first.holed), np.isnan(again.holed))
    assert not np.array_equal(np.isnan(first.holed), np.isnan(other.holed))


@pytest.mark.slow
@pytest.mark.data
def test_the_short_form_writes_a_page_that_says_it_is_reduced(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.results.dlvm", "--quick"]
    command += ["--out", str(tmp_path / "dlvm"), "--runs", str(tmp_path / "runs")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    data = json.loads((tmp_path / "dlvm.json").read_text())["results"]
    assert set(data) == {
        f"{m} {t} 1" for m in ("mean", "kNN", "PCA", "missForest", "MIWAE") for t in ("banknote", "yeast")
    }
    assert all(0 < value["error"] < 5 for value in data.values())
    page = (tmp_path / "dlvm.md").read_text()
    assert page.index("goal") < page.index("Mean square error")
    assert "no reproduction: fewer steps" in page
