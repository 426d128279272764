"""Solvers against the original programs: 20 steps of every rule, policies, regularisation, state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import SnapshotError, SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.net.params import Param
from netspec.solver import LearningRate, Solver
from netspec.solver.regularisation import terms
from netspec.solver.rules import rules
from tests.places import VECTORS as GOLDEN

SOLVERS = sorted(GOLDEN.glob("*solver_*.npz"))
POLICIES = sorted(path for path in GOLDEN.glob("*__lr_*.npz"))


def solver_message(text: str, strict: bool = False) -> Any:
    message = schema.parse_solver(text, "solver.prototxt").message
    message.strict = strict
    return message


class Golden:
    """A recorded run: a net, a solver, batches and the parameters after every step."""

    def __init__(self, path: Path):
        with np.load(path) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.meta = json.loads(str(self.arrays["meta"]))
        self.strict = self.meta["engine"] == "simnets"
        self.message = solver_message(str(self.arrays["solver"]), self.strict)

    def net(self) -> Net:
        document = schema.parse_net(str(self.arrays["prototxt"]), "net.prototxt")
        shapes = {}
        for layer in document.message.layer:
            layer.strict = self.strict
            if layer.type == "HDF5Data":
                layer.type = "Input"
                shapes = {top: self.arrays[f"batches/{top}"].shape[1:] for top in layer.top}
        net = make_net(document, "TRAIN", seed=1, input_shapes=shapes)
        with torch.no_grad():  # of a shared blob the last value written is in force, as in the recording
            for name in self.meta["params"]:
                layer, _, blob = name.rpartition("/")
                net.layer(layer).blobs[int(blob)].copy_(torch.from_numpy(self.arrays[f"steps/{name}"][0]))
        return net

    def train(self, net: Net, solver: Solver, steps: int) -> Iterator[int]:
        """`steps` steps from the solver's iteration on; gives the number of steps done after each."""
        size = self.message.iter_size
        for t in range(solver.iteration, solver.iteration + steps):
            for k in range(t * size, t * size + size):
                values = [self.arrays[f"batches/{name}"] for name in net.input_names]
                net.objective(net(*(torch.from_numpy(value[k % len(value)]) for value in values))).backward()
            solver.step()
            yield t + 1

    def close(self, net: Net, t: int, tolerance: float = 1e-5) -> None:
        for param in net.params:
            theirs = self.arrays[f"steps/{param.name}"][t]
            error = np.abs(param.value.detach().numpy() - theirs).max() / max(np.abs(theirs).max(), 1e-30)
            assert error <= tolerance, f"{param.name} after {t} steps: {error:.2g}"


@pytest.mark.parametrize("path", SOLVERS, ids=lambda path: path.stem)
def test_every_step_of_the_original(path: Path) -> None:
    golden = Golden(path)
    net = golden.net()
    solver = Solver(net, golden.message)
    for t in golden.train(net, solver, golden.meta["steps"]):
        golden.close(net, t)


@pytest.mark.parametrize("path", SOLVERS[::7], ids=lambda path: path.stem)
def test_state_taken_up_half_way(path: Path) -> None:
    golden = Golden(path)
    net = golden.net()
    solver = Solver(net, golden.message)
    list(golden.train(net, solver, 9))
    weights = {name: value.clone() for name, value in net.weights().items()}
    state = {key: v.clone() if isinstance(v, Tensor) else v for key, v in solver.state_dict().items()}
    list(golden.train(net, solver, 11))
    other = golden.net()
    other.load_weights(weights)
    resumed = Solver(other, golden.message)
    resumed.load_state_dict(state)
    list(golden.train(other, resumed, 11))
    for ours, theirs in zip(net.params, other.params, strict=True):
        assert torch.equal(ours.value, theirs.value)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_rates_are_the_originals_to_the_bit(path: Path) -> None:
    with np.load(path) as golden:
        rates, text = golden["lr"], str(golden["solver"])
    schedule = LearningRate(solver_message(text))
    assert [schedule.next(t) for t in range(len(rates))] == [float(rate) for rate in rates]


