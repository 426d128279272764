"""Nets of data of one's own test each held-out example once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netspec.data.sources.table import TableSource
from netspec.errors import DataError
from netspec.experiments.beginning import whole_batches
from netspec.experiments.tables import Arrangement, arrange_table
from netspec.run import experiment


@pytest.mark.parametrize("examples", [0, 1, 7, 36, 997, 1009, 3000, 10_007])
def test_batches_count_nothing_twice(examples: int) -> None:
    size, number = whole_batches(examples)
    assert size * number == examples


def test_a_table_of_a_header_alone_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"t.csv: the table has no rows"):
        arrange_table(Arrangement(str(tmp_path / "t.csv")), tmp_path / "t.prototxt")


def test_a_table_is_tested_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    rows = [f"{a:.3f},{b:.3f},{'xyz'[k % 3]}" for k, (a, b) in enumerate(random.normal(size=(183, 2)))]
    Path("t.csv").write_text("a,b,kind\n" + "\n".join(rows) + "\n")
    arrange_table(Arrangement("t.csv", target="kind"))
    plan = experiment.load("t_solver.prototxt")
    (test,) = plan.tests
    source = TableSource(test.spec.layers[0], "TEST", 0)
    assert test.iterations * source.shapes[0][0] == source.samples == 36
