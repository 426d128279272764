"""Options of one run: everything that its solver file does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from netspec.data import Source


@dataclass(frozen=True)
class Options:
    """Where a run computes, writes and goes on from; `fit` says what each means."""

    device: str | torch.device | None = None
    seed: int | None = None
    out: str | Path | None = None
    resume: str | Path | None = None
    progress: bool = True
    compiled: bool | None = None
    given: Mapping[str, Source] = field(default_factory=dict)
    sigint: str = "stop"
    sighup: str = "snapshot"
    track: tuple[str, ...] = ()
    memory: str = ""
    shard: bool = False
