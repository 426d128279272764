"""Stages: which layers learn, in turn (`on_off_stage_name`, `on_off_stage_iter`; SimNets fork)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netspec.errors import Position, SpecError


class Stages:
    """A cycle of named stages, each some iterations long. `index` and `iteration` in it are saved."""

    def __init__(self, message: Any, at: Callable[..., Position | None] | None = None):
        self.names = list(message.on_off_stage_name)
        self.lengths = list(message.on_off_stage_iter)
        self.index = self.iteration = 0
        place = at("on_off_stage_iter") if at else None
        if len(self.names) != len(self.lengths):
            text = f"{len(self.lengths)} on_off_stage_iter values for {len(self.names)} names"
            raise SpecError(text, place)
        if self.names and not any(self.lengths):
            raise SpecError("every on_off_stage_iter is 0, so no stage can begin", place)
        self._skip_empty()

    @property
    def current(self) -> str | None:
        """Name of the stage that is active; None when the solver has no stages."""
        return self.names[self.index] if self.names else None

    def on(self, stage: str) -> bool:
        """Whether a layer whose `on_off_stage` is `stage` learns now; layers that name none always do."""
        return not stage or self.current is None or stage == self.current

    def turns(self, stage: str, iterations: int) -> int:
        """How many of the first `iterations` belong to a stage; all of them to no stage ("")."""
        if not stage or not self.names:
            return iterations
        rounds, rest = divmod(iterations, sum(self.lengths))
        count, begin = 0, 0
        for name, length in zip(self.names, self.lengths, strict=True):
            if name == stage:
                count += rounds * length + min(max(rest - begin, 0), length)
            begin += length
        return count

    def advance(self) -> None:
        """Count one iteration, and go to the next stage when this one is over."""
        if self.names:
            self.iteration += 1
            self._skip_empty()

    def _skip_empty(self) -> None:
        while self.names and self.iteration >= self.lengths[self.index]:
            self.index, self.iteration = (self.index + 1) % len(self.names), 0
