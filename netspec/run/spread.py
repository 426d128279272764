"""Spread: one run over several processes (`torchrun --nproc-per-node N -m netspec train SOLVER`).

WHOLE, the default: the batch is what the files say, whatever the number of processes; each has an equal part of it, and
rows of all parts are treated as one batch. Learning rates stay as they are written. LOCAL, Caffe's meaning of
`-gpu 0,1`: each process takes the files' batch, so that an update sees N batches; gradients are averaged, batch
statistics are each process's own, and learning rates stay as they are written here too: a base_lr for N times the
batch is the user's to choose.
Process 0 writes the files and speaks.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from netspec.data import Feeder
from netspec.errors import NetspecError, SpecError
from netspec.layers import ranks
from netspec.layers.base import as_tuple, registry
from netspec.layers.ranks import ALONE, Ranks
from netspec.net.net import Net
from netspec.net.random_state import random_state, set_random_state
from netspec.schema.spec import NetSpec

WHOLE, LOCAL = "whole", "local"
T = TypeVar("T")
LOST = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "socket",
    "peer",
    "nccl",
)
"""Words of the errors with which a collective operation ends when a process is gone."""
ALIVE = 2.0
"""Seconds in which the processes that are left tell each other so."""


class Lost(NetspecError):
    """Other processes of the run are gone; `said` tells whether one of them gave its reason."""

    said = False


def launched() -> bool:
    """Whether torchrun (or what sets its variables) started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def own_device(device: str | torch.device | None, solver: Any) -> str | torch.device | None:
    """The device of this process: of `cuda` the GPU of its number on its machine; NetspecError where there is none."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None and solver.solver_mode == solver.GPU and torch.cuda.is_available():
        device = "cuda"
    if device is None or not str(device).startswith("cuda"):
        return device
    if str(device) != "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise NetspecError(f"device {device}: is one for several processes; --device cuda gives each its own")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local >= there:
        raise NetspecError(f"process {local} needs device cuda:{local}: there are {there} CUDA devices here")
    return f"cuda:{local}"


@contextmanager
def joined(meaning: str, device: str | torch.device | None) -> Iterator[Ranks]:
    """The processes that torchrun started, as the ranks that this one computes among.

    An error is said by one process: the first to raise it. Where processes are gone, one of those left says which.
    """
    on_gpu = str(device or "").startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(torch.device(str(device)))
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(minutes=30))
    now = Ranks(dist.get_rank(), dist.get_world_size(), meaning == WHOLE)
    store = dist.distributed_c10d._get_default_store()
    try:
        with ranks.among(now):
            yield now
    except (Exception, KeyboardInterrupt) as error:
        said = spoken(error, now, store)
        if said is error:
            raise
        raise said from None
    finally:
        with suppress(RuntimeError):  # of peers that are gone
            dist.destroy_process_group()


def spoken(error: BaseException, now: Ranks, store: Any) -> BaseException:
    """What this process is to raise for an error: itself, where it is the one to say it, else a silent end."""
    if isinstance(error, KeyboardInterrupt):
        return error if now.leads else SystemExit(130)
    text = str(error)
    if isinstance(error, RuntimeError) and any(word in text.lower() for word in LOST):
        return lost(now, store)
    try:
        store.set(f"said/{now.rank}", text)
        if now.rank:
            time.sleep(ALIVE / 4)  # the first process speaks for all that have the same to say
            others = [rank for rank in range(now.rank) if store.check([f"said/{rank}"])]
            if any(store.get(f"said/{rank}").decode() == text for rank in others):
                return SystemExit(2)
        else:
            time.sleep(ALIVE / 2)  # it keeps the store that the others look into
    except RuntimeError:  # the store is gone with its process
        return error
    if now.rank and isinstance(error, NetspecError):
        return NetspecError(f"process {now.rank} of {now.world}: {text}")
    return error


def lost(now: Ranks, store: Any) -> BaseException:
    """The end of a process that others have left: the first of those that remain says who is gone."""
    try:
        store.set(f"alive/{now.rank}", "1")
        time.sleep(ALIVE)
        alive = [rank for rank in range(now.world) if store.check([f"alive/{rank}"])]
        said = any(store.check([f"said/{rank}"]) for rank in range(now.world))
    except RuntimeError:
        return Lost("process 0 and the meeting place of the processes are gone: the run ends")
    gone = [rank for rank in range(now.world) if rank not in alive]
    if said or now.rank != alive[0]:
        return SystemExit(3)
    who = f"process {gone[0]}" if len(gone) == 1 else f"processes {', '.join(map(str, gone))}"
    if not gone:
        return Lost(
            "the connection between the processes broke: the run ends; --resume goes on from its last snapshot"
        )
    return Lost(f"{who} of {now.world} is gone: the run ends; --resume goes on from its last snapshot")


@contextmanager
def together(device: str | torch.device | None) -> Iterator[tuple[Ranks, str | torch.device | None]]:
    """The processes that torchrun started for a command that asks or scores, each for itself, and this one's device.

    Without torchrun this process is alone.
    """
    if not launched() or dist.is_initialized():
        yield ranks.current(), device
        return
    local = os.environ.get("LOCAL_RANK", "0")
    if (device is None or str(device) == "cuda") and torch.cuda.is_available():
        device = f"cuda:{local}"
    with joined(LOCAL, device) as now:
        yield now, device


# Agreement


def from_lead(value: T) -> T:
    """What process 0 has; every process must ask."""
    now = ranks.current()
    if now.world == 1:
        return value
    held = [value if now.leads else None]
    dist.broadcast_object_list(held, 0, device=torch.device("cpu"))
    return held[0]  # type: ignore[return-value]


def from_all(value: T) -> list[T]:
    """What each process has, in their order; every process must ask."""
    now = ranks.current()
    if now.world == 1:
        return [value]
    values: list[Any] = [None] * now.world
    dist.all_gather_object(values, value)
    return values


def any_of(*wanted: bool) -> tuple[bool, ...]:
    """Whether any process wants each of these."""
    if ranks.current().world == 1:
        return wanted
    flags = torch.tensor([int(one) for one in wanted])
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in flags.tolist())


def average_(values: Sequence[Tensor]) -> None:
    """Average tensors over the processes, in place and in one exchange."""
    now = ranks.current()
    if now.world == 1 or not values:
        return
    flat = torch.cat([value.detach().flatten() for value in values])
    dist.all_reduce(flat)
    for value, part in zip(values, (flat / now.world).split([v.numel() for v in values]), strict=True):  # type: ignore[no-untyped-call]
        value.detach().copy_(part.view(value.shape))


def average_gradients(net: Net) -> None:
    """Average the gradients of a walk that DistributedDataParallel did not see; one that is not there counts as 0."""
    if ranks.current().world == 1:
        return
    learned = [param.value for param in net.params if param.value.requires_grad]
    for value in learned:
        if value.grad is None:
            value.grad = torch.zeros_like(value)
    average_([value.grad for value in learned if value.grad is not None])


def refuse_different(texts: Mapping[str, str]) -> None:
    """Raise NetspecError where a process has read something else than process 0; names it."""
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    sums_of_all = from_all(sums)
    for rank, theirs in enumerate(sums_of_all):
        for name in sorted({*sums_of_all[0], *theirs}):
            if sums_of_all[0].get(name) != theirs.get(name):
                which = f"process {rank} of {len(sums_of_all)}"
                raise NetspecError(f"{which} has another {name} than process 0: all must see the same files")


# The batch


def divided(spec: NetSpec, parts: int) -> NetSpec:
    """A net whose data layers give one of so many equal parts of a batch.

    Raises SpecError, at the field, where a batch cannot be divided so.
    """
    return (
        replace(spec, layers=tuple(divided_layer(layer, parts) for layer in spec.layers))
        if parts > 1
        else spec
    )


def divided_layer(layer: Any, parts: int) -> Any:
    kind = registry.get(layer.type)
    if layer.bottoms or kind is None or not (kind.is_source or kind.draws_batches):
        return layer
    message = type(layer.message)()
    message.CopyFrom(layer.message)
    for field, _ in message.ListFields():
        if field.message_type is None or field.is_repeated:
            continue
        names = {inner.name for inner in field.message_type.fields}
        for name in names & {"batch_size", "shape", "num"}:
            divide(layer, getattr(message, field.name), name, parts, (field.name, name))
    return replace(layer, message=message)


def divide(layer: Any, owner: Any, name: str, parts: int, path: tuple[str, ...]) -> None:
    """Divide a batch's size where a field holds one: batch_size, the first dim of a shape, num."""

    def part(size: int, *where: str | int) -> int:
        if size % parts:
            text = f"a batch of {size} cannot be divided among {parts} processes"
            raise SpecError([layer.problem(text, *path, *where)])
        return size // parts

    if name == "batch_size":
        owner.batch_size = part(owner.batch_size)
    elif name == "shape":
        shapes = (
            owner.shape if isinstance(owner.shape, Sequence) or hasattr(owner.shape, "add") else [owner.shape]
        )
        for i, shape in enumerate(shapes):
            if shape.dim:
                shape.dim[0] = part(shape.dim[0], i)
    elif name == "num" and hasattr(owner.num, "append"):
        owner.num[:] = [part(size, i) for i, size in enumerate(owner.num)]


