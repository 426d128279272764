"""The first 20 losses of nets are the recorded ones: a change of structure moves no number."""

from __future__ import annotations

import pytest

from netspec.data.sets.catalogue import KNOWN
from tests.places import ROOT
from tools import twenty_steps


def test_digits_train_as_recorded() -> None:
    assert "digits" in KNOWN
    assert twenty_steps.check(("ht_cac_digits",)) == []


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("net", twenty_steps.NETS[1:])
def test_nets_train_as_recorded(net: str) -> None:
    assert (ROOT / "nets" / f"{net}.prototxt").exists()
    assert twenty_steps.check((net,)) == []
