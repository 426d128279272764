"""`netspec field`, the completion of --set, and `netspec check --watch`."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from google.protobuf import text_format
from typer.testing import CliRunner

from netspec import schema
from netspec.check import completing, watching
from netspec.check.fields import OLD, Field, explain, find, names
from netspec.cli import app
from netspec.errors import NetspecError
from netspec.layers import registry
from tests.places import ROOT

DIGITS = ROOT / "nets" / "ht_cac_digits.prototxt"


def test_a_path_gives_meaning_type_default_layers_and_a_use() -> None:
    lines = list(explain("convolution_param.pad"))
    assert lines[0] == "convolution_param.pad: any number of uint32"
    assert lines[1].strip() == schema.describe("ConvolutionParameter", "pad")
    assert "Convolution," in lines[3]
    file, line = lines[-1].rsplit("(", 1)[1].rstrip(")").split(":")
    (path,) = (ROOT / "nets").rglob(file)
    assert "pad: " in path.read_text().splitlines()[int(line) - 1]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("layer.pooling_param.pool", "PoolingParameter.pool"),
        ("ConvolutionParameter.pad", "ConvolutionParameter.pad"),
        ("Convolution.pad", "ConvolutionParameter.pad"),
        ("similarity_param.block_param.pad", "BlockParameter.pad"),
        ("weight_filler.std", "FillerParameter.std"),
        ("base_lr", "SolverParameter.base_lr"),
        ("early_stop.patience", "EarlyStopParameter.patience"),
    ],
)
def test_names_that_mean_one_field(name: str, key: str) -> None:
    assert [one.key for one in find(name)] == [key]


def test_every_field_of_the_schema_is_explained() -> None:
    for owner in schema.message_names():
        for field in schema.descriptor(owner).fields if owner not in OLD else ():
            one = Field(owner, field)
            assert one.type
            assert schema.describe(owner, field.name), one.key
            assert find(f"{owner}.{field.name}")[0].key == one.key


def test_defaults_are_written_as_in_a_file() -> None:
    for owner in schema.message_names():
        for field in schema.descriptor(owner).fields if owner not in OLD else ():
            one = Field(owner, field)
            if one.default:
                message = schema.message_class(owner)()
                value = getattr(text_format.Merge(f"{field.name}: {one.default}", message), field.name)
                assert value == field.default_value or value != value


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("convolution_param.padd", "ConvolutionParameter has no field 'padd'; did you mean 'pad'?"),
        ("convolution_param.zzzzz", "ConvolutionParameter has no field 'zzzzz'; it has num_output, "),
        ("Convolutoin", "no field, layer type or message; did you mean 'Convolution'?"),
        ("convolutio_param.pad", "did you mean 'convolution_param'?"),
        ("base_lr.x", "no field of layers"),
        ("lstm.", ""),
    ],
)
def test_unknown_names_get_the_nearest(name: str, said: str) -> None:
    with pytest.raises(NetspecError) as error:
        list(explain(name))
    assert said in str(error.value)


def test_layer_types_messages_and_common_names() -> None:
    for name in registry:
        assert next(explain(name)).startswith(f"{name}: ")
    assert "  pad: any number of uint32. Padding" in "\n".join(explain("ConvolutionParameter"))
    assert next(explain("pad")).startswith("pad is a field of ")
    assert {"convolution_param.pad", "Convolution", "base_lr", "SolverParameter"} <= set(names())
    result = json.loads(CliRunner().invoke(app, ["field", "pooling_param.pool", "--json"]).output)
    assert result[0]["default"] == "MAX"
    assert result[0]["layers"] == ["Pooling", "Pooling3D"]


@pytest.mark.parametrize(
    ("begun", "wanted"),
    [
        ("base", ["base_lr="]),
        ("lr_policy=mul", ["lr_policy=multifixed", "lr_policy=multistep"]),
        ("type=Na", ["type=Nadam"]),
        ("mex", ["mex1.", "mex2."]),
        ("mex1.mex_param.softm", ["mex1.mex_param.softmax_mode="]),
        (
            "mex1.mex_param.softmax_mode=",
            ["mex1.mex_param.softmax_mode=true", "mex1.mex_param.softmax_mode=false"],
        ),
        ("mex1.type=Simi", ["mex1.type=Similarity"]),
        ("mex1.me", ["mex1.mex_param."]),
        ("mex1.conv", []),
        ("early_stop.pat", ["early_stop.patience="]),
        ("nothing.here", []),
        ("net", []),
    ],
)
def test_settings_are_completed(begun: str, wanted: list[str]) -> None:
    assert completing.settings(DIGITS, begun) == wanted


def test_settings_without_a_file_are_the_solvers() -> None:
    assert completing.settings(Path("none.prototxt"), "base") == ["base_lr="]
    assert completing.settings(None, "lr_policy=pla") == ["lr_policy=plateau"]


def test_watching_sees_a_net_that_a_solver_names(tmp_path: Path) -> None:
    net, solver = tmp_path / "a.prototxt", tmp_path / "a_solver.prototxt"
    net.write_text("name: 'a'")
    solver.write_text('net: "a.prototxt" base_lr: 0.1')
    assert watching.watched([solver]) == [solver, net]
    seen = []
    changes = watching.again([solver], pause=0.01)
    for i, _ in enumerate(changes):
        seen.append(i)
        if i == 3:
            break
        if i == 2:  # gone: the next look finds that too
            net.unlink()
            continue
        later = threading.Timer(0.05, net.write_text, [f"name: '{'b' * (i + 2)}'"])
        later.start()
    assert seen == [0, 1, 2, 3]


def test_watching_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "x.prototxt"
    changes = watching.again([file], pause=0.01)
    next(changes)
    file.write_text("layer {")
    os.utime(file, (time.time(), time.time()))
    next(changes)
    assert watching.watched([file]) == [file]
