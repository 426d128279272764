"""Layer-wise rates, momentum and weight decay of NVIDIA's Caffe: each against its formula, blob by blob in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.solver.solver import Solver

NET = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { lr_mult: 0.5 } param { lr_mult: 0 }
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } bias_filler { value: 1 } } }"""
SOLVER = 'base_lr: 0.5 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 max_iter: 10 '


def steps(text: str, count: int = 4, compiled: bool = False) -> tuple[Solver, list[list[np.ndarray]]]:
    """A solver after some steps with random gradients, and these."""
    solver = Solver(make_net(NET, seed=3), schema.parse_solver(SOLVER + text).message, compiled=compiled)
    generator = torch.Generator().manual_seed(5)
    given = []
    for _ in range(count):
        gradients = [torch.randn(p.value.shape, generator=generator) for p in solver.params]
        given.append([g.double().numpy() for g in gradients])
        solver.step(gradients)
    return solver, given


def expected(given: list[list[np.ndarray]], kind: str, policy: str | None, momenta: list[float],
             decays: list[float], eta: float = 0.01) -> list[np.ndarray]:  # fmt: skip
    """The values after the steps, from the formulas."""
    net = make_net(NET, seed=3)
    values = [p.value.detach().double().numpy() for p in net.params]
    history = [np.zeros_like(v) for v in values]
    for t, gradients in enumerate(given):
        for i, (param, g) in enumerate(zip(net.params, gradients, strict=True)):
            if param.lr_mult == 0:
                continue
            norms = np.linalg.norm(values[i]), np.linalg.norm(g)
            local = eta * norms[0] / norms[1] if min(norms) > 0 else 1.0
            rate = 0.5 * param.lr_mult
            if policy == "scale":
                rate = 0.5 * local
            elif policy == "clip":
                rate = min(0.5, local)
            step = rate * (g + 0.01 * decays[t] * param.decay_mult * values[i])
            before = history[i]
            history[i] = momenta[t] * before + step
            if kind == "SGD":
                values[i] = values[i] - history[i]
            else:
                values[i] = values[i] - ((1 + momenta[t]) * history[i] - momenta[t] * before)
    return values


FIXED, ONES = [0.9] * 4, [1.0] * 4
POLY = [0.9 + (0.95 - 0.9) * (t / 10) ** 2 for t in range(4)]
OPT = [min(0.3, (1 - 0.5 * math.sqrt(0.5)) ** 2)] * 4
CASES = {
    "scale": ("larc: true larc_eta: 0.01", "SGD", "scale", FIXED, ONES),
    "clip": ('larc: true larc_eta: 0.01 larc_policy: "clip"', "SGD", "clip", FIXED, ONES),
    "clip, Nesterov": ('larc: true larc_eta: 0.01 larc_policy: "clip" type: "Nesterov"', "Nesterov", "clip", FIXED,
                       ONES),
    "clip, large eta": ('larc: true larc_eta: 1000 larc_policy: "clip"', "SGD", "clip", FIXED, ONES),
    "poly": ('momentum_policy: "poly" max_momentum: 0.95 momentum_power: 2', "SGD", None, POLY, ONES),
    "poly, Nesterov": ('momentum_policy: "poly" max_momentum: 0.95 momentum_power: 2 type: "Nesterov"', "Nesterov",
                       None, POLY, ONES),
    "opt": ('momentum_policy: "opt" max_momentum: 0.3', "SGD", None, OPT, ONES),
    "decay": ('weight_decay_policy: "poly" weight_decay_power: 0.5', "SGD", None, FIXED,
              [math.sqrt(t / 10) for t in range(4)]),
    "all": ('larc: true larc_eta: 0.01 momentum_policy: "poly" max_momentum: 0.95 momentum_power: 2 '
            'weight_decay_policy: "poly" weight_decay_power: 1', "SGD", "scale", POLY, [t / 10 for t in range(4)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_the_formulas(name: str) -> None:
    text, kind, policy, momenta, decays = CASES[name]
    solver, given = steps(text)
    eta = 1000 if "1000" in text else 0.01
    for param, value in zip(solver.params, expected(given, kind, policy, momenta, decays, eta), strict=True):
        np.testing.assert_allclose(param.value.detach().numpy(), value, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_compiled_steps_are_the_same() -> None:
    text = CASES["all"][0]
    ours, theirs = steps(text)[0], steps(text, compiled=True)[0]
    for mine, other in zip(ours.params, theirs.params, strict=True):
        torch.testing.assert_close(mine.value, other.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('larc: true type: "Adam" momentum2: 0.9', "larc is built for types SGD and Nesterov, not 'Adam'"),
        ('larc: true larc_policy: "clips"', "unknown larc_policy 'clips'; did you mean 'clip'"),
        ("larc: true larc_eta: 0", "larc_eta must be positive, found 0"),
        ('momentum_policy: "polly"', "unknown momentum_policy 'polly'; did you mean 'poly'"),
        ('momentum_policy: "poly" max_momentum: 1', r"max_momentum must be in \[0, 1\), found 1"),
        ('momentum_policy: "opt" type: "AdaGrad" momentum: 0', "momentum_policy is built for types"),
        ('weight_decay_policy: "step"', "unknown weight_decay_policy 'step'"),
        ('weight_decay_policy: "poly" max_iter: 0', "weight_decay_policy 'poly' needs max_iter > 0"),
    ],
)
def test_mistakes(text: str, reason: str) -> None:
    message = schema.parse_solver('base_lr: 1 lr_policy: "fixed" ' + text).message
    with pytest.raises(SpecError, match=reason):
        Solver(make_net(NET), message)
