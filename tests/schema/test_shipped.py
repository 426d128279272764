"""Nets that come with the package, found by name from any folder; nets to begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from netspec import schema
from netspec.errors import NetspecError, SpecError
from netspec.schema import shipped


def test_every_net_is_listed_with_its_solvers() -> None:
    nets = {net.name: net for net in shipped.nets()}
    assert nets["ht_cac_digits"].about == "HT-CAC on scikit-learn's 8x8 digits"
    assert nets["ht_cac_digits"].solvers == ("ht_cac_digits_solver",)
    assert nets["drmm5_mnist"].solvers[0] == "drmm5_mnist_solver"
    assert "drmm5_mnist_semi_solver" in nets["drmm5_mnist"].solvers
    assert all(net.about and net.solvers for net in nets.values())
    listed = {solver for net in nets.values() for solver in net.solvers} | set(nets)
    assert listed == set(shipped.names())


def test_a_net_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert schema.read("ht_cac_digits").message.name == "ht_cac_digits"
    assert schema.read_solver("ht_cac_digits_solver").message.max_iter == 1000
    assert schema.read_net("ht_cac_digits.prototxt").message.name == "ht_cac_digits"
    (tmp_path / "ht_cac_digits").write_text('name: "mine"')
    assert schema.read_net("ht_cac_digits").message.name == "mine"  # what lies here comes first
    with pytest.raises(SpecError, match="no such file"):
        schema.read_net("elsewhere/ht_cac_digits")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ht_cac_digit", "did you mean 'ht_cac_digits'?"),
        ("quite_different", "netspec list names the nets"),
        ("quite_different.prototxt", "no such file"),
    ],
)
def test_a_name_that_is_not_there(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as raised:
        schema.read(name)
    assert words in str(raised.value)


@pytest.mark.parametrize("kind", shipped.BEGINNINGS)
def test_begin(kind: str, tmp_path: Path) -> None:
    net, solver = shipped.begin(kind, tmp_path / "inner" / "my-net.prototxt")
    assert (net.name, solver.name) == ("my-net.prototxt", "my-net_solver.prototxt")
    assert schema.read_net(net).message.name == "my-net"
    assert schema.read_solver(solver).message.net == "my-net.prototxt"
    assert "NAME" not in net.read_text() + solver.read_text()
    with pytest.raises(NetspecError, match="is there already"):
        shipped.begin(kind, tmp_path / "inner" / "my-net")


def test_begin_refuses(tmp_path: Path) -> None:
    with pytest.raises(NetspecError, match="did you mean 'images'"):
        shipped.begin("image", tmp_path / "a")
    with pytest.raises(NetspecError, match="is no name for a net"):
        shipped.begin("images", tmp_path / 'a"b')
    (tmp_path / "a_solver.prototxt").write_text("")
    with pytest.raises(NetspecError, match="is there already"):
        shipped.begin("images", tmp_path / "a")
    assert not (tmp_path / "a.prototxt").exists()


@pytest.mark.parametrize("tests", [True, False])
def test_a_solver_to_begin_with(tmp_path: Path, tests: bool) -> None:
    net = tmp_path / "mine.prototxt"
    solver = shipped.begin_solver(net, tests)
    message = schema.read_solver(solver).message
    assert solver.name == "mine_solver.prototxt"
    assert message.net == "mine.prototxt"
    assert (len(message.test_iter), message.test_interval) == ((1, 500) if tests else (0, 0))
