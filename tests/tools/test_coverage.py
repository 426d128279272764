"""The coverage tool: repositories weigh alike, old syntaxes count as what they become."""

from __future__ import annotations

from tools.results.coverage import is_known, share


def test_old_syntaxes_count_as_what_they_become() -> None:
    assert is_known("ReLU")
    assert is_known("V0:relu")
    assert is_known("V0:padding")
    assert is_known("V1:CONVOLUTION")
    assert is_known("CONVOLUTION3D")
    assert not is_known("MyFancyLayer")
    assert not is_known("V0:fancy")


def test_repositories_weigh_alike() -> None:
    nets = [("a", ["ReLU"]), ("a", ["ReLU", "Fancy"]), ("a", ["Fancy"]), ("a", ["Pooling"]), ("b", ["Power"])]
    percent, cost = share(nets)
    assert percent == 75  # half of a's nets, all of b's
    assert cost == {"Fancy": 25}
