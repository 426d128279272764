"""Several processes that train one net: equal to one process with the same batch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import lab, make_net, schema
from netspec.data import feeder
from netspec.errors import SpecError
from netspec.lab.settings import parse
from netspec.layers import ranks
from netspec.layers.basic.batch_norm import by_batch
from netspec.layers.loss.labels import Normalization
from netspec.layers.ranks import ALONE, Ranks
from netspec.run.evaluate import extract
from netspec.run.fit import fit
from netspec.run.spread import divided, refuse_different, refuse_looks_across
from netspec.schema.spec import TRAIN
from netspec.schema.spec import net as net_of
from tests.several import several, started

DATA = """
layer { name: "data" type: "DummyData" top: "x" top: "t" dummy_data_param {
  shape { dim: 8 dim: 3 dim: 4 dim: 4 } shape { dim: 8 } data_filler { type: "gaussian" }
  data_filler { type: "bernoulli" non_zero_probability: 0.5 } } }
"""
NORMALISED = """
layer { name: "conv" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "c" top: "n" batch_norm_param { moving_average_fraction: 0.9 } }
layer { name: "scale" type: "Scale" bottom: "n" top: "s" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "s" top: "s" }
layer { name: "drop" type: "Dropout" bottom: "s" top: "d" dropout_param { dropout_ratio: 0.3 } }
layer { name: "ip" type: "InnerProduct" bottom: "d" top: "y"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "y" bottom: "t" top: "accuracy" }
"""
SOLVER = (
    'base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" max_iter: 12 display: 1 random_seed: 3 solver_mode: CPU '
    "test_iter: 3 test_interval: 6 snapshot: 6 iter_size: 2 "
)


def entries(folder: Path, kind: str, name: str) -> list[Any]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if line["kind"] == kind]


def written(folder: Path, net: str, solver: str = SOLVER) -> Path:
    (folder / "net.prototxt").write_text(net)
    path = folder / "solver.prototxt"
    path.write_text(f'net: "{folder / "net.prototxt"}" {solver}')
    return path


def trained(_: Ranks, file: Path, how: dict[str, Any]) -> tuple[str, dict[str, Tensor]]:
    """Train as under torchrun."""
    run = fit(file, progress=False, compiled=False, **{"spread": "whole", **how})
    return str(run.folder), run.net.weights()


def test_several_are_as_one(tmp_path: Path) -> None:
    """Statistics, dropout, fillers, tests, iter_size as in one process, which goes on from a snapshot of two."""
    file = written(tmp_path, DATA + NORMALISED)
    one, two = tmp_path / "one", tmp_path / "two"
    weights = fit(file, out=one, progress=False, compiled=False).net.weights()
    results = started(2, trained, file, {"out": two})
    assert entries(two, "train", "loss") == pytest.approx(entries(one, "train", "loss"), rel=1e-5)
    for mine, theirs in zip(entries(one, "test", "outputs"), entries(two, "test", "outputs"), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)
    for name, value in weights.items():
        assert torch.equal(results[0][1][name], results[1][1][name]), name
        assert torch.allclose(value, results[0][1][name], atol=1e-5), name
    facts = json.loads((two / "run.json").read_text())
    assert facts["processes"] == 2
    assert any("2 processes, each with a part of the files' batch" in note for note in facts["notes"])
    fit(file, resume=two / "snapshots" / "iter_6.state.safetensors", progress=False, compiled=False)
    assert entries(two, "train", "loss") == pytest.approx(entries(one, "train", "loss"), rel=1e-5)
    assert (two / "abandoned" / "1").is_dir()


def normalised(now: Ranks, x: Tensor, scale: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
    """y, statistics and gradients of a rank's rows."""
    mine = x.chunk(now.world)[now.rank].clone().requires_grad_()
    factor = scale.clone().requires_grad_()
    y, mean, variance, m = by_batch(mine, factor, None, 1e-5)
    (y * wanted.chunk(now.world)[now.rank]).sum().backward()  # type: ignore[no-untyped-call]
    assert mine.grad is not None
    assert factor.grad is not None
    return y.detach(), mean, variance, torch.tensor(m), mine.grad, ranks.mean(factor.grad) * now.world


