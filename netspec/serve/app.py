"""The application: the endpoints of the protocol, the page, /metrics and /openapi.json."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from netspec.errors import NetspecError, did_you_mean
from netspec.serve import metrics as counters
from netspec.serve import openapi, protocol
from netspec.serve.batching import Batcher
from netspec.serve.body import MOST_BYTES, pack, read_body
from netspec.serve.guard import App, Guard, Hosts, error_body
from netspec.serve.looks import Looks
from netspec.serve.replies import answer
from netspec.serve.subject import Ask, Subject
from netspec.serve.tensors import Refusal

Endpoint = Callable[[Request], Awaitable[Response]]
log = logging.getLogger("netspec.serve")
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
"""The files of the page, by path."""


@dataclass(frozen=True)
class Limits:
    """Limits on a server's work."""

    body: int = MOST_BYTES
    """Bytes of a request."""
    waiting: int = 128
    """Most requests that wait for a net; further ones are answered with 503."""
    rows: int = 256
    """Most rows per pass of a net."""


def application(
    subjects: Sequence[Subject], version: str, hosts: Hosts | None = None, limits: Limits | None = None
) -> App:
    """The ASGI application that serves `subjects`, each under its name. version: of netspec."""
    server = Server(subjects, version, limits or Limits())
    inner = Starlette(
        routes=server.routes(),
        exception_handlers={
            Refusal: server.refused,
            NetspecError: server.refused,
            HTTPException: server.not_found,
            ClientDisconnect: server.gone,
            Exception: server.failed,
        },
        lifespan=server.lifespan,
    )
    inner.router.redirect_slashes = False
    return Guard(inner, hosts or Hosts(), server.metrics)


