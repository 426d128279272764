"""The nets of this repository, checked where their data is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from netspec import schema
from netspec.check import check
from tests.places import NETS as NETS_FOLDER

NETS = sorted(NETS_FOLDER.glob("*.prototxt"))


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.stem)
def test_a_net_of_ours_has_shapes_without_its_data(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checked = check(path)
    assert checked.ok, str(checked)
    assert checked.phases
    untold = path.stem.removesuffix("_solver") in ("convnet_fsdd", "convnet_norb")
    """Whether nothing tells the size of what is absent, and so of the inner products behind it."""
    for (
        name,
        phase,
    ) in checked.phases.items():  # MisConv's rival reads, in stage knn, data that another command makes
        made = path.stem.startswith("misconv_knn") and name.endswith(" knn")
        assert (phase["parameters"] is None) == (untold or made)
    absent = [
        str(warning)
        for warning in checked.warnings
        if not any(name in str(warning) for name in checked.needs)
    ]
    assert not absent


def test_windows_tell_the_size_of_what_they_cover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = NETS[[path.stem for path in NETS].index("ht_cac_fsdd")].read_text()
    checked = check(write(tmp_path, lines))
    assert checked.phases["TRAIN"]["assumed"] == {"data": [64, 1, 1, 2048], "label": [64]}
    text = lines.replace("stride_h: 1 stride_w: 16", "stride_h: 3 stride_w: 16").replace(
        "block_h: 1 block_w: 16", "block_h: 3 block_w: 16"
    )
    assert schema.parse_net(text)
    assert check(write(tmp_path, text)).phases["TRAIN"]["assumed"]["data"] == [64, 3, 3, 2048]


def write(folder: Path, text: str) -> Path:
    (folder / "net.prototxt").write_text(text)
    return folder / "net.prototxt"


STAGED = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "y" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }
layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "gone" top: "l" include { stage: "few" } }
"""


def test_a_solver_s_nets_are_checked_in_its_own_stages(tmp_path: Path) -> None:
    net = write(tmp_path, STAGED)
    assert check(net).ok
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        f'net: "{net}" base_lr: 0.1 max_iter: 1 lr_policy: "fixed"\ntrain_state {{ stage: "few" }}'
    )
    checked = check(solver)
    assert [
        str(problem)
        for problem in checked.problems
        if "net.prototxt:3:" in str(problem) and "'gone'" in str(problem)
    ]
    solver.write_text(solver.read_text().replace('"few"', '"fow"'))
    checked = check(solver)
    assert checked.ok
    assert [str(one) for one in checked.warnings] == [
        f"{solver}:2:15: stage 'fow' changes nothing, as no layer of the net names it; did you mean 'few'?"
    ]
    assert "TRAIN fow" in checked.phases


def test_test_states_belong_to_the_test_nets(tmp_path: Path) -> None:
    net = write(tmp_path, STAGED)
    solver = tmp_path / "solver.prototxt"
    text = f'train_net: "{net}" test_net: "{net}" test_iter: 1 test_interval: 1 '
    text += 'base_lr: 0.1 lr_policy: "fixed" max_iter: 1 '
    solver.write_text(text + 'test_state { stage: "few" }')
    assert not check(solver).ok
    solver.write_text(text)
    assert check(solver).ok
