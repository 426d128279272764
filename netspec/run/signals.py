"""Signals during training: finish the iteration, then save or stop."""

from __future__ import annotations

import signal
import threading
from typing import Any

from netspec.errors import NetspecError

EFFECTS = ("stop", "snapshot", "none")


class Requests:
    """While open and `patient`, SIGINT, SIGTERM and SIGHUP set requests; only a second SIGINT ends the process.

    Not `patient` (before the first iteration, when there is nothing to save) a signal to stop does so at once.

    Effects, as Caffe names them: "stop" (a snapshot, then a clean end), "snapshot", "none".
    Handlers can only be set from the main thread; elsewhere signals keep their meaning.
    """

    def __init__(
        self, sigint: str = "stop", sighup: str = "snapshot", patient: bool = True, repeated: bool = False
    ):
        """repeated: SIGTERM after another signal to stop says nothing new: torchrun passes on what a terminal sends."""
        self.repeated = repeated
        for effect in (sigint, sighup):
            if effect not in EFFECTS:
                raise NetspecError(f"signal effect {effect!r} is none of {', '.join(EFFECTS)}")
        hangup = getattr(signal, "SIGHUP", None)
        self.effects = {signal.SIGINT: sigint, signal.SIGTERM: sigint} | ({hangup: sighup} if hangup else {})
        self.snapshot = self.stop = False
        self.patient = patient
        self._before: dict[Any, Any] = {}

    def __enter__(self) -> Requests:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self.handle) for number in self.effects}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def handle(self, number: int, frame: Any) -> None:
        """Note the request; the second that asks to stop does so at once."""
        effect = self.effects[signal.Signals(number)]
        if self.repeated and self.stop and number == signal.SIGTERM:
            return
        if effect == "stop" and (self.stop or not self.patient):
            raise KeyboardInterrupt
        self.stop |= effect == "stop"
        self.snapshot |= effect == "snapshot"

    def take(self) -> tuple[bool, bool]:
        """(snapshot wanted, stop wanted) since the last call."""
        wanted, self.snapshot = self.snapshot, False
        return wanted, self.stop
