"""Source: where the tops of a data layer come from. Feeder: all sources of a net, joined and read ahead.

The samples of a Stream form one endless stream, epoch after epoch, and sample number `position` of the stream
is a function of the seed and the position alone. A batch is a run of positions, the state is the next
position. Of each run of world * batch_size positions process `rank` of `world` takes every world-th, as Caffe's
solvers do, or (not `strided`) the rank-th batch_size of them, so that the ranks' batches in their order are one batch.
The state is the same on all ranks, and holds for any number of them.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from netspec.data.draws import derive
from netspec.data.files.idx import Array
from netspec.data.pinned import Pinned
from netspec.errors import DataError, SpecError
from netspec.schema.spec import LayerSpec

Shape = tuple[int, ...]
State = dict[str, "int | Tensor"]
"""The state that decides which batches come next: integers and tensors, so that a snapshot can hold it."""


WORKERS, AHEAD = 4, 2
"""Most threads that decode unless more are asked for; batches that may lie ready or under way beyond one for each."""


class Source(Protocol):
    """The data of one source layer: endless batches, one float32 CPU tensor per top, of exactly `shapes`."""

    shapes: list[Shape]

    def next(self) -> tuple[Tensor, ...]:
        """The next batch."""

    def state(self) -> State:
        """Where the stream stands after the last `next`."""

    def load_state(self, state: Mapping[str, int | Tensor]) -> None:
        """Continue where `state` was taken: `next` then gives the same batches bit for bit."""

    def close(self) -> None:
        """Release files, threads and processes."""


class Stream(ABC):
    """A Source whose samples are functions of the seed and their position: all sources of this package."""

    shapes: list[Shape]
    samples: int | None = None
    """Number of different samples, where that is known."""
    ahead: bool = True
    """Whether batches may be made before they are asked for, on another thread."""
    parallel: bool = False
    """Whether several threads may `finish` batches at once; `take` is always called by one, in order."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.position = 0
        self.rank, self.world = 0, 1
        self.strided = True
        self.notes: list[str] = []
        """Notes on the data for the run's record, such as a stand-in."""

    @abstractmethod
    def make(self, positions: Array) -> tuple[Tensor, ...]:
        """The samples at the given places (int64, ascending) of the stream."""

    def take(self, positions: Array) -> Any:
        """What `finish` needs to make these samples, as far as it is read in order; little work beside that."""
        return positions

    def finish(self, taken: Any) -> tuple[Tensor, ...]:
        """The samples of what `take` gave."""
        return self.make(taken)

    def advance(self) -> Array:
        """The positions of the next batch; the stream stands behind them then."""
        first, rows = self.position, np.arange(self.batch_size)
        self.position += self.batch_size * self.world
        if self.strided:
            return first + rows * self.world + self.rank
        return first + self.rank * self.batch_size + rows

    def held(self, top: int) -> Array | None:
        """Every value that a top will have, where that is known beforehand, as for labels; None for others."""
        return None

    def next(self) -> tuple[Tensor, ...]:
        """The next batch."""
        return self.make(self.advance())

    def state(self) -> State:
        """The next position that no rank has taken."""
        return {"position": self.position}

    def load_state(self, state: Mapping[str, int | Tensor]) -> None:
        """Continue at the saved position."""
        self.position = int(state["position"])

    def close(self) -> None:  # noqa: B027 - most streams hold nothing
        """Release files."""


class Order:
    """The order of n samples, epoch after epoch: the stored order, or a new permutation for each (seed, epoch)."""

    def __init__(self, n: int, shuffle: bool, seed: int):
        self.n, self.shuffle, self.seed = n, shuffle, seed
        self._known: dict[int, Array] = {}

    def permutation(self, epoch: int) -> Array:
        if epoch not in self._known:
            generator = np.random.Generator(np.random.PCG64(derive(self.seed, "epoch", epoch)))
            for old in [known for known in self._known if abs(known - epoch) > 1]:
                del self._known[old]
            self._known[epoch] = generator.permutation(self.n)
        return self._known[epoch]

    def __call__(self, positions: Array) -> Array:
        """The number of the sample at each position of the stream."""
        epochs, places = np.divmod(positions, self.n)
        if not self.shuffle:
            return places
        out = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self.permutation(int(epoch))[places[here]]
        return out


