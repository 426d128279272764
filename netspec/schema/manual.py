"""The manual of each message, field and enum value: the comments in proto/netspec.proto."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from netspec.schema.descriptors import descriptor


@cache
def _manual() -> dict[str, str]:
    text = resources.files(__package__).joinpath("manual.json").read_text("utf-8")
    loaded: dict[str, str] = json.loads(text)
    return loaded


def describe(message_name: str, field_name: str | None = None) -> str:
    """The manual of a message ("PoolingParameter"), a field (+ "pool") or an enum value (+ "PoolMethod.MAX").

    A field that holds a message and says nothing itself has that message's manual; a field of a V1 layer has
    that of the current syntax.  KeyError for a message or field that does not exist.
    """
    message = descriptor(message_name)
    if field_name is None:
        return _manual().get(message_name, "")
    text = _manual().get(f"{message_name}.{field_name}")
    if text is not None or "." in field_name:
        return text or ""
    below = message.fields_by_name[field_name].message_type
    if message_name == "V1LayerParameter":
        return describe("LayerParameter", field_name)
    return _manual().get(below.name, "") if below is not None else ""
