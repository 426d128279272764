"""The sums of tools.scale: against a net that is allocated, formulas by hand, and its record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netspec import make_net
from netspec.schema.spec import TRAIN
from tools.scale import WAYS, Device, Part, parts_of, report, shared, text

RECORD = Path(__file__).parents[2] / "docs" / "results" / "scale.json"
SMALL = text(side=8, patch=2, states=5, classes=3, batch=4)


def test_parameters_and_products_are_those_of_the_net() -> None:
    net = make_net(SMALL, TRAIN, seed=1)
    parts = {part.layer: part for part in parts_of(make_net(SMALL, TRAIN, device="meta"))}
    assert sum(part.parameters for part in parts.values()) == sum(param.value.numel() for param in net.params)
    # 4 x 4 leaves; 16, then 4 positions of 5 x 5 weights, then 3 x 5 for the classes; an epsilon each
    assert {name: part.parameters for name, part in parts.items() if part.type == "MEX"} == {
        "mex1": 16 * 25 + 1, "mex2": 4 * 25 + 1, "classes": 15 + 1,
    }  # fmt: skip
    assert parts["mex1"].positions == 16
    assert parts["mex1"].multiply_adds == 4 * 16 * 25


def test_what_is_sent_and_held() -> None:
    parts = [Part("leaf", "Similarity", 1000, 1, 0, 0), Part("mex", "MEX", 64_000, 64, 10, 8000)]
    device = Device(flops=1.0, bandwidth=1e12, near=1e6)
    data, sharded, positions = (shared(parts, way, 4, 8, device) for way in WAYS)
    assert data["sent_gb"] == pytest.approx(2 * 3 / 4 * 4 * 65_000 / 1e9, abs=1e-3)
    assert sharded["communicate_s"] == pytest.approx(3 * 3 / 4 * 4 * 65_000 / 1e6, rel=1e-2)
    assert positions["communicate_s"] == pytest.approx(
        2 * 3 / 4 * 4 * 1000 / 1e6, rel=1e-2
    )  # the leaf's gradient
    for way in WAYS:
        alone = shared(parts, way, 1, 8, device)
        assert alone["sent_gb"] == 0
        assert alone["compute_s"] == pytest.approx(3 * 2 * 10)


def test_the_record_is_what_the_tool_computes() -> None:
    record = json.loads(RECORD.read_text())
    devices = sorted({one["devices"] for one in record["shared"]})
    again = report(text(batch=record["batch"]), record["batch"], devices, Device(**record["device"]))
    assert json.loads(json.dumps(again)) == record
    assert (
        min(
            one["parameters"] / one["positions"] for one in record["layers"] if one["layer"].startswith("mex")
        )
        >= 1e6
    )