def test_statistics_are_of_all_ranks() -> None:
    """Against torch.batch_norm of the whole batch: values, running statistics, gradients of input and scale."""
    torch.manual_seed(0)
    x = (torch.randn(6, 3, 5, dtype=torch.float64) * 3 + 100).requires_grad_()
    scale = torch.rand(3, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(6, 3, 5, dtype=torch.float64)
    y, mean, variance, m = by_batch(x, scale, None, 1e-5)
    (y * wanted).sum().backward()  # type: ignore[no-untyped-call]
    results = several(3, normalised, x.detach(), scale.detach(), wanted)
    assert torch.allclose(torch.cat([one[0] for one in results]), y)
    assert x.grad is not None
    assert scale.grad is not None
    assert torch.allclose(torch.cat([one[4] for one in results]), x.grad, atol=1e-12)
    for one in results:
        assert torch.allclose(one[1], mean)
        assert torch.allclose(one[2], variance)
        assert int(one[3]) == m
        assert torch.allclose(one[5], scale.grad)


def part_of_loss(now: Ranks, losses: Tensor, valid: Tensor) -> dict[str, Tensor]:
    mine, counted = (value.chunk(now.world)[now.rank] for value in (losses, valid))
    modes = ("VALID", "FULL", "BATCH_SIZE", "NONE", "PRE_FIXED")
    return {mode: ranks.mean(Normalization(mode, 7.0)(mine, counted, len(mine))) for mode in modes}


def test_losses_count_the_valid_of_all_ranks() -> None:
    """One part has a single valid label, the other has all."""
    losses, valid = torch.rand(8), torch.tensor([0, 0, 0, 1, 1, 1, 1, 1], dtype=torch.bool)
    for results in several(2, part_of_loss, losses, valid):
        for mode, value in results.items():
            assert float(value) == pytest.approx(float(Normalization(mode, 7.0)(losses, valid, 8))), mode


@pytest.mark.parametrize("axis", [0, 1])
def test_draws_are_rows_of_the_whole_batch(axis: int) -> None:
    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(1))

    parts = []
    for rank in range(3):
        with ranks.among(Ranks(rank, 3)):
            parts.append(ranks.drawn(draw, (2, 2, 5), axis))
    assert torch.equal(torch.cat(parts, axis), draw((6, 2, 5) if axis == 0 else (2, 6, 5)))
    with ranks.among(Ranks(1, 3, whole=False)):
        assert torch.equal(ranks.drawn(draw, (2, 5)), draw((2, 5)))


NUMBERS = """
layer { name: "d" type: "Dataset" top: "x" top: "t"
  dataset_param { name: "digits" split: "train" batch_size: %d shuffle: true } }
layer { name: "s" type: "Reduction" bottom: "x" top: "s" }
"""


@pytest.mark.parametrize("strided", [False, True])
def test_ranks_share_a_stream(strided: bool) -> None:
    """What three take of each batch is the batch of one; and a state holds for another number of ranks."""
    pytest.importorskip("sklearn")
    with feeder(make_net(NUMBERS % 6, TRAIN), 5) as whole:
        batches = [whole.next()[0] for _ in range(3)]
    state: dict[str, Any] = {}
    for rank in range(3):
        with feeder(make_net(NUMBERS % 2, TRAIN), 5, rank=rank, world=3, strided=strided) as part:
            for batch in batches:
                rows = batch[rank::3] if strided else batch[2 * rank : 2 * rank + 2]
                assert torch.equal(part.next()[0], rows)
            assert state in ({}, part.state())
            state = part.state()
    with feeder(make_net(NUMBERS % 6, TRAIN), 5) as again:
        again.skip(1)
        one = again.next()[0]
        again.load_state(state)
        assert not torch.equal(again.next()[0], one)
        again.load_state(dict.fromkeys(state, 6))
        assert torch.equal(again.next()[0], batches[1])


