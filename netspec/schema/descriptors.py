"""The messages of `proto/netspec.proto`, from a descriptor pool of our own.

The default pool is left alone: a program may load another caffe.proto (pycaffe's own, a converter's) too.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "caffe"


@cache
def _pool() -> tuple[Any, Any]:
    """The private pool and the descriptor of the one file in it."""
    raw = resources.files(__package__).joinpath("netspec.desc").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(raw).file:
        name = file.name
        pool.AddSerializedFile(file.SerializeToString())
    return pool, pool.FindFileByName(name)


def message_names() -> list[str]:
    """Names of all top-level messages, in the order of the schema."""
    return list(_pool()[1].message_types_by_name)


def descriptor(name: str) -> Any:
    """Descriptor of a message by its name in the schema ("LayerParameter"); KeyError for an unknown one."""
    return _pool()[0].FindMessageTypeByName(f"{PACKAGE}.{name}")


@cache
def message_class(name: str) -> Any:
    """Class of a message by its name; KeyError for an unknown one."""
    return message_factory.GetMessageClass(descriptor(name))


def enum(name: str) -> Any:
    """Descriptor of an enum by its name ("Phase", "PoolingParameter.PoolMethod"): has `values_by_name`."""
    return _pool()[0].FindEnumTypeByName(f"{PACKAGE}.{name}")


def is_repeated(field: Any) -> bool:
    """Whether a field descriptor is repeated; `label` went away in newer protobuf, `is_repeated` in older."""
    answer = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED) if answer is None else bool(answer)


def is_required(field: Any) -> bool:
    """Whether a field descriptor is proto2 `required`."""
    answer = getattr(field, "is_required", None)
    return bool(field.label == field.LABEL_REQUIRED) if answer is None else bool(answer)
