"""The page of speed: goals beside what was measured, misses first; nets and exponents of the scaling bench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netspec.net.make import make_net
from tools.bench import scaling, speed

MACHINE = {"processor": "P", "processors": 2, "threads": 1, "load_average": 0.1, "load_average_after": 0.2,
           "torch": "2", "python": "3"}  # fmt: skip


def test_a_missed_goal_is_said_first(tmp_path: Path) -> None:
    entry = {"step_over_limit_cpu": 2.1, "step_over_floor_cpu": 1.4}
    before = {
        "machine": MACHINE,
        "nets": {"ht_cac_mnist": {"step_over_limit_cpu": 4.0, "step_over_floor_cpu": 2.4}},
    }
    record = {
        "machine": MACHINE,
        "nets": {"ht_cac_mnist": entry},
        "before": {**before, "commit": "abc"},
        "goals": {"ht_cac_mnist": {"limit": 2.2, "floor": 1.3}},
        "predicted": {"ht_cac_mnist": {"limit": 2.6, "floor": 1.6}},
        "circumstances": {"command": "c"},
    }
    (tmp_path / "speed.json").write_text(json.dumps(record))
    page = speed.page(tmp_path / "speed.json")
    assert page.splitlines()[2].startswith("Goals that are missed: 1.")
    assert "| ht_cac_mnist | limit | 2.20 | 4.00 | 2.10 |" in page
    assert "| ht_cac_mnist | floor | 1.30 | 2.40 | 1.40 |" in page


def test_another_processor_is_refused(tmp_path: Path) -> None:
    (tmp_path / "before.json").write_text(json.dumps({"machine": {**MACHINE, "processor": "none such"}}))
    with pytest.raises(SystemExit, match="of another processor: none such"):
        speed.measure(tmp_path / "before.json", 1, 1)


def test_the_exponent_is_that_of_a_power_law() -> None:
    assert scaling.exponent([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0]) == pytest.approx(2)


@pytest.mark.parametrize("sizes", [{"width": 5}, {"side": 8}, {"batch": 3}, {"depth": 4}])
def test_nets_of_the_scaling_bench_have_the_sizes_asked_for(sizes: dict[str, int]) -> None:
    net = make_net(scaling.net_text(**sizes), "TRAIN", device="meta")
    whole = {
        "width": scaling.WIDTH,
        "side": scaling.SIDE,
        "batch": scaling.BATCH,
        "depth": scaling.DEPTH,
        **sizes,
    }
    assert net.shape("data") == (whole["batch"], 1, whole["side"], whole["side"])
    last = f"mex{99 + whole['depth']}"
    assert net.shape(last) == (whole["batch"], whole["width"], 1, 1)
