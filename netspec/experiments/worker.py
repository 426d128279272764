"""A process of a sweep: reads jobs from its standard input, one JSON line each, makes the runs, and replies with their
state.

Replies, a JSON line each: {"run": ..., "state": "begun"}, later "over", "taken" or "stopped" for it. When its
input ends, as it does when the sweep is killed, the run at hand takes a snapshot and stops.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from netspec.experiments import ledger
from netspec.experiments.job import Job, as_job, logged, make


class Worker:
    """The jobs to come, and the orders for the current one."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[Job | None] = queue.Queue()
        self.busy = ""
        self.pruned = ""
        self.ended = False

    def listen(self) -> None:
        """Read jobs and orders; in a thread of its own."""
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            if "prune" in order:
                if order["prune"] == self.busy:
                    self.pruned = self.busy
                    self.interrupt()
                continue
            self.jobs.put(as_job(order))
        self.ended = True
        self.jobs.put(None)
        self.interrupt()

    def interrupt(self) -> None:
        """Stop the run at hand after a snapshot."""
        if self.busy:
            os.kill(os.getpid(), signal.SIGTERM)

    def serve(self) -> None:
        """Make jobs until there are no more."""
        signal.signal(signal.SIGTERM, self.refuse)
        signal.signal(signal.SIGINT, self.refuse)
        replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
        threading.Thread(target=self.listen, daemon=True).start()
        while not self.ended and (job := self.jobs.get()) is not None:
            for state in ("begun", ""):
                state = state or self.work(job)
                try:
                    replies.write(json.dumps({"run": job.run, "state": state}) + "\n")
                    replies.flush()
                except BrokenPipeError:  # nobody is left to be told
                    return

    def refuse(self, number: int, frame: Any) -> None:
        """Outside of a run's loop a signal stops at once; between runs it means nothing."""
        if self.busy:
            raise KeyboardInterrupt

    def work(self, job: Job) -> str:
        lock = ledger.claim(job.path)
        if lock is None:
            return "taken"
        with lock:
            if ledger.read_result(job.path) is not None:  # another process was quicker
                return "over"
            try:
                self.busy = job.run
                with logged(job.path / ledger.LOG):
                    result = make(job, lambda: self.pruned == job.run)
            except KeyboardInterrupt:  # before the run was under way
                result = None
            finally:
                self.busy = ""
            return "over" if result is not None else "stopped"


if __name__ == "__main__":
    if threads := int(os.environ.get("NETSPEC_THREADS", "0")):
        import torch

        torch.set_num_threads(threads)
    Worker().serve()
