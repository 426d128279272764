"""Sinks: collects what layers without tops (HDF5Output) write during a walk.

    with Sinks(net) as sinks:
        for batch in batches:
            net.run(sinks, *batch)        # a walk like `net(*batch)`, and each sink's bottoms are appended to
            its file

A walk takes the call of a layer as a parameter, so no layer needs side effects, and compiled walks stay pure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from torch import Tensor

from netspec.data.sources.hdf5 import Hdf5Writer
from netspec.errors import DataError, SpecError
from netspec.schema.spec import LayerSpec, NetSpec


class Made(Protocol):
    """What Sinks needs of a net."""

    @property
    def graph(self) -> Any: ...

    @property
    def made(self) -> Sequence[Any]: ...


def plain(layer: Any, *bottoms: Tensor) -> tuple[Tensor, ...]:
    """A layer's forward, its tops as a tuple."""
    tops = layer(*bottoms)
    return tops if isinstance(tops, tuple) else (tops,)


def writing(net: NetSpec) -> list[LayerSpec]:
    """The layers of a net that write what they get to a file."""
    return [layer for layer in net.layers if layer.type == "HDF5Output"]


def refuse_shared_files(nets: Iterable[NetSpec]) -> None:
    """SpecError where two HDF5Output layers of a run's nets would write the same file; Caffe cannot open one file twice
    either.
    """
    owners: dict[str, LayerSpec] = {}
    problems = []
    for net in nets:
        for layer in writing(net):
            name = layer.message.hdf5_output_param.file_name
            if not name:
                continue
            owner = owners.setdefault(os.path.normpath(name), layer)
            if owner is layer:
                continue
            both = (
                "in the training net and in a test net, or in two test nets"
                if owner.at() == layer.at()
                else ""
            )
            text = f"writes {name!r}, as {both or f'layer {owner.name!r} does'}: one file cannot hold both; "
            text += (
                "give each layer a file_name of its own, with include { phase: } where the nets share a text"
            )
            problems.append(layer.problem(text, "hdf5_output_param", "file_name"))
    if problems:
        raise SpecError(problems)


class Sinks:
    """A call for `net.run` that applies each layer and appends the bottoms of HDF5Output layers to their
    files.
    """

    def __init__(
        self, net: Made, folder: Path | None = None, call: Callable[..., tuple[Tensor, ...]] = plain
    ):
        """folder: where relative file names are (default: the working directory).
        call: how the other layers are applied.
        """
        self.net, self.call = net, call
        self.writers = {
            id(layer): Hdf5Writer((folder or Path()) / layer.param.file_name)
            for layer in net.made
            if layer.spec.type == "HDF5Output"
        }

    def __bool__(self) -> bool:
        """Whether the net has any sink."""
        return bool(self.writers)

    def __call__(self, layer: Any, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if (writer := self.writers.get(id(layer))) is not None:
            writer.append({"data": bottoms[0], "label": bottoms[1]})
            return ()
        return self.call(layer, *bottoms)

    def record(self, slots: Mapping[int, Tensor]) -> None:
        """Append the values of a finished walk that kept every slot (`net.slots`)."""
        for step, layer in zip(self.net.graph.steps, self.net.made, strict=True):
            if id(layer) in self.writers:
                self(layer, *(slots[slot] for slot in step.reads))

    def state(self) -> list[int]:
        """Rows of each file so far."""
        return [writer.rows for writer in self.writers.values()]

    def load_state(self, rows: Sequence[int]) -> list[str]:
        """Continue each file after its number of rows; returns the reasons why files are begun anew instead."""
        problems = []
        for writer, count in zip(self.writers.values(), rows, strict=False):
            try:
                writer.go_on(count)
            except DataError as error:
                problems.append(f"{error}: begun anew")
        if len(rows) < len(self.writers):
            problems.append(
                "the snapshot does not say what HDF5Output layers had written: their files are begun anew"
            )
        return problems

    def close(self) -> None:
        """Finish all files."""
        for writer in self.writers.values():
            writer.close()

    def __enter__(self) -> Sinks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
