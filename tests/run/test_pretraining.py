"""A solver that names another as its pretraining: one command for both, resumed in either."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from netspec.check import check
from netspec.errors import NetspecError, SpecError
from netspec.run import fit as train
from tools.generate import render_nets

SHORT = "base_lr: 0.01 lr_policy: 'fixed' display: 1 random_seed: 1 snapshot: 2"


@pytest.fixture
def solver(tmp_path: Path) -> Path:
    """Fine-tuning of a small rendering net on small digits, and the unsupervised training before it."""
    net = render_nets.rendered("rfm_mnist", widths=[4])
    net = net.replace(' stand_in: "digits"', "").replace('name: "mnist"', 'name: "digits"')
    net = net.replace("kernel_size: 5", "kernel_size: 3").replace("labels: 100", "labels: 50")
    (tmp_path / "net.prototxt").write_text(net.replace("batch_size: 100", "batch_size: 20"))
    (tmp_path / "first_solver.prototxt").write_text(
        f'net: "net.prototxt" type: "Adam" max_iter: 6 train_state {{ stage: "unsupervised" }} {SHORT}'
    )
    path = tmp_path / "second_solver.prototxt"
    path.write_text(
        f'net: "net.prototxt" type: "Adam" pretraining: "first_solver.prototxt" train_state {{ stage: "labelled" }} '
        f"max_iter: 5 test_iter: 1 test_interval: 100 {SHORT}"
    )
    return path


def fitted(solver: Path, **options: object) -> dict[str, torch.Tensor]:
    return train.fit(solver, progress=False, device="cpu", **options).net.weights()  # type: ignore[arg-type]


def test_the_second_run_starts_where_the_first_ends(solver: Path, tmp_path: Path) -> None:
    both = fitted(solver, out=tmp_path / "both")
    assert (tmp_path / "both" / "pretraining" / "snapshots" / "iter_6.safetensors").is_file()
    first = fitted(tmp_path / "first_solver.prototxt", out=tmp_path / "first")
    by_hand = fitted(solver, out=tmp_path / "second", weights=first)
    assert not (tmp_path / "second" / "pretraining").exists()
    for name, value in both.items():
        assert torch.equal(value, by_hand[name]), name
    assert not torch.equal(first["conv1/0"], both["conv1/0"])


@pytest.mark.parametrize(
    ("phase", "never_began"), [("pretraining", True), ("pretraining", False), ("", False)]
)
def test_resumed_in_either_phase(solver: Path, tmp_path: Path, phase: str, never_began: bool) -> None:
    whole = fitted(solver, out=tmp_path / "whole")
    for path in (tmp_path / "whole" / phase / "snapshots").glob("iter_[56].*"):
        path.unlink()
    if phase:  # stopped in the first phase, or before the first snapshot of the second
        for path in tmp_path.glob("whole/snapshots/*"):
            path.unlink()
        if never_began:
            (tmp_path / "whole" / "metrics.jsonl").unlink()
    resumed = fitted(solver, resume=tmp_path / "whole")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_resumed_from_a_state_file(solver: Path, tmp_path: Path) -> None:
    whole = fitted(solver, out=tmp_path / "whole")
    state = tmp_path / "whole" / "snapshots" / "iter_2.state.safetensors"
    resumed = fitted(solver, resume=state, out=tmp_path / "again")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert not (tmp_path / "again" / "pretraining").exists()


def test_the_first_runs_state_is_not_the_seconds(solver: Path, tmp_path: Path) -> None:
    fitted(solver, out=tmp_path / "run")
    first = tmp_path / "run" / "pretraining"
    for resume in (first, first / "snapshots" / "iter_2.state.safetensors"):
        with pytest.raises(
            NetspecError, match=f"it is that pretraining: --resume {tmp_path / 'run'} goes on"
        ):
            fitted(solver, resume=resume)
    alone = fitted(tmp_path / "first_solver.prototxt", out=tmp_path / "alone")
    with pytest.raises(NetspecError, match="to start from its weights, give them as weights"):
        fitted(solver, resume=tmp_path / "alone")
    assert fitted(tmp_path / "first_solver.prototxt", resume=first).keys() == alone.keys()


def test_a_first_run_that_cannot_begin_leaves_no_folder(solver: Path, tmp_path: Path) -> None:
    first = tmp_path / "first_solver.prototxt"
    first.write_text(first.read_text().replace("Adam", "Adamant"))
    with pytest.raises(SpecError, match="Adamant"):
        fitted(solver, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_stopped_in_the_first_run_it_is_said_how_both_go_on(
    solver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = SimpleNamespace(interrupted=True, folder=tmp_path / "run" / "pretraining")
    monkeypatch.setattr(train, "pretrain", lambda *arguments: stopped)
    assert train.fit(solver, out=tmp_path / "run", device="cpu") is stopped
    assert f"--resume {tmp_path / 'run'}\n" in capsys.readouterr().out


def test_a_solver_that_is_not_there(solver: Path, tmp_path: Path) -> None:
    solver.write_text(solver.read_text().replace("first_solver", "frist_solver"))
    with pytest.raises(
        SpecError, match=r"second_solver.prototxt:1:\d+: pretraining 'frist_solver.prototxt': no such"
    ):
        fitted(solver, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_check_follows_the_pretraining(solver: Path, tmp_path: Path) -> None:
    report = check(solver)
    assert report.ok
    assert not report.warnings
    (tmp_path / "first_solver.prototxt").write_text('net: "net.prototxt" type: "Adamant" max_iter: 6')
    assert any("Adamant" in str(problem) for problem in check(solver).problems)
    (tmp_path / "first_solver.prototxt").unlink()
    assert any("solver file 'first_solver.prototxt' is not here" in str(p) for p in check(solver).problems)


def test_a_circle_of_pretrainings_is_refused(solver: Path, tmp_path: Path) -> None:
    first = tmp_path / "first_solver.prototxt"
    first.write_text(f'{first.read_text()} pretraining: "second_solver.prototxt"')
    with pytest.raises(
        SpecError, match=r"second_solver.prototxt:1:\d+: pretraining 'first_solver.prototxt': leads back"
    ):
        fitted(solver, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (problem,) = check(solver).problems
    assert "first_solver.prototxt:1:" in str(problem)
    assert "solver file 'second_solver.prototxt' leads back to itself" in str(problem)


def test_check_refuses_a_solver_as_net(solver: Path) -> None:
    solver.write_text(solver.read_text().replace('net: "net.prototxt"', f'net: "{solver.name}"'))
    assert any(
        str(problem).endswith(f"1:1: net file {solver.name!r} is a solver")
        for problem in check(solver).problems
    )
