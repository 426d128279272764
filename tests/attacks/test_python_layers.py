"""The Python modules that nets name: no reading imports them, what runs a net needs consent, and nothing they raise
gets out as anything but an error at the layer's place.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

import netspec
from netspec.check import check, shaped_net
from netspec.cli import app
from netspec.errors import SpecError
from netspec.interchange import safetensors
from netspec.layers import consent
from tests.places import ROOT

MODULE = """
import pathlib
pathlib.Path({mark!r}).touch()
class Same:
    def setup(self, bottom, top): {setup}
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        {forward}
        top[0].data[...] = bottom[0].data
    def backward(self, top, down, bottom): bottom[0].diff[...] = top[0].diff
"""

NET = """
layer {{ name: "d" type: "DummyData" top: "x" top: "t"
  dummy_data_param {{ shape {{ dim: 2 dim: 3 }} shape {{ dim: 2 dim: 4 }} }} }}
layer {{ name: "user" type: "Python" bottom: "x" top: "y"
  python_param {{ module: "{module}" layer: "Same" }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "y" top: "z" inner_product_param {{ num_output: 4 }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "z" bottom: "t" top: "loss" }}
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 solver_mode: CPU random_seed: 1
test_iter: 1 test_interval: 2 snapshot_after_train: false"""


class House:
    """A folder with a net, its solver, and the module that the net names."""

    def __init__(self, folder: Path, setup: str = "pass", forward: str = "pass", module: str = "evil"):
        self.folder, self.mark = folder, folder / "EXECUTED"
        (folder / "evil.py").write_text(MODULE.format(mark=str(self.mark), setup=setup, forward=forward))
        (folder / "net.prototxt").write_text(NET.format(module=module))
        (folder / "solver.prototxt").write_text(SOLVER)
        safetensors.save(folder / "w.safetensors", {"ip/0": torch.zeros(4, 3), "ip/1": torch.zeros(4)}, {})

    def call(self, *words: str) -> Result:
        """`netspec WORDS` in the folder, whose modules can be imported."""
        sys.modules.pop("evil", None)
        return CliRunner().invoke(app, list(words))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(consent.VARIABLE, raising=False)
    return House(tmp_path)


def test_check_reports_module_and_layer_and_imports_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(house.folder)
    monkeypatch.setenv(consent.VARIABLE, "1")
    for run in (False, True):
        checked = check(house.folder / "solver.prototxt", run=run)
        assert checked.ok, str(checked)
        (warning, *_) = [w for w in checked.warnings if "'user' (Python)" in w.message]
        assert "'Same' of the Python module 'evil'" in warning.message
        assert warning.position is not None
        assert warning.position.line == 5
        assert "Python module evil" in checked.needs
        assert checked.phases["TRAIN"]["parameters"] is None
    net = shaped_net(house.folder / "net.prototxt")
    assert [net.is_known(slot) for slot in range(len(net.graph.slots))] == [True, True, False, False, False]
    assert "evil" not in sys.modules
    assert not house.mark.exists()


def test_a_feed_is_assumed_and_the_rest_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    text = """
layer { name: "feed" type: "Python" top: "x" top: "t" python_param { module: "evil" layer: "Same" } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "z" inner_product_param { num_output: 4 } }
layer { name: "bad" type: "Pooling" bottom: "z" top: "p" pooling_param { kernel_size: -1 } }
"""
    (tmp_path / "net.prototxt").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    checked = check(tmp_path / "net.prototxt")
    assert not checked.ok
    assert any("bad" in problem.message for problem in checked.problems)
    assert not house.mark.exists()


READING = [
    ("check", "net.prototxt"), ("check", "--run", "net.prototxt"), ("check", "solver.prototxt"),
    ("summary", "net.prototxt"), ("draw", "net.prototxt", "net.gv"),
]  # fmt: skip


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_reading_commands_never_import(
    words: tuple[str, ...], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(consent.VARIABLE, "1")
    finished = house.call(*words)
    assert finished.exit_code == 0, finished.output
    assert not house.mark.exists()


RUNNING = [
    ("train", "solver.prototxt"), ("test", "net.prototxt", "-n", "1", "-w", "w.safetensors"),
    ("convert", "net.prototxt", "out.caffemodel", "-w", "w.safetensors"),
    ("caffe", "train", "-solver", "solver.prototxt"),
    ("caffe", "test", "-model", "net.prototxt", "-iterations", "1", "-weights", "w.safetensors"),
    ("caffe", "time", "-model", "net.prototxt", "-iterations", "1"),
    ("features", "net.prototxt", "out.h5", "--blob", "z", "-n", "1", "-w", "w.safetensors"),
]  # fmt: skip


@pytest.mark.parametrize("words", RUNNING, ids=" ".join)
def test_running_commands_need_consent(
    words: tuple[str, ...], house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    consent.allow_python()  # this program's consent is none for the commands
    refused = house.call(*words)
    told = f"{refused.exception} {refused.output} {capfd.readouterr().err}"
    assert "net.prototxt:5:18: layer 'user' (Python): the Python module 'evil' (class 'Same') is not" in told
    assert "--allow-python" in told
    assert not house.mark.exists()
    if words[0] == "features":
        monkeypatch.setenv(consent.VARIABLE, "1")
    else:
        words = (*words, "--allow-python")
    taken = house.call(*words)
    assert taken.exit_code == 0, taken.output
    assert house.mark.exists()


@pytest.mark.slow
def test_scripts_of_pycaffe_have_consented(house: House) -> None:
    script = "import caffe; print(caffe.Net('net.prototxt', caffe.TRAIN).blobs['y'].shape)"
    own = {**os.environ, "PYTHONPATH": f"{ROOT}:{house.folder}"}
    words = [sys.executable, "-m", "netspec.pycaffe", "-c", script]
    subprocess.run(words, cwd=house.folder, env=own, check=True)
    assert house.mark.exists()


@pytest.mark.slow
def test_importing_pycaffe_is_consent_and_importing_netspec_is_not(house: House) -> None:
    code = """
from netspec.interchange import safetensors
from netspec.layers import consent
import netspec
assert not consent.given()
try:
    netspec.fit('solver.prototxt', progress=False)
except netspec.SpecError as error:
    print(error)
assert not consent.given()
import netspec.pycaffe
assert consent.given()
"""
    own = {**os.environ, "PYTHONPATH": f"{ROOT}:{house.folder}"}
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=house.folder, env=own, check=True, capture_output=True
    )
    assert b"'user' (Python)" in finished.stdout
    assert not house.mark.exists()


def test_a_command_of_a_program_that_consented_asks_again() -> None:
    consent.allow_python()
    assert consent.given()
    with consent.command():
        assert not consent.given()
        consent.imported_pycaffe()
        assert not consent.given()
        consent.allow_python()
        assert consent.given()
        with consent.withheld():
            assert not consent.given()
    assert consent.given()


@pytest.mark.parametrize(
    "what", ["SystemExit(0)", "KeyboardInterrupt()", "RecursionError('deep')", "ValueError('x\\n y')"]
)
@pytest.mark.parametrize("where", ["import", "setup", "forward"])
def test_whatever_a_module_raises_is_an_error_at_the_layer(
    what: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"evil_{where}_{abs(hash(what))}"
    raising = {where: f"raise {what}"}
    house = House(tmp_path, raising.get("setup", "pass"), raising.get("forward", "pass"), name)
    body = (tmp_path / "evil.py").read_text() + (f"\nraise {what}\n" if where == "import" else "")
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    consent.allow_python()
    with pytest.raises(SpecError, match=r"net\.prototxt:5:\d+: layer 'user' \(Python\): ") as caught:
        netspec.fit(house.folder / "solver.prototxt", out=tmp_path / "run", progress=False)
    assert what.partition("(")[0] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
