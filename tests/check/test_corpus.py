"""Texts as people have them: every syntax and trap gives a result, or a report with a place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from netspec import schema
from netspec.check import Report, check, trial
from netspec.errors import SpecError
from netspec.layers import registry
from netspec.layers.basic.pointwise import ReLU
from netspec.net.graph import compile
from netspec.run.settings import override
from netspec.schema import spec
from netspec.schema.forks import FORK_LAYERS
from tests.places import CORPUS

RUNS = {
    "v0": ("v0", "input"),
    "v1_train_val": ("v1", "transform"),
    "input_dim": ("input",),
    "resnet_block": ("input", "batch_norm"),
    "mobile": (),
    "ssd_train": (),
    "segnet_train": (),
    "pairs": (),
    "captions": (),
    "tasks": (),
    "sharper": (),
    "volumes": (),
    "stages": (),
    "v1_forks": ("v1", "input"),
    "ambiguous_bn": ("input",),
    "gains_elsewhere": (),
    "gains_third": (),
    "stages_together": (),
    "large_regions": ("input",),
    "edges_train": (),
    "shrunk_labels": ("v1",),
    "text_lines": ("input",),
    "flow": ("input",),
    "disparity_train": (),
    "text_train": (),
    "domains": (),
    "yolo_tiny": ("input",),
}
"""Files whose every layer runs, with the old syntaxes found in each."""


def report(name: str) -> Report:
    return check(CORPUS / f"{name}.prototxt", run=name in RUNS and name != "v1_train_val")


def test_every_file_is_expected() -> None:
    others = {"python_data", "unknown_fork", "old_solver", "duplicates", "regions_train", "label_map"}
    others |= {"not_caffe", "solver_elsewhere", "values", "several_gpus", "places"}
    assert {path.stem for path in CORPUS.glob("*.prototxt")} == set(RUNS) | others


@pytest.mark.parametrize("name", RUNS)
def test_runs(name: str) -> None:
    checked = report(name)
    assert checked.ok, str(checked)
    assert set(RUNS[name]) >= set(checked.legacy) - {"batch_norm"}
    assert max(phase["layers"] for phase in checked.phases.values()) > 1


def test_what_is_assumed_is_said() -> None:
    checked = report("v1_train_val")
    assert checked.phases["TRAIN"]["assumed"]["data"] == [256, 3, 227, 227]
    assert "data/ilsvrc12/imagenet_mean.binaryproto" in str(checked)
    assert checked.needs
    checked = report("ssd_train")
    assert any("is not for phase TEST" in warning.message for warning in checked.warnings)
    assert report("segnet_train").phases["TRAIN"]["assumed"]["label"] == [4, 1, 360, 480]


def test_a_fork_that_nobody_knows() -> None:
    checked = report("unknown_fork")
    texts = {p.position.line: p.message.split(": ")[1] for p in checked.problems if p.position}
    assert list(texts) == [2, 4]
    assert texts[2].startswith("unknown layer type 'TripletData', triplets of pictures")
    assert texts[4].startswith("unknown layer type 'MalisLoss', maximal affinity learning")
    assert "unknown field 'weight_rand_scale'" in " ".join(warning.message for warning in checked.warnings)
    strict = check(CORPUS / "unknown_fork.prototxt", strict=True)
    assert len(strict.problems) == 3
    assert not [name for name in FORK_LAYERS if name in registry]  # what is built is told of no more


def test_modules_that_public_nets_name_are_computed_without_importing_them() -> None:
    checked = report("python_data")
    assert checked.ok, str(checked)
    (warning,) = [w for w in checked.warnings if "(Python)" in w.message]
    assert "its data is made by the program that the Python module belongs to" in warning.message
    assert warning.position is not None
    assert warning.position.line == 2
    assert checked.phases["TRAIN"]["assumed"]["gt_boxes"] == [2, 5]


def test_solvers() -> None:
    checked = report("old_solver")
    assert checked.legacy == ("solver_type",)
    assert checked.needs == ["models/x/train_val.prototxt"]


def assumed(name: str, phase: str = "TRAIN") -> dict[str, list[int]]:
    checked: dict[str, list[int]] = report(name).phases[phase]["assumed"]
    return checked


def test_inputs_are_what_their_readers_need() -> None:
    assert assumed("pairs") == {"pair": [32, 2, 224, 224], "same": [32]}
    words = {name: [5, 6] for name in ("cont", "words", "next")}
    assert assumed("captions") == {"image": [6, 3, 20, 20], "number": [6]} | words
    assert assumed("tasks") == {"data": [4, 3, 224, 224], "label": [4, 15]}
    assert assumed("sharper") == {"data": [2, 3, 224, 224], "label": [2, 1, 216, 216]}
    assert assumed("volumes") == {"data": [1, 3, 64, 64, 64], "label": [1, 1, 8, 8, 8]}


def test_stages_are_tried_where_the_phase_alone_has_no_data() -> None:
    checked = report("stages")
    assert set(checked.phases) == {"TRAIN train", "TEST train", "TRAIN val", "TEST val"}
    assert checked.phases["TRAIN val"]["assumed"]["label"] == [4]
    assert any("with stage deploy" in warning.message for warning in checked.warnings)
    assert checked.needs


def test_what_feeds_a_net_may_be_missing() -> None:
    checked = report("regions_train")
    assert not checked.problems
    (warning,) = [w for w in checked.warnings if "(Python)" in w.message]
    assert "'nowhere.to_be_found', which is not imported" in warning.message
    assert checked.phases["TRAIN"]["assumed"] == {
        "data": [1, 3, 224, 224], "rois": [2, 5], "labels": [2], "targets": [2, 12], "inside": [2, 12],
        "outside": [2, 12],
    }  # fmt: skip
    assert check(CORPUS / "regions_train.prototxt", run=True).phases["TRAIN"]["run"] == "forward and backward"


def test_other_files_that_bear_the_name() -> None:
    assert report("label_map").kind == "label map"
    assert report("label_map").ok
    (problem,) = report("not_caffe").problems
    assert "no field of a net or a solver is in this file, but 'node'" in str(problem)


def test_solvers_of_others() -> None:
    checked = report("solver_elsewhere")
    assert [problem.message.split(";")[0] for problem in checked.problems] == [
        "net file 'train_val.prototxt' is not here", "unknown solver type 'AdamW'",
    ]  # fmt: skip
    assert not checked.warnings  # larc is built


def test_a_walk_that_fails_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: ReLU, x: torch.Tensor) -> torch.Tensor:
        if x.is_meta:
            return x
        raise ValueError("not today")

    monkeypatch.setattr(ReLU, "forward", forward)
    net = tmp_path / "net.prototxt"
    net.write_text(
        'input: "x" input_shape { dim: 64 dim: 3 }\nlayer { name: "p" type: "ReLU" bottom: "x" top: "y" }'
    )
    assert check(net).ok
    problem = check(net, run=True).problems[0]
    assert "ValueError: not today" in problem.message
    assert "net.prototxt:2:1: layer 'p' (ReLU), bottoms (2, 3)" in problem.message


def test_windows_texts(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    text = 'name: "n" # 数据\r\ninput: "x" input_shape { dim: 2 dim: 3 }\r\n'
    text += 'layer { name: "p" type: "ReLU" bottom: "x" top: "y" }\r\n'
    for encoding in ("utf-16", "utf-8-sig", "gbk"):
        net.write_bytes(text.encode(encoding))
        assert check(net).ok, encoding


def test_gains_in_a_file_that_is_not_here() -> None:
    checked = report("gains_elsewhere")
    assert checked.needs == ["lmdb", "gains.binaryproto"] or checked.needs == ["gains.binaryproto", "lmdb"]
    (warning,) = [w for w in checked.warnings if "gains file" in w.message]
    assert warning.position is not None
    assert warning.position.line == 3


def test_dialects() -> None:
    net = CORPUS / "ambiguous_bn.prototxt"
    reports = {name: check(net, dialect=name) for name in ("", "pspnet", "segnet", "yjxiong")}
    sizes = {name: one.phases["TRAIN"]["parameters"] for name, one in reports.items()}
    assert sizes == {"": 12, "pspnet": 12, "segnet": 6, "yjxiong": 12}
    assert reports[""].dialects == ["PSPNet"]
    assert reports["segnet"].dialects == ["segnet"]
    (problem,) = check(net, dialect="seg").problems
    assert problem.message == "unknown dialect 'seg'; there are segnet, pspnet, yjxiong, intel, textboxes"
    assert report("segnet_train").dialects == ["SegNet"]
    assert report("ssd_train").dialects == ["SSD"]
    assert report("v1_forks").dialects == ["DeepLab", "DeconvNet", "SegNet"]
    assert report("resnet_block").dialects == ["BVLC"]
    assert report("solver_elsewhere").dialects == []


def test_dialect_is_a_setting_of_the_nets() -> None:
    net = schema.read_net(CORPUS / "ambiguous_bn.prototxt").message
    override(schema.SolverParameter(), [net], ["dialect=segnet"])
    assert net.dialect == "segnet"


def test_duplicates_are_refused_at_the_second() -> None:
    (problem,) = report("duplicates").problems
    assert problem.position is not None
    assert (problem.position.line, problem.position.column) == (2, 97)


def test_stages_are_tried_together_where_none_alone_is_enough() -> None:
    checked = check(CORPUS / "stages_together.prototxt", run=True)
    assert {name: phase["run"] for name, phase in checked.phases.items()} == {
        "TRAIN frozen one": "forward and backward"
    }


def test_values_that_decide_numbers_must_be_known() -> None:
    checked = check(CORPUS / "values.prototxt", run=True)
    assert [problem.position.line for problem in checked.problems if problem.position] == [3, 4, 5]
    assert "expects one of TRAIN, TEST, RUN, found test" in checked.problems[2].message
    assert ["FPGA" in warning.message for warning in checked.warnings] == [True]


def test_gains_from_a_data_layer() -> None:
    assert assumed("gains_third") == {"x": [4, 3, 8, 8], "label": [4], "gains": [1, 1, 3, 3]}


def test_a_list_of_gpus_has_no_effect() -> None:
    checked = report("several_gpus")
    assert [problem.message for problem in checked.problems] == [
        "net file 'two_streams.prototxt' is not here"
    ]
    assert [warning.position.line for warning in checked.warnings if warning.position] == [3, 4]
    assert "takes one value, found a list, as multi-GPU forks do" in checked.warnings[0].message
    with pytest.raises(SpecError, match="device_id"):
        schema.read_solver(CORPUS / "several_gpus.prototxt")


def test_a_template_is_called_one() -> None:
    (problem,) = report("places").problems
    assert "is this a template" in problem.message
    assert problem.position is not None
    assert (problem.position.line, problem.position.column) == (2, 87)


def test_a_trial_fits_into_memory() -> None:
    net = compile(spec.net(schema.read_net(CORPUS / "large_regions.prototxt"), "TEST"))
    shapes = trial.small(net, {})
    assert shapes == {"data": (2, 3, 800, 800), "rois": (1, 5, 1, 1)}


def test_deeplabs_own_field_of_the_softmax_loss_counts() -> None:
    document = schema.read_net(CORPUS / "shrunk_labels.prototxt", unknown="keep")
    assert [unknown.name for unknown in document.unknown] == ["strict_dim"]
    assert document.message.layer[3].loss_param.ignore_label == 9
    assert document.at("layer", 3, "loss_param", "ignore_label").line == 5