def failure(spec: LayerSpec, message: str, *path: str | int) -> DataError:
    """A DataError (the data is at fault) at field `path` of a layer; its text begins with place, name and type, once,
    also where `message` has them.
    """
    own = message.rpartition(f"layer {spec.name!r} ({spec.type}): ")[2]
    return DataError(str(spec.problem(own, *path)))


def mistake(spec: LayerSpec, message: str, *path: str | int) -> SpecError:
    """A SpecError (the spec is at fault) at field `path` of a layer."""
    return SpecError([spec.problem(message, *path)])


class Wired(Protocol):
    """What a feeder needs of a net: its graph, and one layer object per step."""

    @property
    def graph(self) -> Any: ...

    @property
    def made(self) -> Sequence[Any]: ...


class Feeder:
    """The sources of a net side by side: `next()` gives one tensor for each of the graph's inputs, in their
    order.

    A batch is made ahead on a thread while the last one is used, where every source allows it; where all are
    `parallel`, up to AHEAD batches more than there are workers, by so many threads. Which batches come, and in which
    order, depends on neither. The state is that of the batches handed out: what was made ahead is made again after a
    resume. An error comes with the batch that it belongs to.

    workers: threads that decode; None: one for each processor that the program may use, WORKERS at most.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        device: str | torch.device = "cpu",
        ahead: bool = True,
        workers: int | None = None,
    ):
        self.sources = list(sources)
        self.device = torch.device(device)
        self.shapes = [shape for source in self.sources for shape in source.shapes]
        self.notes = [note for source in self.sources for note in getattr(source, "notes", ())]
        self.ahead = (
            ahead and bool(sources) and all(getattr(source, "ahead", False) for source in self.sources)
        )
        self.held = [
            source.held(i) if isinstance(source, Stream) else None
            for source in self.sources
            for i in range(len(source.shapes))
        ]
        """For each input, all values that it will have, where its source knows them."""
        self._state = self._current()
        self._buffers: list[Pinned] = []
        self.parallel = self.ahead and all(getattr(source, "parallel", False) for source in self.sources)
        self.workers = (workers or min(WORKERS, usable_processors())) if self.parallel else 1
        self._reader: ThreadPoolExecutor | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._coming: deque[Future[tuple[tuple[Tensor, ...], State]]] = deque()

    def whole(self, batch: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The batch; inputs whose source knows all their values hold these instead, in any order."""
        pairs = zip(batch, self.held, strict=True)
        return tuple(value if held is None else torch.from_numpy(np.array(held)) for value, held in pairs)

    def next(self) -> tuple[Tensor, ...]:
        """The next batch of every source, on the feeder's device."""
        if not self.ahead:
            batch, self._state = self._produce()
        else:
            if not self._coming:
                self._order()
            batch, self._state = self._coming.popleft().result()
            while len(self._coming) < (self.workers + AHEAD if self.parallel else 1):
                self._order()
        if self.device.type != "cuda":
            return tuple(top.to(self.device) for top in batch)
        self._buffers = self._buffers or [Pinned() for _ in batch]
        pairs = zip(self._buffers, batch, strict=True)
        return tuple(top if top.is_cuda else one.send(top, self.device) for one, top in pairs)

    def state(self) -> State:
        """The states of all sources after the last batch handed out; keys begin with the source's number."""
        return dict(self._state)

    def load_state(self, state: Mapping[str, int | Tensor]) -> None:
        """Give every source its part of `state`; DataError when it is of a net with other data layers."""
        self._drain()
        if set(state) != set(self._state):
            raise DataError(
                f"the saved data state has entries {sorted(state)}, "
                f"the data layers of this net {sorted(self._state)}"
            )
        for i, source in enumerate(self.sources):
            lead = f"{i}."
            source.load_state(
                {key[len(lead) :]: value for key, value in state.items() if key.startswith(lead)}
            )
        self._state = self._current()

    def deal(self, rank: int, world: int, strided: bool = True) -> None:
        """From now on give the batches of process `rank` of `world`, see Stream."""
        self._drain()
        self.load_state(self._state)
        for source in self.sources:
            if isinstance(source, Stream):
                source.rank, source.world, source.strided = rank, world, strided
        self._state = self._current()

    def skip(self, batches: int) -> None:
        """Pass over `batches` batches, without making them where a source is a Stream."""
        if self._coming:  # what was made ahead is not passed over twice
            self.load_state(self._state)
        for source in self.sources:
            if isinstance(source, Stream):
                source.position += batches * source.batch_size * source.world
            else:
                for _ in range(batches):
                    source.next()
        self._state = self._current()

    def close(self) -> None:
        """Stop the threads and close every source."""
        self._drain()
        for pool in (self._reader, self._pool):
            if pool is not None:
                pool.shutdown()
        self._reader = self._pool = None
        for source in self.sources:
            source.close()

    def __enter__(self) -> Feeder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _order(self) -> None:
        """Have one more batch made."""
        self._pool = self._pool or ThreadPoolExecutor(self.workers, "netspec-data")
        if not self.parallel:
            self._coming.append(self._pool.submit(self._produce))
            return
        self._reader = self._reader or ThreadPoolExecutor(1, "netspec-read")
        streams = [source for source in self.sources if isinstance(source, Stream)]
        positions = [stream.advance() for stream in streams]
        read = self._reader.submit(
            lambda: [stream.take(places) for stream, places in zip(streams, positions, strict=True)]
        )
        self._coming.append(self._pool.submit(finished, streams, read, self._current()))

    def _produce(self) -> tuple[tuple[Tensor, ...], State]:
        batch = tuple(top for source in self.sources for top in source.next())
        return batch, self._current()

    def _current(self) -> State:
        return {
            f"{i}.{key}": value
            for i, source in enumerate(self.sources)
            for key, value in source.state().items()
        }

    def _drain(self) -> None:
        """Wait for the batches under way and forget them, their errors included: they can be made again."""
        for coming in self._coming:
            if not coming.cancel():
                coming.exception()
        self._coming.clear()
        if self._reader is not None:  # what is still being read for a batch that was called off
            self._reader.submit(int).result()


