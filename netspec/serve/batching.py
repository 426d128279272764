"""One worker per net; requests that arrive while it works are answered together in the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from netspec.errors import NetspecError
from netspec.serve.metrics import Metrics
from netspec.serve.subject import MOST_ROWS, Ask, Subject
from netspec.serve.tensors import Array, Refusal

T = TypeVar("T")
Waiting = tuple[Ask, "asyncio.Future[dict[str, Array]]"]


class Batcher:
    """Joins requests to one net.

    There is no waiting time to tune: an idle worker takes a request at once, and a busy worker then takes all that came
    meanwhile.
    rows: most rows of a batch. waiting: most requests that wait; the next is refused with status 503.
    """

    def __init__(self, subject: Subject, metrics: Metrics, rows: int = MOST_ROWS, waiting: int = 128):
        self.subject, self.metrics, self.rows, self.limit = subject, metrics, rows, waiting
        self.queue: deque[Waiting] = deque()
        self.worker = ThreadPoolExecutor(1, thread_name_prefix=f"netspec-{subject.name}")
        self.busy = False
        self.others = 0

    async def ask(self, ask: Ask) -> dict[str, Array]:
        """The answer to one request; Refusal with status 503 where too many wait already."""
        self.check_room()
        answer: asyncio.Future[dict[str, Array]] = asyncio.get_running_loop().create_future()
        self.queue.append((ask, answer))
        self.metrics.waiting[self.subject.name] = len(self.queue)
        if not self.busy:
            self.busy = True
            self.task = asyncio.create_task(self._work())
        return await answer

    def check_room(self) -> None:
        """Refusal with status 503 where the queue is full."""
        if len(self.queue) + self.others >= self.limit:
            raise Refusal(
                f"model {self.subject.name!r} has {self.limit} requests waiting; ask again later", 503
            )

    async def run(self, query: Callable[[], T]) -> T:
        """The result of `query`, run between two batches; for questions of the page, which are not joined."""
        self.check_room()
        self.others += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.worker, query)
        finally:
            self.others -= 1

    async def _work(self) -> None:
        try:
            while self.queue:
                batch = self._take()
                await self._answer(batch)
        finally:
            self.busy = False

    def _take(self) -> list[Waiting]:
        """The first requests in the queue that fit into a batch; requests whose client is gone are dropped."""
        batch: list[Waiting] = []
        rows = 0
        while self.queue and (not batch or rows + len(self.queue[0][0].x) <= self.rows):
            ask, answer = self.queue.popleft()
            if not answer.cancelled():
                batch.append((ask, answer))
                rows += len(ask.x)
        self.metrics.waiting[self.subject.name] = len(self.queue)
        return batch

    async def _answer(self, batch: list[Waiting]) -> None:
        if not batch:
            return
        self.metrics.batch(self.subject.name, sum(len(ask.x) for ask, _ in batch))
        loop = asyncio.get_running_loop()
        try:
            values = await loop.run_in_executor(self.worker, self.subject.answer, [ask for ask, _ in batch])
        except Exception as error:  # the worker goes on with the next
            if (
                isinstance(error, NetspecError) and len(batch) > 1
            ):  # one of them cannot be answered: find out which
                for request in batch:
                    await self._answer([request])
                return
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), value in zip(batch, values, strict=True):
            if not answer.done():
                answer.set_result(value)

    def close(self) -> None:
        """End the worker; requests that wait are cancelled."""
        for _, answer in self.queue:
            answer.cancel()
        self.queue.clear()
        self.worker.shutdown(wait=False, cancel_futures=True)
