"""Feeds of the source layers of a running net, and the sink of HDF5Output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from netspec.data import Feeder
from netspec.data.sources.hdf5 import Hdf5Writer
from netspec.data.sources.memory import MemorySource
from netspec.layers.base import Layer
from netspec.layers.blob import Array
from netspec.pycaffe import mode
from netspec.pycaffe.memory import NetBlob
from netspec.pycaffe.mode import CaffeError
from netspec.schema.spec import TRAIN


class Feed(Protocol):
    """Fills the tops of a source layer before each forward."""

    def forward(self, tops: Sequence[NetBlob]) -> None: ...


class Program:
    """Input: the tops hold what the program wrote."""

    def forward(self, tops: Sequence[NetBlob]) -> None:
        """Does nothing."""


class Data:
    """A data layer: each forward takes the next batch of its source, which is opened at the first."""

    def __init__(self, layer: Any):
        self.layer = layer
        self.seed = int(torch.randint(2**31, ()))
        self.feeder: Feeder | None = None

    def open(self) -> Feeder:
        if self.feeder is None:
            self.feeder = Feeder([self.layer.source(self.seed)])
            if self.layer.phase == TRAIN:  # of several solvers each takes its samples
                self.feeder.deal(mode.solver_rank(), mode.solver_count())
        return self.feeder

    def forward(self, tops: Sequence[NetBlob]) -> None:
        """Copy the next batch into the tops."""
        for blob, value in zip(tops, self.open().next(), strict=True):
            blob.put(value)

    def reset(self, data: Array, labels: Array) -> None:
        """MemoryData: batches come from these arrays from now on; CaffeError for other layers."""
        source = self.open().sources[0]
        if not isinstance(source, MemorySource):
            raise CaffeError("set_input_arrays: the first layer is no MemoryData layer")
        source.reset(data, labels)

    def __del__(self) -> None:
        if self.feeder is not None:
            self.feeder.close()


class Sink:
    """HDF5Output: each forward appends the bottoms to the layer's file, which is finished with the net."""

    def __init__(self, layer: Layer):
        self.writer = Hdf5Writer(Path(layer.param.file_name))

    def append(self, bottoms: Sequence[NetBlob]) -> None:
        """Write the rows of data and label."""
        self.writer.append(
            {name: torch.from_numpy(blob.data) for name, blob in zip(("data", "label"), bottoms, strict=True)}
        )

    def __del__(self) -> None:
        self.writer.close()


def feed(layer: Layer) -> Feed | None:
    """The Feed of a source layer, None for a layer that computes."""
    if not layer.is_source:
        return None
    return Data(layer) if hasattr(layer, "source") else Program()
