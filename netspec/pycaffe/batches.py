"""Passes over a net with arrays in and out: forward, backward, and both over more than a batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

import numpy as np

from netspec.layers.blob import Array
from netspec.pycaffe.memory import NetBlob

Arrays = dict[str, Array]


class Batches:
    """What `Net` can do with arrays; a net gives the blobs and the runs from layer to layer."""

    blobs: OrderedDict[str, NetBlob]
    inputs: list[str]
    outputs: list[str]
    top_names: OrderedDict[str, list[str]]
    bottom_names: OrderedDict[str, list[str]]
    _layer_names: list[str]

    def _forward(self, first: int, last: int) -> float:
        raise NotImplementedError

    def _backward(self, first: int, last: int) -> None:
        raise NotImplementedError

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Array,
    ) -> Arrays:
        """Run the net, or its layers from `start` to `end`; gives the outputs (tops of `end`) and `blobs`.

        kwargs: an array for each input. Without them inputs are as they stand, and data layers feed
        themselves. The arrays given are views of the blobs: copy what must outlive the next forward.
        """
        first = self._layer_names.index(start) if start is not None else 0
        last = self._layer_names.index(end) if end is not None else len(self._layer_names) - 1
        wanted = self.top_names[end] if end is not None else self.outputs
        if kwargs:
            if set(kwargs) != set(self.inputs):
                raise Exception("Input blob arguments do not match net inputs.")
            for name, array in kwargs.items():
                if array.shape[0] != self.blobs[name].shape[0]:
                    raise Exception("Input is not batch sized")
                self.blobs[name].data[...] = array
        self._forward(first, last)
        return {name: self.blobs[name].data for name in {*wanted, *(blobs or ())}}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Array,
    ) -> Arrays:
        """Run backward, or from layer `start` down to `end`; gives diffs: the inputs' (those of
        `end`'s bottoms) and `diffs`.

        kwargs: a diff for each output; without them the outputs' diffs are as they stand, and losses have
        their weight. Diffs of parameters add up from pass to pass.
        """
        first = self._layer_names.index(start) if start is not None else len(self._layer_names) - 1
        last = self._layer_names.index(end) if end is not None else 0
        wanted = self.bottom_names[end] if end is not None else self.inputs
        if kwargs:
            if set(kwargs) != set(self.outputs):
                raise Exception("Top diff arguments do not match net outputs.")
            for name, array in kwargs.items():
                if array.shape[0] != self.blobs[name].shape[0]:
                    raise Exception("Diff is not batch sized")
                self.blobs[name].diff[...] = array
        self._backward(first, last)
        return {name: self.blobs[name].diff for name in {*wanted, *(diffs or ())}}

    def forward_all(self, blobs: Sequence[str] | None = None, **kwargs: Array) -> Arrays:
        """`forward` over arrays of any length, batch by batch (the last one padded with zeros)."""
        rows: dict[str, list[Array]] = {name: [] for name in {*self.outputs, *(blobs or ())}}
        for batch in self._batch(kwargs):
            for name, array in self.forward(blobs, None, None, **batch).items():
                rows[name].extend(array.copy())
        return cut(rows, kwargs)

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **kwargs: Array
    ) -> tuple[Arrays, Arrays]:
        """Forward and backward over arrays of any length, batch by batch; kwargs for inputs and for outputs'
        diffs.
        """
        rows: dict[str, list[Array]] = {name: [] for name in {*self.outputs, *(blobs or ())}}
        back: dict[str, list[Array]] = {name: [] for name in {*self.inputs, *(diffs or ())}}
        forwards = self._batch({name: kwargs[name] for name in self.inputs if name in kwargs})
        backwards = self._batch({name: kwargs[name] for name in self.outputs if name in kwargs})
        none: Arrays = {}
        for inputs, tops in zip_longest(forwards, backwards, fillvalue=none):
            for name, array in self.forward(blobs, None, None, **inputs).items():
                rows[name].extend(array.copy())
            for name, array in self.backward(diffs, None, None, **tops).items():
                back[name].extend(array.copy())
        return cut(rows, kwargs), cut(back, kwargs)

    def _batch(self, arrays: Mapping[str, Array]) -> Iterator[Arrays]:
        """The arrays in pieces of the net's batch size."""
        if not arrays:
            return
        count = len(next(iter(arrays.values())))
        size = next(iter(self.blobs.values())).shape[0]
        for begin in range(0, count, size):
            batch = {name: np.asarray(array[begin : begin + size]) for name, array in arrays.items()}
            missing = size - min(count - begin, size)
            if missing:
                batch = {
                    name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
                    for name, array in batch.items()
                }
            yield batch


def cut(lists: Mapping[str, Sequence[Array]], given: Mapping[str, Array]) -> Arrays:
    """Lists of rows as arrays, without the rows that belong to padding."""
    count = len(next(iter(given.values()))) if given else None
    return {name: np.asarray(rows[:count]) for name, rows in lists.items()}
