"""Printing is canonical and reads back; the reader agrees with protobuf's own on what both accept."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netspec import schema
from netspec.schema.values import message_info

INTEGERS = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1)}
INTEGERS |= {"int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1)}


def scalars(field: Any) -> st.SearchStrategy[Any]:
    if field.type in INTEGERS:
        low, high = INTEGERS[field.type]
        return st.integers(low, high)
    if field.type in ("float", "double"):
        return st.floats(width=32 if field.type == "float" else 64, allow_nan=False)
    return {
        "bool": st.booleans(),
        "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        "bytes": st.binary(max_size=8),
        "enum": st.sampled_from(sorted((field.enum or {"": 0}).values())),
    }[field.type]


@st.composite
def messages(draw: st.DrawFn, name: str, depth: int = 3) -> Any:
    """Any message of the schema: a few of its fields, with any values."""
    message = schema.message_class(name)()
    info = message_info(message.DESCRIPTOR)
    names = draw(st.lists(st.sampled_from(sorted(info.fields)), max_size=4, unique=True))
    for field in (info.fields[each] for each in sorted({*names, *info.required})):
        count = draw(st.integers(1, 2)) if field.repeated else 1
        for _ in range(count):
            if field.below is not None:
                if depth > 0:
                    below = draw(messages(field.below.name, depth - 1))
                    holder = getattr(message, field.name)
                    (holder.add() if field.repeated else holder).CopyFrom(below)
            elif field.repeated:
                getattr(message, field.name).append(draw(scalars(field)))
            else:
                setattr(message, field.name, draw(scalars(field)))
    return message


names = st.sampled_from(schema.message_names())


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(names.flatmap(lambda name: messages(name)))
def test_parse_of_print_is_the_message(message: Any) -> None:
    text = schema.print_text(message)
    back = schema.parse(message.DESCRIPTOR.name, text).message
    assert back.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
    assert schema.print_text(back) == text
    assert text_format.Parse(text, type(message)()) == message


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages("LayerParameter"))
def test_reading_what_protobuf_prints(message: Any) -> None:
    for options in (
        {},
        {"as_one_line": True},
        {"use_short_repeated_primitives": True, "pointy_brackets": True},
    ):
        text = text_format.MessageToString(message, **options)
        assert schema.parse("LayerParameter", text).message == message


@given(st.floats(width=32))
def test_floats_are_the_shortest_that_read_back(value: float) -> None:
    text = schema.format_float(value)
    if math.isnan(value):
        assert text == "nan"
        return
    assert struct.pack("<f", float(text)) == struct.pack("<f", value)
    assert len(text) <= len("-1.23456789e-38")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        (1.0, "1"),
        (1e6, "1e+06"),
        (-0.0, "-0"),
        (0.999, "0.999"),
        (1 / 3, "0.33333334"),
    ],
)
def test_floats_look_as_caffe_prints_them(value: float, text: str) -> None:
    assert schema.format_float(struct.unpack("<f", struct.pack("<f", value))[0]) == text
