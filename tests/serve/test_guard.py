"""Who may ask: hosts, origins, and what every answer forbids a browser."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from netspec.serve.guard import hosts_for


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"])
def test_loopback_hosts(client: TestClient, host: str) -> None:
    assert client.get("/v2", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "", "[", "a@b"]
)
def test_other_hosts_are_refused(client: TestClient, host: str) -> None:
    answer = client.get("/v2", headers={"host": host})
    assert answer.status_code == 403
    assert "not to" in answer.json()["error"]


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:9999",
        "file://",
        "http://localhost:8000.evil.example",
        "http://[",
    ],
)
def test_other_origins_are_refused(client: TestClient, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = client.request(method, "/v2/models/digits/infer", headers={"origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_its_own_origin_may_ask(client: TestClient) -> None:
    assert client.get("/v2", headers={"origin": "http://localhost:8000"}).status_code == 200


@pytest.mark.parametrize(("site", "mode", "status"), [
    ("cross-site", "no-cors", 403), ("same-site", "cors", 403), ("cross-site", "navigate", 200),
    ("same-origin", "cors", 200), ("none", "navigate", 200),
])  # fmt: skip
def test_fetch_metadata(client: TestClient, site: str, mode: str, status: int) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
    assert client.get("/v2", headers=headers).status_code == status


def test_every_answer_is_closed_to_other_pages(client: TestClient) -> None:
    for path in ("/", "/v2", "/nothing", "/metrics"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_hosts_of_a_server_open_to_others() -> None:
    here = hosts_for("127.0.0.1")
    assert here.allow("localhost")
    assert not here.allow("192.168.1.5")
    assert hosts_for("127.0.0.2").allow("127.0.0.2")
    wide = hosts_for("0.0.0.0", ("Box.example",))
    assert wide.allow("192.168.1.5")  # an address cannot be rebound
    assert wide.allow("box.example")
    assert not wide.allow("evil.example")


def test_wrong_methods_and_websockets(client: TestClient) -> None:
    answer = client.post("/v2")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert "another method" in answer.json()["error"]
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/v2"):
        pass
    assert closed.value.code == 1008
