"""Devices: which one a run computes on."""

from __future__ import annotations

from typing import Any

import torch

from netspec.errors import NetspecError


def choose_device(solver: Any, device: str | torch.device | None) -> torch.device:
    """The device asked for, else the solver's: a GPU where there is one, unless solver_mode is CPU."""
    if device is not None:
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise NetspecError(
                f"device {device}: there is no such device; give cpu, cuda or cuda:N"
            ) from None
        if chosen.type == "meta":
            raise NetspecError(f"device {device}: it holds no values; give cpu, cuda or cuda:N")
        if chosen.type not in ("cpu", "cuda"):
            raise NetspecError(f"device {device}: netspec does not compute there; give cpu, cuda or cuda:N")
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if chosen.type == "cuda" and (chosen.index or 0) >= there:
            count = f"only {there}" if there else "no CUDA device"
            raise NetspecError(f"device {device}: there is {count} here")
        return chosen
    if solver.solver_mode == solver.GPU and torch.cuda.is_available():
        return torch.device("cuda", solver.device_id if solver.device_id < torch.cuda.device_count() else 0)
    return torch.device("cpu")
