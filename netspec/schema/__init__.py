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

__all__ = [
    "Document",
    "UnknownField",
    "descriptor",
    "enum",
    "guess_kind",
    "load_text",
    "message_class",
    "message_names",
    "parse",
    "parse_net",
    "parse_solver",
    "read",
    "read_net",
    "read_solver",
]


def __getattr__(name: str) -> Any:
    try:
        return message_class(name)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute or message {name!r}") from None
