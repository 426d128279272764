"""Sweeps: one run, many of them in processes, killed and begun again, shared by processes, and by optuna's searches."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netspec.errors import NetspecError
from netspec.experiments import ledger
from netspec.experiments.job import make
from netspec.experiments.ledger import DONE, FAILED, Result
from netspec.experiments.plan_reading import read_plan
from netspec.experiments.sources import Listed
from netspec.experiments.study import Study
from netspec.experiments.sweep import Options, Sweep
from netspec.experiments.table import table_path, write_table
from netspec.run.folder import Metrics

TEMPLATE = """base_lr: {{ base_lr }} max_iter: {{ steps | default(12) }} lr_policy: "fixed"
test_iter: 1 test_interval: 4 display: 2 snapshot: {{ snapshot | default(4) }}
compile: false random_seed: 5 snapshot_prefix: "{{ name }}"
net_param { name: "t"
  layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
    data_filler { type: "gaussian" } data_filler { type: "constant" } shape { dim: 4 dim: 3 } shape { dim: 4 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
    inner_product_param { num_output: {{ units | default(2) }} weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
  layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "y" top: "accuracy" include { phase: TEST } }
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototmp").write_text(TEMPLATE)
    return tmp_path


def planned(folder: Path, text: str, **options: Any) -> Sweep:
    (folder / "p.yaml").write_text(f"template: net.prototmp\nmetric: loss\n{text}")
    return Sweep(read_plan(folder / "p.yaml"), Options(jobs=1, device="cpu", **options))


def make_all(sweep: Sweep) -> dict[str, Result]:
    """The runs of a sweep, made in this process."""
    while (run := sweep.source.next(sweep.ready)) is not None:
        result = make(sweep.job(run), lambda: False)
        assert result is not None
        sweep.over(run, result)
    return sweep.results


def test_runs_and_their_table(folder: Path) -> None:
    sweep = planned(folder, "values: {base_lr: [0.1, 0.2], steps: 12}\nseeds: [3]")
    results = make_all(sweep)
    assert [result.status for result in results.values()] == [DONE, DONE]
    one = folder / "runs" / "p" / "p_1_s3"
    assert json.loads((one / "point.json").read_text())["values"] == {"base_lr": 0.1, "steps": 12}
    assert json.loads((one / "run.json").read_text())["seed"] == 3
    assert [path.name for path in sorted((one / "snapshots").iterdir())] == [
        "p_1_s3_iter_12.safetensors", "p_1_s3_iter_12.state.safetensors"
    ]  # fmt: skip
    write_table(sweep.plan, results, sweep.source.known())
    rows = list(csv.DictReader(table_path(sweep.plan).read_text().splitlines()))
    tests = [
        line["outputs"]["loss"] for line in Metrics(one / "metrics.jsonl").read() if line["kind"] == "test"
    ]
    assert rows[0]["hyper__base_lr"] == "0.1"
    assert float(rows[0]["test_results0_1_loss"]) == tests[-1] == results["p_1_s3"].value
    assert float(rows[0]["best_loss"]) == min(tests)
    assert float(rows[0]["moving_avg"]) == pytest.approx(sum(tests[1:]) / len(tests[1:]))
    assert make_all(planned(folder, "values: {base_lr: [0.1, 0.2], steps: 12}\nseeds: [3]")) == results
    assert ledger.attempts(one) == 1


def test_a_run_that_was_stopped_goes_on(folder: Path) -> None:
    text = "values: {base_lr: 0.1, steps: 12}\nkeep: all"
    whole = make_all(planned(folder, f"{text}\nname: whole"))["whole_1"]
    sweep = planned(folder, f"{text}\nname: part")
    run = sweep.source.next(sweep.ready)
    assert run is not None
    job = sweep.job(run)
    make(job, lambda: False)
    for path in job.path.glob("snapshots/*iter_12*"):  # as if it had been killed after its snapshot at 8
        path.unlink()
    (job.path / ledger.RESULT).unlink()
    again = make_all(planned(folder, f"{text}\nname: part"))["part_1"]
    assert (again.value, again.attempts) == (whole.value, 2)
    lines = [(line["kind"], line["iteration"]) for line in Metrics(job.path / "metrics.jsonl").read()]
    assert len(lines) == len(set(lines))


def test_a_run_that_was_killed_before_its_first_snapshot_begins_anew(folder: Path) -> None:
    sweep = planned(folder, "values: {base_lr: 0.1}")
    run = sweep.source.next(sweep.ready)
    assert run is not None
    job = sweep.job(run)
    (job.path / "metrics.jsonl").write_text('{"kind": "train", "iteration": 0}\n')
    result = make(job, lambda: False)
    assert result is not None
    assert result.status == DONE


def test_a_run_that_fails_is_recorded_and_made_again_when_asked(folder: Path) -> None:
    text = "values: {base_lr: [.inf, 0.1]}"
    results = make_all(planned(folder, text))
    assert [result.status for result in results.values()] == [FAILED, DONE]
    assert "not finite" in results["p_1"].reason
    assert make_all(planned(folder, text)) == results
    assert ledger.attempts(folder / "runs/p/p_1") == 1
    make_all(planned(folder, text, retry=True))
    assert [ledger.attempts(folder / f"runs/p/p_{i}") for i in (1, 2)] == [1, 1]
    assert (folder / "runs/p/p_1/log.txt").exists() is False


def test_a_metric_that_no_test_has(folder: Path) -> None:
    """It is told with the nearest name; with the right one the same runs are over at once."""
    (folder / "p.yaml").write_text("template: net.prototmp\nmetric: los\nvalues: {base_lr: 0.1}")
    (result,) = make_all(Sweep(read_plan(folder / "p.yaml"), Options(jobs=1, device="cpu"))).values()
    assert (result.status, result.value) == (FAILED, None)
    assert result.reason == "metric: test net 0 has no output 'los'; did you mean 'loss'?"
    (again,) = make_all(planned(folder, "values: {base_lr: 0.1}", retry=True)).values()
    assert (again.status, again.iteration) == (DONE, 12)
    assert again.value is not None


def test_stages_follow_one_another(folder: Path) -> None:
    stages = """stages:
- {name: init, values: {steps: 4}}
- {name: train, after: init, values: {base_lr: [0.1, 0.2]}, set: {keep_best: loss}}
- {name: test, after: train, task: test, iterations: 2, values: {p: [1, 2]}}
values: {base_lr: 0.1}
"""
    sweep = planned(folder, stages)
    results = make_all(sweep)
    assert [result.status for result in results.values()] == [DONE] * 7
    run = next(run for run in sweep.source.known() if run.id == "p_init_1_train_1")
    assert sweep.job(run).weights == "runs/p/p_init_1"
    trained, tested = results["p_init_1_train_2"], results["p_init_1_train_2_test_1"]
    assert tested.outputs[0].keys() == trained.outputs[0].keys()
    assert tested.value is not None


def test_a_stage_after_one_that_failed_is_not_made(folder: Path) -> None:
    stages = "stages:\n- {name: a, values: {base_lr: .inf}}\n- {name: b, after: a}\nvalues: {base_lr: 0.1}\n"
    sweep = planned(folder, stages)
    make_all(sweep)
    assert sweep.skipped == {"p_a_1_b_1": "the run before it failed: p_a_1"}


def test_rules_of_the_plan(folder: Path) -> None:
    results = make_all(planned(folder, "values: {base_lr: 0, steps: 400}\nstop: {patience: 3}\nkeep: best"))
    assert "has not been better" in results["p_1"].reason
    assert results["p_1"].iteration == 12
    kept = [path.name for path in (folder / "runs/p/p_1").rglob("*.safetensors")]
    assert kept == ["best.safetensors"]


def test_an_original_plan_leaves_caffes_weights(folder: Path) -> None:
    plan = {"name": "o/train", "search_type": "grid", "rendering_engine": True, "hyper_params": [
        {"name": "base_lr", "type": "preset", "values": [0.1]}]}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    make_all(Sweep(read_plan(folder / "plan.json"), Options(jobs=1, device="cpu")))
    assert (folder / "o/train/o_train_1_iter_12.caffemodel").is_file()
    plan |= {"name": "o/test", "weights_file": "../train/o_train_{{ run_idx_1 }}_iter_*.caffemodel"}
    (folder / "plan.json").write_text(json.dumps(plan))
    sweep = Sweep(read_plan(folder / "plan.json"), Options(jobs=1, device="cpu"))
    run = sweep.source.next(sweep.ready)
    assert run is not None
    assert sweep.job(run).weights == "o/train/o_train_1_iter_12.caffemodel"
    plan |= {"name": "o/none", "weights_file": "nothing_{{ base_lr }}.caffemodel"}
    (folder / "plan.json").write_text(json.dumps(plan))
    sweep = Sweep(read_plan(folder / "plan.json"), Options(jobs=1, device="cpu"))
    assert make_all(sweep) == {}
    assert "its weights are not there" in sweep.skipped["o_none_1"]


def test_another_plan_in_the_folder_is_refused(folder: Path) -> None:
    make_all(planned(folder, "values: {base_lr: 0.1}"))
    (folder / "runs/p/p_1/result.json").unlink()
    sweep = planned(folder, "values: {base_lr: 0.2}")
    run = sweep.source.next(sweep.ready)
    assert run is not None
    with pytest.raises(NetspecError, match="is the run of another plan"):
        sweep.job(run)


def test_values_that_the_template_never_reads_are_said(folder: Path) -> None:
    plan = planned(folder, "values: {base_lr: 0.1, momentun: [0.5, 0.9], step: 3}").plan
    first, second = plan.notes()
    assert "value 'momentun' is not read by" in first
    assert "goes under set" in first
    assert "value 'step' is not read by" in second
    assert "did you mean 'steps'?" in second
    assert planned(folder, "values: {base_lr: 0.1, steps: 8}").plan.notes() == []


def test_a_plan_may_be_named_from_elsewhere(folder: Path) -> None:
    """By another path to the same file: its runs are those that are there."""
    make_all(planned(folder, "values: {base_lr: 0.1}"))
    point = folder / "runs/p/p_1/point.json"
    facts = json.loads(point.read_text())
    point.write_text(json.dumps({**facts, "source": "/elsewhere/net.prototmp"}))
    sweep = planned(folder, "values: {base_lr: 0.1}")
    assert sweep.source.next(sweep.ready) is None


def test_a_run_of_a_file_that_has_changed_is_refused(folder: Path) -> None:
    text = re.sub(r"{{ \w+ \| default\((\d+)\) }}", r"\1", TEMPLATE)
    (folder / "net.prototxt").write_text(text.replace("{{ base_lr }}", "0.1").replace("{{ name }}", "n"))

    def of_file() -> Sweep:
        (folder / "f.yaml").write_text("file: net.prototxt\nmetric: loss\nseeds: 1\n")
        return Sweep(read_plan(folder / "f.yaml"), Options(jobs=1, device="cpu"))

    make_all(of_file())
    same = of_file()
    assert same.source.next(same.ready) is None
    with (folder / "net.prototxt").open("a") as file:
        file.write("# changed\n")
    changed = of_file()
    with pytest.raises(NetspecError, match="is the run of another plan"):
        changed.source.next(changed.ready)


def test_a_run_that_is_over_stands_for_no_other_plan(folder: Path) -> None:
    """Neither other values, nor another template, may be given the results that lie in the folder."""
    make_all(planned(folder, "values: {base_lr: 0.1}"))
    other = planned(folder, "values: {base_lr: 0.2}")
    with pytest.raises(NetspecError, match="is the run of another plan"):
        other.source.next(other.ready)
    (folder / "net.prototmp").write_text(TEMPLATE.replace("display: 2", "display: 3"))
    changed = planned(folder, "values: {base_lr: 0.1}")
    with pytest.raises(NetspecError, match="the template has changed since"):
        changed.source.next(changed.ready)


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    lock = ledger.claim(tmp_path / "run")
    assert lock is not None
    assert ledger.claim(tmp_path / "run") is None
    lock.close()
    again = ledger.claim(tmp_path / "run")
    assert again is not None
    again.close()


def test_the_list_waits_for_earlier_stages(folder: Path) -> None:
    source = planned(folder, "stages: [{name: a}, {name: b, after: a}]\nvalues: {base_lr: 0.1}").source
    assert isinstance(source, Listed)
    first = source.next(lambda run: run.parent is None)
    assert first is not None
    assert first.id == "p_a_1"
    assert source.next(lambda run: None if run.parent is None else False) is None
    assert [run.id for run in source.open] == ["p_a_1_b_1"]


# optuna

SPACE = (
    "values: {base_lr: {log_uniform: [0.001, 1]}, units: {choice: [2, 3]}, steps: 4}\npoints: 4\nseed: 3\n"
)


def test_tpe_and_a_study_that_goes_on(folder: Path) -> None:
    text = SPACE + "search: tpe"
    sweep = planned(folder, text)
    assert isinstance(sweep.source, Study)
    run = sweep.source.next(sweep.ready)  # this one is left unfinished, as by a kill
    assert run is not None
    sweep.job(run)
    results = make_all(planned(folder, text))
    assert sorted(results) == [f"p_{i}" for i in range(1, 5)]
    study = Study(sweep.plan).study
    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert {trial.number: trial.value for trial in finished} == {
        int(id[2:]) - 1: result.value for id, result in results.items()
    }
    assert json.loads((folder / "runs/p/p_1/point.json").read_text())["values"] == dict(run.values)
    assert len({trial.params["base_lr"] for trial in finished}) == 4
    assert make_all(planned(folder, text)) == results


def test_two_sweeps_share_a_storage(folder: Path) -> None:
    """Each with a folder of its own, as on two machines: together they make each run once."""
    url = f"sqlite:///{folder / 'study.db'}"
    text = "values: {base_lr: [0.1, 0.2, 0.3], steps: 4}\nname: shared\n"
    two = [planned(folder, text + f"out: {name}", storage=url) for name in ("a", "b")]
    made: list[str] = []
    for i in range(4):
        sweep = two[i % 2]
        run = sweep.source.next(sweep.ready)
        if run is not None:
            made.append(run.id)
            result = make(sweep.job(run), lambda: False)
            assert result is not None
            sweep.over(run, result)
    assert sorted(made) == ["shared_1", "shared_2", "shared_3"]
    assert {path.parent.name for path in folder.rglob("result.json")} == set(made)


def test_halving_gives_runs_up(folder: Path) -> None:
    sweep = planned(folder, "values: {base_lr: {uniform: [0, 1]}}\npoints: 9\nsearch: halving")
    source = sweep.source
    pruned = []
    for i in range(6):
        run = source.next(sweep.ready)
        assert run is not None
        path = run.folder(sweep.plan)
        path.mkdir(parents=True)
        metrics = Metrics(path / "metrics.jsonl")
        metrics.write("test", 0, net=0, outputs={"loss": 9.0})
        metrics.write("test", 4, net=0, outputs={"loss": float(i)})
        pruned.append(source.prune(run, path))
        assert source.prune(run, path) is False  # nothing new
        sweep.over(run, Result(run.id, "pruned" if pruned[-1] else DONE, value=float(i)))
    assert pruned[0] is False
    assert all(pruned[3:])


def test_hyperband_gives_runs_up_in_brackets(folder: Path) -> None:
    """The longest runs of the worst are given up, never the best so far; each run goes to one of several brackets."""
    sweep = planned(folder, "values: {base_lr: {uniform: [0, 1]}}\npoints: 30\nsearch: hyperband")
    source = sweep.source
    pruned: dict[str, float] = {}
    best = 1e9
    for i in range(24):
        run = source.next(sweep.ready)
        assert run is not None
        path = run.folder(sweep.plan)
        path.mkdir(parents=True)
        metrics = Metrics(path / "metrics.jsonl")
        loss = 0.0 if i == 12 else float(i)
        given_up = False
        for step in range(9 if i < 3 else 27):
            metrics.write("test", step, net=0, outputs={"loss": loss})
            if source.prune(run, path):
                pruned[run.id], given_up = loss, True
                break
        if not given_up:
            best = min(best, loss)
        sweep.over(run, Result(run.id, "pruned" if given_up else DONE, value=loss))
    assert pruned
    assert best == 0.0
    assert 0.0 not in pruned.values()
    assert len(pruned) < 21  # a bracket lets its runs go on to the end


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("postgresql://me:secret@host/studies", "psycopg2-binary"),
        ("postgresql+psycopg://me:secret@host/studies", r"psycopg\[binary\]"),
        ("mysql+pymysql://me:secret@host/studies", "pymysql"),
    ],
)
def test_a_database_whose_driver_is_not_here(
    url: str, package: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*given: object, **how: object) -> None:
        raise ImportError("Failed to import DB access module for the specified storage URL.")

    monkeypatch.setattr("optuna.storages.RDBStorage", lacking)
    with pytest.raises(NetspecError, match=rf"is not installed \(pip install {package}\)") as error:
        planned(folder, "values: {base_lr: [0.1, 0.2]}", storage=url)
    assert "secret" not in str(error.value)
    assert "me:***@host/studies" in str(error.value)


