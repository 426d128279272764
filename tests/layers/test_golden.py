"""Everything that the original programs computed, computed again."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    import numpy as np

    with np.load(HERE / "bvlc__ip_basic.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["out/y"] = arrays["out/y"] * 1.001
    changed = tmp_path / "bvlc__ip_basic.npz"
    np.savez(changed, **arrays)
    _, check = check_golden.run(changed)
    assert check is not None
    assert [failure.split(":")[0] for failure in check.failures] == ["y"]