def parameter(value: Tensor, **settings: Any) -> Param:
    nan = float("nan")
    fields = {
        "name": "ip/0", "lr_mult": 1.0, "decay_mult": 1.0, "min_value": nan, "max_value": nan,
        "is_logspace": False, "regularization_types": (), "on_off_stage": "", "users": [(0, 0)],
    }  # fmt: skip
    return Param(value=torch.nn.Parameter(value.clone()), **{**fields, **settings})  # type: ignore[arg-type]


TEXTS = {
    "SGD": "momentum: 0.9",
    "Nesterov": "momentum: 0.9",
    "AdaGrad": "",
    "RMSProp": "",
    "AdaDelta": "momentum: 0.95 delta: 1e-6",
    "Adam": "momentum: 0.9",
    "Nadam": "momentum: 0.9 delta: 1e-16",
    "SMORMS3": "",
    "DirectionalAdam": "momentum: 0.9",
    "EM": "",
    "HardEM": "",
}


def run_rule(name: str, compiled: bool) -> list[Tensor]:
    torch.manual_seed(0)
    params = [
        parameter(torch.randn(4, 5)),
        parameter(torch.randn(3), name="ip/1", lr_mult=2.0, decay_mult=0.5, max_value=0.1),
        parameter(torch.randn(6, 2), name="mex/1", is_logspace=True),
        parameter(torch.randn(2, 2), name="fixed/0", lr_mult=0.0),
    ]
    text = 'base_lr: 0.02 lr_policy: "exp" gamma: 0.9 weight_decay: 0.01 clip_gradients: 3 iter_size: 2'
    solver = Solver(params, solver_message(f'type: "{name}" {text} {TEXTS[name]}'), compiled=compiled)
    for _ in range(4):
        solver.step([torch.randn_like(param.value) if param.lr_mult else None for param in params])
    return [param.value.detach() for param in params]


