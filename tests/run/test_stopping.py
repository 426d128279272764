"""Early stopping, the best snapshot, and gradient norms."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.run.fit import fit
from netspec.run.folder import Metrics
from netspec.run.stopping import Stopping, read_best

NET = """
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  data_filler { type: "gaussian" } data_filler { type: "constant" } shape { dim: 8 dim: 3 } shape { dim: 8 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "y" top: "accuracy" include { phase: TEST } }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 40 display: 2 random_seed: 1
test_iter: 1 test_interval: 4 compile: false """


def run(folder: Path, more: str = "", name: str = "run", **settings: Any) -> Any:
    (folder / "net.prototxt").write_text(NET)
    given = {field.split(":")[0] for field in re.findall(r"[a-z_]+: ", re.sub(r"{.*?}", "", more))}
    kept = [field for field in re.findall(r"[a-z_]+: \S+", SOLVER) if field.split(":")[0] not in given]
    (folder / "s_solver.prototxt").write_text(" ".join(kept) + "\n" + more)
    return fit(folder / "s_solver.prototxt", out=folder / name, progress=False, **settings)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in Metrics(folder / "metrics.jsonl").read() if line["kind"] == kind]


def test_patience(tmp_path: Path) -> None:
    done = run(tmp_path, 'base_lr: 0 early_stop { output: "loss" patience: 3 }')
    assert done.iteration == 12  # the test at 0 is the best, and three more are not better
    assert "loss has not been better than" in done.ended
    assert [line["iteration"] for line in lines(done.folder, "test")] == [0, 4, 8, 12]
    assert (done.folder / "snapshots" / "iter_12.safetensors").is_file()
    assert run(tmp_path, 'early_stop { output: "loss" patience: 3 }', "all").ended == ""


def test_a_run_that_is_resumed_remembers_its_tests(tmp_path: Path) -> None:
    early = 'base_lr: 0 snapshot: 5 early_stop { output: "loss" patience: 3 }'
    part = run(tmp_path, early, iterations=10)
    resumed = fit(tmp_path / "s_solver.prototxt", resume=part.folder, progress=False)
    assert resumed.iteration == 12
    assert resumed.ended


def test_plateau_of_the_loss(tmp_path: Path) -> None:
    done = run(tmp_path, "early_stop { plateau: 6 } base_lr: 0 ")
    losses = [line["loss"] for line in lines(done.folder, "train")]
    assert done.iteration < 40
    assert min(losses) == losses[-4]  # a display every 2 iterations
    assert "no new low for 6 iterations" in done.ended


def by_the_book(history: list[tuple[int, float]], delta: float) -> bool:
    """hyper_train.py's rule, with its rounding of halves away from 0."""
    n = len(history)
    if n <= 10:
        return False
    mid = int(n / 2.0 + 0.5)
    now = np.median([loss for _, loss in history[mid:]])
    before = np.median([loss for _, loss in history[:mid]])
    gap = history[-1][0] - history[-mid - 1][0]
    return bool((now - before) / (abs(before) * gap) > -delta)


@pytest.mark.parametrize("seed", range(4))
def test_delta(seed: int) -> None:
    chance = np.random.default_rng(seed)
    message = schema.parse_solver("early_stop { delta: 0.004 }").message
    rule, history = Stopping(message), []
    for t in range(0, 400, 5):
        loss = float(np.float32(math.exp(-t / 60) + 0.3 + 0.05 * chance.standard_normal()))
        history.append((t, loss))
        rule.displayed(t, loss)
        assert bool(rule.reason) == by_the_book(history, float(np.float32(0.004)))
        if rule.reason:
            break
    assert 50 < t < 395


def test_the_best_snapshot_is_kept_and_tested(tmp_path: Path) -> None:
    done = run(tmp_path, 'keep_best: "loss" base_lr: 3 momentum: 0.9 weight_decay: 0.3 max_iter: 60')
    losses = {line["iteration"]: line["outputs"]["loss"] for line in lines(done.folder, "test")}
    at = min(losses, key=lambda t: losses[t])
    assert at < done.iteration  # the rate is too high: it gets worse again
    assert done.best["iteration"] == at
    assert done.best["value"] == losses[at]
    assert done.best["results"][0]["loss"] == losses[at]
    assert read_best(done.folder) == {"iteration": at, "output": "loss", "value": losses[at], "net": 0}
    (best,) = lines(done.folder, "best")
    assert (best["of"], best["results"][0]["loss"]) == (at, losses[at])
    after = fit(tmp_path / "s_solver.prototxt", weights=done.folder / "best.safetensors", out=tmp_path / "again",
                progress=False, iterations=1)  # fmt: skip
    assert lines(after.folder, "test")[0]["outputs"]["loss"] == losses[at]


def test_the_best_of_a_resumed_run(tmp_path: Path) -> None:
    text = 'keep_best: "loss" base_lr: 3 momentum: 0.9 weight_decay: 0.3 max_iter: 60 snapshot: 7'
    whole = run(tmp_path, text)
    part = run(tmp_path, text, "part", iterations=35)
    resumed = fit(tmp_path / "s_solver.prototxt", resume=part.folder, progress=False)
    assert resumed.best == whole.best


def test_gradient_norms(tmp_path: Path) -> None:
    done = run(tmp_path, "gradient_norms: true iter_size: 2 base_lr: 0 ")
    line = lines(done.folder, "train")[0]
    assert set(line["gradient_norms"]) == {"ip/0", "ip/1"}
    assert line["gradient_norm"] == pytest.approx(math.hypot(*line["gradient_norms"].values()))
    plain = run(tmp_path, "base_lr: 0 ", "plain")
    assert "gradient_norm" not in lines(plain.folder, "train")[0]


def test_norms_are_those_of_the_gradients() -> None:
    from netspec.run.watch import gradient_norms

    net = make_net(NET, "TRAIN", seed=1)
    for param in net.params:
        param.value.grad = torch.full_like(param.value, 2.0)
    assert gradient_norms(net, 2)["gradient_norms"] == {
        "ip/0": pytest.approx(6**0.5),
        "ip/1": pytest.approx(2**0.5),
    }


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ('keep_best: "acuracy"', r"s_solver.prototxt:2:.*no output 'acuracy'; did you mean 'accuracy'\?"),
        ('keep_best: "accuracy" keep_best_net: 1', "test net 1: the solver has 1 test nets"),
        ('early_stop { output: "los" patience: 1 }', "no output 'los'; did you mean 'loss'"),
    ],
)
def test_mistakes(more: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=complaint):
        run(tmp_path, more)
