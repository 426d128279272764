"""Servers of small nets as their fillers make them: right answers need no training."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

import netspec
from netspec.model.model import Model
from netspec.serve.app import Limits, application
from netspec.serve.server import address_of, bind
from netspec.serve.subject import ImageSubject

ROOT = Path(__file__).parents[2]
PLAIN = """
name: "plain"
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
"""A classifier that takes no missing values."""


@pytest.fixture(scope="session")
def digits() -> Model:
    torch.manual_seed(0)
    return netspec.load(ROOT / "nets/ht_cac_digits.prototxt")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    file = tmp_path_factory.mktemp("plain") / "plain.prototxt"
    file.write_text(PLAIN)
    return netspec.load(file)


@pytest.fixture(scope="session")
def subjects(digits: Model, plain: Model) -> list[ImageSubject]:
    return [ImageSubject(digits, "digits", "7"), ImageSubject(plain, "plain")]


@pytest.fixture(scope="session")
def client(subjects: list[ImageSubject]) -> Iterator[TestClient]:
    app = application(subjects, "1.2.3", limits=Limits(body=2**20))
    with TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="session")
def address(subjects: list[ImageSubject]) -> Iterator[str]:
    """`127.0.0.1:port` of a server on a real socket."""
    import uvicorn

    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(application(subjects, "1.2.3"), log_level="warning", lifespan="on")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    yield address_of(listener).removeprefix("http://").rstrip("/")
    server.should_exit = True
    thread.join(10)
    listener.close()
