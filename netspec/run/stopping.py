"""When a run ends early, and which of its weights are the best.

Both follow from the run's metrics and keep no state of their own: a resumed run reads its metrics again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

from netspec.errors import Position, SnapshotError, SpecError, did_you_mean
from netspec.interchange import safetensors
from netspec.net.net import Net
from netspec.schema.regular import read_regular

Results = Sequence[Mapping[str, Any]]
"""Outputs of each test net."""

BEST = "best.safetensors"
ENOUGH = 10
"""Displays that the rule `delta` of hyper_train.py waits for."""


FALLING = ("loss", "error", "perplexity", "distance", "cost")
"""Parts of names of outputs for which lower is better."""
FALLING_WORDS = {"rmse", "mse", "mae", "nll", "ece", "bits", "bpd"}
"""The same, as whole words of a name: `test_mse`, but not `piece`."""


def lower_is_better(output: str) -> bool:
    """Whether lower is better for a test output of this name."""
    name = output.lower()
    return any(word in name for word in FALLING) or bool(FALLING_WORDS & set(re.split(r"[^a-z]+", name)))


def value_of(outputs: Mapping[str, Any], name: str) -> float:
    """A test output as one number; NaN where it has several values."""
    value = outputs.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


@dataclass
class Aim:
    """A test output that training should improve."""

    output: str
    net: int
    lower: bool
    best: float = math.nan
    at: int = -1
    """The iteration of the best."""

    def better(self, value: float, change: float = 0.0) -> bool:
        """Whether a value is better than the best, by more than `change`; NaN is never."""
        if math.isnan(value) or math.isnan(self.best):
            return not math.isnan(value)
        return value < self.best - change if self.lower else value > self.best + change

    def take(self, value: float, iteration: int) -> None:
        self.best, self.at = value, iteration

    def check(self, tests: Sequence[Net], at: Callable[..., Position | None], *path: str) -> None:
        """Raise SpecError where there is no such test net, or it has no such output."""
        if self.net >= len(tests):
            raise SpecError(f"test net {self.net}: the solver has {len(tests)} test nets", at(*path))
        graph = tests[self.net].graph
        names = [graph.name(slot) for slot in graph.outputs]
        if self.output not in names:
            hint = did_you_mean(self.output, names)
            raise SpecError(
                f"test net {self.net} has no output {self.output!r}{hint} (outputs: {', '.join(names) or 'none'})",
                at(*path),
            )


class Stopping:
    """The rules of `early_stop`; `reason` says why the run ends, "" while it goes on."""

    def __init__(self, message: Any):
        """message: the SolverParameter."""
        p = message.early_stop
        self.settings = p if message.HasField("early_stop") else None
        self.aim = Aim(p.output, p.test_net, p.lower if p.HasField("lower") else lower_is_better(p.output))
        self.waited = 0
        self.losses: list[tuple[int, float]] = []
        self.lowest, self.lowest_at = math.inf, 0
        self.reason = ""

    def over(self) -> bool:
        """Whether the run is to end."""
        return bool(self.reason)

    def check(self, tests: Sequence[Net], at: Callable[..., Position | None]) -> None:
        """Raise SpecError for a rule that the run cannot follow."""
        if self.settings is not None and self.settings.patience:
            self.aim.check(tests, at, "early_stop", "output")

    def replay(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take note of what a run's metrics say."""
        for line in lines:
            if line["kind"] == "train":
                loss = line.get("loss")
                self.displayed(line["iteration"], math.nan if loss is None else loss)
            elif line["kind"] == "test" and line["net"] == self.aim.net:
                self.tested(line["iteration"], line["outputs"])

    def displayed(self, iteration: int, loss: float) -> None:
        """Take note of a displayed loss."""
        if self.settings is None:
            return
        self.losses.append((iteration, loss))
        if loss < self.lowest:
            self.lowest, self.lowest_at = loss, iteration
        plateau = self.settings.plateau
        if plateau and iteration - self.lowest_at >= plateau:
            self.reason = f"the loss has had no new low for {iteration - self.lowest_at} iterations"
        if (
            self.settings.HasField("delta")
            and (fall := self.fall()) is not None
            and -fall < self.settings.delta
        ):
            self.reason = (
                f"the loss falls by {-fall:.3g} of itself per iteration, less than {self.settings.delta:.3g}"
            )

    def fall(self) -> float | None:
        """Relative change of the loss per iteration, by the medians of the two halves of all displays (negative: it
        falls); None while there are too few.
        """
        n = len(self.losses)
        if n <= ENOUGH:
            return None
        middle = math.floor(n / 2 + 0.5)
        gap = self.losses[-1][0] - self.losses[-middle - 1][0]
        before = median(loss for _, loss in self.losses[:middle])
        now = median(loss for _, loss in self.losses[middle:])
        if gap <= 0 or not before or not math.isfinite(now - before):
            return None
        return (now - before) / (abs(before) * gap)

    def tested(self, iteration: int, outputs: Mapping[str, Any]) -> None:
        """Take note of the outputs of the test net that the rules watch."""
        if self.settings is None or not self.settings.patience:
            return
        value = value_of(outputs, self.aim.output)
        if self.aim.better(value, self.settings.min_change):
            self.aim.take(value, iteration)
            self.waited = 0
            return
        self.waited += 1
        if self.waited >= self.settings.patience:
            best = f"{self.aim.best:.6g} at iteration {self.aim.at}"
            self.reason = f"{self.aim.output} has not been better than {best} for {self.waited} tests"


