"""The rate that progress shows, with a clock of the test's own."""

from __future__ import annotations

import pytest

from netspec.run import progress


def test_the_rate_leaves_out_the_time_of_tests_and_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.Progress(300, done=100, quiet=True) as shown:
        assert shown.speed() == ""  # nothing is done yet
        now = 160.0
        shown.idle += 40.0
        shown.advance(150)
        assert shown.speed() == "2.5 it/s, 1:00 left"


def test_idle_time_before_the_start_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown = progress.Progress(20, quiet=True)
    shown.idle = 5.0
    now = 10.0
    with shown:
        now = 20.0
        shown.advance(10)
        assert shown.speed() == "1 it/s, 0:10 left"