def test_each_rule_has_settings_here() -> None:
    assert set(TEXTS) == set(rules)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.parametrize(
    "name", ["SGD", "Nadam", "SMORMS3", pytest.param("AdaDelta", marks=pytest.mark.slow)]
)
def test_compiled_update_equals_eager(name: str) -> None:
    for eager, compiled in zip(run_rule(name, False), run_rule(name, True), strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


OBJECTIVES = {
    ("L2", False): lambda x: 0.5 * x.square().sum(),
    ("L2", True): lambda x: x.exp().square().sum(),
    ("L1", False): lambda x: x.abs().sum(),
    ("L2_Smoothing", False): lambda x: (x[..., 1:] - x[..., :-1]).square().sum(),
    ("L2_Smoothing", True): lambda x: (x.exp()[..., 1:] - x.exp()[..., :-1]).square().sum(),
}


@pytest.mark.parametrize(("name", "logspace"), list(OBJECTIVES))
def test_regularisation_is_the_gradient_of_its_objective(name: str, logspace: bool) -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(OBJECTIVES[name, logspace](x), x)
    gradient = torch.randn_like(x)
    (total,) = terms[name]([x.detach()], [gradient], 0.3, logspace)
    torch.testing.assert_close(total, gradient + 0.3 * expected)


def test_lr_mult_zero_is_only_clipped() -> None:
    param = parameter(torch.tensor([-3.0, 0.25]), lr_mult=0.0, min_value=-1.0)
    solver = Solver([param], solver_message('base_lr: 1 lr_policy: "fixed" weight_decay: 0.5'))
    solver.step([None])
    assert param.value.tolist() == [-1.0, 0.25]


def test_a_parameter_without_gradient_decays() -> None:
    param = parameter(torch.tensor([2.0]))
    solver = Solver([param], solver_message('base_lr: 1 lr_policy: "fixed" weight_decay: 0.25'))
    solver.step([None])
    assert param.value.tolist() == [1.5]


def test_bounds_keep_nan() -> None:
    param = parameter(torch.tensor([float("nan"), 7.0]), max_value=1.0)
    Solver([param], solver_message('base_lr: 0 lr_policy: "fixed"')).clip()
    assert param.value.isnan().tolist() == [True, False]
    assert param.value[1] == 1


def test_step_lets_gradients_go() -> None:
    param = parameter(torch.ones(2))
    param.value.grad = torch.ones(2)
    Solver([param], solver_message('base_lr: 0.5 lr_policy: "fixed"')).step()
    assert param.value.tolist() == [0.5, 0.5]
    assert param.value.grad is None


def test_empty_stages_are_skipped() -> None:
    names = "".join(
        f'on_off_stage_name: "{n}" on_off_stage_iter: {k} ' for n, k in (("a", 0), ("b", 2), ("c", 1))
    )
    solver = Solver([parameter(torch.ones(1))], solver_message('base_lr: 0 lr_policy: "fixed" ' + names))
    seen = []
    for _ in range(5):
        seen.append(solver.stages.current)
        solver.step([None])
    assert seen == ["b", "b", "c", "b", "b"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('type: "Adamm" lr_policy: "fixed"', "unknown solver type 'Adamm'; did you mean 'Adam'?"),
        ('lr_policy: "stepp"', "unknown lr_policy 'stepp'; did you mean 'step'?"),
        ("base_lr: 1", "the solver needs lr_policy"),
        ('lr_policy: "step"', "stepsize > 0"),
        ('lr_policy: "poly"', "max_iter > 0"),
        ('lr_policy: "multistep" stepvalue: 3 step_lr: 1 step_lr: 2', "2 step_lr values for 1 stepvalue"),
        ('lr_policy: "multistep" stepvalue: 0 step_lr: 1 step_policy: "linear"', "rising stepvalue"),
        ('lr_policy: "fixed" regularization_type: "L3"', "unknown regularization_type 'L3'"),
        ('lr_policy: "fixed" type: "RMSProp" momentum: 0.9', "has no momentum"),
        ('lr_policy: "fixed" type: "Adam" momentum: 1', r"momentum in \[0, 1\), found 1"),
        ('lr_policy: "fixed" iter_size: 0', "iter_size must be at least 1"),
        ('lr_policy: "fixed" on_off_stage_name: "a" on_off_stage_iter: 0', "no stage can begin"),
        ('lr_policy: "fixed" on_off_stage_name: "a"', "0 on_off_stage_iter values for 1 names"),
    ],
)
def test_mistakes_are_located(text: str, complaint: str) -> None:
    document = schema.parse_solver("\n" + text, "s.prototxt")
    with pytest.raises(SpecError, match=complaint) as caught:
        Solver([parameter(torch.ones(1))], document.message, at=document.at)
    assert str(caught.value).startswith("s.prototxt:")


def test_a_stage_unknown_to_the_solver() -> None:
    text = 'base_lr: 0 lr_policy: "fixed" on_off_stage_name: "first" on_off_stage_iter: 2'
    with pytest.raises(
        SpecError, match="on_off_stage 'frist' is no stage of the solver; did you mean 'first'"
    ):
        Solver([parameter(torch.ones(1), on_off_stage="frist")], solver_message(text))


def test_state_of_another_net_is_refused() -> None:
    message = solver_message('type: "Adam" momentum: 0.9 base_lr: 0.1 lr_policy: "fixed"')
    state = Solver([parameter(torch.ones(3))], message).state_dict()
    with pytest.raises(SnapshotError, match=r"history/m/ip/0 has shape \(3,\), the net's is \(2,\)"):
        Solver([parameter(torch.ones(2))], message).load_state_dict(state)
    with pytest.raises(SnapshotError, match="has no 'history/m/other/0', which solver 'Adam' needs"):
        Solver([parameter(torch.ones(3), name="other/0")], message).load_state_dict(state)
