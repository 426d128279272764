"""Every message and enum of the schema as a module attribute, as protoc would have made it from caffe.proto.

    net = caffe_pb2.NetParameter()
    net.ParseFromString(open("weights.caffemodel", "rb").read())

BVLC's messages have BVLC's field numbers. Layers of the SimNets fork and of some others have private numbers
where they would clash, so their binary files are read with `netspec.schema.read_binary_net`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from netspec.schema import descriptor, enum, message_class, message_names

DESCRIPTOR = descriptor("NetParameter").file


def __getattr__(name: str) -> Any:
    """A message class, an enum ("Phase"), a value of one ("TEST"), or a descriptor ("_LAYERPARAMETER")."""
    if name in DESCRIPTOR.message_types_by_name:
        return message_class(name)
    if name in DESCRIPTOR.enum_types_by_name:
        return EnumTypeWrapper(enum(name))
    for kind in DESCRIPTOR.enum_types_by_name.values():
        if name in kind.values_by_name:
            return kind.values_by_name[name].number
    if name.startswith("_") and name in _descriptors():
        return _descriptors()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _descriptors() -> dict[str, Any]:
    """Descriptors by protoc's names: _LAYERPARAMETER, _POOLINGPARAMETER_POOLMETHOD."""
    by_name: dict[str, Any] = {
        f"_{name.upper()}": each for name, each in DESCRIPTOR.enum_types_by_name.items()
    }
    open_ = [(f"_{name.upper()}", descriptor(name)) for name in message_names()]
    while open_:
        name, message = open_.pop()
        by_name[name] = message
        by_name |= {f"{name}_{enum.name.upper()}": enum for enum in message.enum_types}
        open_ += [(f"{name}_{inner.name.upper()}", inner) for inner in message.nested_types]
    return by_name


__all__ = [
    *message_names(),
    *DESCRIPTOR.enum_types_by_name,
    *(value for kind in DESCRIPTOR.enum_types_by_name.values() for value in kind.values_by_name),
]


def __dir__() -> list[str]:
    return [*globals(), *__all__]
