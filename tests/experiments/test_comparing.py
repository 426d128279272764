"""Comparisons: significance against enumeration and scipy, predictions of trained nets, files side by side."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from netspec import fit
from netspec.cli import app
from netspec.errors import NetspecError
from netspec.experiments.comparing import compare_runs
from netspec.experiments.significance import mcnemar, paired, spread
from netspec.run.confusion import confusion, predictions
from netspec.run.stopping import lower_is_better
from tests.experiments.folders import write_run
from tests.run.test_recording import LINEAR


def test_mcnemar_against_a_count_by_hand() -> None:
    labels = [0, 1, 2, 3, 4, 5, -1, 7]
    first = [0, 1, 2, 9, 9, 0, 1, 7]
    second = [0, 0, 0, 3, 8, 0, 2, 7]
    counts = mcnemar(labels, first, second)
    assert (counts.n11, counts.n10, counts.n01, counts.n00, counts.differ) == (2, 2, 1, 2, 4)
    assert counts.z == pytest.approx((2 - 1) / math.sqrt(3))
    assert counts.z_literal == pytest.approx(math.sqrt(4) * (2 * 2 / 4 - 1))  # sqrt(N) (2x - 1), x = 2 of 4
    turned = mcnemar(labels, second, first)
    assert turned.z == -counts.z


def test_both_forms_of_z_agree_where_one_of_two_is_right() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)  # with two classes, those that differ are those of which one is right
    a, b = (np.where(rng.random(500) < share, labels, 1 - labels) for share in (0.8, 0.7))
    counts = mcnemar(labels, a, b)
    assert counts.z == pytest.approx(counts.z_literal)
    assert counts.differ == counts.n10 + counts.n01
    tails = sum(
        math.comb(counts.differ, k)
        for k in range(counts.differ + 1)
        if abs(2 * k - counts.differ) >= abs(counts.n10 - counts.n01)
    )
    assert counts.p == pytest.approx(tails / 2**counts.differ)


def test_equal_predictions_show_nothing() -> None:
    counts = mcnemar([0, 1], [0, 0], [0, 0])
    assert (counts.z, counts.z_literal, counts.p) == (0, 0, 1)


def test_the_published_z_of_the_thesis() -> None:
    """Table 2 at 0.7: 0.7257 and 0.7273 of 10,000 images and z = 1.47 mean 118 images on which one is right."""
    right = round((118 + 16) / 2)
    labels = np.zeros(10_000, int)
    multi, single = np.ones(10_000, int), np.ones(10_000, int)
    multi[:right], single[right:118] = 0, 0
    both = round(0.7273 * 10_000) - right
    multi[200 : 200 + both] = single[200 : 200 + both] = 0
    assert mcnemar(labels, multi, single).z == pytest.approx(1.47, abs=0.005)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_against_scipy_and_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.3, 1, 7), rng.normal(0, 1, 7)
    pairs = paired(a, b)
    theirs = stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(0.95)
    assert (pairs.difference, pairs.p) == pytest.approx((float((a - b).mean()), theirs.pvalue))
    assert (pairs.low, pairs.high) == pytest.approx((interval.low, interval.high))
    sums = [
        abs(sum(s * d for s, d in zip(signs, a - b, strict=True)))
        for signs in itertools.product((1, -1), repeat=7)
    ]
    assert pairs.p_signs == pytest.approx(np.mean([one >= abs((a - b).sum()) - 1e-12 for one in sums]))
    mean, half = spread(list(a - b))
    assert (mean - half, mean + half) == pytest.approx((interval.low, interval.high))


def test_many_pairs_are_drawn_and_near_the_t_test() -> None:
    rng = np.random.default_rng(1)
    d = rng.normal(0.3, 1, 40)
    pairs = paired(d, np.zeros(40))
    assert pairs.p_signs == pytest.approx(pairs.p, abs=0.02)


def test_single_and_equal_pairs() -> None:
    one = paired([0.5], [0.25])
    assert (one.count, one.difference) == (1, 0.25)
    assert math.isnan(one.p)
    assert one.as_json()["p"] is None
    same = paired([1, 2, 3], [1, 2, 3])
    assert (same.p, same.p_signs) == (1, 1)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for i, value in enumerate((0.80, 0.82, 0.81, 0.83), 1):
        write_run(tmp_path / f"a_s{i}", (0.1, value), seed=i)
        write_run(tmp_path / f"b_s{i}", (0.1, value + 0.02 + 0.001 * i), seed=i, base_lr=0.01, outputs=8)
    return tmp_path


def test_runs_of_other_seeds_are_groups(two: Path) -> None:
    comparison = compare_runs([two], test=False)
    assert [(group.name, len(group.runs)) for group in comparison.groups] == [("a", 4), ("b", 4)]
    assert comparison.outputs[0] == "accuracy"
    assert comparison.settings == {
        "base_lr": ["0.1", "0.01"],
        "ip.inner_product_param.num_output": ["4", "8"],
    }
    own = comparison.against[0].pairs["accuracy"]
    assert own.count == 4
    assert own.difference == pytest.approx(0.0225)
    assert own.p < 0.001
    text = "\n".join(comparison.lines())
    assert "b against a" in text
    assert "accuracy: +0.0225 over 4 seeds" in text
    assert "better" in text
    assert "-base_lr: 0.1" in text
    assert "+base_lr: 0.01" in text
    assert (
        json.loads(json.dumps(comparison.as_json()))["against_first"][0]["paired"]["accuracy"]["count"] == 4
    )


def test_seeds_that_only_one_has_do_not_count(two: Path) -> None:
    write_run(two / "c_s3", (0.9,), seed=3, base_lr=0.5)
    write_run(two / "c_s9", (0.9,), seed=9, base_lr=0.5)
    comparison = compare_runs(
        [two / "a_s3", two / "a_s4", two / "c_s3", two / "c_s9"], output="accuracy", test=False
    )
    assert comparison.against[0].pairs["accuracy"].count == 1
    assert "one pair" in "\n".join(comparison.lines())


def with_outputs(run: Path, **outputs: float) -> Path:
    line = {"kind": "test", "iteration": 20, "net": 0, "outputs": outputs}
    (run / "metrics.jsonl").write_text(json.dumps(line))
    return run


def test_the_accuracy_comes_first(tmp_path: Path) -> None:
    a = with_outputs(write_run(tmp_path / "a"), mine=1, loss=1, error=1, accuracy=1)
    b = with_outputs(write_run(tmp_path / "b", base_lr=0.5), mine=1, loss=1, error=1, accuracy=1)
    assert compare_runs([a, b], test=False).outputs == ["accuracy", "error", "loss", "mine"]


@pytest.mark.parametrize(
    "name",
    ["rmse", "test_mse", "MAE", "nll", "perplexity", "ece", "cost", "bits_per_dim", "distance", "l2_error"],
)
def test_names_of_what_is_to_fall(name: str) -> None:
    assert lower_is_better(name)


@pytest.mark.parametrize("name", ["accuracy", "piece", "f1", "orbits", "mAP"])
def test_names_of_what_is_to_grow(name: str) -> None:
    assert not lower_is_better(name)


@pytest.mark.parametrize(("mode", "word"), [("min", "worse"), ("max", "better")])
def test_the_plan_says_what_is_better(mode: str, word: str, tmp_path: Path) -> None:
    for k, rate in enumerate((0.1, 0.2)):
        for seed in range(4):
            values = {"base_lr": rate}
            run = write_run(tmp_path / f"{k}_{seed}", base_lr=rate, seed=seed, values=values)
            with_outputs(run, mine=k + seed / 100 + k * seed / 1000)
            point = json.loads((run / "point.json").read_text())
            point["metric"] = {"output": "mine", "net": 0, "mode": mode}
            (run / "point.json").write_text(json.dumps(point))
    comparison = compare_runs([tmp_path], test=False)
    assert f": {word}" in "\n".join(comparison.lines())


def test_equal_seeds_count_once_by_their_mean(tmp_path: Path) -> None:
    for name, value, seed in (("a", 0.5, 0), ("b", 0.7, 0), ("c", 0.9, None)):
        facts = {"seed": seed}
        write_run(tmp_path / name, (value,), facts=facts)
        write_run(tmp_path / f"{name}_", (value + 0.1,), facts=facts, base_lr=0.5)
    comparison = compare_runs([tmp_path], output="accuracy", test=False)
    assert comparison.groups[0].by_seed("accuracy") == {0: pytest.approx(0.6), "run 2": 0.9}
    assert comparison.against[0].pairs["accuracy"].count == 2
    assert "2 runs of seed 0 count as one, their mean" in "\n".join(comparison.lines())


def test_without_weights_that_is_said(two: Path) -> None:
    comparison = compare_runs([two / "a_s1", two / "b_s1"])
    assert "keeps no weights" in "\n".join(comparison.lines())


def test_what_cannot_be_compared(two: Path) -> None:
    with pytest.raises(NetspecError, match="differ in their seeds alone"):
        compare_runs([two / "a_s1", two / "a_s2"], test=False)
    with pytest.raises(NetspecError, match="has an output 'acuracy'; did you mean"):
        compare_runs([two / "a_s1", two / "b_s1"], output="acuracy", test=False)
    with pytest.raises(NetspecError, match="no such run folder"):
        compare_runs([two / "a_s1", two / "none"], test=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    (root / "linear_solver.prototxt").write_text(LINEAR)
    for name, rate in (("slow", "0.01"), ("fast", "0.5")):
        fit(root / "linear_solver.prototxt", overrides=[f"base_lr={rate}"], out=root / name, progress=False)
    return root


def test_predictions_are_those_of_the_confusion(trained: Path) -> None:
    labels, taken = predictions(trained / "fast")
    (whole,) = confusion(trained / "fast")
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels.numpy(), taken.numpy()), 1)
    assert np.array_equal(counts, whole.counts.numpy())


def test_mcnemar_of_trained_runs(trained: Path) -> None:
    comparison = compare_runs([trained / "slow", trained / "fast"])
    ((seed, test),) = comparison.against[0].tests
    assert seed == 1
    assert test.examples == 100
    gain = comparison.groups[1].by_seed("accuracy")[1] - comparison.groups[0].by_seed("accuracy")[1]
    assert (test.n10 - test.n01) / 100 == pytest.approx(gain, abs=1e-6)
    assert "z = " in "\n".join(comparison.lines())


def test_mcnemar_takes_every_run_of_a_seed(trained: Path, tmp_path: Path) -> None:
    """Two runs of one seed on one side, three on the other: two pairs, and a note of the run that is left."""
    for side, name, copies in (("a", "slow", 2), ("b", "fast", 3)):
        for i in range(copies):
            shutil.copytree(trained / name, tmp_path / f"{side}{i}")
    found = compare_runs([tmp_path / name for name in ("a0", "a1", "b0", "b1", "b2")])
    versus = found.against[0]
    assert [seed for seed, _ in versus.tests] == [1, 1]
    one = compare_runs([trained / "slow", trained / "fast"]).against[0].tests[0]
    assert versus.tests == [one, one]
    assert versus.notes[-1:] == ["test predictions: 1 of the runs have none of their seed to be paired with"]


def test_the_command(trained: Path, two: Path) -> None:
    def call(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["compare", *words])
        return result.exit_code, result.output

    code, output = call(str(two / "a_s1"), str(two / "b_s1"), "--no-test", "--json")
    assert (code, json.loads(output)["groups"][1]["name"]) == (0, "b_s1")
    code, output = call("--blobs", str(trained / "slow"), str(trained / "fast"))
    assert code == 1
    assert "departs from" in output
    net = str(trained / "slow" / "net.prototxt")
    weights = ["--weights-a", str(trained / "slow"), "--weights-b", str(trained / "slow")]
    code, output = call(net, net, *weights)
    assert code == 0, output
    assert "agree" in output
