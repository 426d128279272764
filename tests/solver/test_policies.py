"""Policies of other forks, and warm-ups: each against its formula, written out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netspec import schema
from netspec.errors import SpecError
from netspec.run.fit import fit
from netspec.run.folder import Metrics
from netspec.solver import LearningRate

F = np.float32


def schedule(text: str) -> LearningRate:
    return LearningRate(schema.parse_solver(text).message)


def test_cosine() -> None:
    rates = schedule('base_lr: 0.5 min_lr: 0.1 lr_policy: "cosine" max_iter: 10')
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=0.5)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=10, eta_min=0.1)
    for t in range(11):
        assert rates.next(t) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6)
        optimiser.step()
        theirs.step()
    assert rates.next(15) == pytest.approx(0.1)


def test_cosine_begins_after_the_warm_up() -> None:
    rates = schedule('base_lr: 1 lr_policy: "cosine" max_iter: 30 warmup_iter: 10')
    assert [rates.next(t) for t in (0, 5, 10, 20, 30)] == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-7)


def test_warm_up_of_intel() -> None:
    rates = schedule(
        'base_lr: 0.3 lr_policy: "step" stepsize: 4 gamma: 0.5 warmup_iter: 6 warmup_start_lr: 0.1'
    )
    climb = [float((F(t) * F(0.3) + F(6 - t) * F(0.1)) / F(6)) for t in range(6)]
    assert [rates.next(t) for t in range(6)] == climb
    assert rates.next(6) == float(F(F(0.3) * 0.5))  # the policy counts the iterations of the warm-up


def test_warm_up_of_nvidia() -> None:
    rates = schedule('base_lr: 0.4 lr_policy: "fixed" rampup_interval: 4 rampup_lr: 0.1')
    assert [rates.next(t) for t in range(5)] == pytest.approx([0.1 + 0.3 * (t / 4) ** 2 for t in range(5)])


def test_min_lr_of_nvidia() -> None:
    poly = schedule('base_lr: 1 min_lr: 0.2 lr_policy: "poly" power: 2 max_iter: 10')
    assert [poly.next(t) for t in (0, 5, 10)] == pytest.approx([1, 0.2 + 0.8 * 0.25, 0.2])
    step = schedule('base_lr: 1 min_lr: 0.2 lr_policy: "step" stepsize: 1 gamma: 0.5')
    assert [step.next(t) for t in range(5)] == pytest.approx([1, 0.5, 0.25, 0.2, 0.2])


def by_the_book(losses: list[float], windows: list[int], base: float, gamma: float) -> list[float]:
    """SSD's plateau: an event is a new low or a drop; a drop comes when its window has passed since the last event."""
    lowest, event, step, rates = 1e38, 0, 0, []
    for t, loss in enumerate(losses):
        if loss < lowest:
            lowest, event = loss, t
        if step < len(windows) and t >= event + windows[step]:
            step, event = step + 1, t
        rates.append(float(F(base * gamma**step)))
    return rates


@pytest.mark.parametrize("seed", range(5))
def test_plateau(seed: int) -> None:
    chance = np.random.default_rng(seed)
    losses = (1 / np.sqrt(1 + np.arange(200)) + 0.05 * chance.standard_normal(200)).tolist()
    windows = "plateau_winsize: 5 plateau_winsize: 9 plateau_winsize: 4"
    rates = schedule(f'base_lr: 0.5 gamma: 0.5 lr_policy: "plateau" {windows}')
    reached = []
    for t, loss in enumerate(losses):
        rates.observe(t, loss)
        assert rates.peek(t) == rates.peek(t)
        reached.append(rates.next(t))
    assert reached == by_the_book(losses, [5, 9, 4], 0.5, 0.5)
    assert reached[-1] == 0.0625


def test_stepearly_drops_whenever_a_window_passes_without_a_new_low() -> None:
    losses = [5, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3.0]
    rates = schedule('base_lr: 1 gamma: 0.5 lr_policy: "stepearly" stepsize: 3')
    reached = []
    for t, loss in enumerate(losses):
        rates.observe(t, loss)
        reached.append(rates.next(t))
    assert reached == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_multifixed_has_a_rate_for_each_stage() -> None:
    stages = "stagelr: 1 stageiter: 2 stagelr: 0.5 stageiter: 4 stagelr: 0.25 stageiter: 5"
    rates = schedule(f'lr_policy: "multifixed" {stages}')
    assert [rates.next(t) for t in range(8)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('base_lr: 1 lr_policy: "plateau"', "needs plateau_winsize > 0, one per drop, found none"),
        ('base_lr: 1 lr_policy: "plateau" plateau_winsize: 3 plateau_winsize: 0', "found 3, 0"),
        ('base_lr: 1 lr_policy: "multifixed" stagelr: 1', "1 stagelr values for 0 stageiter entries"),
        ('base_lr: 1 lr_policy: "stepearly"', "needs stepsize > 0"),
        ('base_lr: 1 lr_policy: "cosine"', "max_iter > 0"),
        ('base_lr: 1 lr_policy: "poly" max_iter: 3 min_lr: 2', "min_lr 2 is above base_lr 1"),
        ('base_lr: 1 lr_policy: "fixed" warmup_iter: 3 rampup_interval: 3', "two warm-ups"),
        ('base_lr: 1 lr_policy: "fixed" warmup_iter: -3', "warmup_iter must be at least 0"),
        ('base_lr: 1 lr_policy: "platau"', "did you mean 'plateau'.*known: fixed, step"),
    ],
)
def test_mistakes(text: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        schedule(text)


NET = """
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  data_filler { type: "gaussian" } data_filler { type: "constant" } shape { dim: 8 dim: 3 } shape { dim: 8 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0 lr_policy: "plateau" gamma: 0.5 plateau_winsize: 2 plateau_winsize: 3
max_iter: 40 display: 1 random_seed: 1 snapshot: 5 snapshot_after_train: false compile: false"""


def lines(folder: Path) -> list[dict[str, Any]]:
    return [line for line in Metrics(folder / "metrics.jsonl").read() if line["kind"] == "train"]


def test_a_run_with_plateaus_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "s_solver.prototxt").write_text(SOLVER.replace("base_lr: 0 ", "base_lr: 0.1 "))
    whole = fit(tmp_path / "s_solver.prototxt", out=tmp_path / "whole", progress=False)
    rates = [line["lr"] for line in lines(whole.folder)]
    losses = [line["loss"] for line in lines(whole.folder)]
    assert rates == by_the_book(losses, [2, 3], float(F(0.1)), 0.5)
    assert len(set(rates)) > 1
    part = fit(tmp_path / "s_solver.prototxt", out=tmp_path / "part", progress=False, iterations=15)
    resumed = fit(tmp_path / "s_solver.prototxt", resume=part.folder, progress=False)
    assert [line["loss"] for line in lines(resumed.folder)] == losses
    assert math.isclose(resumed.solver.rate(), whole.solver.rate())
