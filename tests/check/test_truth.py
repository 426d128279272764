"""`netspec check` tells the truth: mistakes that no data would mend, sizes that are known, one verdict everywhere."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from netspec import schema
from netspec.check import check, drawable, shaped_net
from netspec.cli import app
from netspec.errors import SpecError, one_edit
from netspec.net import reading
from netspec.net.graph import likely_type
from netspec.net.make import make_net
from netspec.run.fit import fit
from tests.check.test_faults import FAULTS

DATA = """layer { name: "data" type: "Data" top: "data" top: "label" %s
  data_param { source: "%s" batch_size: 4 backend: LMDB } }
"""
LENET = """layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "c2" type: "Convolution" bottom: "p1" top: "c2" convolution_param { num_output: 50 kernel_size: 5 } }
layer { name: "p2" type: "Pooling" bottom: "c2" top: "p2" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "i1" type: "InnerProduct" bottom: "p2" top: "i1" inner_product_param { num_output: 500 } }
layer { name: "i2" type: "InnerProduct" bottom: "i1" top: "i2" inner_product_param { num_output: 10 } }
layer { name: "l" type: "SoftmaxWithLoss" bottom: "i2" bottom: "label" top: "l" }
"""
PARAMETERS = 431_080
"""Of LeNet on MNIST."""


def write(folder: Path, text: str, name: str = "net.prototxt") -> Path:
    (folder / name).write_text(text)
    return folder / name


# A mistake that does not depend on absent data


@pytest.mark.parametrize(
    "name", ["demoted_eltwise", "demoted_num_output", "undemoted_num_output", "demoted_solver"]
)
def test_a_mistake_that_no_data_would_mend_is_one(name: str) -> None:
    report = check(FAULTS / f"{name}.prototxt")
    assert report.status == "not ok"
    (problem,) = report.problems
    assert ("num_output > 0" in problem.message) != (
        "found (4, 8, 28, 28) and (4, 16, 28, 28)" in problem.message
    )


def test_bottoms_that_differ_whatever_the_picture(tmp_path: Path) -> None:
    text = (FAULTS / "demoted_eltwise.prototxt").read_text().replace("crop_size: 28", "")
    (problem,) = check(write(tmp_path, text)).problems
    assert "needs bottoms of one shape" in problem.message


def test_a_net_that_only_needs_the_right_picture_has_no_mistake(tmp_path: Path) -> None:
    text = DATA % ("", "lmdb") + 'layer { name: "r" type: "Reshape" bottom: "data" top: "r" '
    text += "reshape_param { shape { dim: 4 dim: 3 dim: 111 dim: 7 } } }"
    report = check(write(tmp_path, text))
    assert report.status == "ok, data absent"
    assert "say the right one: --shape data=" in " ".join(warning.message for warning in report.warnings)
    assert check(write(tmp_path, text), shapes={"data": (4, 3, 111, 7)}).phases["TRAIN"]["parameters"] == 0


# An assumed shape is not the net's size


@pytest.mark.parametrize("source", ["examples/mnist/mnist_train_lmdb", "MNIST.db"])
def test_lenets_own_file_has_its_own_size(tmp_path: Path, source: str) -> None:
    report = check(write(tmp_path, DATA % ("", source) + LENET))
    assert report.status == "ok, data absent"
    assert report.phases["TRAIN"]["parameters"] == PARAMETERS


def test_a_mean_file_tells_the_data_too(tmp_path: Path) -> None:
    text = DATA % ('transform_param { mean_file: "examples/cifar10/mean.binaryproto" }', "train_lmdb") + LENET
    assert check(write(tmp_path, text)).phases["TRAIN"]["assumed"]["data"] == [4, 3, 32, 32]


def test_a_size_that_nothing_tells_is_unknown(tmp_path: Path) -> None:
    path = write(tmp_path, DATA % ("", "train_lmdb") + LENET)
    report = check(path)
    assert report.phases["TRAIN"]["parameters"] is None
    assert "TRAIN: 8 layers, parameters unknown" in str(report)
    assert "say the shape of the data: --shape data=" in str(report)
    assert check(path, shapes={"data": (4, 1, 28, 28)}).phases["TRAIN"]["parameters"] == PARAMETERS
    result = CliRunner().invoke(app, ["check", str(path), "--json", "--shape", "data=4,1,28,28"])
    assert json.loads(result.output)["phases"]["TEST"]["parameters"] == PARAMETERS


def test_the_size_that_layers_restore_is_found(tmp_path: Path) -> None:
    """SegNet: three halvings above the Upsample that restores 45 x 60."""
    text = DATA % ("", "frames")
    below = "data"
    for i in range(4):
        text += f'layer {{ name: "p{i}" type: "Pooling" bottom: "{below}" top: "p{i}" top: "m{i}" '
        text += "pooling_param { kernel_size: 2 stride: 2 } }\n"
        below = f"p{i}"
    text += 'layer { name: "up" type: "Upsample" bottom: "p3" bottom: "m3" top: "up" '
    text += "upsample_param { scale: 2 upsample_h: 45 upsample_w: 60 } }\n"
    text += 'layer { name: "sum" type: "Eltwise" bottom: "p2" bottom: "up" top: "sum" }\n'
    assert check(write(tmp_path, text)).phases["TRAIN"]["assumed"]["data"] == [4, 3, 360, 480]


def test_what_is_assumed_is_logged_by_the_other_commands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, DATA % ("", "train_lmdb") + LENET)
    with caplog.at_level(logging.WARNING, "netspec"):
        shaped_net(path)
    assert "which is only assumed" in caplog.text
    caplog.clear()
    net = shaped_net(path, shapes={"data": (4, 1, 28, 28)})
    assert not caplog.records
    assert sum(param.value.numel() for param in net.params) == PARAMETERS
    with pytest.raises(SpecError, match="no input 'dat'; did you mean 'data'"):
        shaped_net(path, shapes={"dat": (4, 1, 28, 28)})
    result = CliRunner().invoke(app, ["summary", str(path), "--shape", "data"])
    assert result.exit_code == 2 or "expected the name of an input" in str(result.exception)


# Fields of forks: one table for all commands


def test_fields_without_effect_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    path = FAULTS / "c6_nv16.prototxt"
    report = check(path)
    assert report.ok
    with caplog.at_level(logging.WARNING, "netspec"):
        document = reading.read(path, "net")
    assert len(document.message.layer) == 5
    logged = [record.getMessage() for record in caplog.records]
    assert logged == [str(warning) for warning in report.warnings]
    assert len(set(logged)) == len(logged) == 12
    assert all("without effect here" in text for text in logged)
    assert report.dialects == ["NVIDIA"]


def test_fields_that_change_numbers_are_refused_with_the_reason(tmp_path: Path) -> None:
    text = (FAULTS / "filler_slip.prototxt").read_text().replace("gausian", "gaussian")
    path = write(tmp_path, text.replace("num_output: 4", "num_output: 4 fuse_type: FUSED_RELU"))
    (problem,) = check(path).problems
    assert "write that layer by itself" in problem.message
    with pytest.raises(SpecError) as raised:
        reading.read(path)
    assert raised.value.problems == (problem,)


def test_the_old_syntax_has_its_remedy() -> None:
    for problem in check(FAULTS / "c9_blobs_lr.prototxt").problems:
        assert "write param { lr_mult: ... } once for each blob" in problem.message
        assert "did you mean" not in problem.message


def test_slips_are_told_from_fields_of_forks() -> None:
    for name, nearest in (
        ("tpo", "top"),
        ("nmae", "name"),
        ("botom", "bottom"),
        ("kernel_szie", "kernel_size"),
    ):
        assert one_edit(name, nearest), name
    for name, nearest in (("cache", "scale"), ("larc", "lrn"), ("flip", "ship"), ("top", "top_k")):
        assert not one_edit(name, nearest), name
    with pytest.raises(SpecError, match="did you mean 'bottom'"):
        reading.judge(
            schema.parse_net('layer { name: "r" type: "ReLU" botom: "x" top: "y" }', unknown="keep")
        )


# Names that are none


def test_unknown_fillers_name_what_there_is() -> None:
    (problem,) = check(FAULTS / "filler_slip.prototxt").problems
    assert "unknown filler 'gausian'; did you mean 'gaussian'? Known: constant, uniform" in problem.message
    assert problem.position is not None
    assert (problem.position.line, problem.position.column) == (2, 125)


def test_a_solver_without_its_net_is_not_ok() -> None:
    report = check(FAULTS / "solver_no_net.prototxt")
    (problem,) = report.problems
    assert problem.message == "net file 'models/nowhere/train_val.prototxt' is not here"
    assert problem.position is not None
    assert problem.position.column == 1


def test_the_phase_of_a_fault_is_named() -> None:
    report = check(FAULTS / "deploy_train_only_fault.prototxt", run=True)
    (problem,) = report.problems
    assert problem.message.startswith("in phase TRAIN: layer 'p' (Eltwise)")
    assert report.phases["TEST"]["run"] == "forward"


def test_six_means_for_three_channels() -> None:
    (problem,) = check(FAULTS / "c6_means.prototxt").problems
    assert "6 mean_values for 3 channels" in problem.message
    assert problem.position is not None
    assert problem.position.column == 179  # the sixth


@pytest.mark.parametrize(
    ("name", "near"),
    [("Flip", None), ("Relu", "ReLU"), ("Convolutoin", "Convolution"), ("Pooling2", "Pooling"),
     ("SoftmaxWithLos", "SoftmaxWithLoss"), ("MyFancyLayer", None), ("InerProduct", "InnerProduct")],
)  # fmt: skip
def test_layers_are_proposed_only_where_near(name: str, near: str | None) -> None:
    assert likely_type(name) == near


# Labels


def test_labels_beyond_the_classes_are_found_before_the_first_iteration(tmp_path: Path) -> None:
    text = """layer { name: "d" type: "Dataset" top: "x" top: "label" dataset_param { name: "digits" batch_size: 3 } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 5 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
    """
    solver = write(
        tmp_path, f'net: "{write(tmp_path, text)}" base_lr: 0.1 lr_policy: "fixed" max_iter: 1', "s.prototxt"
    )
    with pytest.raises(SpecError, match=r"net.prototxt:3:\d+: .*labels reach 9, the scores have 5 classes"):
        fit(solver, out=tmp_path / "run")


OWN_FAULTS = {
    "group": ('type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 group: 4 }', "group 4 must divide"),
    "pad": ('type: "Pooling" pooling_param { pool: MAX kernel_size: 2 pad: 3 }', "pad"),
    "size": ('type: "LRN" lrn_param { local_size: 4 }', "local_size"),
    "slices": ('type: "Slice" top: "z" slice_param { slice_point: 3 slice_point: 2 }', "slice_point"),
    "axis": ('type: "Softmax" softmax_param { axis: -9 }', "axis -9"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OWN_FAULTS)
def test_a_layer_that_takes_no_bottom_is_a_mistake(kind: str, tmp_path: Path) -> None:
    """Whatever size the absent pictures have."""
    fields, words = OWN_FAULTS[kind]
    layer = f'layer {{ name: "l" bottom: "data" top: "y" {fields} }}'
    report = check(write(tmp_path, DATA % ("", "absent") + layer))
    assert report.status == "not ok", str(report)
    assert words in report.problems[0].message


def test_a_window_larger_than_the_crop_is_a_mistake(tmp_path: Path) -> None:
    layer = 'layer { name: "l" type: "Convolution" bottom: "data" top: "y" convolution_param { num_output: 3 %s } }'
    text = DATA % ("transform_param { crop_size: 10 }", "absent") + layer
    report = check(write(tmp_path, text % "kernel_size: 11"))
    assert "window of (11, 11) does not fit" in report.problems[0].message
    assert check(write(tmp_path, text % "kernel_size: 10")).status != "not ok"


@pytest.mark.parametrize(
    "fields",
    [
        "num_output: 49 kernel_size: 3 group: 49",
        "num_output: 6 kernel_size: 3000",
        "num_output: 10 kernel_size: 3 group: 5",
        "num_output: 1010 kernel_size: 3 group: 101",
    ],
)
def test_what_other_data_would_mend_is_none(fields: str, tmp_path: Path) -> None:
    layer = (
        f'layer {{ name: "l" type: "Convolution" bottom: "data" top: "y" convolution_param {{ {fields} }} }}'
    )
    report = check(write(tmp_path, DATA % ("", "absent") + layer))
    assert report.status != "not ok", str(report)
    assert report.warnings


def test_means_of_pictures_that_are_not_here(tmp_path: Path) -> None:
    text = 'layer { name: "d" type: "ImageData" top: "d" top: "label" '
    text += 'image_data_param { source: "absent.txt" batch_size: 2 %s } %s }'
    six = "transform_param {" + "".join(f" mean_value: {i}" for i in range(6)) + " }"
    (problem,) = check(write(tmp_path, text % ("", six))).problems
    assert "6 mean_values for 3 channels" in problem.message
    three = six.replace(" mean_value: 3 mean_value: 4 mean_value: 5", "")
    assert check(write(tmp_path, text % ("", three))).status != "not ok"
    (problem,) = check(write(tmp_path, text % ("is_color: false", three))).problems
    assert "3 mean_values for 1 channels" in problem.message


@pytest.mark.parametrize("name", ["net.prototmp", "net.prototxt"])
def test_a_template_is_called_one(name: str, tmp_path: Path) -> None:
    text = 'layer { name: "x" type: "Input" top: "x"\n  input_param { shape { dim: {{ n }} dim: 3 } } }'
    (problem,) = check(write(tmp_path, text, name)).problems
    assert "this is a template (Jinja2)" in problem.message
    assert "netspec render" in problem.message
    assert problem.position is not None
    assert (problem.position.line, problem.position.column) == (2, 30)


UNKNOWN = """name: "u" input: "data" input_dim: 1 input_dim: 3 input_dim: 16 input_dim: 16
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "mine" type: "MyFancyLayer" bottom: "conv" top: "mine" my_fancy_param { alpha: 3 } }
layer { name: "relu" type: "ReLU" bottom: "mine" top: "mine" }
"""


def test_a_net_with_an_unknown_layer_is_drawn_as_written(tmp_path: Path) -> None:
    (tmp_path / "u.prototxt").write_text(UNKNOWN)
    result = CliRunner().invoke(app, ["draw", str(tmp_path / "u.prototxt"), str(tmp_path / "u.gv")])
    assert result.exit_code == 0, result.output
    assert "MyFancyLayer" in (tmp_path / "u.gv").read_text()
    assert "layer 'mine' (MyFancyLayer): unknown layer type 'MyFancyLayer'" in result.stderr
    assert "drawn without shapes" in result.stderr


def test_other_mistakes_of_such_a_net_are_not_drawn_over(tmp_path: Path) -> None:
    (tmp_path / "u.prototxt").write_text(UNKNOWN.replace('bottom: "mine"', 'bottom: "mien"'))
    with pytest.raises(SpecError, match="bottom 'mien'"):
        drawable(tmp_path / "u.prototxt")


def test_a_file_of_another_program_is_refused_by_every_command(tmp_path: Path) -> None:
    path = write(tmp_path, 'node { name: "a" op: "MatMul" }\n')
    for command in (check(path).problems[0].message, *refusals(path)):
        assert "no field of a net or a solver is in this file, but 'node'" in command


def refusals(path: Path) -> list[str]:
    """What reading a net, and the commands by it, say."""
    texts = []
    for use in (lambda: reading.read(path), lambda: reading.read(path, "net"), lambda: shaped_net(path)):
        with pytest.raises(SpecError) as caught:
            use()
        texts.append(str(caught.value))
    return texts


@pytest.mark.parametrize(
    ("filler", "reason"),
    [
        ('type: "xavier" sparse: 3', "does not take `sparse`"),
        ('type: "uniform" min: 2 max: 1', "min 2.0 exceeds max 1.0"),
        ('type: "uniform" min: 0 max: inf', "cannot fill"),
        ('type: "gaussian" std: -1', "std -1.0 is negative"),
        ('type: "bilinear"', "needs a blob of square planes"),
        ('type: "dirichlet" alpha: 0', "alpha 0.0 is not positive"),
        ('type: "identity" cyclic_length: 99', "cyclic_length 99 exceeds"),
        ('type: "bernoulli" non_zero_probability: 2', "probability 2.0 is outside"),
        ('type: "positive_unitball" primal_dim: 7', "primal_dim 7 does not divide"),
    ],
)
def test_a_filler_that_cannot_fill_is_found_without_filling(filler: str, reason: str, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" '
        f"inner_product_param {{ num_output: 4 weight_filler {{ {filler} }} }} }}",
    )
    (problem,) = check(path).problems
    assert reason in problem.message
    assert problem.position is not None
    assert problem.position.line == 2
    with pytest.raises(SpecError, match=re.escape(reason)):
        make_net(schema.read_net(path))


def test_a_refused_field_that_is_off_is_warned_of(tmp_path: Path) -> None:
    net = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 } } }'
    text = f'net_param {{ {net} }} base_lr: 1 lr_policy: "fixed" max_iter: 1 %s local_gw_ratio: 0.01'
    report = check(write(tmp_path, text % "local_lr_auto: false", "solver.prototxt"))
    assert not report.problems, report
    assert any("local_lr_auto" in w.message and "without effect here" in w.message for w in report.warnings)
    report = check(write(tmp_path, text % "local_lr_auto: true", "solver.prototxt"))
    assert "write larc: true, and larc_eta" in str(report.problems[0])
