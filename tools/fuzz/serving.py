"""Damaged requests to a running `netspec serve`: none may be answered with 500, hang, or end the server.

    python -m tools.fuzz.serving RUN --requests 100000 -o docs/results/serving_fuzz.json

Whole requests are drawn (JSON and binary), then damaged: values of another type put anywhere into the JSON, bytes
flipped, cut off, doubled, headers that lie, packed bodies that are broken, and bytes that are no HTTP at all.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import http.client
import json
import random
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 30.0
"""Time after which an answer counts as hanging."""
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, 1e-320, float("nan"),
    float("inf"), "", "a", "data", "observed", "FP32", "BOOL", "BYTES", "\ud800", "\x00", "é" * 50, "x" * 10_000, [],
    {}, [[]], [None], [[1], [2, 3]], {"name": "data"}, [[[[[[[[[[[[1]]]]]]]]]]]], {"binary_data_size": -1},
    {"binary_data_size": 2**63}, {"binary_data_size": True}, {"seed": -1}, {"seed": 2**70},
    {"class": 1e9}, {"class": 3},
]  # fmt: skip
HEADER = "Inference-Header-Content-Length"


@dataclass
class Case:
    """A request to send."""

    path: str
    body: bytes
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def whole(rng: random.Random, model: str, shape: tuple[int, ...]) -> tuple[dict[str, Any], list[bytes]]:
    """A right request: (its JSON, the binary data behind it)."""
    rows = rng.randint(1, 3)
    count = rows
    for size in shape:
        count *= size
    values = [None if rng.random() < 0.3 else rng.uniform(0, 255) for _ in range(count)]
    message: dict[str, Any] = {"inputs": []}
    blobs: list[bytes] = []
    data: dict[str, Any] = {"name": "data", "shape": [rows, *shape], "datatype": "FP32"}
    if rng.random() < 0.5:
        blobs.append(struct.pack(f"<{count}f", *(float("nan") if v is None else v for v in values)))
        data["parameters"] = {"binary_data_size": len(blobs[-1])}
    else:
        data["data"] = values
    message["inputs"].append(data)
    if rng.random() < 0.5:
        seen = [rng.random() < 0.6 for _ in range(count)]
        mask: dict[str, Any] = {"name": "observed", "shape": [rows, *shape], "datatype": "BOOL"}
        if rng.random() < 0.5:
            blobs.append(bytes(seen))
            mask["parameters"] = {"binary_data_size": count}
        else:
            mask["data"] = seen
        message["inputs"].append(mask)
    if rng.random() < 0.5:
        message["id"] = str(rng.random())
    if rng.random() < 0.7:
        names = ["posterior", "expected", "deviation", "sample", "log_likelihood", "scores"]
        chosen = rng.sample(names, rng.randint(1, 3))
        message["outputs"] = [
            {"name": name, "parameters": {"binary_data": rng.random() < 0.5}} for name in chosen
        ]
    if rng.random() < 0.5:
        message["parameters"] = {
            "seed": rng.randrange(2**40),
            "class": rng.randrange(10),
            "binary_data_output": rng.random() < 0.5,
        }
    return message, blobs


def damage_tree(rng: random.Random, message: dict[str, Any]) -> Any:
    """The JSON with one to three of its values replaced, removed or doubled."""
    message = copy.deepcopy(message)
    for _ in range(rng.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        stack: list[Any] = [message]
        while stack:
            node = stack.pop()
            keys = list(node) if isinstance(node, dict) else range(min(len(node), 20))
            for key in keys:
                places.append((node, key))
                if isinstance(node[key], dict | list):
                    stack.append(node[key])
        if not places:
            return rng.choice(ODD)
        node, key = rng.choice(places)
        move = rng.random()
        if move < 0.7:
            node[key] = copy.deepcopy(rng.choice(ODD))
        elif move < 0.85 and isinstance(node, dict):
            node[str(rng.choice(ODD))[:50]] = node.pop(key)
        elif isinstance(node, list):
            node.insert(key, copy.deepcopy(node[key]))
        else:
            del node[key]
    return message


def damage_bytes(rng: random.Random, raw: bytes) -> bytes:
    """Bytes flipped, cut, doubled or put in."""
    damaged = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(damaged) + 1)
        move = rng.random()
        if move < 0.5 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif move < 0.65:
            del damaged[at:]
        elif move < 0.8:
            damaged[at:at] = rng.randbytes(rng.randint(1, 9))
        else:
            damaged[at:at] = damaged[max(0, at - 50) : at]
    return bytes(damaged)


def case(rng: random.Random, model: str, shape: tuple[int, ...]) -> Case:
    """A request, most of them damaged in one way."""
    message, blobs = whole(rng, model, shape)
    kind = rng.random()
    tree: Any = damage_tree(rng, message) if kind < 0.45 else message
    head, rest = json.dumps(tree).encode(), b"".join(blobs)
    headers = {HEADER: str(len(head))} if blobs else {}
    if 0.45 <= kind < 0.6:
        head = damage_bytes(rng, head)
    elif 0.6 <= kind < 0.7:
        rest = damage_bytes(rng, rest)
    elif 0.7 <= kind < 0.8:
        lies = ["0", "-1", str(2**64), "1e3", "", "٣", str(rng.randrange(3000))]
        headers[HEADER] = rng.choice(lies).encode("utf-8").decode("latin-1")
    body = head + rest
    if 0.8 <= kind < 0.88:
        packed = gzip.compress(body, 1) if rng.random() < 0.5 else zlib.compress(body, 1)
        body = damage_bytes(rng, packed) if rng.random() < 0.7 else packed
        headers["Content-Encoding"] = rng.choice(["gzip", "deflate", "br", "gzip, gzip", ""])
    path = f"/v2/models/{model}/infer"
    method = "POST"
    if kind >= 0.94:
        row = rng.choice(["1", "-1", "x", "9" * 40, "%00"])
        ends = ["gain", "tree", f"example?row={row}", "%2e%2e/infer", ""]
        paths = [f"/page/models/{model}/{end}" for end in ends]
        paths += [f"/v2/models/{name}/infer" for name in ("%ff", "..", "x" * 300)]
        paths += [f"/v2/models/{model}/versions/{version}/infer" for version in ("1", "%0a", "-")]
        path = rng.choice([*paths, "/", "/metrics", "//", "/v2//"])
        method = rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
    if rng.random() < 0.05:
        headers[rng.choice(["Origin", "Host", "Sec-Fetch-Site", "Accept-Encoding"])] = rng.choice(
            ["null", "http://evil", "[", "::", "\x7f", "gzip;q=x", "cross-site"]
        )
    return Case(path, body, method, headers)


class Sender:
    """A connection to the server, made again after each that broke."""

    def __init__(self, port: int):
        self.port = port
        self.open()

    def open(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def send(self, one: Case) -> str:
        """The status, as text; `closed` where the server hung up, `hangs` where no answer came in time."""
        try:
            self.connection.request(one.method, one.path, one.body, one.headers)
            answer = self.connection.getresponse()
            answer.read()
            return str(answer.status)
        except TimeoutError:
            return "hangs"
        except (http.client.HTTPException, OSError, ValueError):
            self.connection.close()
            self.open()
            return "closed"

    def garbage(self, rng: random.Random) -> str:
        """Bytes that are no HTTP."""
        raw = rng.randbytes(rng.randint(1, 400))
        if rng.random() < 0.5:
            raw = b"POST /v2/models/x/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + raw
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as link:
            link.settimeout(SECONDS)
            link.sendall(raw)
            link.shutdown(socket.SHUT_WR)
            try:
                answer = link.recv(4096)
            except TimeoutError:
                return "hangs"
            except OSError:
                return "closed"
        return (
            answer.split(b" ")[1].decode("ascii", "replace") if answer.startswith(b"HTTP/1.1 ") else "closed"
        )


def shape_of(port: int, model: str) -> tuple[int, ...]:
    """Shape of a row of the model's first input."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("GET", f"/v2/models/{model}")
    return tuple(json.loads(connection.getresponse().read())["inputs"][0]["shape"][1:])