def test_a_batch_that_cannot_be_divided_is_said_at_its_field() -> None:
    document = schema.parse_net(NUMBERS % 7, "some.prototxt")
    with pytest.raises(
        SpecError, match=r"some.prototxt:3:.*layer 'd'.*batch of 7 cannot be divided among 2 processes"
    ):
        divided(net_of(document, TRAIN), 2)
    spec = divided(net_of(schema.parse_net(DATA + NORMALISED), TRAIN), 4)
    net = make_net(spec, seed=1)
    assert net.shape("x") == (2, 3, 4, 4)
    assert net.shape("t") == (2,)


def looked_at(_: Ranks, text: str) -> None:
    torch.manual_seed(0)
    net = make_net(divided(net_of(schema.parse_net(text), TRAIN), 2), seed=1)
    kept = {name: value.clone() for name, value in net.weights().items()}
    refuse_looks_across(net, ())
    assert all(torch.equal(kept[name], value) for name, value in net.weights().items())


def test_a_loss_that_is_no_mean_over_images_is_refused() -> None:
    several(2, looked_at, DATA + NORMALISED)
    summed = 'layer { name: "sum" type: "Reduction" bottom: "c" top: "l" loss_weight: 1 '
    summed += "reduction_param { operation: SUMSQ } }"
    conv = NORMALISED[: NORMALISED.index('layer { name: "norm"')]
    with pytest.raises(RuntimeError, match=r"a layer looks across the images of a batch.*--local gives"):
        several(2, looked_at, DATA + conv + summed)


def test_other_files_are_named() -> None:
    def read(now: Ranks) -> None:
        refuse_different({"net.prototxt": "same", "data": f"of rank {now.rank}"})

    with pytest.raises(RuntimeError, match="process 1 of 2 has another data than process 0"):
        several(2, read)


def dies(now: Ranks) -> None:
    if now.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.mean(torch.zeros(1))


def test_a_killed_process_ends_the_others_with_a_line() -> None:
    with pytest.raises(RuntimeError, match=r"Lost: process 1 of 2 is gone: the run ends; --resume goes on"):
        several(2, dies)


def test_hard_em_says_that_it_cannot_be_spread(tmp_path: Path) -> None:
    file = written(tmp_path, DATA + NORMALISED, SOLVER + 'type: "HardEM"')
    with pytest.raises(RuntimeError, match="type 'HardEM' cannot be spread over processes"):
        started(2, trained, file, {"out": tmp_path / "run"})
    assert not (tmp_path / "run").exists()


def test_local_batches_double_what_an_update_sees(tmp_path: Path) -> None:
    """Caffe's meaning: without layers that look across the batch, two batches of 4 are one of 8."""
    pytest.importorskip("sklearn")
    text = (
        NUMBERS.split('layer { name: "s"')[0]
        + """
      layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 10 } }
      layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }"""
    )
    solver = 'base_lr: 0.001 lr_policy: "fixed" max_iter: 5 display: 1 random_seed: 3 solver_mode: CPU'
    one = fit(written(tmp_path, text % 8, solver), out=tmp_path / "one", progress=False, compiled=False)
    results = started(
        2, trained, written(tmp_path, text % 4, solver), {"out": tmp_path / "two", "spread": "local"}
    )
    assert torch.allclose(results[0][1]["ip/0"], one.net.weights()["ip/0"], atol=1e-6)
    losses = entries(tmp_path / "one", "train", "loss")
    assert entries(tmp_path / "two", "train", "loss") == pytest.approx(losses, rel=1e-5)


TREE = """
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 8 dim: 1 dim: 1 dim: 4 }
  data_filler { type: "gaussian" } } }
layer { name: "leaf" type: "Similarity" bottom: "x" top: "leaf" similarity_param { num_instances: 3
  block_param { block_size: 1 stride: 1 } normalization_term: true normalization_term_fudge: 0 ignore_nan_input: true
  template_filler { type: "gaussian" } weight_filler { type: "constant" value: 1 } } }
layer { name: "pool" type: "Pooling" bottom: "leaf" top: "pool"
  pooling_param { pool: SUM kernel_h: 1 kernel_w: 4 stride_h: 1 stride_w: 4 } }
layer { name: "root" type: "MEX" bottom: "pool" top: "root" mex_param { num_instances: 2
  block_param { block_size: 1 } softmax_mode: true normalize_offsets: true offsets_filler { type: "gaussian" } } }
layer { name: "loss" type: "LogLikelihoodLoss" bottom: "root" top: "loss" }
"""


