"""A model taken from an older snapshot says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import netspec
from netspec.interchange.snapshot_files import states

NET = """name: "n"
layer { name: "d" type: "Dataset" top: "x" top: "label" dataset_param { name: "digits" batch_size: 4 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "l" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" top: "l" }
"""


def test_damaged_snapshots_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "n.prototxt").write_text(NET)
    (tmp_path / "n_solver.prototxt").write_text(
        'net: "n.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot: 1 test_iter: 1 test_interval: 2'
    )
    run = tmp_path / "run"
    netspec.fit(str(tmp_path / "n_solver.prototxt"), out=run, progress=False, seed=1)
    newest, older = states(run)[:2]
    kept = tmp_path / "kept"
    shutil.copytree(run, kept)
    weights = newest.with_name(newest.name.replace(".state", ""))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    netspec.load(run)
    said = capsys.readouterr().err
    assert "passed over: " in said
    assert f"taken in its place: {older}" in said
    netspec.load(kept)
    assert "passed over" not in capsys.readouterr().err
