"""What the schema says of each field, and the conversion of a value as written to the field's type.

Accepts what the C++ parser that Caffe is built on accepts, including octal and hexadecimal numbers, `1` for
true and a trailing `f` after a float.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from netspec.errors import nearest
from netspec.schema.descriptors import is_repeated, is_required

_INTEGER_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
# FieldDescriptor.type numbers of descriptor.proto; sint, fixed and sfixed are not used by any Caffe dialect.
_TYPES = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 11: "message"}
_TYPES |= {12: "bytes", 13: "uint32", 14: "enum"}


class Raw(NamedTuple):
    """A scalar as written: `kind` is "number", "name" or "string"; adjacent strings are already joined."""

    kind: str
    text: str
    negative: bool
    data: bytes
    offset: int

    def __str__(self) -> str:
        return (
            f'"{self.text[:60]}"'
            if self.kind == "string"
            else ("-" if self.negative else "") + self.text[:60]
        )


class BadValue(ValueError):
    """The value does not fit the field; `nearest` is set when it is a misspelt enum value."""

    def __init__(self, message: str, near: str | None = None, is_enum_name: bool = False):
        super().__init__(message)
        self.nearest = near
        self.is_enum_name = is_enum_name


class FieldInfo:
    """A field descriptor, with what the reader asks of it worked out once."""

    __slots__ = ("below", "enum", "name", "repeated", "type")

    def __init__(self, field: Any):
        self.name: str = field.name
        self.type: str = _TYPES[field.type]
        self.repeated: bool = is_repeated(field)
        self.below: Any = field.message_type
        self.enum: dict[str, int] | None = None
        if field.enum_type is not None:
            self.enum = {value.name: value.number for value in field.enum_type.values}


class MessageInfo(NamedTuple):
    """The fields of one message by name, and the names of the required ones."""

    name: str
    fields: dict[str, FieldInfo]
    required: tuple[str, ...]


def message_info(descriptor: Any) -> MessageInfo:
    """The MessageInfo of a descriptor (one object for each message of the schema)."""
    return _message_info(descriptor.full_name, descriptor)


@cache
def _message_info(full_name: str, descriptor: Any) -> MessageInfo:
    fields = {field.name: FieldInfo(field) for field in descriptor.fields}
    required = tuple(field.name for field in descriptor.fields if is_required(field))
    return MessageInfo(descriptor.name, fields, required)


def convert(field: FieldInfo, raw: Raw) -> Any:
    """The Python value of `raw` for `field`; BadValue says what was expected."""
    if field.type in _INTEGER_RANGES:
        return _integer(field, raw)
    if field.type in ("float", "double"):
        return _float(raw)
    if field.type == "bool":
        return _bool(raw)
    if field.type == "enum":
        return _enum(field, raw)
    return _string(field, raw)


def _parse_integer(text: str) -> int | None:
    """Decimal, hexadecimal or octal (leading 0) as in C; None for anything else, such as 1.5 or 08."""
    if len(text) > 40:
        # No field holds such a number, and int() of a very long text is slow.
        return None
    try:
        if text[:2] in ("0x", "0X"):
            return int(text, 16)
        if len(text) > 1 and text[0] == "0":
            return int(text, 8)
        return int(text) if text.isdigit() else None
    except ValueError:
        return None


def _integer(field: FieldInfo, raw: Raw) -> int:
    low, high = _INTEGER_RANGES[field.type]
    value = _parse_integer(raw.text) if raw.kind == "number" else None
    if value is None:
        raise BadValue(f"expects an integer, found {raw}{_integer_remedy(raw)}")
    value = -value if raw.negative else value
    if not low <= value <= high:
        raise BadValue(f"expects an integer from {low} to {high} ({field.type}), found {raw}")
    return value


def _integer_remedy(raw: Raw) -> str:
    """`"; write 20"` for 20.0, nothing for what is no whole number."""
    if raw.kind != "number" or raw.text[:2] in ("0x", "0X"):
        return ""
    number = float(raw.text.rstrip("fF"))
    return f"; write {number:.0f}" if number.is_integer() and number < 1e15 else ""


def _float(raw: Raw) -> float:
    value: float | None = None
    if raw.kind == "number":
        integer = _parse_integer(raw.text) if raw.text[:1] == "0" else None
        if raw.text[:1] == "0" and raw.text.isdigit() and (integer is None or integer > 7):
            # The C++ parsers disagree: octal in the older ones, an error in the newer.
            raise BadValue(f"expects a number, found {raw}; a leading 0 means octal, leave it out")
        is_hex = raw.text[:2] in ("0x", "0X")
        if not is_hex or integer is not None:
            value = float(raw.text.rstrip("fF")) if integer is None else float(integer)
    elif raw.kind == "name":
        value = {"inf": float("inf"), "infinity": float("inf"), "nan": float("nan")}.get(raw.text.lower())
    if value is None:
        raise BadValue(f"expects a number, found {raw}")
    return -value if raw.negative else value


def _bool(raw: Raw) -> bool:
    if not raw.negative:
        if raw.kind == "name" and raw.text in ("true", "True", "t"):
            return True
        if raw.kind == "name" and raw.text in ("false", "False", "f"):
            return False
        if raw.kind == "number" and _parse_integer(raw.text) in (0, 1):
            return _parse_integer(raw.text) == 1
    lower = raw.text.lower()
    remedy = f"; write {lower}" if lower in ("true", "false") else ""
    raise BadValue(f"expects true or false, found {raw}{remedy}")


def _enum(field: FieldInfo, raw: Raw) -> int:
    values = field.enum or {}
    if raw.kind == "name" and raw.text in values and not raw.negative:
        return values[raw.text]
    if raw.kind == "number":
        number = _parse_integer(raw.text)
        if number is not None and (-number if raw.negative else number) in values.values():
            return -number if raw.negative else number
    expected = f"expects one of {', '.join(values)}" if len(values) <= 12 else "expects a value of its enum"
    if raw.kind == "string" and raw.text in values:
        raise BadValue(f"expects {raw.text} without quotes, found {raw}")
    near = nearest(raw.text, values) if raw.kind in ("name", "string") else None
    hint = f"; did you mean {near}?" if near else ""
    raise BadValue(f"{expected}, found {raw}{hint}", near, is_enum_name=raw.kind != "string")


def _string(field: FieldInfo, raw: Raw) -> str | bytes:
    if raw.kind != "string":
        remedy = f'; write "{raw}"' if raw.kind == "name" else ""
        raise BadValue(f"expects a string in quotes, found {raw}{remedy}")
    if field.type == "bytes":
        return raw.data
    try:
        return raw.data.decode()
    except UnicodeDecodeError:
        raise BadValue("expects a string in UTF-8, found bytes that are not") from None