class Best:
    """The weights with the best value of a test output (`keep_best`), in best.safetensors of the run folder."""

    def __init__(self, message: Any, folder: Path, writes: bool = True):
        """writes: False for a process that only takes note of what another writes."""
        self.writes = writes
        self.aim = Aim(message.keep_best, message.keep_best_net, lower_is_better(message.keep_best))
        self.path = folder / BEST
        self.wanted = bool(message.keep_best)

    def resume(self, iteration: int) -> str:
        """Restore the best weights that a run kept, unless the resumed run will reach their iteration again; returns
        why a damaged file was not restored, else "".
        """
        if not self.wanted or not self.path.is_file():
            return ""
        try:
            _, info, _ = safetensors.load(self.path)
            if info.get("output") == self.aim.output and info["iteration"] < iteration:
                self.aim.take(float(info["value"]), int(info["iteration"]))
        except SnapshotError as error:
            return f"passed over: {error}"
        except (KeyError, TypeError, ValueError, AttributeError):
            return f"passed over: {self.path}: does not say what it is the best of"
        return ""

    def tested(self, iteration: int, results: Results, weights: Callable[[], Mapping[str, Tensor]]) -> bool:
        """Keep the weights if they are the best so far; returns whether they are."""
        if not self.wanted:
            return False
        value = value_of(results[self.aim.net], self.aim.output)
        if not self.aim.better(value):
            return False
        self.aim.take(value, iteration)
        info = {"iteration": iteration, "output": self.aim.output, "value": value, "net": self.aim.net}
        if self.writes:
            safetensors.save(self.path, weights(), info)
        return True

    def weights(self) -> dict[str, Tensor]:
        """The weights that were kept; {} where none were."""
        return safetensors.load(self.path)[0] if self.wanted and self.path.is_file() else {}


def read_best(folder: Path) -> dict[str, Any] | None:
    """What a run folder says of its best weights: iteration, output, value, net; None where it kept none."""
    path = folder / BEST
    if not path.is_file():
        return None
    header = safetensors.read_header(path, read_regular(path))
    try:
        info = json.loads(header["__metadata__"]["info"])
    except (KeyError, ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise SnapshotError(f"{path}: its header does not say what was best in it")
    return info
