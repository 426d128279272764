"""The generated files fit the proto, the manual is complete, templates render."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netspec import schema
from netspec.errors import SpecError


def test_generated_files_are_fresh() -> None:
    pytest.importorskip("grpc_tools")
    done = subprocess.run(
        [sys.executable, "-m", "tools.generate.compile_schema", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_message_and_field_has_a_manual() -> None:
    silent = [name for name in schema.message_names() if not schema.describe(name)]
    assert not silent
    silent = [
        f"{name}.{field.name}"
        for name in schema.message_names()
        for field in schema.descriptor(name).fields
        if not schema.describe(name, field.name)
    ]
    assert not silent


def test_manual() -> None:
    assert "filters" in schema.describe("ConvolutionParameter", "num_output")
    assert schema.describe("PoolingParameter", "PoolMethod.PROD")
    with pytest.raises(KeyError):
        schema.describe("ConvolutionParameter", "num_outptu")
    with pytest.raises(KeyError):
        schema.describe("NoMessage")


def test_messages_are_attributes() -> None:
    assert schema.LayerParameter(name="a").name == "a"
    with pytest.raises(AttributeError, match="NoMessage"):
        _ = schema.NoMessage


def test_another_caffe_proto_may_be_loaded_beside_ours() -> None:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
    file.message_type.add(name="LayerParameter")
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    assert schema.LayerParameter().DESCRIPTOR.fields_by_name["name"]


def test_template(tmp_path: Path) -> None:
    path = tmp_path / "net.prototmp"
    path.write_text(
        "{% if deep %}force_backward: {{ back|bool }}\n{% endif %}name: '{{ '%.1f'|format(rate) }}'\n"
    )
    text = schema.render(path, {"deep": 1, "back": 0, "rate": 0.25})
    assert text == "force_backward: false\nname: '0.2'\n"


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("a\n{{ rate }}", 2, "'rate' has no value; did you mean 'rates'"),
        ("a\n\n{% if %}", 3, "Expected an expression"),
        ("{{ 1 / 0 }}", 1, "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", 1, "unsafe"),
        ("{{ 'a'|upperr }}", 1, "upperr"),
    ],
)
def test_mistakes_in_templates(text: str, line: int, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint) as raised:
        schema.render_text(text, {"rates": 1}, "t.prototmp")
    position = raised.value.problems[0].position
    assert position is not None
    assert (position.file, position.line) == ("t.prototmp", line)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (0, "false"), ("False", "false"), ("1", "true"), (None, "false")]
)
def test_filter_bool(value: object, text: str) -> None:
    assert schema.render_text("{{ x|bool }}", {"x": value}) == text