def start(run: Path) -> tuple[subprocess.Popen[str], int, str]:
    """(the server's process, its port, the name of its model)."""
    command = [sys.executable, "-m", "netspec", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None  # narrows the type
    line = process.stdout.readline()
    port = int(line.split("://")[1].split("/")[0].rsplit(":", 1)[1])
    return process, port, run.resolve().name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    rng, counts, bad = random.Random(options.seed), Counter[str](), []
    process, port, model = start(options.run)
    begin = time.monotonic()
    try:
        shape, sender = shape_of(port, model), Sender(port)
        for number in range(options.requests):
            if rng.random() < 0.02:
                status = sender.garbage(rng)
            else:
                one = case(rng, model, shape)
                status = sender.send(one)
                if status in ("500", "hangs"):
                    bad.append(repr(one)[:2000])
            counts[status] += 1
            if process.poll() is not None:
                bad.append(f"the server ended with {process.returncode} after request {number}")
                break
        alive = process.poll() is None and sender.send(Case("/v2/health/ready", b"", "GET")) == "200"
    finally:
        process.terminate()
        process.wait(20)
    record = {
        "command": f"python -m tools.fuzz.serving {options.run} --requests {options.requests} --seed {options.seed}",
        "requests": sum(counts.values()), "seconds": round(time.monotonic() - begin, 1),
        "statuses": dict(sorted(counts.items())), "server_errors": counts["500"], "hangs": counts["hangs"],
        "ready_afterwards": alive, "failures": bad[:20],
    }  # fmt: skip
    print(json.dumps(record, indent=2))
    if options.out:
        options.out.write_text(json.dumps(record, indent=2) + "\n")
    return int(bool(bad) or not alive)


if __name__ == "__main__":
    sys.exit(main())