class Server:
    """The endpoints over their subjects."""

    def __init__(self, subjects: Sequence[Subject], version: str, limits: Limits):
        self.version, self.limits = version, limits
        self.metrics = counters.Metrics()
        self.subjects = {subject.name: subject for subject in subjects}
        self.batchers = {
            subject.name: Batcher(subject, self.metrics, limits.rows, limits.waiting) for subject in subjects
        }
        self.ready = True
        self.openapi = json.dumps(openapi.document(version)).encode()

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Ends the workers when the server stops."""
        yield
        self.ready = False
        for batcher in self.batchers.values():
            batcher.close()

    def routes(self) -> list[Route]:
        """Every path, with the method that it takes."""
        looks = Looks(self)
        model = "/v2/models/{model}"
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/v2", self.about),
            ("GET", "/v2/", self.about),
            ("GET", "/v2/health/live", self.live),
            ("GET", "/v2/health/ready", self.health),
            *(("GET", f"{model}{version}", self.model) for version in ("", VERSIONS)),
            *(("GET", f"{model}{version}/ready", self.model_ready) for version in ("", VERSIONS)),
            *(("POST", f"{model}{version}/infer", self.infer) for version in ("", VERSIONS)),
            ("GET", "/metrics", self.scrape),
            ("GET", "/openapi.json", self.describe),
            *(("GET", path, page(*file)) for path, file in PAGE.items()),
            *looks.routes(),
        ]
        return [Route(path, marked(path, endpoint), methods=[method]) for method, path, endpoint in table]

    # The protocol

    async def about(self, request: Request) -> Response:
        """$metadata_server_response."""
        return answer({"name": "netspec", "version": self.version, "extensions": protocol.EXTENSIONS})

    async def live(self, request: Request) -> Response:
        """$live_server_response."""
        return answer({"live": True})

    async def health(self, request: Request) -> Response:
        """$ready_server_response."""
        return answer({"live": self.ready}, 200 if self.ready else 503)

    async def model(self, request: Request) -> Response:
        """$metadata_model_response."""
        return answer(self.subject(request).metadata())

    async def model_ready(self, request: Request) -> Response:
        """$ready_model_response."""
        return answer({"name": self.subject(request).name, "ready": self.ready}, 200 if self.ready else 503)

    async def infer(self, request: Request) -> Response:
        """$inference_response."""
        subject = self.subject(request)
        self.batchers[
            subject.name
        ].check_room()  # before the body is read: a server that is full does no more work
        message, outputs, ask = await self.ask(request, subject)
        values = await self.batchers[subject.name].ask(ask)
        body, length = protocol.write(subject.name, subject.version, message, outputs, values)
        headers = {} if length is None else {protocol.HEADER: str(length)}
        body, encoding = pack(body, request.headers.get("accept-encoding", ""))
        if encoding:
            headers["content-encoding"] = encoding
        kind = "application/json" if length is None else "application/octet-stream"
        return Response(body, headers=headers, media_type=kind)

    async def ask(
        self, request: Request, subject: Subject
    ) -> tuple[protocol.Request, tuple[protocol.Wanted, ...], Ask]:
        """(the request, the outputs that it wants, the question to the net)."""
        body = await read_body(
            request.stream(),
            request.headers.get("content-length"),
            request.headers.get("content-encoding"),
            self.limits.body,
        )
        message = protocol.read(body, request.headers.get(protocol.HEADER))
        outputs = protocol.choose(message, subject.output_names, subject.name)
        return (
            message,
            outputs,
            subject.read(message.inputs, message.parameters, frozenset(o.name for o in outputs)),
        )

    def subject(self, request: Request) -> Subject:
        """The subject that the path names; Refusal with 404 for another name or version."""
        name, version = request.path_params["model"], request.path_params.get("version")
        subject = self.subjects.get(name)
        if subject is None:
            hint = did_you_mean(name, self.subjects, f"there are {', '.join(self.subjects)}")
            raise Refusal(f"no model is called {name[:80]!r}{hint}", 404)
        if version not in (None, subject.version):
            raise Refusal(f"model {name!r} has version {subject.version!r}, not {version[:80]!r}", 404)
        return subject

    # Around it

    async def scrape(self, request: Request) -> Response:
        """What Prometheus reads."""
        return Response(self.metrics.text(), headers={"content-type": counters.CONTENT_TYPE})

    async def describe(self, request: Request) -> Response:
        """The OpenAPI document."""
        return Response(self.openapi, media_type="application/json")

    async def refused(self, request: Request, error: Exception) -> Response:
        """The answer to a wrong request, or to one that comes when the server is full."""
        status = getattr(error, "status", 400)
        headers = {"retry-after": "1"} if status == 503 else {}
        return Response(error_body(str(error)), status, headers, "application/json")

    async def not_found(self, request: Request, error: Exception) -> Response:
        """The answer to an unknown path or method."""
        assert isinstance(error, HTTPException)  # narrows the type; Starlette calls this for no other
        text = {404: "there is no such path; see /openapi.json", 405: "this path takes another method"}
        body = error_body(text.get(error.status_code, error.detail))
        return Response(body, error.status_code, dict(error.headers or {}), "application/json")

    async def gone(self, request: Request, error: Exception) -> Response:
        """The answer after the client hung up while sending; nobody reads it."""
        return Response(status_code=400)

    async def failed(self, request: Request, error: Exception) -> Response:
        """The answer after an internal error: the log has the details, the client only learns that it happened."""
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return Response(error_body("the server failed; its log says why"), 500, media_type="application/json")


VERSIONS = "/versions/{version}"


def marked(path: str, endpoint: Endpoint) -> Endpoint:
    """The endpoint, wrapped to report the pattern of its path to the metrics."""

    async def call(request: Request) -> Response:
        request.scope["netspec.route"] = path
        return await endpoint(request)

    return call


def page(file: str, media_type: str) -> Endpoint:
    """The endpoint of one of the page's own files."""
    content = (resources.files("netspec.serve") / "page" / file).read_bytes()

    async def give(request: Request) -> Response:
        return Response(content, headers={"content-type": media_type})

    return give
