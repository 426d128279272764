"""Starts and asks the process of `template_worker`, which fills templates; it starts with the first template."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netspec.errors import NetspecError

WORKER = Path(__file__).with_name("template_worker.py")
LIBRARY = Path(__file__).with_name("library")
"""Templates that every template may include or import as netspec/NAME."""

PATIENCE = 20.0
"""Seconds after which the process is ended in any case; its own limits, in processor time, are far lower."""


class Worker:
    """The process; where a template ends it, the next request starts a new one."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0
        self.lock = threading.Lock()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The reply to a request; None where the process was ended because it took too much."""
        data = json.dumps({**request, "library": str(LIBRARY)}).encode()
        with self.lock:
            process = self.start()
            source, sink = process.stdout, process.stdin
            if source is None or sink is None:
                raise NetspecError("the process that fills templates has no pipes")
            timer = threading.Timer(PATIENCE, process.kill)
            timer.start()
            try:
                sink.write(len(data).to_bytes(8, "big") + data)
                sink.flush()
                size = int.from_bytes(source.read(8), "big")
                reply = source.read(size) if size else b""
            except BrokenPipeError:
                reply, size = b"", 0
            finally:
                timer.cancel()
            if not size or len(reply) < size:
                self.end()
                return None
            answer: dict[str, Any] = json.loads(reply)
            if "error" in answer:
                self.used(answer)
            return answer

    def used(self, answer: Mapping[str, Any]) -> None:
        """End a process that ran short of memory or time, so that it is not asked again."""
        if "takes" in answer["error"]:
            self.end()

    def start(self) -> subprocess.Popen[bytes]:
        """The running process; a new one after a fork, and where the last has ended."""
        if self.process is not None and self.owner != os.getpid():
            self.process = None  # it belongs to the process that this one was forked from
        if self.process is not None and self.process.poll() is not None:
            self.end()
        if self.process is None:
            command = [sys.executable, "-I", str(WORKER), json.dumps(sys.path)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.owner = os.getpid()
        return self.process

    def end(self) -> None:
        """End the process, if this process started it."""
        process, self.process = self.process, None
        if process is None or self.owner != os.getpid():
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except (
                    BrokenPipeError
                ):  # what was still to be written is of no use to a process that has ended
                    continue
        process.wait()


worker = Worker()
atexit.register(worker.end)