def test_em_counts_what_all_see(tmp_path: Path) -> None:
    solver = (
        'type: "EM" base_lr: 0.5 lr_policy: "fixed" max_iter: 6 display: 1 random_seed: 2 solver_mode: CPU '
    )
    file = written(tmp_path, TREE, solver + "iter_size: 2 em_param { prior_states: 2 }")
    weights = fit(file, out=tmp_path / "one", progress=False).net.weights()
    ends = started(2, trained, file, {"out": tmp_path / "two"})
    expected = entries(tmp_path / "one", "train", "loss")
    assert entries(tmp_path / "two", "train", "loss") == pytest.approx(expected, rel=1e-5)
    assert all(torch.allclose(value, ends[0][1][name], atol=1e-4) for name, value in weights.items())


def sharded(now: Ranks, file: Path, out: Path, resume: Path | None) -> tuple[dict[str, Tensor], int]:
    run = fit(file, out=out, resume=resume, progress=False, spread="whole", shard=True)
    return run.net.weights(), sum(param.value.numel() for param in run.solver.params)


@pytest.mark.parametrize(
    "rule", ['type: "SGD" momentum: 0.9 clip_gradients: 0.5', 'type: "Nadam" momentum: 0.9']
)
def test_cut_weights_train_as_whole_ones(tmp_path: Path, rule: str) -> None:
    """Losses, tests and weights of one process, whose snapshot cut runs go on from, and the other way round."""
    # Without a bias in front of BatchNorm: its gradient is rounding alone, which Nadam makes steps of.
    net = DATA + NORMALISED.replace("kernel_size: 3", "kernel_size: 3 bias_term: false")
    file = written(tmp_path, net, SOLVER.replace("momentum: 0.9", "") + rule)
    one, two = tmp_path / "one", tmp_path / "two"
    weights = fit(file, out=one, progress=False, compiled=False).net.weights()
    ends = started(2, sharded, file, two, None)
    assert entries(two, "train", "loss") == pytest.approx(entries(one, "train", "loss"), rel=1e-5)
    for mine, theirs in zip(entries(one, "test", "outputs"), entries(two, "test", "outputs"), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)
    for name, value in weights.items():
        assert torch.allclose(value, ends[0][0][name], atol=1e-5), name
    assert max(count for _, count in ends) < 0.7 * sum(value.numel() for value in weights.values())
    started(2, sharded, file, one, one / "snapshots" / "iter_6.state.safetensors")
    assert entries(one, "train", "loss") == pytest.approx(entries(two, "train", "loss"), rel=1e-5)


def test_what_cannot_be_cut_is_said(tmp_path: Path) -> None:
    file = written(
        tmp_path, DATA + NORMALISED, SOLVER.replace("momentum: 0.9", "") + 'type: "DirectionalAdam"'
    )
    with pytest.raises(
        RuntimeError, match="--shard: DirectionalAdam with L2 goes along rows, which conv/1 is cut across"
    ):
        started(2, trained, file, {"out": tmp_path / "run", "shard": True})
    with pytest.raises(
        SpecError, match="--shard: cuts weights among several processes; start them with torchrun"
    ):
        fit(file, out=tmp_path / "run", progress=False, shard=True)


FED = """
layer { name: "d" type: "Dataset" top: "x" top: "t" dataset_param { name: "digits" split: "test" batch_size: 3 } }
layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { pool: AVE kernel_size: 4 stride: 4 } }
"""


def extracted(now: Ranks, folder: Path, name: str) -> int:
    return extract(folder / "net.prototxt", folder / f"{name}.npz", ["p", "t"], batches=5)


def test_features_are_written_in_the_order_of_one(tmp_path: Path) -> None:
    """Five batches among two processes, of which the last round has one; both go through all rows."""
    pytest.importorskip("sklearn")
    (tmp_path / "net.prototxt").write_text(FED)
    assert extracted(ALONE, tmp_path, "one") == 15
    assert several(2, extracted, tmp_path, "two", meaning="local") == [15, 15]
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert all(np.array_equal(one[name], two[name]) for name in ("p", "t"))


