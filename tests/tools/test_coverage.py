"""The coverage tool: repositories weigh alike, old syntaxes count as what they become."""

from __future__ import annotations

from tools.results.coverage import greedy, is_known, is_read, share


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


def test_the_greatest_gain_per_type_comes_first() -> None:
    """Repository a has three nets: two lack Foo, one Foo and Bar; b has one that lacks Baz and Qux."""
    nets = [("a", ["ReLU", "Foo"]), ("a", ["Foo"]), ("a", ["Foo", "Bar"]), ("b", ["Baz", "Qux"])]
    steps = greedy(nets, 9)
    assert [names for names, _ in steps] == [("Foo",), ("Baz", "Qux"), ("Bar",)]
    assert [round(gain, 1) for _, gain in steps] == [33.3, 50.0, 16.7]


def test_sources_that_are_only_shaped() -> None:
    assert is_read("Data")
    assert is_read("ReLU")
    assert not is_read("ImageGtData")
