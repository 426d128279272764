"""Checkpoint: writes into a snapshot, and reads back, all that a run needs to continue as if it had never stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from netspec.data import Feeder
from netspec.errors import SnapshotError, one_line
from netspec.interchange import save_weights, snapshot_files
from netspec.interchange.solverstate import SolverState, to_state_dict, write_solverstate
from netspec.net.net import Net
from netspec.net.random_state import random_state, set_random_state
from netspec.solver import Solver


class Part(Protocol):
    """A part of a run that has a state."""

    def state_dict(self) -> dict[str, int | Tensor]: ...

    def load_state_dict(self, state: Mapping[str, int | Tensor], /) -> None: ...


@dataclass
class Checkpoint:
    """The parts of a run that change from iteration to iteration."""

    net: Net
    tests: Sequence[Net]
    solver: Solver
    feeder: Feeder
    device: torch.device
    more: dict[str, Part] = field(default_factory=dict)
    """Further parts that a kind of trainer keeps, by name."""

    def save(self, folder: Path, stem: str, info: Mapping[str, Any]) -> Path:
        """Write the two files of a snapshot, which also hold `info`; returns the state file."""
        own_parts = {name: part.state_dict() for name, part in self.more.items()}
        parts = {"solver": self.solver.state_dict(), "data": self.feeder.state(), **own_parts}
        tensors, numbers = separated(parts)
        for name, value in zip(("cpu", "cuda"), random_state(self.device), strict=False):
            tensors[f"random/{name}"] = value
        tensors |= {f"buffer/{name}": value for name, value in self.net.named_buffers()}
        own = list(self.own_of_tests())
        tensors |= {f"test/{i}/{name}": value for i, name, value in own}
        weights = {name: value for _, name, value in reversed(own) if not name.startswith("buffer/")}
        facts = {
            **info,
            **self.circumstances(),
            "iteration": self.solver.iteration,
            "type": self.solver.message.type,
            "numbers": numbers,
        }
        return snapshot_files.save_pair(folder, stem, {**weights, **self.net.weights()}, tensors, facts)

    def own_of_tests(self) -> Iterator[tuple[int, str, Tensor]]:
        """(number of the test net, name, value) of the blobs and buffers that the training net does not have."""
        shared = {id(param.value) for param in self.net.params}
        for i, net in enumerate(self.tests):
            if any(net is earlier for earlier in self.tests[:i]):
                continue
            yield from ((i, p.name, p.value.detach()) for p in net.params if id(p.value) not in shared)
            yield from ((i, f"buffer/{name}", value) for name, value in net.named_buffers())

    def circumstances(self) -> dict[str, Any]:
        """The circumstances under which a resumed run is equal to the bit."""
        return {
            "threads": torch.get_num_threads(), "device": self.device.type, "torch": torch.__version__,
        }  # fmt: skip

    def restore(self, saved: snapshot_files.Snapshot) -> list[str]:
        """Restore weights, solver, data and random numbers from a snapshot; returns remarks on circumstances that have
        changed.

        Raises SnapshotError where the state of a part is missing or not in the form that the part writes.
        """
        try:
            return self._take(saved)
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            RuntimeError,
            OverflowError,
        ) as error:
            text = f"its state cannot be taken up ({type(error).__name__}: {one_line(error)})"
            raise SnapshotError(f"{saved.path}: {text}") from error

    def _take(self, saved: snapshot_files.Snapshot) -> list[str]:
        missing, _ = self.net.load_weights(saved.weights, str(saved.path))
        if missing:
            raise SnapshotError(f"{saved.path}: its weights lack {missing[0]!r}")
        self.solver.load_state_dict(taken("solver", saved), str(saved.path))
        self.feeder.load_state(taken("data", saved))
        for name, part in self.more.items():
            part.load_state_dict(taken(name, saved))
        buffers = dict(self.net.named_buffers())
        for name, value in saved.tensors.items():
            if name.startswith("buffer/") and (own := buffers.get(name.removeprefix("buffer/"))) is not None:
                put(own, value, f"{saved.path}: {name}")
        for i, name, mine in self.own_of_tests():
            theirs = saved.tensors.get(f"test/{i}/{name}", mine)
            put(mine, theirs, f"{saved.path}: {name} of test net {i}")
        kinds = ["cpu"] + (["cuda"] if self.device.type == "cuda" and "random/cuda" in saved.tensors else [])
        set_random_state(self.device, [saved.tensors[f"random/{kind}"] for kind in kinds])
        return [
            f"{fact} was {saved.info[fact]}, now {current}: equal to rounding, not to the bit"
            for fact, current in self.circumstances().items()
            if saved.info[fact] != current
        ]

    def save_for_caffe(self, ours: Path, hdf5: bool, missing: bool = False) -> list[str]:
        """Write the snapshot in `ours` as Caffe's two files beside it, as snapshot_format of a solver asks.

        missing: write only the files that do not exist, as after a kill between the two. Returns the names written.
        """
        ending = ".h5" if hdf5 else ""
        stem = str(ours).removesuffix(snapshot_files.STATE)
        weights, state = f"{stem}.caffemodel{ending}", f"{stem}.solverstate{ending}"
        wanted = [name for name in (weights, state) if not (missing and os.path.exists(name))]
        if weights in wanted:
            save_weights(self.net, weights)
        if state in wanted:
            write_solverstate(self.solver, state, weights)
        return wanted

    def take_up(self, state: SolverState) -> int:
        """Restore history, iteration and place in the data from a solver state of Caffe; returns the number of batches
        passed over.
        """
        self.solver.load_state_dict(to_state_dict(state, self.solver), state.file)
        batches = int(state.iteration * self.solver.message.iter_size)
        self.feeder.skip(batches)
        return batches


def separated(parts: Mapping[str, Mapping[str, int | Tensor]]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The tensors and the numbers of several states; each name begins with `<part>/`."""
    entries = {f"{part}/{key}": value for part, state in parts.items() for key, value in state.items()}
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    return tensors, {key: int(value) for key, value in entries.items() if not isinstance(value, Tensor)}


def taken(part: str, saved: snapshot_files.Snapshot) -> dict[str, int | Tensor]:
    """The state of one part of a snapshot: the inverse of `separated`."""
    entries: dict[str, int | Tensor] = {**saved.tensors, **saved.info["numbers"]}
    return {key[len(part) + 1 :]: value for key, value in entries.items() if key.startswith(part + "/")}


def put(own: Tensor, value: Tensor, what: str) -> None:
    """Copy a tensor of a snapshot into place; SnapshotError where the shapes differ."""
    if value.shape != own.shape:
        raise SnapshotError(f"{what} has shape {tuple(value.shape)}, the net's is {tuple(own.shape)}")
    own.copy_(value)
