"""The leaderboard: which snapshot counts, how a plan is shortened, what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from netspec import schema
from netspec.run.settings import override
from tools.bench import leaderboard

SNAPSHOTS = [(100 * i, 10.0 * i, Path(str(i))) for i in range(1, 9)]


@pytest.mark.parametrize("first", range(1, 9))
def test_the_first_snapshot_that_is_good_counts(first: int) -> None:
    judged: list[int] = []

    def accuracy(path: Path) -> float:
        judged.append(int(path.name))
        return leaderboard.GOAL if int(path.name) >= first else 90.0

    snapshot, reached = leaderboard.first_good(SNAPSHOTS, accuracy)
    assert reached
    assert (snapshot["iteration"], snapshot["seconds"]) == (100 * first, 10.0 * first)
    assert len(judged) <= 5


def test_a_run_that_never_gets_there_is_recorded_as_such() -> None:
    snapshot, reached = leaderboard.first_good(SNAPSHOTS, lambda path: 97.0)
    assert not reached
    assert snapshot == {"iteration": 800, "seconds": 80.0, "accuracy": 97.0}


def test_steps_of_the_rate_keep_their_share() -> None:
    text = (
        'net: "x" type: "SGD" max_iter: 1000 stepvalue: 500 stepvalue: 900 lr_policy: "multistep" base_lr: 1'
    )
    solver = schema.parse_solver(text).message
    override(solver, [], leaderboard.shortened(solver, 100))
    assert (solver.max_iter, list(solver.stepvalue)) == (100, [50, 90])


def test_the_page_separates_processors_and_puts_the_fastest_first() -> None:
    row = {"accuracy": 98.6, "iteration": 5, "what": "a", "date": "d", "commit": "c", "load_average": 0.1}
    rows = [
        {**row, "processor": "P", "seconds": 300, "reached": True},
        {**row, "processor": "P", "seconds": 50, "reached": False},
        {**row, "processor": "P", "seconds": 200, "reached": True},
        {**row, "processor": "Q", "seconds": 1, "reached": True},
    ]
    page = leaderboard.page(rows)
    assert page.index("| 200 |") < page.index("| 300 |") < page.index("| not in 50 |") < page.index("## Q")
