"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape


class Progress:
    """Shows rate, time left, loss and the last test results; `quiet` shows nothing."""

    def __init__(self, total: int, done: int = 0, console: Console | None = None, quiet: bool = False):
        self.total, self.done, self.first = total, done, done
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.started = self.shown = time.monotonic()
        self.idle = 0.0
        """Seconds spent on tests and snapshots, which the rate leaves out."""
        self.numbers: dict[str, float] = {}
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self.started, self.idle = time.monotonic(), 0.0
        if self.console.is_terminal and not self.quiet:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            count, words = TextColumn("{task.completed}/{task.total}"), TextColumn("{task.description}")
            self._bar = Bar(BarColumn(), count, words, console=self.console)
            self._task = self._bar.add_task("", total=self.total, completed=self.done)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self.refresh()
            self._bar.stop()
            self._bar = None

    @property
    def plain(self) -> bool:
        """Whether numbers are printed as lines because there is no bar."""
        return self._bar is None

    def advance(self, done: int) -> None:
        """Take note that `done` iterations are over; the bar is redrawn at most ten times a second."""
        self.done = done
        now = time.monotonic()
        if self._bar is not None and now - self.shown > 0.1:
            self.shown = now
            self.refresh()

    def refresh(self) -> None:
        self._bar.update(self._task, completed=self.done, description=self.summary())

    def show(self, numbers: Mapping[str, float]) -> None:
        """Put numbers (loss, accuracy) beside the bar."""
        self.numbers.update(numbers)

    def line(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        if not self.quiet:
            self.console.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        """Say something loudly, on stderr."""
        if not self.quiet:
            console = Console(stderr=True, soft_wrap=True, highlight=False)
            console.print(f"[bold red]warning:[/] {escape(text)}")

    def summary(self) -> str:
        """`12.3 it/s, 0:41 left, loss 0.512, accuracy 0.98`"""
        parts = [self.speed()] + [f"{name} {value:.4g}" for name, value in self.numbers.items()]
        return ", ".join(part for part in parts if part)

    def speed(self) -> str:
        """Rate since the start and the time that the rest will take at it."""
        steps, seconds = self.done - self.first, time.monotonic() - self.started - self.idle
        if steps <= 0 or seconds <= 0:
            return ""
        rate = steps / seconds
        return f"{rate:.3g} it/s, {clock((self.total - self.done) / rate)} left"


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
