"""Memory: one array in main memory and, where a GPU computes, on it; NetBlob: the Blob of a running net."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from netspec.layers.blob import Array, Blob

CPU = torch.device("cpu")


class Memory:
    """Values that numpy and torch share. On a GPU there are two copies, and the older is refreshed when asked
    for.

    As with Caffe's SyncedMemory, whoever asks for the array may write into it; so the array counts as the newer copy
    until a layer writes.
    """

    def __init__(self, host: Tensor):
        """`host` is a tensor in main memory, shared and not copied."""
        self.host = host.detach()
        self.remote: Tensor | None = None
        self.newer = "both"
        self.seen = False
        """Whether the program has been given the array, which then must stay the memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.host.shape)

    def array(self) -> Array:
        """The values as an array that may be written."""
        self.seen = True
        return self.fresh().numpy()

    def fresh(self) -> Tensor:
        """The values in main memory, which from now on are the newer ones."""
        if self.newer == "remote" and self.remote is not None:
            self.host.copy_(self.remote)
        self.newer = "both" if self.remote is None else "host"
        return self.host

    def tensor(self, device: torch.device) -> Tensor:
        """The values on `device`: the memory itself, under a version counter of its own."""
        if device == CPU:
            return self.fresh().data
        if self.remote is None or self.remote.device != device:
            self.fresh()
            self.remote = torch.empty_like(self.host, device=device)
            self.newer = "host"
        if self.newer == "host":
            self.remote.copy_(self.host)
            self.newer = "both"
        return self.remote.data

    def put(self, value: Tensor) -> None:
        """Take over the values of a tensor of the same shape, on the device where it is."""
        if value.device == CPU:
            self.host.copy_(value)
            self.newer = "both" if self.remote is None else "host"
            return
        if self.remote is None or self.remote.device != value.device:
            self.remote = torch.empty_like(value)
        self.remote.copy_(value)
        self.newer = "remote"

    def take(self, value: Tensor, others: Sequence[Tensor]) -> None:
        """As `put`, without a copy where that makes no difference: the tensor itself becomes the memory, unless the
        program holds the array, or the tensor shares memory with `others` or is a part of a larger one.
        """
        if self.seen or value.device != CPU or self.remote is not None or not value.is_contiguous():
            self.put(value)
            return
        storage = value.untyped_storage()
        place = storage.data_ptr()
        shared = any(other.untyped_storage().data_ptr() == place for other in others)
        if shared or value.dtype != self.host.dtype or storage.nbytes() != value.nbytes:
            self.put(value)
        else:
            self.host = value.data

    def clear(self) -> None:
        """Set all values to 0, wherever they are."""
        for copy in (self.host, self.remote):
            if copy is not None:
                copy.zero_()
        self.newer = "both"

    def changed(self, device: torch.device) -> None:
        """Note that somebody wrote into the result of `tensor(device)`."""
        self.newer = "host" if device == CPU and self.remote is not None else "both"
        if device != CPU:
            self.newer = "remote"

    def viewed(self, shape: tuple[int, ...]) -> Memory:
        """The same values in another shape."""
        other = Memory(self.host.view(shape))
        other.remote = None if self.remote is None else self.remote.view(shape)
        other.newer, other.seen = self.newer, self.seen
        return other


def zeros(shape: tuple[int, ...]) -> Memory:
    """Fresh memory, all 0."""
    return Memory(torch.zeros(shape))


class NetBlob(Blob):
    """A blob of a net: `data` and `diff` are the very memory that layers read and write, and keep being it.

    The first dimension of `data.shape` and so on follow `reshape`; the net takes a changed shape up in
    `net.reshape()` or the next forward.
    """

    def __init__(self, memory: Memory, name: str = ""):
        self.name = name
        self.values = memory
        self._gradient: Memory | None = None

    @property
    def gradient(self) -> Memory:
        """The memory behind `diff`."""
        if self._gradient is None or self._gradient.shape != self.shape:
            self._gradient = zeros(self.shape)
        return self._gradient

    @property
    def data(self) -> Array:
        """The values."""
        return self.values.array()

    @property
    def diff(self) -> Array:
        """The gradient."""
        return self.gradient.array()

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of all axes."""
        return self.values.shape

    @property
    def count(self) -> int:
        """How many values there are."""
        return prod(self.shape)

    def reshape(self, *dims: int) -> None:
        """Take another shape. Values stay when their number does, else all become 0. ValueError for negative
        sizes.
        """
        shape = tuple(int(size) for size in dims)
        if any(size < 0 for size in shape):
            raise ValueError(f"a blob cannot have the shape {shape}")
        if shape == self.shape:
            return
        if prod(shape) == self.count:
            self.values = self.values.viewed(shape)
            self._gradient = None if self._gradient is None else self._gradient.viewed(shape)
        else:
            self.values, self._gradient = zeros(shape), None

    def put(self, value: Tensor) -> None:
        """Copy values and shape of a tensor."""
        self.reshape(*value.shape)
        self.values.put(value)

    def take(self, value: Tensor, others: Sequence[Tensor]) -> None:
        """Take over what a layer computed, values and shape; `others` are tensors that it may share memory with."""
        self.reshape(*value.shape)
        self.values.take(value, others)

    def follow(self, other: NetBlob) -> None:
        """Share the other blob's values, present and future; gradients stay separate."""
        self.values = other.values

    def hold(self, data: Array, diff: Array | None = None) -> None:
        """Become a view of other arrays, with their shape."""
        self.values = Memory(torch.from_numpy(np.ascontiguousarray(data, np.float32)))
        self._gradient = None if diff is None else Memory(torch.from_numpy(diff))
