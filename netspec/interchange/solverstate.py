"""solverstate: the state of a Caffe solver, binary or HDF5, as the state of ours and back.

Caffe keeps history for every parameter of the net, in net order, and slot by slot: all first moments, then
all second ones. Ours keeps it for the parameters that learn. For the others it writes zeros, and skips
what it reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec.data.files import whole
from netspec.errors import SnapshotError
from netspec.interchange import hdf5
from netspec.interchange.blobs import encode_blob, field, number_field, read_blob
from netspec.interchange.caffemodel import MOST_BLOBS, messages, read_file, text
from netspec.interchange.weights import Blob, kind_of, tensor
from netspec.schema.encoded import BYTES, VARINT, varint
from netspec.solver.solver import Solver, State

_NUMBERS = {1: "iter", 4: "current_step", 5: "current_stage_iter", 6: "current_stage_idx"}
_NET, _HISTORY = 2, 3
SUFFIXES = (".solverstate", ".solverstate.h5")


@dataclass(frozen=True)
class SolverState:
    """The state of a Caffe solver; `learned_net` is the weights' file name as Caffe wrote it."""

    iteration: int
    current_step: int
    stage: int
    stage_iteration: int
    learned_net: str
    history: Sequence[Blob]
    file: str

    def weights(self) -> Path:
        """The file of the weights: where `learned_net` says, or of that name beside the state."""
        if not self.learned_net:
            raise SnapshotError(f"{self.file}: names no weights")
        named, beside = Path(self.learned_net), Path(self.file).parent
        for path in (named, beside / named.name, beside / named):
            if os.path.isfile(path):  # false for names that no file can have
                return path
        raise SnapshotError(f"{self.file}: its weights {self.learned_net!r} are neither there nor beside it")


def read_solverstate(path: str | Path) -> SolverState:
    """A .solverstate or .solverstate.h5, by content; SnapshotError when it is neither or is damaged."""
    if kind_of(path) == "hdf5":
        return from_hdf5(path, str(path))
    return parse_solverstate(read_file(Path(path)), str(path))


def parse_solverstate(data: bytes, file: str = "<bytes>") -> SolverState:
    """An encoded SolverState of either dialect."""
    numbers: dict[str, int] = {}
    learned_net = ""
    history: list[Blob] = []
    try:
        for span in messages(data, file):
            if span.number in _NUMBERS and span.wire == VARINT:
                numbers[_NUMBERS[span.number]] = varint(data, span.start, span.end)[0]
            elif span.number == _NET and span.wire == BYTES:
                learned_net = text(data, span)
            elif span.number == _HISTORY and span.wire == BYTES:
                history.append(read_blob(data, span.start, span.end, f"{file}: history {len(history)}"))
                if len(history) > MOST_BLOBS:
                    raise SnapshotError(f"{file}: has more than {MOST_BLOBS:,} blobs of history")
    except IndexError as problem:
        raise SnapshotError(f"{file}: truncated or damaged: {problem}") from None
    return made(numbers, learned_net, history, file)


def from_hdf5(source: str | Path | bytes, file: str) -> SolverState:
    """A .solverstate.h5, given by its path or its bytes."""
    state = hdf5.read_state(source, file)
    return made(state.numbers, state.learned_net, state.history, file)


def made(numbers: dict[str, int], learned_net: str, history: Sequence[Blob], file: str) -> SolverState:
    for name, value in numbers.items():
        if not 0 <= value < 2**31:
            raise SnapshotError(f"{file}: {name} is {value}")
    if "iter" not in numbers:
        raise SnapshotError(f"{file}: is no solver state: it has no iteration number")
    return SolverState(
        numbers["iter"],
        numbers.get("current_step", 0),
        numbers.get("current_stage_idx", 0),
        numbers.get("current_stage_iter", 0),
        learned_net,
        history,
        file,
    )


def to_state_dict(state: SolverState, solver: Solver) -> State:
    """What `solver.load_state_dict` takes; SnapshotError when the history is of another net or solver."""
    slots, params = solver.rule.slots, solver.params
    if len(state.history) != len(slots) * len(params):
        raise SnapshotError(
            f"{state.file}: holds {len(state.history)} blobs of history, solver type {solver.message.type!r} "
            f"needs {len(slots)} for each of the net's {len(params)} parameters"
        )
    entries: State = {
        "iteration": state.iteration,
        "current_step": state.current_step,
        "stage": state.stage,
        "stage_iteration": state.stage_iteration,
    }
    if solver.stages.names and state.stage >= len(solver.stages.names):
        raise SnapshotError(f"{state.file}: stage {state.stage} is not among the solver's")
    active = {id(param) for param in solver.active}
    for s, slot in enumerate(slots):
        for i, param in enumerate(params):
            blob = state.history[s * len(params) + i]
            shape = tuple(param.value.shape)
            if not blob.fits(shape):
                raise SnapshotError(
                    f"{state.file}: history {slot!r} of {param.name} has shape {tuple(blob.shape)}, "
                    f"the parameter has {shape}"
                )
            if id(param) in active:
                entries[f"history/{slot}/{param.name}"] = (
                    tensor(blob.array()).reshape(shape).to(param.value.dtype)
                )
    return entries


def restore(solver: Solver, path: str | Path) -> SolverState:
    """Let `solver` continue where a Caffe solver stopped; the caller loads the weights (`SolverState.weights`)."""
    state = read_solverstate(path)
    solver.load_state_dict(to_state_dict(state, solver), str(path))
    return state


def history_of(solver: Solver) -> list[Tensor]:
    """The history blobs in Caffe's order; history that our solver does not keep has its initial value."""
    state = solver.state_dict()
    blobs = []
    for slot in solver.rule.slots:
        for param in solver.params:
            value = state.get(f"history/{slot}/{param.name}")
            if not isinstance(value, Tensor):
                value = torch.full_like(param.value, solver.rule.start.get(slot, 0.0))
            blobs.append(value.detach().cpu())
    return blobs


def write_solverstate(solver: Solver, path: str | Path, learned_net: str | Path) -> None:
    """Write the state of `solver` for Caffe, in HDF5 if the name ends so; `learned_net`: its weight file."""
    state = solver.state_dict()
    numbers = {
        "iter": int(state["iteration"]),
        "current_step": int(state["current_step"]),
        "current_stage_iter": int(state["stage_iteration"]),
        "current_stage_idx": int(state["stage"]),
    }
    history = [np.asarray(value.numpy()) for value in history_of(solver)]
    target = Path(path)
    if target.suffix in (".h5", ".hdf5"):
        blobs = [hdf5.ArrayBlob(values, "") for values in history]
        hdf5.write_state(target, hdf5.State(numbers, str(learned_net), blobs))
        return
    parts = [number_field(1, numbers["iter"]), field(_NET, str(learned_net).encode())]
    parts += [field(_HISTORY, encode_blob(values)) for values in history]
    parts.append(number_field(4, numbers["current_step"]))
    if solver.stages.names:
        parts += [
            number_field(5, numbers["current_stage_iter"]),
            number_field(6, numbers["current_stage_idx"]),
        ]
    whole.write_whole(target, b"".join(parts))
