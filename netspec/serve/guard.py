"""Guards the server: which hosts it answers to, which pages may ask it, and what its answers forbid a browser."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from netspec.serve.metrics import Metrics
from netspec.serve.tensors import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]
"""Headers of every answer: a browser loads nothing from elsewhere, and no other page frames, caches or reads it."""


@dataclass(frozen=True)
class Hosts:
    """Names that requests may give in `Host`."""

    names: frozenset[str] = frozenset(LOOPBACK)
    addresses: bool = False
    """Whether any IP address is accepted: a page that lures a browser here (DNS rebinding) uses a name, not an
    address.
    """

    def allow(self, host: str) -> bool:
        """Whether a request to `host` (without port) is for this server."""
        return host in self.names or (self.addresses and is_address(host))


def hosts_for(bound: str, more: tuple[str, ...] = ()) -> Hosts:
    """The names for a server bound to the address `bound`: loopback only for a loopback address."""
    names = frozenset([*LOOPBACK, *(name.lower() for name in more)])
    if bound in LOOPBACK or (is_address(bound) and ip_address(bound).is_loopback):
        return Hosts(names | {bound})
    return Hosts(names | {bound.lower()}, addresses=True)


def is_address(host: str) -> bool:
    """Whether `host` is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@dataclass
class Guard:
    """ASGI middleware: refuses what is not for this server, counts, and adds headers."""

    app: App
    hosts: Hosts
    metrics: Metrics = field(default_factory=Metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        try:
            self.check(scope)
        except Refusal as refusal:
            await refuse(sending, refusal)
        else:
            await self.app(scope, receive, sending)
        finally:
            route = scope.get("netspec.route", "other")
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self.metrics.request(method, route, status, time.perf_counter() - begin)

    def check(self, scope: Scope) -> None:
        """Refusal for a request to another host or from another page."""
        headers = scope["headers"]
        given = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(given) != 1:
            raise Refusal("a request needs one Host header")
        host = host_name(given[0])
        if not self.hosts.allow(host):
            known = ", ".join(sorted(self.hosts.names))
            raise Refusal(f"this server answers to {known}, not to {host[:80]!r} (--allow-host)", 403)
        by_name = {name: value.decode("latin-1") for name, value in headers}
        origin = by_name.get(b"origin")
        if origin is not None and urlsplit_or_none(origin) != given[0].lower():
            raise Refusal(f"pages of {origin[:80]!r} may not ask this server", 403)
        site, mode = by_name.get(b"sec-fetch-site", "none"), by_name.get(b"sec-fetch-mode", "")
        if site in ("cross-site", "same-site") and (mode != "navigate" or scope["method"] != "GET"):
            raise Refusal("other pages may not ask this server", 403)


def host_name(value: str) -> str:
    """A Host header without its port, in small letters; '' for one that is malformed."""
    try:
        return (urlsplit(f"//{value}").hostname or "").lower()
    except ValueError:
        return ""


def urlsplit_or_none(origin: str) -> str | None:
    """Host and port of an origin, None for `null` and what is no origin."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") and parts.netloc else None


async def refuse(send: Send, refusal: Refusal) -> None:
    """Answer with the status and the text of `refusal`."""
    body = error_body(str(refusal))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(text: str) -> bytes:
    """The protocol's error object. Letters beyond ASCII are escaped: a request may hold halves of characters."""
    return json.dumps({"error": text}).encode()
