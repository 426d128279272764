"""Checkpoint: all that a resumed run needs to go on as if never stopped, into a snapshot and out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from netspec import snapshot
from netspec.data import Feeder
from netspec.errors import SnapshotError
from netspec.interchange import save_weights
from netspec.interchange.solverstate import SolverState, to_state_dict, write_solverstate
from netspec.net import Net
from netspec.solver import Solver
from netspec.state import random_state, separated, set_random_state, taken


@dataclass
class Checkpoint:
    """The parts of a run that change from iteration to iteration."""

    net: Net
    tests: Sequence[Net]
    solver: Solver
    feeder: Feeder
    device: torch.device

    def save(self, folder: Path, stem: str, info: Mapping[str, Any]) -> Path:
        """Write the two files of a snapshot, `info` among what they hold; gives the state file."""
        tensors, numbers = separated({"solver": self.solver.state_dict(), "data": self.feeder.state()})
        for name, value in zip(("cpu", "cuda"), random_state(self.device), strict=False):
            tensors[f"random/{name}"] = value
        tensors |= {f"buffer/{name}": value for name, value in self.net.named_buffers()}
        facts = {
            **info,
            **self.circumstances(),
            "iteration": self.solver.iteration,
            "type": self.solver.message.type,
            "numbers": numbers,
        }
        return snapshot.save_pair(folder, stem, self.net.weights(), tensors, facts)

    def circumstances(self) -> dict[str, Any]:
        """What must be as it was for a resumed run to be equal to the bit."""
        return {
            "threads": torch.get_num_threads(), "device": self.device.type, "torch": torch.__version__,
        }  # fmt: skip

    def restore(self, saved: snapshot.Snapshot) -> list[str]:
        """Take up a snapshot: weights, solver, data, random numbers; gives what is not as it was, in words."""
        missing, _ = self.net.load_weights(saved.weights, str(saved.path))
        if missing:
            raise SnapshotError(f"{saved.path}: its weights lack {missing[0]!r}")
        self.solver.load_state_dict(taken("solver", saved), str(saved.path))
        self.feeder.load_state(taken("data", saved))
        buffers = dict(self.net.named_buffers())
        for name, value in saved.tensors.items():
            if name.startswith("buffer/") and (own := buffers.get(name.removeprefix("buffer/"))) is not None:
                own.copy_(value)
        kinds = ["cpu"] + (["cuda"] if self.device.type == "cuda" and "random/cuda" in saved.tensors else [])
        set_random_state(self.device, [saved.tensors[f"random/{kind}"] for kind in kinds])
        return [
            f"{fact} was {saved.info[fact]}, now {current}: equal to rounding, not to the bit"
            for fact, current in self.circumstances().items()
            if saved.info[fact] != current
        ]

    def save_for_caffe(self, ours: Path, hdf5: bool) -> None:
        """The snapshot in `ours` as Caffe's two files, beside it; a solver asks for it by snapshot_format."""
        ending = ".h5" if hdf5 else ""
        stem = str(ours).removesuffix(snapshot.STATE)
        save_weights(self.net, f"{stem}.caffemodel{ending}")
        write_solverstate(self.solver, f"{stem}.solverstate{ending}", f"{stem}.caffemodel{ending}")

    def take_up(self, state: SolverState) -> int:
        """History and iteration of a solver of Caffe's own, and its place in the data; gives the batches passed."""
        self.solver.load_state_dict(to_state_dict(state, self.solver), state.file)
        batches = int(state.iteration * self.solver.message.iter_size)
        self.feeder.skip(batches)
        return batches
