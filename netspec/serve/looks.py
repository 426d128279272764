"""The page's own endpoints beyond the protocol: the served nets, examples, where to look next, the latent tree."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from netspec.model.latent_pages import tree_page
from netspec.serve.replies import answer
from netspec.serve.subject import Ask, ImageSubject, ModelSubject, Subject
from netspec.serve.tensors import Array, Refusal, to_json

if TYPE_CHECKING:
    from netspec.serve.app import Server

Endpoint = Callable[[Request], Awaitable[Response]]
DRAWS = 8
"""Samples of each patch over which an information gain is averaged."""


class Looks:
    """The page's own endpoints."""

    def __init__(self, server: Server):
        self.server = server

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """(method, path, endpoint) of each."""
        return [
            ("GET", "/page/models", self.models),
            ("GET", "/page/models/{model}/example", self.example),
            ("POST", "/page/models/{model}/gain", self.gain),
            ("POST", "/page/models/{model}/tree", self.tree),
        ]

    async def models(self, request: Request) -> Response:
        """What each net takes and gives."""
        return answer([subject.about() for subject in self.server.subjects.values()])

    async def example(self, request: Request) -> Response:
        """A row of the net's own test data: ?row=N."""
        subject = self.server.subject(request)
        text = request.query_params.get("row", "0")
        if not (text.isascii() and text.isdecimal() and len(text) < 9):
            raise Refusal(f"row must be a whole number, not {text[:40]!r}")
        return answer(await self.server.batchers[subject.name].run(lambda: example(subject, int(text))))

    async def gain(self, request: Request) -> Response:
        """The expected fall of the class entropy from seeing each missing patch."""
        subject, ask = await self.one(request)
        return answer(await self.server.batchers[subject.name].run(lambda: gain(subject, ask)))

    async def tree(self, request: Request) -> Response:
        """The most probable latent tree given the observed values, as an SVG."""
        subject, ask = await self.one(request)
        svg = await self.server.batchers[subject.name].run(lambda: tree(subject, ask))
        return Response(svg, media_type="image/svg+xml")

    async def one(self, request: Request) -> tuple[ImageSubject, Ask]:
        """The generative image net that is asked, and the one image of the request."""
        subject = self.server.subject(request)
        if not isinstance(subject, ImageSubject) or not subject.model.generative:
            raise Refusal(f"model {subject.name!r} is no generative model of images")
        self.server.batchers[subject.name].check_room()
        _, _, ask = await self.server.ask(request, subject)
        if len(ask.x) != 1:
            raise Refusal(f"the page asks about one image; the request has {len(ask.x)}")
        return subject, ask


def example(subject: Subject, row: int) -> dict[str, Any]:
    """{values, label, row}: a row of the net's own data; row numbers wrap around."""
    assert isinstance(subject, ModelSubject)  # narrows the type: no other is served
    return subject.example(row)


def gain(subject: ImageSubject, ask: Ask) -> dict[str, Any]:
    """{size, shape, gain, best}: nats for each size x size patch, null where nothing of it is missing."""
    size = max(2, -(-max(ask.x.shape[2:]) // 8))
    seed = 1 if ask.seed is None else ask.seed
    values: Array = subject.model.information_gain(ask.x, DRAWS, size, seed)[0].cpu().numpy()
    best = (
        None
        if np.isnan(values).all()
        else [int(i) for i in np.unravel_index(np.nanargmax(values), values.shape)]
    )
    return {"size": size, "shape": list(values.shape), "gain": to_json(values), "best": best}


def tree(subject: ImageSubject, ask: Ask) -> bytes:
    """The picture of `netspec tree` for an image with missing pixels."""
    pixels = subject.model.to_pixels(ask.x)[0]
    with tempfile.TemporaryDirectory(prefix="netspec-") as folder:
        return tree_page(subject.model, Path(folder) / "tree.svg", pixels, ask.label).read_bytes()
