"""Launch: start the processes of one run on this machine, and end them together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

GRACE = 30.0
"""Seconds that the others have to end by themselves, once one has ended with an error."""


def launch(commands: Sequence[Sequence[str]]) -> int:
    """Run the commands side by side, each with the variables that torchrun sets; gives the first status but 0.

    Signals go to all of them. Where one ends with an error, the others find it gone and end; what does not is killed.
    """
    processes = [
        subprocess.Popen(command, env={**os.environ, **variables})
        for command, variables in zip(commands, places(len(commands)), strict=True)
    ]

    def pass_on(number: int, frame: Any) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    kept = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # the terminal tells them too
    kept[signal.SIGTERM] = signal.signal(signal.SIGTERM, pass_on)
    try:
        return awaited(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        for number, handler in kept.items():
            signal.signal(number, handler)


def awaited(processes: Sequence[subprocess.Popen[Any]]) -> int:
    """The first status but 0, after the end of all, or GRACE seconds after one's end with an error."""
    failed, until = 0, float("inf")
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        time.sleep(0.05)
        if not failed and (failed := next((p.returncode for p in processes if p.returncode), 0)):
            until = time.monotonic() + GRACE
    status = failed or next((p.returncode for p in processes if p.returncode), 0)
    return 128 - status if status < 0 else status


def places(count: int) -> list[Mapping[str, str]]:
    """The variables of each of `count` processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
