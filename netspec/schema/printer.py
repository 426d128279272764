"""Messages to text format, in one canonical form: `parse(print_text(m)).message == m`."""

from __future__ import annotations

import math
import struct
from typing import Any

from netspec.schema.descriptors import is_repeated

_ESCAPES = {10: "\\n", 13: "\\r", 9: "\\t", 34: '\\"', 92: "\\\\"}


def print_text(message: Any) -> str:
    """The message as prototxt: fields in the order of their numbers, two spaces a level, and the shortest
    floats that read back as the same 32 bits."""
    lines: list[str] = []
    _print(message, "", lines)
    return "".join(line + "\n" for line in lines)


def _print(message: Any, indent: str, lines: list[str]) -> None:
    for field, value in message.ListFields():
        for item in value if is_repeated(field) else (value,):
            if field.message_type is not None:
                lines.append(f"{indent}{field.name} {{")
                _print(item, indent + "  ", lines)
                lines.append(f"{indent}}}")
            else:
                lines.append(f"{indent}{field.name}: {_scalar(field, item)}")


def _scalar(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_float(value) if field.cpp_type == field.CPPTYPE_FLOAT else _format(value, 15, 17, "<d")
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bytes):
        return _quote_bytes(value)
    return str(value)


def format_float(value: float) -> str:
    """The shortest decimal that reads back as the same 32-bit float, as Caffe prints it: 0.1, 1e-05, -inf."""
    return _format(value, 6, 9, "<f")


def _format(value: float, least: int, most: int, pack: str) -> str:
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    bits = struct.pack(pack, value)
    for digits in range(least, most):
        text = f"{value:.{digits}g}"
        try:
            if struct.pack(pack, float(text)) == bits:
                return text
        except OverflowError:
            # The largest floats, rounded up to few digits, leave the range of 32 bits.
            continue
    return f"{value:.{most}g}"


def quote(value: str) -> str:
    """A string in double quotes; letters beyond ASCII stay readable."""
    return '"' + "".join(_escape(ord(letter), letter) for letter in value) + '"'


def _escape(code: int, letter: str) -> str:
    if code in _ESCAPES:
        return _ESCAPES[code]
    return f"\\{code:03o}" if code < 32 or code == 127 else letter


def _quote_bytes(value: bytes) -> str:
    return '"' + "".join(f"\\{byte:03o}" if byte > 126 else _escape(byte, chr(byte)) for byte in value) + '"'
