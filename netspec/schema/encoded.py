"""Encoded protobuf messages walked field by field, without decoding them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from netspec.errors import SnapshotError
from netspec.schema.descriptors import descriptor

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# No net comes near this; a file that does is made to exhaust the reader.
_MOST_FIELDS = 1_000_000


class Span(NamedTuple):
    """One field of an encoded message: number, wire type, where its tag and its content begin and end."""

    number: int
    wire: int
    tag: int
    start: int
    end: int


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(the variable-length number that begins at `at` and ends before `end`, the place after it).

    Seven bits per byte, the lowest first. IndexError where it runs past the end, or takes more than ten bytes.
    """
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise IndexError("a number runs past the end")


def spans(data: bytes, start: int, end: int) -> Iterator[Span]:
    """The fields of the message in data[start:end]; IndexError where one runs past the end."""
    count = 0
    while start < end:
        count += 1
        if count > _MOST_FIELDS:
            raise IndexError(f"a message of more than {_MOST_FIELDS:,} fields")
        tag, at = varint(data, start, end)
        number, wire = tag >> 3, tag & 7
        stop = at
        if wire == VARINT:
            _, stop = varint(data, at, end)
        elif wire == BYTES:
            length, at = varint(data, at, end)
            stop = at + length
        elif wire in (FIXED64, FIXED32):
            stop = at + (8 if wire == FIXED64 else 4)
        if stop > end:
            raise IndexError(f"field {number} claims {stop - at} bytes, {end - at} are there")
        yield Span(number, wire, start, at, stop)
        start = stop


@cache
def _string_fields(name: str) -> dict[int, str | None]:
    """Number -> name of the message that a field holds, None for a string; other fields are left out."""
    held: dict[int, str | None] = {}
    for field in descriptor(name).fields:
        if field.type == field.TYPE_STRING:
            held[field.number] = None
        elif field.message_type is not None and _string_fields(field.message_type.name):
            held[field.number] = field.message_type.name
    return held


def bad_strings(data: bytes, message: Any, file: str) -> list[tuple[int, int]]:
    """The places of strings that are not UTF-8. Caffe writes names as they are; Python's protobuf refuses to
    read them.
    """
    places: list[tuple[int, int]] = []
    try:
        _search_strings(data, message.name, 0, len(data), places)
    except IndexError as problem:
        raise SnapshotError(f"{file}: truncated or damaged: {problem}") from None
    return places


def _search_strings(data: bytes, name: str, start: int, end: int, places: list[tuple[int, int]]) -> None:
    fields = _string_fields(name)
    if not fields:
        return
    for span in spans(data, start, end):
        if span.wire != BYTES or span.number not in fields:
            continue
        below = fields[span.number]
        if below is not None:
            _search_strings(data, below, span.start, span.end, places)
        elif not _is_utf8(data[span.start : span.end]):
            places.append((span.start, span.end))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
