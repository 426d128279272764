"""Processes that make the runs of a sweep: started when needed, watched, ended when a run takes too much."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netspec.errors import NetspecError
from netspec.experiments.job import Job

PATIENCE = 60.0
"""Seconds that a process has to take its snapshot when the sweep ends."""


Replies = queue.Queue["tuple[Process, dict[str, Any]]"]


class Process:
    """One worker process, with its current job."""

    def __init__(
        self, number: int, threads: int, gpu: int | None, replies: queue.Queue[tuple[Process, dict[str, Any]]]
    ):
        self.number = number
        self.since = math.inf
        """When the process began its current job; starting the process takes time."""
        self.job: Job | None = None
        environment = {**os.environ, "NETSPEC_THREADS": str(threads)}
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = str(threads)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "netspec.experiments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C is the sweep's alone, which then closes their inputs
        )
        threading.Thread(target=self.listen, args=(replies,), daemon=True).start()

    def listen(self, replies: Replies) -> None:
        for line in self.process.stdout or ():
            replies.put((self, json.loads(line)))
        replies.put((self, {"state": "ended"}))

    def give(self, job: Job) -> None:
        """Begin a job."""
        self.job, self.since = job, math.inf
        self.send(asdict(job))

    def begun(self) -> None:
        """Take note that the job is under way."""
        self.since = time.monotonic()

    def send(self, order: dict[str, Any]) -> None:
        if self.process.stdin is None:
            raise NetspecError("a process of the sweep has no standard input")
        with contextlib.suppress(BrokenPipeError):  # it has ended, which its reply will say
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def memory(self) -> float:
        """Gigabytes that the process has; 0 where the system does not say."""
        path = Path(f"/proc/{self.process.pid}/statm")
        if not path.is_file():
            return 0.0
        return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30

    def kill(self) -> None:
        self.process.kill()

    def reason(self) -> str:
        """Why it ended."""
        code = self.process.wait()
        if code >= 0:
            return f"the process ended with code {code}"
        name = signal.Signals(-code).name
        return f"the process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    @property
    def by_signal(self) -> bool:
        return self.process.wait() in (-signal.SIGKILL, -signal.SIGTERM)

    def close(self) -> None:
        """Let the current run take a snapshot, and end the process."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def wait(self, seconds: float = PATIENCE) -> None:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Pool:
    """At most `jobs` processes, each with its share of the cores, or a GPU of its own."""

    def __init__(self, jobs: int | None, device: str | None):
        gpus = graphics(device)
        self.jobs = jobs or len(gpus) or cores()
        self.threads = max(1, cores() // self.jobs)
        self.gpus = [gpus[i % len(gpus)] for i in range(self.jobs)] if gpus else [None] * self.jobs
        self.replies: Replies = queue.Queue()
        self.processes: list[Process | None] = [None] * self.jobs

    @property
    def busy(self) -> list[Process]:
        return [process for process in self.processes if process is not None and process.job is not None]

    def free(self) -> bool:
        return len(self.busy) < self.jobs

    def give(self, job: Job) -> Process:
        """Begin a job in a process that is free."""
        for number, process in enumerate(self.processes):
            if process is None:
                process = Process(number, self.threads, self.gpus[number], self.replies)
                self.processes[number] = process
            if process.job is None:
                process.give(job)
                return process
        raise NetspecError("no process of the sweep is free")

    def forget(self, process: Process) -> None:
        """Take note that a process has ended."""
        process.wait(5)
        process.close()
        if self.processes[process.number] is process:
            self.processes[process.number] = None

    def close(self) -> None:
        """End all of them, each run with a snapshot."""
        alive = [process for process in self.processes if process is not None]
        for process in alive:
            process.close()
        for process in alive:
            process.wait()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def graphics(device: str | None) -> list[int]:
    """GPUs that the runs may use."""
    if device is not None and not device.startswith("cuda"):
        return []
    if device and ":" in device:
        return [int(device.partition(":")[2])]
    import torch

    return list(range(torch.cuda.device_count()))
