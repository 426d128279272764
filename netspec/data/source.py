"""What training asks of data: batches in an order that can be saved and taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from netspec.layers.base import Shape

State = dict[str, "int | Tensor"]
"""Everything that decides which batches come next; plain integers and tensors, so that it fits a snapshot."""


class Source(Protocol):
    """The data behind one source layer (or several): a stream of batches without end."""

    shapes: list[Shape]
    """Shape of each top."""

    def next(self) -> tuple[Tensor, ...]:
        """The next batch, one tensor a top."""

    def state(self) -> State:
        """Where the stream stands. Batches read ahead but not yet given out by `next` do not count."""

    def load_state(self, state: Mapping[str, int | Tensor]) -> None:
        """Go on where `state` was taken: `next` then gives the same batches bit for bit."""

    def close(self) -> None:
        """Let files, threads and processes go."""


class Feeder:
    """The sources of a net side by side: `next()` gives one tensor for each of the graph's inputs, in their order."""

    def __init__(self, sources: Sequence[Source], device: str | torch.device = "cpu"):
        self.sources = list(sources)
        self.device = torch.device(device)
        self.shapes = [shape for source in self.sources for shape in source.shapes]

    def next(self) -> tuple[Tensor, ...]:
        """The next batch of every source, on the feeder's device."""
        batch = [top for source in self.sources for top in source.next()]
        return tuple(top.to(self.device, non_blocking=True) for top in batch)

    def state(self) -> State:
        """The states of all sources, their keys led by the source's number."""
        return {f"{i}.{key}": value for i, source in enumerate(self.sources) for key, value in source.state().items()}

    def load_state(self, state: Mapping[str, int | Tensor]) -> None:
        """Give every source its part of `state`."""
        for i, source in enumerate(self.sources):
            lead = f"{i}."
            source.load_state({key[len(lead) :]: value for key, value in state.items() if key.startswith(lead)})

    def close(self) -> None:
        """Close every source."""
        for source in self.sources:
            source.close()