# Processes


def launch(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "netspec",
        "sweep",
        str(folder / "p.yaml"),
        "-j",
        "2",
        "--device",
        "cpu",
        *more,
    ]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, start_new_session=True
    )


def over(folder: Path) -> dict[str, float]:
    """When each run that is over came to its end."""
    return {path.parent.name: path.stat().st_mtime for path in folder.rglob("result.json")}


@pytest.mark.slow
def test_a_sweep_that_is_killed_loses_and_repeats_nothing(folder: Path) -> None:
    values = "values: {base_lr: [0.01, 0.02, 0.03, 0.04, 0.05, 0.06], steps: 300, snapshot: 50}"
    (folder / "p.yaml").write_text(f"template: net.prototmp\nmetric: loss\n{values}")
    chance, known, kills = random.Random(3), dict[str, float](), 0
    while True:
        process = launch(folder)
        deadline = time.monotonic() + (chance.uniform(4, 12) if kills < 3 else 600)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is None:
            kills += 1
            if kills % 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()  # the sweep alone: its processes see that, and stop
        process.communicate()
        results = over(folder)
        assert {run: results[run] for run in known} == known  # nothing that was over was made again
        known = results
        if process.returncode == 0:
            break
        assert kills <= 3
    assert len(known) == 6
    for run in known:
        lines = Metrics(folder / "runs/p" / run / "metrics.jsonl").read()
        shown = [(line["kind"], line["iteration"]) for line in lines]
        assert len(shown) == len(set(shown))
        assert [t for kind, t in shown if kind == "train"] == list(range(0, 300, 2))


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_lets_runs_take_a_snapshot(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A terminal sends SIGINT to every process of the command."""
    (folder / "p.yaml").write_text(
        "template: net.prototmp\nmetric: loss\nvalues: {base_lr: 0.01, steps: 1000000, snapshot: 500000}"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests themselves ignore it
    try:
        process = launch(folder)
    finally:
        signal.signal(signal.SIGINT, before)
    metrics = folder / "runs/p/p_1/metrics.jsonl"
    deadline = time.monotonic() + 300
    try:
        while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=300)
    finally:
        process.kill()  # where it did not stop; its runs see that, and do
    assert process.returncode == 130
    assert "Traceback" not in capfd.readouterr().err
    assert list((folder / "runs/p/p_1").rglob("*.state.safetensors"))


@pytest.mark.slow
def test_two_processes_on_one_storage(folder: Path) -> None:
    (folder / "p.yaml").write_text(
        "template: net.prototmp\nmetric: loss\nname: s\nsearch: tpe\npoints: 6\n"
        "values: {base_lr: {log_uniform: [0.001, 1]}, steps: 40}"
    )
    url = f"sqlite:///{folder / 'study.db'}"
    both = [launch(folder, "--out", name, "--storage", url) for name in ("a", "b")]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    made = sorted(path.parent.name for path in folder.rglob("result.json"))
    assert made == [f"s_{i}" for i in range(1, 7)]


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test's own; skipped where none is installed."""
    pytest.importorskip("psycopg")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb") or (str(programs[-1] / "initdb") if programs else None)
    if found is None:
        pytest.skip("needs PostgreSQL (apt-get install postgresql)")
    bin_ = Path(found).resolve().parent
    owner: dict[str, Any] = {"cwd": "/"}
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # which PostgreSQL refuses to be
        pwd = pytest.importorskip("pwd")
        owner["user"] = next(
            (name for name in ("postgres", "nobody") if name in {u.pw_name for u in pwd.getpwall()}), None
        )
        if owner["user"] is None:
            pytest.skip("PostgreSQL needs a user that is not root")
    with tempfile.TemporaryDirectory(prefix="netspec-pg-") as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        base = Path(name)
        base.chmod(0o777)
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **owner}
        subprocess.run(
            [bin_ / "initdb", "-D", base / "data", "-U", "lab", "--auth=trust", "--no-sync"], **quiet
        )
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {base}"
        command = [str(bin_ / "pg_ctl"), "-D", str(base / "data"), "-w", "-t", "120"]
        subprocess.run([*command, "-o", settings, "-l", str(base / "log"), "start"], **quiet)
        try:
            yield f"postgresql+psycopg://lab@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*command, "-m", "immediate", "stop"], **quiet)


