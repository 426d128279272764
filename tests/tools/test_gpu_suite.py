"""The suite for a GPU, rehearsed on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from netspec.schema.spec import TRAIN
from tools.bench import gpu_suite


def test_every_stage_of_the_rehearsal_gives_figures(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "suite.json"
    assert gpu_suite.main(["--dry", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["dry"]
    assert record["device"] == "cpu"
    assert not [name for name, value in record.items() if isinstance(value, dict) and "error" in value], (
        record
    )
    assert record["tests"]["status"] == 0
    assert set(record["accuracy"]) == {"FP32", "TF32", "BF16"}
    assert record["accuracy"]["FP32"]["loss"] == record["accuracy"]["TF32"]["loss"]
    assert record["accuracy"]["BF16"]["loss"] == pytest.approx(record["accuracy"]["FP32"]["loss"], rel=0.02)
    assert all(rate > 0 for rate in record["rates"].values())
    step = record["speed"]["ht_cac_digits"]["eager FP32"]
    assert step["ms"] > 0
    assert step["of_product_rate"] > 0
    assert [line for line in record["skipped"] if "compiled in BF16" in line]


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_suite.main([]) == 3
    assert capsys.readouterr().out.count("\n") == 1


def test_a_stage_that_fails_is_a_finding_and_time_ends() -> None:
    suite = gpu_suite.Suite(torch.device("cpu"), dry=True)
    suite.stage("speed", lambda: 1 / 0)
    assert suite.record["speed"] == {"error": "ZeroDivisionError: division by zero"}
    suite.started -= gpu_suite.LIMIT
    suite.stage("tests", lambda: pytest.fail("begins after the end"))
    assert suite.skipped == ["tests"]


def test_products_are_those_of_the_layers() -> None:
    text = """
      layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
      layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } }"""
    from netspec import make_net

    assert gpu_suite.products(make_net(text, TRAIN, device="meta")) == [0, 24]