def finished(
    streams: Sequence[Stream], read: Future[list[Any]], state: State
) -> tuple[tuple[Tensor, ...], State]:
    """A batch of what was read for it, and the state behind it."""
    pairs = zip(streams, read.result(), strict=True)
    return tuple(top for stream, taken in pairs for top in stream.finish(taken)), state


def usable_processors() -> int:
    """Processors that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def feeder(
    net: Wired,
    seed: int = 0,
    *,
    device: str | torch.device = "cpu",
    given: Mapping[str, Source] | None = None,
    rank: int = 0,
    world: int = 1,
    strided: bool = True,
    ahead: bool = True,
    workers: int | None = None,
) -> Feeder:
    """The Feeder of a built net: each source layer's own source, or the one in `given` under the layer's
    name.

    seed: of shuffling, crops, mirroring and masks; each layer derives its own from it, its name and the
    phase. rank, world, strided: see Stream. workers: threads that decode pictures; which batches come does not depend
    on it.
    Raises DataError when data is missing or damaged, or when a layer (Input) has none and `given` has
    none for it.
    """
    sources: list[Source] = []
    for step, layer in zip(net.graph.steps, net.made, strict=True):
        if not step.kind.is_source:
            continue
        if given and step.layer.name in given:
            source: Source = given[step.layer.name]
        elif hasattr(layer, "source"):
            source = layer.source(derive(seed, step.layer.name, net.graph.spec.phase))
        else:
            raise failure(step.layer, "has no data of its own; give a source for it, or use a data layer")
        if isinstance(source, Stream):
            source.rank, source.world, source.strided = rank, world, strided
        sources.append(source)
    if torch.device(device).type == "cuda":
        from netspec.data.resident import settle_on  # which knows the sources, as this file must not

        for source in sources:
            if settle_on(source, torch.device(device)):
                getattr(source, "notes", []).append("the data set lies on the device")
    return Feeder(sources, device, ahead, workers)