def tabled(_: Ranks) -> dict[str, float]:
    class Brightest:
        name = "brightest"

        def predict(self, pixels: Any, observed: Any) -> Any:
            shown = np.where(observed, pixels, 0) if observed is not None else pixels
            return shown.reshape(len(shown), -1).argmax(1) % 10

    pixels = np.random.default_rng(0).integers(0, 256, (25, 1, 4, 4)).astype(np.uint8)
    table = lab.run([Brightest()], [parse("iid:0.5")], pixels, np.arange(25) % 10, repeats=2)
    return {name: row[setting].accuracy for name, row in table.cells.items() for setting in row}


def test_the_laboratory_counts_what_all_see() -> None:
    """Masks belong to an image, so that a table does not depend on who sees it."""
    one = tabled(ALONE)
    assert 0 < one["brightest"] < 1
    assert several(3, tabled, meaning="local") == [one] * 3


# Slow: 200 steps of real nets, 1e-5; and torchrun itself


def compared(tmp_path: Path, source: Path | str, settings: list[str]) -> None:
    """200 steps in one process and in two."""
    one, two = tmp_path / "one", tmp_path / "two"
    how = {"iterations": 200, "overrides": [*settings, "display=1", "average_loss=1"], "seed": 1}
    fit(source, out=one, progress=False, compiled=False, **how)  # type: ignore[arg-type]
    started(2, trained, source, {"out": two, **how})
    alone, together = (np.array(entries(folder, "train", "loss")) for folder in (one, two))
    assert len(alone) == 200
    assert np.abs(together - alone).max() <= 1e-5 * max(1.0, np.abs(alone).max()), np.abs(
        together - alone
    ).max()


def test_200_steps_of_ht_cac_with_its_initialisation(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    compared(tmp_path, "ht_cac_digits", ["data.dataset_param.batch_size=20", "test_interval=100"])


def test_200_steps_with_synchronised_statistics(tmp_path: Path) -> None:
    solver = 'base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 200 random_seed: 3 solver_mode: CPU'
    compared(tmp_path, written(tmp_path, DATA + NORMALISED, solver), [])


def test_200_steps_from_an_lmdb(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    from netspec.data.writing.databases import LmdbWriter

    random = np.random.default_rng(0)
    writer = LmdbWriter(tmp_path / "db")
    for i in range(150):
        label = i % 3
        image = random.integers(0, 80, (1, 6, 6), dtype=np.uint8) + np.uint8(60 * label)
        datum = schema.Datum(channels=1, height=6, width=6, data=image.tobytes(), label=label)
        writer.put(b"%06d" % i, datum.SerializeToString())
    writer.close()
    text = f"""
      layer {{ name: "data" type: "Data" top: "x" top: "t" transform_param {{ scale: 0.01 crop_size: 5 mirror: true }}
        data_param {{ source: "{tmp_path / "db"}" backend: LMDB batch_size: 8 }} }}
      layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "y"
        inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
      layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }}"""
    solver = 'base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 200 random_seed: 3 solver_mode: CPU'
    compared(tmp_path, written(tmp_path, text, solver), [])


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "netspec", *words]


def test_torchrun_trains_and_ctrl_c_takes_a_snapshot(tmp_path: Path) -> None:
    file = written(tmp_path, DATA + NORMALISED, SOLVER.replace("max_iter: 12", "max_iter: 1000000"))
    out = tmp_path / "run"
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    words = command("train", str(file), "--no-compile", "-o", str(out))
    with subprocess.Popen(words, start_new_session=True, **options) as process:
        seen = ""
        for line in process.stdout or ():
            seen += line
            if line.startswith("iteration 20/"):
                os.killpg(process.pid, signal.SIGINT)
                break
        seen += process.stdout.read() if process.stdout else ""
    assert re.search(r"stopped at iteration \d+, files in", seen), seen
    assert seen.count("snapshot ") >= 1, seen
    assert "Traceback" not in seen.split("stopped at")[0], seen
