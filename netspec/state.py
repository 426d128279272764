"""What a snapshot holds of a run: states of random generators, and the parts' own states by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from netspec.snapshot import Snapshot


def random_state(device: torch.device) -> list[Tensor]:
    """States of the generators that layers draw from: the CPU's, and the GPU's where that is in use."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_state(device: torch.device, states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0].cpu())
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu(), device)


def separated(parts: Mapping[str, Mapping[str, int | Tensor]]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors and numbers of several states, their names led by the part's."""
    entries = {f"{part}/{key}": value for part, state in parts.items() for key, value in state.items()}
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    return tensors, {key: int(value) for key, value in entries.items() if not isinstance(value, Tensor)}


def taken(part: str, saved: Snapshot) -> dict[str, int | Tensor]:
    """The state of one part of a snapshot, as `separated` was given it."""
    entries: dict[str, int | Tensor] = {**saved.tensors, **saved.info["numbers"]}
    return {key[len(part) + 1 :]: value for key, value in entries.items() if key.startswith(part + "/")}


def run_folder_of(state: Path) -> Path:
    """The run folder that a state file lies in."""
    return state.parent.parent if state.parent.name == "snapshots" else state.parent