class Objective(nn.Module):
    """A net's objective as one module: what DistributedDataParallel watches, so that it awaits learned blobs alone."""

    def __init__(self, net: Net):
        super().__init__()
        self.net = net

    def forward(self, stage: str | None, *batch: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        tops = self.net(*batch)
        return self.net.objective(tops, stage), tuple(top.detach() for top in tops)


class Averaging:
    """Gradients averaged over the processes while the backward pass goes on."""

    def __init__(self, net: Net, device: torch.device, changing: bool, averages: bool = True):
        """changing: which blobs a loss reaches changes from step to step. averages: False where others do it."""
        from torch.nn.parallel import DistributedDataParallel

        self.module = Objective(net)
        self.spread: Any = self.module
        if averages and ranks.current().world > 1 and any(value.requires_grad for value in net.parameters()):
            known = inspect.signature(DistributedDataParallel.__init__).parameters
            buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            options: dict[str, Any] = {buffers: False, "find_unused_parameters": changing}
            if device.type == "cuda":
                options["device_ids"] = [device.index]
            self.spread = DistributedDataParallel(self.module, **options)

    def __call__(self, stage: str | None, *batch: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(the objective of a batch, the tops without gradient)"""
        objective: tuple[Tensor, tuple[Tensor, ...]] = self.spread(stage, *batch)
        return objective

    def holding(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients of several passes are exchanged in the last."""
        held: AbstractContextManager[Any] = (
            nullcontext() if last or self.spread is self.module else self.spread.no_sync()
        )
        return held


# Does the net stand being divided?


def refuse_looks_across(net: Net, batch: Sequence[Tensor]) -> None:
    """Raise SpecError where the loss of a batch is not the mean of the losses of its parts.

    batch: this process's part. Weights, statistics and random numbers stay as they were. A batch whose loss is not
    finite, or that no layer can take as a whole, says nothing.
    """
    now, device = ranks.current(), batch[0].device if batch else torch.device("cpu")
    if not now.split or not net.graph.losses:
        return
    before, kept = (
        random_state(device),
        [(v, v.detach().clone()) for v in (*net.parameters(), *net.buffers())],
    )

    def restore() -> None:
        with torch.no_grad():
            for value, copy in kept:
                value.copy_(copy)
        set_random_state(device, before)

    parts: list[list[tuple[Tensor, bool]]] = []
    """Of each layer its tops without bottoms, and whether they are rows of this process."""

    def part(layer: Any, *bottoms: Tensor) -> tuple[Tensor, ...]:
        tops = as_tuple(layer(*bottoms))
        rows = not len(layer.blobs)
        parts.append([] if bottoms else [(top, rows and top.dim() > 0) for top in tops])
        return tops

    with torch.no_grad():
        of_part = net.objective(net.run(part, *batch))
        restore()
        drawn = iter([[ranks.gathered(top) if here else top for top, here in tops] for tops in parts])

        def whole(layer: Any, *bottoms: Tensor) -> tuple[Tensor, ...]:
            own = next(drawn)
            if bottoms:
                return as_tuple(layer(*bottoms))
            with ranks.among(now):
                layer()  # for its random numbers
            return tuple(own)

        rows = [ranks.gathered(top) for top in batch]
        try:
            with ranks.among(ALONE):
                of_whole = net.objective(net.run(whole, *rows))
        except (RuntimeError, IndexError, ValueError):  # a layer for batches of this size alone
            of_whole = torch.full((), torch.nan)
        restore()
    shared, one = float(ranks.mean(of_part.float())), float(from_lead(of_whole.float().cpu()))
    if abs(shared - one) > 1e-3 * max(abs(one), 1e-3):
        raise SpecError(
            f"the first batch has loss {one:.6g} as one and {shared:.6g} in {now.world} parts: a layer looks across "
            "the images of a batch, or a loss is a sum over them; --local gives each process a batch of its own"
        )


class InTurn:
    """A net and its batches for one who takes them in turn, batch k computed by process k modulo their number."""

    def __init__(self, net: Net, feeder: Feeder, names: Sequence[str], batches: int):
        self.net, self.feeder, self.names, self.batches = net, feeder, names, batches
        self.coming = self.values()

    def values(self) -> Iterator[dict[str, Tensor]]:
        """The blobs of these names of each batch, in order; every process must go through all."""
        now = ranks.current()
        self.feeder.deal(now.rank, now.world, strided=False)
        for begin in range(0, self.batches, now.world):
            mine = {}
            if begin + now.rank < self.batches:
                with ranks.among(ALONE), torch.no_grad():
                    blobs = self.net.blobs(*self.feeder.next())
                mine = {name: blobs[name].cpu() for name in self.names}
            yield from (one for one in from_all(mine) if one)

    def next(self) -> tuple[Tensor, ...]:
        """Nothing: the batch is taken with its blobs."""
        return ()

    def blobs(self, *batch: Tensor) -> dict[str, Tensor]:
        """The blobs of the next batch."""
        return next(self.coming)


class Follower:
    """The run folder as the processes see it that do not write."""

    def __init__(self, path: Path, lines: list[dict[str, Any]]):
        self.path, self.snapshots = path, path / "snapshots"
        self.metrics = self.lock = self
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self.lines = lines

    def write(self, kind: str, iteration: int, **values: Any) -> None:
        """Nothing: process 0 writes."""

    def read(self) -> list[dict[str, Any]]:
        """The lines that were there when the run began."""
        return self.lines

    def release(self) -> None:
        """Nothing is held."""
