"""Pinned: host memory that a GPU reads by itself, two buffers in turn; a copy goes on beside computing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Pinned:
    """Sends tensors of one shape to a GPU through two buffers that are pinned once.

    A buffer is written again when the copy out of it two sends ago is over; the copy is in the order of the device's
    current stream, so what is computed from its result waits for it and nothing else does.
    """

    def __init__(self) -> None:
        self.buffers: list[Tensor] = []
        self.events: list[Any] = []
        self.turn = 0

    def send(self, value: Tensor, device: torch.device) -> Tensor:
        """`value` on the device; the caller may write to `value` again at once."""
        if not self.buffers or self.buffers[0].shape != value.shape or self.buffers[0].dtype != value.dtype:
            self.buffers = [self.pinned(value) for _ in range(2)]
            self.events = [self.event() for _ in range(2)]
        buffer, event = self.buffers[self.turn], self.events[self.turn]
        self.turn = 1 - self.turn
        event.synchronize()  # at once where nothing was sent yet
        buffer.copy_(value)
        sent = buffer.to(device, non_blocking=True)
        event.record(self.stream(device))
        return sent

    def pinned(self, value: Tensor) -> Tensor:
        """Pinned memory like a tensor."""
        return torch.empty(value.shape, dtype=value.dtype, pin_memory=True)

    def event(self) -> Any:
        """What tells that a copy is over."""
        return torch.cuda.Event()  # type: ignore[no-untyped-call]

    def stream(self, device: torch.device) -> Any:
        """The device's current stream, in whose order copies are made."""
        return torch.cuda.current_stream(device)
