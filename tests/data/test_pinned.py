"""Pinned buffers: what is sent is what was given, though the caller writes on and buffers are used in turn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from netspec.data.pinned import Pinned


class Event:
    """Notes in which order copies are awaited and recorded."""

    def __init__(self, log: list[str]):
        self.log = log

    def synchronize(self) -> None:
        self.log.append("wait")

    def record(self, stream: Any) -> None:
        self.log.append("record")


class OnCpu(Pinned):
    """The same on memory that is not pinned, for machines without a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.made = 0

    def pinned(self, value: Tensor) -> Tensor:
        self.made += 1
        return torch.empty_like(value)

    def event(self) -> Event:
        return Event(self.log)

    def stream(self, device: torch.device) -> None:
        return None


def test_two_buffers_are_made_once_and_awaited_before_they_are_written_again() -> None:
    sender, device = OnCpu(), torch.device("cpu")
    for i in range(5):
        sent = sender.send(torch.full((3,), float(i)), device)
        assert sent.tolist() == [i, i, i]
    assert sender.made == 2
    assert sender.log == ["wait", "record"] * 5
    sender.send(torch.zeros(4), device)
    assert sender.made == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_is_sent_arrives() -> None:
    sender, device, values = Pinned(), torch.device("cuda"), torch.randn(50, 1000)
    ends = [sender.send(value, device) for value in values]
    assert torch.equal(torch.stack(ends).cpu(), values)
    assert all(buffer.is_pinned() for buffer in sender.buffers)
