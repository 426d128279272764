"""Adversaries that take turns: weights of the other stage stand still, and each stage has its own losses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from netspec import schema
from netspec.data import Source
from netspec.errors import SpecError
from netspec.run.fit import fit
from netspec.solver.stages import Stages

NET = """
name: "game"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 8 dim: 3 } } }
layer { name: "real" type: "DummyData" top: "one" top: "zero"
  dummy_data_param { shape { dim: 8 dim: 1 } data_filler { value: 1 } data_filler { value: 0 } } }
layer { name: "make" type: "InnerProduct" bottom: "x" top: "made" on_off_stage: "maker"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "shared" type: "InnerProduct" bottom: "made" top: "code"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "judge" type: "InnerProduct" bottom: "code" top: "score" on_off_stage: "critic"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "caught" type: "SigmoidCrossEntropyLoss" bottom: "score" bottom: "zero" top: "caught"
  on_off_stage: "critic" }
layer { name: "fooled" type: "SigmoidCrossEntropyLoss" bottom: "score" bottom: "one" top: "fooled"
  on_off_stage: "maker" }
layer { name: "small" type: "EuclideanLoss" bottom: "made" bottom: "x" top: "small" loss_weight: 0.5 }
"""
SOLVER = """
net: "net.prototxt" type: "Adam" momentum: 0.9 base_lr: 0.01 lr_policy: "fixed"
weight_decay: 0.1 random_seed: 3 max_iter: 11
on_off_stage_name: "critic" on_off_stage_iter: 2 on_off_stage_name: "maker" on_off_stage_iter: 1
on_off_stage_hold: true test_interval: 0 solver_mode: CPU
"""
X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


class Given:
    """The same batch again and again."""

    shapes = ((8, 3),)

    def next(self) -> tuple[torch.Tensor, ...]:
        return (X,)

    def state(self) -> dict[str, int]:
        return {}

    def load_state(self, state: object) -> None:
        """Nothing to go on with."""

    def close(self) -> None:
        """Nothing to let go."""


def given() -> dict[str, Source]:
    return {"x": Given()}  # type: ignore[dict-item]


def written(folder: Path, solver: str = SOLVER) -> Path:
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(solver)
    return folder / "solver.prototxt"


def reference(start: dict[str, torch.Tensor], iterations: int) -> dict[str, torch.Tensor]:
    """The same game by torch's own Adam, an optimiser for each stage and one for what always learns."""
    w = {name: value.clone().requires_grad_() for name, value in start.items()}
    parts = {"critic": "judge", "maker": "make", "": "shared"}
    adams = {
        stage: torch.optim.Adam([w[f"{layer}/0"], w[f"{layer}/1"]], lr=0.01, weight_decay=0.1, eps=1e-8)
        for stage, layer in parts.items()
    }
    for t in range(iterations):
        stage = "maker" if t % 3 == 2 else "critic"
        made = functional.linear(X, w["make/0"], w["make/1"])
        code = functional.linear(made, w["shared/0"], w["shared/1"])
        score = functional.linear(code, w["judge/0"], w["judge/1"])
        target = torch.full_like(score, 0.0 if stage == "critic" else 1.0)
        loss = functional.binary_cross_entropy_with_logits(score, target, reduction="sum") / 8
        loss = loss + 0.5 * (made - X).square().sum() / 16
        for adam in adams.values():
            adam.zero_grad()
        loss.backward()
        adams[stage].step()
        adams[""].step()
    return {name: value.detach() for name, value in w.items()}


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_each_stage_is_trained_as_if_it_had_an_optimiser_of_its_own(tmp_path: Path, compiled: bool) -> None:
    solver = written(tmp_path)
    begun = fit(
        solver, given=given(), out=tmp_path / "a", iterations=1, progress=False, overrides=["base_lr=0"]
    )
    start = {name: value.clone() for name, value in begun.net.weights().items()}
    run = fit(solver, given=given(), out=tmp_path / "b", progress=False, weights=start, compiled=compiled)
    expected = reference(start, 11)
    for name, value in run.net.weights().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_game_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    solver = written(tmp_path)
    whole = fit(solver, given=given(), out=tmp_path / "a", progress=False)
    fit(solver, given=given(), out=tmp_path / "b", iterations=5, progress=False)
    rest = fit(solver, given=given(), resume=tmp_path / "b", progress=False)
    for name, value in rest.net.weights().items():
        assert torch.equal(value, whole.net.weights()[name]), name


def test_turns_are_counted_per_stage() -> None:
    message = schema.SolverParameter(on_off_stage_name=["a", "b", "a"], on_off_stage_iter=[2, 3, 1])
    stages, seen = Stages(message), {"a": 0, "b": 0}
    for t in range(20):
        assert stages.turns("a", t) == seen["a"]
        assert stages.turns("b", t) == seen["b"]
        assert stages.turns("", t) == t
        seen[str(stages.current)] += 1
        stages.advance()


def test_frozen_layers_keep_their_weights_and_the_others_learn(tmp_path: Path) -> None:
    solver = written(tmp_path, SOLVER.replace("on_off_stage_hold: true", 'frozen: "sh*" frozen: "judge"'))
    start = {"make/0": torch.eye(3), "shared/0": torch.ones(2, 3), "judge/0": torch.ones(1, 2)}
    run = fit(solver, given=given(), out=tmp_path / "run", progress=False, weights=start)
    assert torch.equal(run.net.weights()["shared/0"], start["shared/0"])
    assert torch.equal(run.net.weights()["judge/0"], start["judge/0"])
    assert not torch.equal(run.net.weights()["make/0"], start["make/0"])
    assert "frozen: true" in (tmp_path / "run" / "net.prototxt").read_text()


def test_a_frozen_name_that_fits_no_layer_is_an_error_at_its_place(tmp_path: Path) -> None:
    solver = written(tmp_path, SOLVER + 'frozen: "jugde"\n')
    with pytest.raises(
        SpecError, match=r"solver.prototxt:6:\d+: frozen 'jugde': no layer .*did you mean 'judge'"
    ):
        fit(solver, given=given(), out=tmp_path / "run", progress=False)
