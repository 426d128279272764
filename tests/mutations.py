"""Changes that break readers: of bytes, of protobuf messages field by field, of texts token by token."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import islice

from netspec.interchange.blobs import encode_varint, field
from netspec.schema.encoded import BYTES, VARINT, Span, spans

HUGE = (0, 1, 127, 128, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
MOST = 1 << 17
"""Bytes that a mutated input may have: doubling what was doubled grows without end."""

Change = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


# Bytes


def flip(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """One to eight bits the other way round."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if out:
            out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def overwrite(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A byte, or four in a row, with values at the ends of their range."""
    at = chance.randrange(len(data) + 1)
    n = chance.choice((1, 1, 4))
    return (
        data[:at]
        + bytes(chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))) for _ in range(n))
        + data[at + n :]
    )


def truncate(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """The beginning of it."""
    return data[: chance.randrange(len(data) + 1)]


def cut(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A stretch left out."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[at + chance.choice((1, 2, 8, 100)) :]


def insert(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A number, or noise, put in."""
    at = chance.randrange(len(data) + 1)
    noise = chance.randbytes(chance.randrange(1, 12))
    return data[:at] + chance.choice((encode_varint(chance.choice(HUGE)), noise)) + data[at:]


def repeat(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A stretch many times over."""
    at = chance.randrange(len(data) + 1)
    piece = data[at : at + chance.randrange(1, 60)]
    return data[:at] + piece * chance.choice((2, 3, 10, 1000)) + data[at:]


def splice(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """The beginning of it, and the end (or a stretch) of another."""
    other = chance.choice(others)
    start = chance.randrange(len(other) + 1)
    end = chance.choice((len(other), start + 100))
    at = chance.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[chance.choice((at, len(data))) :]


def open_groups(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Groups of the wire format, opened in each other and never closed."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + b"\x0b" * chance.choice((10, 99, 101, 100_000)) + data[at:]


BYTE_CHANGES: tuple[Change, ...] = (flip, flip, overwrite, truncate, cut, insert, repeat, splice)


# Messages: a change of one field, the lengths around it set right


def fields(data: bytes) -> list[Span]:
    """The first fields of a message, at most 300; none where it is no message."""
    try:
        return list(islice(spans(data, 0, len(data)), 300))
    except IndexError:
        return []


def message_field(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A field at some depth changed in its value, its length, its number, its type or its place."""
    members = fields(data)
    if not members:
        return flip(data, chance, others)
    span = chance.choice(members)
    content = data[span.start : span.end]
    if span.wire == BYTES and chance.random() < 0.75 and fields(content):
        return (
            data[: span.tag] + field(span.number, message_field(content, chance, others)) + data[span.end :]
        )
    return data[: span.tag] + altered(span, data, content, members, chance) + data[span.end :]


def altered(span: Span, data: bytes, content: bytes, members: list[Span], chance: random.Random) -> bytes:
    """Another encoding in place of one field."""
    whole, tag = data[span.tag : span.end], encode_varint(span.number << 3 | span.wire)
    other = chance.choice(members)
    kind = chance.randrange(9)
    if kind == 0:  # a value, or a declared length, without bounds
        return tag + encode_varint(chance.choice(HUGE)) + (content if span.wire == BYTES else b"")
    if kind == 1:  # another number
        number = chance.choice((other.number, chance.randrange(1, 2048), 0, 2**29 - 1, 2**40))
        return encode_varint(number << 3 | span.wire) + whole[len(tag) :]
    if kind == 2:  # another type
        return encode_varint(span.number << 3 | chance.randrange(8)) + whole[len(tag) :]
    if kind == 3:
        return b""
    if kind == 4:
        return whole * chance.choice((2, 3, 100, 3000))
    if kind == 5:  # in itself, deeper and deeper
        for _ in range(chance.choice((2, 50, 120, 1000))):
            content = field(span.number, content)
        return content
    if kind == 6:  # the content of another
        return field(span.number, data[other.start : other.end])
    if kind == 7:
        return field(span.number, chance.randbytes(chance.choice((1, 4, 400))))
    numbers = b"".join(encode_varint(chance.choice(HUGE)) for _ in range(chance.choice((1, 4, 33, 1000))))
    return (
        field(span.number, numbers) if span.wire != VARINT else tag + encode_varint(chance.choice(HUGE)) * 3
    )


def swap_fields(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Two fields of the message (or of one inside) in each other's place."""
    members = fields(data)
    if len(members) < 2:
        return flip(data, chance, others)
    inner = chance.choice(members)
    if inner.wire == BYTES and chance.random() < 0.6 and len(fields(data[inner.start : inner.end])) > 1:
        content = swap_fields(data[inner.start : inner.end], chance, others)
        return data[: inner.tag] + field(inner.number, content) + data[inner.end :]
    a, b = sorted(chance.sample(members, 2), key=lambda span: span.tag)
    return data[: a.tag] + data[b.tag : b.end] + data[a.end : b.tag] + data[a.tag : a.end] + data[b.end :]


MESSAGE_CHANGES: tuple[Change, ...] = (
    *BYTE_CHANGES, message_field, message_field, message_field, message_field, swap_fields, swap_fields, open_groups,
)  # fmt: skip


# Texts

NUMBER = re.compile(rb"(?<=[ :-])[0-9][0-9.e]*")
TOKENS = (
    b"{", b"}", b"<", b">", b"[", b"]", b":", b";", b",", b'"', b"'", b"\\", b"#", b"\n", b"-", b"-1", b"0", b"1e30",
    b"nan", b"inf", b"99999999999999999999", b"0x7fffffff", b"2147483647", b"4294967295", b"1e-45", b"true", b"MAX",
    b"layer {", b"layers {", b"include {", b"input:", b'type: "Data"', b"\xff\xfe", b"\x00", b"\xc3\xa9", b'"\\777"',
)  # fmt: skip


def tokens(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A word dropped, doubled, replaced, or in the place of another."""
    words = data.split(b" ")
    i, j = chance.randrange(len(words)), chance.randrange(len(words))
    kind = chance.randrange(5)
    if kind == 0:
        del words[i]
    elif kind == 1:
        words[i] = words[j]
    elif kind == 2:
        words[i] = chance.choice(TOKENS)
    elif kind == 3:
        words[i], words[j] = words[j], words[i]
    else:
        words.insert(i, chance.choice(TOKENS))
    return b" ".join(words)


def numbers(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A number of the text by another, most of them beyond its range."""
    places = [match.span() for match in NUMBER.finditer(data)]
    if not places:
        return tokens(data, chance, others)
    start, end = chance.choice(places)
    value = chance.choice((*HUGE, -1, -(2**31), 3, 7, 1000, 100_000, "1e38", "-inf", "0.5", "9" * 400))
    return data[:start] + str(value).encode() + data[end:]


def nest(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Braces (or messages, or lists) opened in each other."""
    at = chance.randrange(len(data) + 1)
    opening = chance.choice((b"{", b"<", b"[", b"a {", b"layer { ", b"net_param { ", b"transform_param { "))
    depth = chance.choice((3, 60, 120, 5000))
    return data[:at] + opening * depth + chance.choice((b"", b" }" * depth)) + data[at:]


TEXT_CHANGES: tuple[Change, ...] = (
    tokens, tokens, tokens, numbers, numbers, numbers, numbers, nest, flip, overwrite, truncate, cut, repeat, splice,
)  # fmt: skip


def mutated(data: bytes, chance: random.Random, changes: Sequence[Change], others: Sequence[bytes]) -> bytes:
    """One to four changes, seldom twelve, of kinds drawn from `changes`; `others` are inputs to splice with."""
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4, 12))):
        data = chance.choice(changes)(data, chance, others)[:MOST]
    return data
