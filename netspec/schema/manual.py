"""What the comments of proto/netspec.proto say of each message, field and enum value."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources


@cache
def _manual() -> dict[str, str]:
    loaded: dict[str, str] = json.loads(
        resources.files(__package__).joinpath("manual.json").read_text("utf-8")
    )
    return loaded


def describe(message_name: str, field_name: str | None = None) -> str:
    """The manual of a message ("PoolingParameter"), a field (+ "pool"), or an enum value ("PoolMethod.MAX").

    Empty where the schema says no more than the name; KeyError for a message or field that does not exist.
    """
    from netspec.schema.descriptors import descriptor

    if field_name is not None and "." not in field_name:
        descriptor(message_name).fields_by_name[field_name]
    name = message_name if field_name is None else f"{message_name}.{field_name}"
    return _manual().get(name, "")
