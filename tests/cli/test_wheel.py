"""The wheel, installed into an environment of its own: the nets are in it, and the commands work in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import netspec
from tests.places import ROOT


def run(command: list[str], cwd: Path, **variables: str) -> str:
    """What a command prints; it must succeed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], folder)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_what_the_wheel_holds(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.startswith(f"netspec_torch-{netspec.__version__}-py3")
    for path in (ROOT / "nets").rglob("*.proto*"):
        assert f"netspec/nets/{path.relative_to(ROOT / 'nets')}" in names
    for path in (ROOT / "netspec").rglob("*"):
        if (
            path.is_file()
            and "__pycache__" not in path.parts
            and "nets" not in path.relative_to(ROOT / "netspec").parts
        ):
            assert str(path.relative_to(ROOT)) in names
    assert not [name for name in names if name.split("/")[0] in ("tests", "tools", "docs")]
    metadata = zipfile.ZipFile(wheel).read(f"netspec_torch-{netspec.__version__}.dist-info/METADATA").decode()
    for line in (
        "Name: netspec-torch",
        "License-Expression: MIT",
        "License-File: LICENSE",
        "Keywords: caffe,",
    ):
        assert line in metadata
    assert "Project-URL: " in metadata


@pytest.mark.slow
def test_commands_of_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """The libraries that netspec needs are taken from this environment: only the wheel is installed anew."""
    place = tmp_path / "environment"
    venv.create(place, with_pip=True, symlinks=True)
    python = place / "bin" / "python"
    libraries = run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path
    ).strip()
    (Path(libraries) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run([str(python), "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed", str(wheel)], tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    command = str(place / "bin" / "netspec")
    where = run([str(python), "-c", "import netspec; print(netspec.__file__, netspec.__version__)"], empty)
    assert str(place) in where
    assert run([command, "--version"], empty) == f"netspec {netspec.__version__}\n"
    assert "ht_cac_digits" in run([command, "list"], empty)
    trained = run([command, "train", "ht_cac_digits", "-n", "20"], empty, OMP_NUM_THREADS="1")
    assert "runs/ht_cac_digits" in trained
    run([command, "new", "mine", "--caffe"], empty)
    run([command, "train", "mine.prototxt", "-n", "2"], empty, OMP_NUM_THREADS="1")
    words = {"_NETSPEC_COMPLETE": "complete_bash", "COMP_WORDS": "netspec sam", "COMP_CWORD": "1"}
    assert "sample" in run([command], empty, **words)
