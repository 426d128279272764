"""Learning-rate range test: train a little while the rate rises, and see where the loss falls fastest.

Smith, "Cyclical learning rates for training neural networks" (2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec import data
from netspec.errors import NetspecError
from netspec.interchange import load_weights
from netspec.net.devices import choose_device
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.run import experiment
from netspec.run.initialise import initialise
from netspec.run.progress import Progress
from netspec.run.watch import finite
from netspec.solver import Solver, history_of

SMOOTHING = 0.9
"""Weight of the previous value in the smoothed loss."""

WORSE = 4.0
"""The test ends where the smoothed loss exceeds its lowest value by this factor."""


@dataclass
class Range:
    """The curve of a test, and what it proposes."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss is lowest."""
        return self.rates[int(np.argmin(self.smoothed))]

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest per decade, before its lowest point."""
        end = int(np.argmin(self.smoothed)) + 1
        if end < 3:
            return self.rates[0]
        slopes = np.gradient(np.array(self.smoothed[:end]), np.log10(self.rates[:end]))
        return self.rates[int(np.argmin(slopes))]

    @property
    def proposal(self) -> float:
        """A rate to begin with: where the loss falls fastest, and at most a third of where it is lowest."""
        return min(self.steepest, self.lowest / 3)


def lr_range(
    source: str | Path,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    iterations: int = 100,
    weights: str | Path | None = None,
    overrides: list[str] | None = None,
    device: str | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Range:
    """Train the net of a solver for so many iterations, the rate rising evenly in decades from `low` to `high`.

    It ends early where the loss is no longer finite, or has risen far above its lowest value. Nothing is written.
    Raises NetspecError where the net has no loss, or diverges at once.
    """
    if not 0 < low < high or iterations < 2:
        raise NetspecError(
            f"a range test needs 0 < {low:g} < {high:g}, and at least 2 iterations ({iterations})"
        )
    plan = experiment.load(source, overrides or [])
    message = plan.solver
    message.lr_policy, message.min_lr = "fixed", 0.0
    message.warmup_iter = message.rampup_interval = 0
    own = seed if seed is not None else max(0, message.random_seed)
    chosen = choose_device(message, device)
    torch.manual_seed(own)
    net = make_net(plan.train, seed=own, device=chosen, history=history_of(message.type))
    if not net.graph.losses:
        raise NetspecError(f"{plan.file}: the net has no loss (no layer with a loss_weight other than 0)")
    if weights is not None:
        load_weights(net, weights)
    feeder = data.feeder(net, own, device=chosen)
    shown = Progress(iterations, quiet=not progress)
    try:
        if weights is None:
            initialise(net, feeder.next, seed=own, progress=shown.line)
        solver = Solver(net, message, at=plan.at)
        solver.clip()
        with shown:
            rates = np.geomspace(low, high, iterations).tolist()
            curve = trained_curve(net, solver, feeder.next, rates, shown)
    finally:
        feeder.close()
    if len(curve.rates) < 3:
        raise NetspecError(f"{plan.file}: the loss is not finite at a rate of {low:g} already; begin lower")
    return curve


def trained_curve(
    net: Net,
    solver: Solver,
    batches: Callable[[], tuple[Tensor, ...]],
    rates: Sequence[float],
    shown: Progress,
) -> Range:
    """Train one iteration at each rate, and record the loss; ends where it is not finite or has risen too far."""
    message = solver.message
    curve, average = Range(), 0.0
    for i, rate in enumerate(rates):
        message.base_lr = rate
        loss = 0.0
        for _ in range(message.iter_size):
            part = net.objective(net(*batches()))
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach()) / message.iter_size
        if not math.isfinite(loss) or not all(finite(param.value.grad) for param in net.params):
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        curve.rates.append(rate)
        curve.losses.append(loss)
        curve.smoothed.append(average / (1 - SMOOTHING ** (i + 1)))
        if over(curve.smoothed):
            break
        solver.step()
        shown.advance(i + 1)
        shown.show({"loss": curve.smoothed[-1], "rate": rate})
    return curve


def over(smoothed: list[float]) -> bool:
    """Whether the loss has risen far above its lowest value. Multiples mean nothing below 0: there the rise is compared
    with the fall so far.
    """
    first, lowest, now = smoothed[0], min(smoothed), smoothed[-1]
    if lowest > 0:
        return now > WORSE * lowest and now > first
    return now > first + WORSE * max(first - lowest, abs(first))


def draw_range(curve: Range, path: str | Path) -> Path:
    """The curve: loss against rate, with the proposal; gives the path."""
    from netspec.draw.canvas import check_path, figure, write

    path = check_path(path)
    fig = figure(7.0, 4.0, constrained=True)
    axes = fig.subplots()
    axes.plot(curve.rates, curve.losses, color="#1f77b4", alpha=0.3, linewidth=0.8, label="loss")
    axes.plot(curve.rates, curve.smoothed, color="#1f77b4", label="loss, smoothed")
    axes.axvline(curve.proposal, color="#d62728", linestyle="--", label=f"proposal {curve.proposal:.2g}")
    axes.axvline(curve.lowest, color="#777777", linestyle=":", label=f"lowest at {curve.lowest:.2g}")
    axes.set_xscale("log")
    lowest, highest = min(curve.smoothed), max(curve.smoothed[: max(3, len(curve.smoothed) // 2)])
    axes.set_ylim(lowest - 0.1 * (highest - lowest), highest + 0.5 * (highest - lowest))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(True, color="#e0e0e0", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
    return write(fig, path)
