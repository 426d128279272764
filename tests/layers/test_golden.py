"""Everything that the original programs computed, computed again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import golden_case, golden_runs
from tests.golden_case import Array, Check
from tests.places import GOLDEN
from tests.places import VECTORS as HERE
from tools import check_golden

NETS = ("net_lenet", "net_cifar", "net_siamese", "net_autoencoder", "net_gcp", "htcac")
"""Whole nets whose text comes from the originals' repositories: read from GOLDEN where that folder is there."""

SMALL = sorted(path for path in HERE.glob("*.npz") if "hazard_" not in path.stem)
WHOLE = sorted(path for path in GOLDEN.glob("*.npz") if any(name in path.stem for name in NETS))


def test_the_vectors_are_there() -> None:
    assert len(SMALL) > 350


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    _, check = check_golden.run(path)
    assert check is not None, "needs a layer type that is not there"
    assert check.failures == []
    assert check.errors or check.worst or "fillers" in path.stem or "silence" in path.stem


@pytest.mark.skipif(not WHOLE, reason="NETSPEC_GOLDEN names no folder of golden vectors")
@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_whole_nets(path: Path) -> None:
    _, check = check_golden.run(path)
    assert check is not None
    assert check.failures == []


def test_an_error_is_found(tmp_path: Path) -> None:
    """The runner would notice: one changed output fails its case."""
    with np.load(HERE / "bvlc__ip_basic.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["out/y"] = arrays["out/y"] * 1.001
    changed = tmp_path / "bvlc__ip_basic.npz"
    np.savez(changed, **arrays)
    _, check = check_golden.run(changed)
    assert check is not None
    assert [failure.split(":")[0] for failure in check.failures] == ["y"]


def test_the_solver_case_is_explained_by_the_float64_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hardly any tolerance left, rounding explains every element of SMORMS3's steps, and none of SGD's."""
    monkeypatch.setattr(golden_runs, "STEPS", 1e-9)
    _, check = check_golden.run(HERE / "simnets__solver_smorms3_l2.npz")
    assert check is not None
    assert check.failures == []
    assert check.granted
    _, check = check_golden.run(HERE / "simnets__solver_sgd_plain.npz")
    assert check is not None
    assert check.failures != []
    assert check.granted == {}


def test_rounding_of_both_sides_is_granted_per_element() -> None:
    """Only in unstable cases, only to the element that the float64 run shows off, and never above 1e-3."""
    exact, theirs, ours = np.array([1.0, 0.5]), np.array([1.0, 0.50016]), np.array([1.0, 0.49986])

    def failures(ours: Array, theirs: Array, unstable: bool) -> list[str]:
        check = Check(exact={"d w": exact}, unstable=unstable)
        check.compare("gradient", "d w", ours, theirs, 1e-4)
        return check.failures

    assert failures(ours, theirs, True) == []
    assert failures(ours, theirs, False) != []
    assert failures(np.array([1.0, 0.49995]), theirs, False) == []  # the original's own rounding
    assert failures(np.array([1.0003, 0.5]), theirs, False) != []  # is another element's
    assert failures(np.array([1.0, 0.499]), np.array([1.0, 0.5004]), True) != []  # 1.4e-3 is too much


def test_unstable_cases_are_listed() -> None:
    assert {path.stem for path in [*SMALL, *WHOLE] if golden_case.is_unstable(path.stem)} <= {
        "simnets__net_htcac_full",
        "simnets__solver_smorms3_l2",
    }
