"""Comparing models: equal ones agree, a changed layer is the first to depart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from netspec import interchange
from netspec.errors import NetspecError
from netspec.interchange.comparison import compare, compare_files, compare_onnx, difference
from netspec.interchange.onnx import export_onnx
from tests.interchange.test_onnx import TEXT, small


def test_equal_nets_agree() -> None:
    report = compare(small(), small())
    assert report.equal
    assert report.largest == 0
    assert [row.blob for row in report.rows] == ["mul", "mul", "p", "y", "prob"]
    assert [row.layer for row in report.rows] == ["conv", "relu", "pool", "ip", "prob"]
    assert "agree" in str(report)


def test_the_first_layer_that_departs_is_named() -> None:
    changed = small()
    with torch.no_grad():
        changed.layer("ip").blobs[0][0, 0] += 0.5
    report = compare(small(), changed)
    assert report.departs is not None
    assert report.departs.layer == "ip"
    assert "departs from small in layer 'ip' (InnerProduct), blob 'y'" in str(report)


def test_onnx_layer_by_layer(tmp_path: Path) -> None:
    report = compare_onnx(small())
    assert report.equal
    assert len(report.rows) == 5
    export_onnx(small(), tmp_path / "a.onnx")
    (tmp_path / "a.prototxt").write_text(TEXT)
    interchange.save_weights(small(), tmp_path / "a.caffemodel")
    files = compare_files(tmp_path / "a.prototxt", tmp_path / "a.onnx", tmp_path / "a.caffemodel")
    assert files.equal
    assert [row.blob for row in files.rows] == ["prob"]
    with pytest.raises(NetspecError, match="must be a net"):
        compare(tmp_path / "a.onnx", tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"nothing")
    with pytest.raises(NetspecError, match=r"b.onnx: cannot be read as ONNX"):
        compare(small(), tmp_path / "b.onnx")


def test_differences() -> None:
    a = np.array([1.0, np.nan, -2.0, np.inf])
    assert difference(a, a)[:2] == (0, 0)
    assert difference(a, np.array([1.0, np.nan, -1.0, np.inf]))[:2] == (1, 0.5)
    assert difference(a, np.array([1.0, 0.0, -2.0, np.inf]))[1] == np.inf
    assert difference(a, np.array([np.nan, np.nan, -2.0, np.inf]))[1] == np.inf
    assert difference(a, np.zeros(3))[2] == "shape (4,) against (3,)"
