"""Nothing that a user gives as data is unpickled: not by the readers, and not by torch's on their behalf."""

from __future__ import annotations

import ast
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netspec
from netspec.errors import NetspecError
from netspec.interchange import compare_files, convert, read_weights
from netspec.interchange.comparison import open_net

HOUSE = Path(netspec.__file__).parent


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.mark}",))


class Small(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.pt2"
    torch.export.save(torch.export.export(Small(), (torch.zeros(2, 3),)), str(path))
    return path


def pickled(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Evil(mark), buffer)
    return buffer.getvalue()


def infected(good: Path, where: str, mark: Path, path: Path) -> Path:
    """A copy of a program with the evil pickle in every member whose name holds `where`."""
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            evil = where in entry.filename
            target.writestr(entry.filename, pickled(mark) if evil else source.read(entry.filename))
    return path


@pytest.mark.parametrize("where", ["sample_inputs", "weights", "constants", ""])
@pytest.mark.parametrize(
    "ending", ["pt2", "PT2", "pt", "caffemodel", "safetensors", "h5", "prototxt", "onnx"]
)
def test_no_pickle_of_an_archive_runs(where: str, ending: str, good: Path, tmp_path: Path) -> None:
    mark = tmp_path / "EXECUTED"
    evil = infected(good, where, mark, tmp_path / f"evil.{ending}")
    net = tmp_path / "net.prototxt"
    net.write_text('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 } } }')
    for attempt in (
        lambda: convert(evil, tmp_path / "out.caffemodel"),
        lambda: convert(evil, tmp_path / "out.safetensors", inputs=[(2, 3)]),
        lambda: read_weights(evil),
        lambda: open_net(evil),
        lambda: compare_files(evil, net),
    ):
        with pytest.raises(NetspecError, match=r"evil\."):
            attempt()
    assert not mark.exists()


def test_what_to_give_in_place_of_a_program(good: Path, tmp_path: Path) -> None:
    with pytest.raises(NetspecError, match=r"good\.pt2: .* never read: .*package\.module:name"):
        convert(good, tmp_path / "out.caffemodel")


FORBIDDEN = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve",
}  # fmt: skip
LOADERS = {"torch.load", "np.load", "numpy.load", "torch.jit.load", "torch.export.load", "yaml.unsafe_load"}
OURS = {("interchange/conversion.py", "torch.export.load(io.BytesIO(data))")}
"""Bytes that the same function has just made."""


def test_no_module_of_ours_can_unpickle() -> None:
    """Imports and calls that could load a pickle stand nowhere but where the bytes are our own."""
    seen = set()
    for path in HOUSE.rglob("*.py"):
        name = path.relative_to(HOUSE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                homes = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not FORBIDDEN & {home.partition(".")[0] for home in homes}, f"{name}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = (name, ast.unparse(node))
                loads = ast.unparse(node.func) in LOADERS
                assert not loads or call in OURS, f"{name}:{node.lineno}: {call[1]}"
                seen.add(call)
    assert seen >= OURS