@pytest.mark.slow
def test_two_processes_on_one_postgresql(folder: Path, postgres: str) -> None:
    """Each with a folder of its own, as on two machines: together they make each run once."""
    (folder / "p.yaml").write_text(
        "template: net.prototmp\nmetric: loss\nname: s\nsearch: tpe\npoints: 6\n"
        "values: {base_lr: {log_uniform: [0.001, 1]}, steps: 40}"
    )
    both = [launch(folder, "--out", name, "--storage", postgres) for name in ("a", "b")]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    made = sorted(path.parent.name for path in folder.rglob("result.json"))
    assert made == [f"s_{i}" for i in range(1, 7)]
    rates = {
        json.loads(path.read_text())["values"]["base_lr"]
        for path in folder.rglob("point.json")
        if (path.parent / "result.json").is_file()
    }
    assert len(rates) == 6
    again = launch(folder, "--out", "c", "--storage", postgres)  # a third machine finds nothing left to make
    again.communicate()
    assert again.returncode == 0
    assert len(list(folder.rglob("result.json"))) == 6


@pytest.mark.slow
def test_limits_of_time_and_crashes(folder: Path) -> None:
    (folder / "p.yaml").write_text(
        "template: net.prototmp\nmetric: loss\nlimits: {seconds: 15}\nvalues: {steps: [2, 100000000], base_lr: 0.1}"
    )
    process = launch(folder)
    process.communicate()
    assert process.returncode == 1
    long = ledger.read_result(folder / "runs/p/p_2")
    assert long is not None
    assert (long.status, long.reason) == (FAILED, "took more than 15 s")
    short = ledger.read_result(folder / "runs/p/p_1")
    assert short is not None
    assert short.status == DONE
