"""The schema: messages of both Caffe dialects, and reading and printing of spec files.

    document = schema.read_net("nets/ht.prototxt")
    document.message.layer[3].convolution_param.num_output
    document.at("layer", 3, "convolution_param", "num_output")     # nets/ht.prototxt:41:25

Every message of proto/netspec.proto is an attribute: `schema.LayerParameter(name="ip1")`.
"""

from __future__ import annotations

from typing import Any

from netspec.schema.descriptors import descriptor, enum, message_class, message_names
from netspec.schema.document import Document, UnknownField
from netspec.schema.manual import describe
from netspec.schema.printer import format_float, print_text
from netspec.schema.read import (
    guess_kind,
    load_text,
    parse,
    parse_net,
    parse_solver,
    read,
    read_net,
    read_solver,
)
from netspec.schema.templates import render, render_text
from netspec.schema.wire import (
    read_binary,
    read_binary_net,
    read_binary_solver,
    write_binary_net,
    write_binary_solver,
)

__all__ = [
    "Document",
    "UnknownField",
    "describe",
    "descriptor",
    "enum",
    "format_float",
    "guess_kind",
    "load_text",
    "message_class",
    "message_names",
    "parse",
    "parse_net",
    "parse_solver",
    "print_text",
    "read",
    "read_binary",
    "read_binary_net",
    "read_binary_solver",
    "read_net",
    "read_solver",
    "render",
    "render_text",
    "write_binary_net",
    "write_binary_solver",
]


def __getattr__(name: str) -> Any:
    try:
        return message_class(name)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute or message {name!r}") from None
