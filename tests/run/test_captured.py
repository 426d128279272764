"""A step that reads batch and numbers from where they lie is the step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from netspec import make_net, schema
from netspec.run.captured import Captured, hindrance
from netspec.run.fit import fit
from netspec.schema.spec import TRAIN
from netspec.solver import Solver

INPUT = """
layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
"""
LAYERS = """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" param { lr_mult: 2 max_value: 0.5 }
  inner_product_param { num_output: 5 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "y" top: "n" }
layer { name: "drop" type: "Dropout" bottom: "n" top: "d" }
layer { name: "ip2" type: "InnerProduct" bottom: "d" top: "z"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "z" bottom: "t" top: "loss" }
"""
RULES = [
    'type: "Nadam" momentum: 0.9 weight_decay: 0.01 base_lr: 0.01 lr_policy: "step" stepsize: 2 gamma: 0.5',
    'type: "SGD" momentum: 0.9 clip_gradients: 0.1 base_lr: 0.1 lr_policy: "fixed"',
]


def again(body: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A recorder for a CPU: it runs the body, as cuda_graph does to warm up, and replays it by running it."""
    for _ in range(3):
        body()
    return body


@pytest.mark.parametrize("rule", RULES)
def test_replayed_steps_are_steps(rule: str) -> None:
    """Losses, weights, statistics, history and the state of the solver; the recording itself leaves no trace."""
    message = schema.parse_solver(rule).message
    batches = [(torch.randn(4, 3), torch.randint(2, (4,)).float()) for _ in range(5)]
    ends: list[dict[str, int | Tensor]] = []
    for way in ("steps", "captured"):
        net = make_net(INPUT + LAYERS, TRAIN, seed=1)
        solver = Solver(net, message)
        torch.manual_seed(0)
        step = Captured(net, solver, batches[0], torch.device("cpu"), again) if way == "captured" else None
        losses = []
        for batch in batches:
            if step is not None:
                losses.append(step(batch)[0].clone())
                continue
            loss = net.objective(net(*batch))
            loss.backward()  # type: ignore[no-untyped-call]
            solver.step()
            losses.append(loss.detach())
        ends.append({**solver.state_dict(), **net.weights(), "losses": torch.stack(losses)})
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        other = ends[1][name]
        if isinstance(value, Tensor) and isinstance(other, Tensor):
            assert torch.allclose(value, other, rtol=1e-5, atol=1e-6), name
        else:
            assert value == other, name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ""),
        ("iter_size: 2", "iter_size is 2"),
        ('type: "EM"', "type 'EM' goes by more than gradients"),
        ("debug_info: true", "debug_info looks at every layer"),
        ('on_off_stage_name: "a" on_off_stage_iter: 1', "stages change what learns"),
    ],
)
def test_what_hinders_it(text: str, reason: str) -> None:
    message = schema.parse_solver(text).message
    assert hindrance(message, torch.device("cuda"), 1, False) == reason
    assert hindrance(message, torch.device("cpu"), 1, False) == "there is no CUDA device"
    assert "several processes" in hindrance(schema.parse_solver("").message, torch.device("cuda"), 2, False)


DATA = """
layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 }
  data_filler { type: "gaussian" } data_filler { type: "constant" } } }
"""


def solver_file(folder: Path) -> Path:
    (folder / "net.prototxt").write_text(DATA + LAYERS)
    path = folder / "solver.prototxt"
    path.write_text(
        f'net: "{folder / "net.prototxt"}" {RULES[0]} max_iter: 3 random_seed: 1 cuda_graph: true'
    )
    return path


def test_a_run_without_a_gpu_says_so_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(solver_file(tmp_path), out=tmp_path / "run", device="cpu").iteration == 3
    assert "no CUDA graph: there is no CUDA device" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_on_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = solver_file(tmp_path)
    weights = [
        fit(file, out=tmp_path / way, device="cuda", overrides=[f"cuda_graph={way}"]).net.weights()
        for way in ("true", "false")
    ]
    assert "the step is one CUDA graph" in capsys.readouterr().out
    assert all(torch.allclose(value, weights[1][name], atol=1e-5) for name, value in weights[0].items())
