"""Load test of `netspec serve`, beside LitServe with the same net in the same run.

    python -m tools.bench.serving RUN [RUN...] -o docs/results/serving.json      (pip install litserve)

Every number comes from requests of one image with JSON bodies, the answer its posterior. One client after another
gives the times of a single request; 32 clients at once give the requests per second. Both servers run in a process of
their own, one after the other, on this machine; the client is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import netspec

LITSERVE = """
import sys, litserve, torch, netspec

class API(litserve.LitAPI):
    def setup(self, device):
        self.model = netspec.load(sys.argv[1])
    def decode_request(self, request):
        return torch.tensor(request["data"], dtype=torch.float32)
    def batch(self, inputs):
        return torch.stack(inputs)
    def unbatch(self, output):
        return list(output)
    def predict(self, x):
        x = x if x.dim() == 4 else x[None]
        x = self.model.from_pixels(x.numpy())
        scores = self.model.scores(x).softmax(1)
        return scores
    def encode_response(self, output):
        return {"posterior": output.flatten().tolist()}

if __name__ == "__main__":
    batch = int(sys.argv[3])
    api = API(max_batch_size=batch, batch_timeout=0.0 if batch == 1 else 0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", log_level="error", generate_client_file=False)
"""


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def request(path: str, body: bytes, headers: tuple[str, ...] = ()) -> bytes:
    """A POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes) -> int:
    """Send, read the whole answer; gives its status."""
    writer.write(raw)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.split("\r\ncontent-length:")[1].split("\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(" ")[1])


async def client(
    port: int, raw: list[bytes], end: float, times: list[float], statuses: dict[int, int]
) -> None:
    """One client that asks again as soon as it is answered, until `end`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.perf_counter() < end:
            begin = time.perf_counter()
            status = await ask(reader, writer, random.choice(raw))
            times.append(time.perf_counter() - begin)
            statuses[status] = statuses.get(status, 0) + 1
    finally:
        writer.close()


def load(port: int, raw: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """Requests per second and the times of a request with `clients` at once, after a second of warming up."""

    async def run(duration: float) -> tuple[list[float], dict[int, int], float]:
        times: list[float] = []
        statuses: dict[int, int] = {}
        begin = time.perf_counter()
        await asyncio.gather(*(client(port, raw, begin + duration, times, statuses) for _ in range(clients)))
        return times, statuses, time.perf_counter() - begin

    asyncio.run(run(1.0))
    times, statuses, took = asyncio.run(run(seconds))
    cuts = statistics.quantiles(times, n=100)
    return {
        "clients": clients, "requests": len(times), "requests_per_second": round(len(times) / took, 1),
        "p50_ms": round(1000 * cuts[49], 3), "p99_ms": round(1000 * cuts[98], 3), "statuses": statuses,
    }  # fmt: skip


def resident(pid: int) -> float:
    """MiB that a process and its children have in use (proportional shares of what they share)."""
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) / 1024
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # ended meanwhile
    return round(total, 1)


def wait_for(port: int, path: str, seconds: float = 400) -> float:
    """Seconds until a GET of `path` is answered with 200."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as link:
                link.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                if link.recv(100).startswith(b"HTTP/1.1 200"):
                    return round(time.perf_counter() - begin, 3)
        except OSError:
            pass
        time.sleep(0.01)
    raise TimeoutError(f"no answer at port {port}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and its workers, which outlive it otherwise."""
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def measure(
    command: list[str], port: int, health: str, raw: dict[str, list[bytes]], options: argparse.Namespace
) -> dict[str, Any]:
    """Start a server, load it with each kind of request, stop it."""
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    try:
        figures: dict[str, Any] = {"seconds_to_ready": wait_for(port, health)}
        for kind, bodies in raw.items():
            figures[kind] = [load(port, bodies, clients, options.seconds) for clients in options.clients]
        figures["memory_mib"] = resident(process.pid)
    finally:
        stop(process)
    return figures


def bodies(run: Path, count: int = 50) -> tuple[dict[str, list[bytes]], list[bytes]]:
    """(requests for netspec by kind, those for LitServe): images of the run's own test data."""
    from netspec.serve.server import name_of

    model = netspec.load(run)
    pixels, _ = model.images(end=count)
    path, blob = f"/v2/models/{name_of(run)}/infer", model.deployed.data.tops[0]
    ours: dict[str, list[bytes]] = {"json": [], "binary": []}
    theirs = []
    for image in pixels.astype("<f4"):
        head: dict[str, Any] = {"name": blob, "shape": [1, *image.shape], "datatype": "FP32"}
        values = image.ravel().tolist()
        text = json.dumps({"inputs": [head | {"data": values}], "outputs": [{"name": "posterior"}]})
        ours["json"].append(request(path, text.encode()))
        head["parameters"] = {"binary_data_size": image.nbytes}
        wanted = {"inputs": [head], "outputs": [{"name": "posterior", "parameters": {"binary_data": True}}]}
        lead = json.dumps(wanted).encode()
        length = f"Inference-Header-Content-Length: {len(lead)}"
        ours["binary"].append(request(path, lead + image.tobytes(), (length,)))
        theirs.append(request("/predict", json.dumps({"data": image.tolist()}).encode()))
    return ours, theirs


def overload(run: Path, raw: list[bytes], options: argparse.Namespace) -> dict[str, Any]:
    """A server that lets 4 requests wait, asked by 64 clients: it answers 200 or 503, and is ready afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "netspec", "serve", str(run), "--port", str(port), "--waiting", "4"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        wait_for(port, "/v2/health/ready")
        answers = load(port, raw, 64, options.seconds)
        wait_for(port, "/v2/health/ready", 5)
    finally:
        stop(process)
    return answers


def compare(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both servers over one run folder, `options.repeats` times in turn; the medians of the ratios."""
    ours, theirs = bodies(run)
    script = Path(tempfile.mkdtemp(prefix="netspec-bench-")) / "lit.py"
    script.write_text(LITSERVE)
    rounds = []
    for _ in range(options.repeats):
        port = free_port()
        command = [sys.executable, "-m", "netspec", "serve", str(run), "--port", str(port)]
        one: dict[str, Any] = {"netspec": measure(command, port, "/v2/health/ready", ours, options)}
        for size in options.litserve:
            port = free_port()
            command = [sys.executable, str(script), str(run), str(port), str(size)]
            one[f"litserve_batch_{size}"] = measure(command, port, "/health", {"json": theirs}, options)
        rounds.append(one)
    return {
        "run": run.name,
        "rounds": rounds,
        "overload": overload(run, ours["binary"], options),
        "ratios": ratios(rounds),
    }


def ratios(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """netspec's requests per second over the best of LitServe's, JSON both, per number of clients; median of rounds."""
    medians = {}
    peers = [name for name in rounds[0] if name != "netspec"]
    for i, one in enumerate(rounds[0]["netspec"]["json"]):
        values = (
            [
                r["netspec"]["json"][i]["requests_per_second"]
                / max(r[p]["json"][i]["requests_per_second"] for p in peers)
                for r in rounds
            ]
            if peers
            else []
        )
        if values:
            medians[f"{one['clients']} clients"] = round(statistics.median(values), 2)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the servers")
    parser.add_argument(
        "--litserve", type=int, nargs="*", default=[1, 32], help="batch sizes of LitServe; none: leave it out"
    )
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    record = {
        "command": "python -m tools.bench.serving " + " ".join(sys.argv[1:]),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_average_before": os.getloadavg()[0],
        "threads": options.threads,
        "runs": [compare(run, options) for run in options.runs],
    }
    text = json.dumps(record, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
