"""Requests that come while the net works are joined; too many are refused; one that fails fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from netspec.errors import NetspecError
from netspec.model.model import Model
from netspec.serve.batching import Batcher
from netspec.serve.metrics import Metrics
from netspec.serve.subject import Ask, ImageSubject, Subject
from netspec.serve.tensors import Array, Refusal


class Slow(Subject):
    """Answers with the sum of each row, once its gate is open; remembers how many requests each batch had."""

    def __init__(self) -> None:
        super().__init__("slow", "1")
        self.gate, self.batches = threading.Event(), []

    def read(
        self, inputs: Mapping[str, Array], parameters: Mapping[str, Any], outputs: frozenset[str]
    ) -> Ask:
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        raise NotImplementedError

    def answer(self, asks: Sequence[Ask]) -> list[dict[str, Array]]:
        self.gate.wait(10)
        self.batches.append([len(ask.x) for ask in asks])
        if any(bool((ask.x < 0).any()) for ask in asks):
            raise ValueError("negative")
        if any(bool((ask.x == 99).any()) for ask in asks):
            raise NetspecError("99 cannot be")
        return [{"sum": ask.x.sum(1).numpy()} for ask in asks]


def ask(*values: float) -> Ask:
    return Ask(torch.tensor(values).view(-1, 1), frozenset({"sum"}))


def test_waiting_requests_are_joined_up_to_the_limit_of_rows() -> None:
    subject = Slow()

    async def run() -> list[dict[str, Array]]:
        batcher = Batcher(subject, Metrics(), rows=4)
        first = asyncio.create_task(batcher.ask(ask(1)))
        await asyncio.sleep(0.05)  # the worker has taken it
        rest = [asyncio.create_task(batcher.ask(ask(i, i + 0.5))) for i in range(3)]
        await asyncio.sleep(0.05)
        subject.gate.set()
        return list(await asyncio.gather(first, *rest))

    answers = asyncio.run(run())
    assert subject.batches == [[1], [2, 2], [2]]
    np.testing.assert_array_equal(answers[3]["sum"], [2, 2.5])


def test_overload_is_refused_with_503_and_ends_with_it() -> None:
    subject = Slow()

    async def run() -> None:
        batcher = Batcher(subject, Metrics(), waiting=2)
        tasks = [asyncio.create_task(batcher.ask(ask(1)))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(batcher.ask(ask(i))) for i in (2, 3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal, match="2 requests waiting") as refused:
            await batcher.ask(ask(4))
        assert refused.value.status == 503
        subject.gate.set()
        await asyncio.gather(*tasks)
        assert float((await batcher.ask(ask(5)))["sum"][0]) == 5

    asyncio.run(run())


def test_a_batch_that_fails_leaves_the_worker_working() -> None:
    subject = Slow()
    subject.gate.set()

    async def run() -> None:
        batcher = Batcher(subject, Metrics())
        with pytest.raises(ValueError, match="negative"):
            await batcher.ask(ask(-1))
        assert float((await batcher.ask(ask(5)))["sum"][0]) == 5

    asyncio.run(run())


def test_a_request_that_cannot_be_answered_leaves_those_beside_it_alone() -> None:
    subject = Slow()

    async def run() -> None:
        batcher = Batcher(subject, Metrics())
        first = asyncio.create_task(batcher.ask(ask(1)))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(batcher.ask(ask(value))) for value in (2, 99, 3)]
        await asyncio.sleep(0.05)
        subject.gate.set()
        await first
        good, bad, other = await asyncio.gather(*rest, return_exceptions=True)
        assert isinstance(bad, NetspecError)
        assert isinstance(good, dict)
        assert isinstance(other, dict)
        assert (float(good["sum"][0]), float(other["sum"][0])) == (2, 3)

    asyncio.run(run())
    assert subject.batches == [[1], [1, 1, 1], [1], [1], [1]]


def test_a_request_whose_client_is_gone_is_left_out() -> None:
    subject = Slow()

    async def run() -> None:
        batcher = Batcher(subject, Metrics())
        first = asyncio.create_task(batcher.ask(ask(1)))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(batcher.ask(ask(2)))
        await asyncio.sleep(0.02)
        gone.cancel()
        last = asyncio.create_task(batcher.ask(ask(3)))
        await asyncio.sleep(0.02)
        subject.gate.set()
        await asyncio.gather(first, last)

    asyncio.run(run())
    assert subject.batches == [[1], [1]]


def test_joined_answers_equal_single_ones(digits: Model) -> None:
    subject = ImageSubject(digits, "digits")
    rng = np.random.default_rng(3)
    names = [
        frozenset(one)
        for one in ({"scores"}, {"posterior", "expected"}, {"sample", "deviation"}, {"log_likelihood"})
    ]
    asks = []
    for i in range(12):
        x = rng.integers(0, 256, (1 + i % 3, 1, 8, 8)).astype(np.float32)
        x[rng.random(x.shape) < 0.5] = np.nan
        label = None if i % 2 else i % 10
        asks.append(Ask(digits.from_pixels(x), names[i % 4], label, seed=i))
    for one, together in zip(asks, subject.answer(asks), strict=True):
        alone = subject.answer([one])[0]
        assert set(alone) == set(together) == one.outputs
        for name in alone:
            np.testing.assert_allclose(together[name], alone[name], rtol=1e-3, atol=1e-2)
