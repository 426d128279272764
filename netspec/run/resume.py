"""Beginning of a run: a new start, a snapshot of ours, or a solver state of Caffe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from netspec import schema
from netspec.errors import NetspecError
from netspec.interchange import snapshot_files
from netspec.interchange.snapshot_files import Snapshot, run_folder_of
from netspec.interchange.solverstate import SUFFIXES, SolverState, read_solverstate
from netspec.run.settings import changes


@dataclass(frozen=True)
class Beginning:
    """What a run continues from, and its seed."""

    seed: int
    saved: Snapshot | None = None
    foreign: SolverState | None = None
    """A solver state of Caffe."""
    refused: tuple[str, ...] = ()
    """Why newer snapshots than `saved` were passed over."""
    picked: bool = False
    """Whether the user named the file of `saved`, which may be older than the newest snapshot."""

    @property
    def resumes(self) -> bool:
        """Whether weights and solver state come from an earlier run."""
        return self.saved is not None or self.foreign is not None

    def own_folder(self, out: str | Path | None) -> Path | None:
        """The folder in which a resumed run continues; None where the run gets a new folder."""
        own = run_folder_of(self.saved.path) if self.saved is not None else None
        return own if own and (out is None or Path(out).resolve() == own.resolve()) else None

    def changes(self, message: Any) -> list[str]:
        """Fields of the solver that are not as they were before, see `overrides.changes`."""
        before = solver_before(self.saved) if self.saved is not None else None
        return changes(before, message) if before is not None else []


def begin(resume: str | Path | None, seed: int | None, message: Any) -> Beginning:
    """The beginning of a run of solver `message`, with the seed asked for, else the solver's, else a random one.

    Raises SnapshotError when `resume` holds no good snapshot; NetspecError when a resumed run is to have another seed.
    """
    if resume is not None and not str(resume).endswith(SUFFIXES):
        saved, refused = snapshot_files.newest(Path(resume))
        refuse_pretraining(saved, message)
        refuse_seeds(saved, seed, message)
        return Beginning(
            int(saved.info["seed"]), saved, refused=tuple(refused), picked=not Path(resume).is_dir()
        )
    if seed is not None and not 0 <= seed < 2**63:
        raise NetspecError(f"seed {seed}: a seed is at least 0 and below 2**63")
    if seed is None:
        seed = message.random_seed if message.random_seed >= 0 else torch.seed() % 2**31
    return Beginning(seed, foreign=read_solverstate(resume) if resume is not None else None)


def refuse_pretraining(saved: Snapshot, message: Any) -> None:
    """Raise NetspecError where the snapshot belongs to the pretraining of solver `message`, and not to its own run."""
    before, run = solver_before(saved), run_folder_of(saved.path)
    if before is None or not message.pretraining or before.pretraining == message.pretraining:
        return
    text = f"{saved.path}: is of a run that had no pretraining {message.pretraining!r}, as this solver has"
    if run.name == "pretraining":
        text += f"; it is that pretraining: --resume {run.parent} goes on with both"
    else:
        text += "; to start from its weights, give them as weights"
    raise NetspecError(text)


def refuse_seeds(saved: Snapshot, seed: int | None, message: Any) -> None:
    """Raise NetspecError where the user asks for another seed than the resumed run's."""
    own, before = int(saved.info["seed"]), solver_before(saved)
    asked = f"seed {seed}" if seed not in (None, own) else ""
    if before is not None and message.random_seed not in (before.random_seed, own):
        asked = asked or f"random_seed {message.random_seed}"
    if asked:
        remedy = "leave it out, or start a new run"
        raise NetspecError(f"{saved.path}: a resumed run keeps its seed {own}, found {asked}; {remedy}")


def solver_before(saved: Snapshot) -> Any:
    """The SolverParameter of the run that `saved` belongs to; None where its folder has none."""
    path = run_folder_of(saved.path) / "solver.prototxt"
    return schema.read_solver(path).message if path.is_file() else None
