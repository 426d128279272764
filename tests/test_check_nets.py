"""The nets of this repository, checked where their data is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from netspec import schema
from netspec.check import check

NETS = sorted((Path(__file__).parent.parent / "nets").glob("*.prototxt"))


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.stem)
def test_a_net_of_ours_has_shapes_without_its_data(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = check(path)
    assert found.ok, str(found)
    assert found.phases
    assert all(phase["parameters"] for phase in found.phases.values())
    absent = [
        str(warning) for warning in found.warnings if not any(name in str(warning) for name in found.needs)
    ]
    assert not absent


def test_windows_tell_the_size_of_what_they_cover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = NETS[[path.stem for path in NETS].index("ht_cac_fsdd")].read_text()
    found = check(write(tmp_path, lines))
    assert found.phases["TRAIN"]["assumed"] == {"data": [64, 1, 1, 2048], "label": [64]}
    text = lines.replace("stride_h: 1 stride_w: 16", "stride_h: 3 stride_w: 16").replace(
        "block_h: 1 block_w: 16", "block_h: 3 block_w: 16"
    )
    assert schema.parse_net(text)
    assert check(write(tmp_path, text)).phases["TRAIN"]["assumed"]["data"] == [64, 3, 3, 2048]


def write(folder: Path, text: str) -> Path:
    (folder / "net.prototxt").write_text(text)
    return folder / "net.prototxt"
