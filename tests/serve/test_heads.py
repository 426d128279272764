"""Heads of requests are bounded, bodies are not affected."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from netspec.serve.heads import MOST, protocol

pytest.importorskip("httptools")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the number of bytes of the body."""
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    text = str(size).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}
    )
    await send({"type": "http.response.body", "body": text})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(echo, http=protocol(), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(20)


def asked(port: int, data: bytes) -> bytes:
    """What the server says to these bytes until it closes; "closed" where it does so without a word."""
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", port), 60) as connection,
        suppress(BrokenPipeError, ConnectionResetError),  # it closed while more was being sent
    ):
        connection.sendall(data)
        while part := connection.recv(4096):
            answer += part
    return answer or b"closed"


LINE = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


def test_heads_of_a_common_size_pass(port: int) -> None:
    answer = asked(port, LINE + b"X: " + b"a" * 60_000 + b"\r\nContent-Length: 3\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"3")


def test_large_bodies_pass(port: int) -> None:
    size = 3 * MOST
    answer = asked(port, LINE + b"Content-Length: %d\r\n\r\n" % size + b"a" * size)
    assert answer.endswith(b"%d" % size)


@pytest.mark.parametrize(
    "head",
    [
        LINE + b"X: " + b"a" * (2 * MOST),
        LINE + b"X: " + b"a" * (2 * MOST) + b"\r\n\r\n",
        LINE + b"X: a\r\n" * (MOST // 2),
        b"GET /" + b"a" * (2 * MOST),
        LINE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"Tail: aaaaaaaa\r\n" * (MOST // 8),
    ],
    ids=["one header without an end", "one header", "many headers", "address", "trailers"],
)
def test_larger_heads_are_refused(head: bytes, port: int) -> None:
    answer = asked(port, head)
    assert answer == b"closed" or b" 431 " in answer or b" 400 " in answer, answer[:80]
