"""The body of a request: bounded in size and time, and unpacked within the same bounds."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

from netspec.serve.tensors import Refusal

MOST_BYTES = 32 * 2**20
SECONDS = 30.0
"""Time that a client has to send a body."""
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def read_body(
    chunks: AsyncIterator[bytes], length: str | None, encoding: str | None, most: int = MOST_BYTES
) -> bytes:
    """All of a body, unpacked. Refusal with 413 past `most` bytes (packed or not), 408 after SECONDS, 415 for another
    encoding than gzip and deflate.
    """
    if length is not None and length.isdecimal() and int(length[:20]) > most:
        raise too_large(most)
    try:
        async with asyncio.timeout(SECONDS):
            whole = await gather(chunks, most)
    except TimeoutError:
        raise Refusal(f"the body did not arrive within {SECONDS:g} seconds", 408) from None
    if encoding in (None, "", "identity"):
        return whole
    if encoding not in WINDOWS:
        raise Refusal(f"content-encoding {str(encoding)[:40]!r} is not read; send gzip, deflate or none", 415)
    return unpack(whole, encoding, most)


async def gather(chunks: AsyncIterator[bytes], most: int) -> bytes:
    """The chunks joined; Refusal with 413 as soon as they are more than `most` bytes."""
    parts, size = [], 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise too_large(most)
        parts.append(chunk)
    return b"".join(parts)


def unpack(packed: bytes, encoding: str, most: int) -> bytes:
    """The content of gzip or zlib data, never more than `most` bytes of it."""
    stream = zlib.decompressobj(WINDOWS[encoding])
    try:
        whole = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise Refusal(f"the body is no {encoding}: {error}") from None
    if len(whole) > most:
        raise too_large(most)
    if not stream.eof:
        raise Refusal(f"the {encoding} data of the body is cut short")
    return whole


def pack(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """(body, encoding), compressed as the header Accept-Encoding asks; small bodies are not compressed."""
    words = [part.split(";")[0].strip().lower() for part in accepted.split(",")]
    for encoding, window in WINDOWS.items():
        if encoding in words and len(body) > 1024:
            stream = zlib.compressobj(1, wbits=window)
            return stream.compress(body) + stream.flush(), encoding
    return body, None


def too_large(most: int) -> Refusal:
    """The refusal of a body that is too large."""
    return Refusal(f"the body is larger than {most} bytes", 413)
