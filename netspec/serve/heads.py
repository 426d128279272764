"""The HTTP of the server, with heads that are bounded: uvicorn's faster parser takes headers of any size."""

from __future__ import annotations

from typing import Any

MOST = 2**20
"""Bytes of a request's line and headers, its trailers included."""
REFUSAL = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def protocol() -> Any:
    """What `uvicorn.Config(http=...)` takes; without httptools uvicorn's own choice, which is bounded."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ModuleNotFoundError:
        return "auto"

    class Bounded(HttpToolsProtocol):
        """Closes a connection whose request has a larger head."""

        head = unfinished = 0
        """Bytes of the headers so far; those that came since the request began, until its headers are complete."""
        inside = False
        """Whether headers are being read."""

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.unfinished = self.unfinished + len(data) if self.inside else 0
            if max(self.head, self.unfinished) > MOST and not self.transport.is_closing():
                self.transport.write(REFUSAL)
                self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.head, self.inside = 0, True

        def on_header(self, name: bytes, value: bytes) -> None:
            super().on_header(name, value)
            self.head += len(name) + len(value)

        def on_headers_complete(self) -> None:
            self.inside = False
            super().on_headers_complete()

    return Bounded
