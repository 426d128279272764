"""Activation checkpointing: the same losses to the bit, fewer bytes kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from netspec import make_net
from netspec.errors import NetspecError
from netspec.net.checkpointing import blocks, bytes_of, fitted, kept_bytes
from netspec.net.net import Net
from netspec.run.fit import fit
from netspec.schema.spec import TRAIN
from netspec.solver import Solver

LAYERS = """
layer { name: "data" type: "DummyData" top: "x" top: "t" dummy_data_param {
  shape { dim: 8 dim: 3 dim: 8 dim: 8 } shape { dim: 8 } data_filler { type: "gaussian" }
  data_filler { type: "bernoulli" non_zero_probability: 0.5 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" %(mark)s
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "c" top: "n" %(mark)s }
layer { name: "relu" type: "ReLU" bottom: "n" top: "n" %(mark)s }
layer { name: "drop" type: "Dropout" bottom: "n" top: "d" %(mark)s }
layer { name: "conv2" type: "Convolution" bottom: "d" top: "e" %(mark)s
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "e" bottom: "e" top: "s" }
layer { name: "drop2" type: "Dropout" bottom: "s" top: "s" %(mark)s }
layer { name: "ip" type: "InnerProduct" bottom: "s" top: "y" %(mark)s
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }
"""
PLAIN, MARKED = LAYERS % {"mark": ""}, LAYERS % {"mark": "checkpoint: true"}


def solver_message() -> Any:
    from netspec import schema

    return schema.parse_solver('base_lr: 0.1 momentum: 0.9 lr_policy: "fixed"').message


def steps(net: Net, count: int = 3) -> tuple[list[Tensor], dict[str, Tensor], int]:
    """Losses of some steps, the weights after them, and the bytes that the first forward keeps for backward."""
    torch.manual_seed(0)
    solver, losses, kept = Solver(net, solver_message()), [], 0

    def keep(value: Tensor) -> Tensor:
        nonlocal kept
        kept += value.numel() * value.element_size()
        return value

    for i in range(count):
        with torch.autograd.graph.saved_tensors_hooks(
            keep if not i else lambda value: value, lambda value: value
        ):
            loss = net.objective(net())
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        solver.step()
    return losses, net.weights(), kept


def test_losses_statistics_and_random_numbers_stay_to_the_bit() -> None:
    losses, weights, kept = steps(make_net(PLAIN, TRAIN, seed=1))
    again, same, fewer = steps(make_net(MARKED, TRAIN, seed=1))
    assert torch.equal(torch.stack(losses), torch.stack(again))
    for name, value in weights.items():  # with BatchNorm's sums, which a second pass does not move
        assert torch.equal(value, same[name]), name
    assert fewer < kept / 2


def test_blocks_and_the_estimate() -> None:
    marked, plain = make_net(MARKED, TRAIN, device="meta"), make_net(PLAIN, TRAIN, device="meta")
    assert [(one.again, len(one.steps)) for one in blocks(marked.graph)] == [
        (False, 1), (True, 5), (False, 1), (True, 2), (False, 1),
    ]  # fmt: skip
    assert blocks(plain.graph) == []
    sizes = [4 * torch.Size(shape).numel() for shape in plain.shapes]
    assert kept_bytes(plain.graph, plain.shapes) == 2 * sum(sizes)
    inner = [4 * 8 * 8 * 6 * 6 * 4, 4 * 8 * 8 * 4 * 4]  # c, n, n', d; and s'
    assert kept_bytes(marked.graph, marked.shapes) == 2 * (sum(sizes) - sum(inner) + max(inner))


def test_layers_are_chosen_for_a_size() -> None:
    plain = make_net(PLAIN, TRAIN, device="meta")
    whole = kept_bytes(plain.graph, plain.shapes)
    assert fitted(plain.graph, plain.shapes, whole) is None
    spec = fitted(plain.graph, plain.shapes, int(0.8 * whole))
    assert spec is not None
    chosen = make_net(spec, seed=1)
    assert kept_bytes(chosen.graph, chosen.shapes) <= 0.8 * whole
    losses, _, _ = steps(make_net(PLAIN, TRAIN, seed=1))
    assert torch.equal(torch.stack(losses), torch.stack(steps(chosen)[0]))
    with pytest.raises(
        NetspecError, match=r"need [\d.]+ MiB even when layers are computed again, 0.0 MiB are allowed"
    ):
        fitted(plain.graph, plain.shapes, 1000)


@pytest.mark.parametrize(("text", "size"), [("4G", 4 << 30), ("1.5k", 1536), ("12", 12)])
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "4GB", "-1", "nan", "G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(NetspecError, match="is no size; write 4G"):
        bytes_of(text)


def test_a_run_within_a_size_is_the_run(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(PLAIN)
    file = tmp_path / "solver.prototxt"
    file.write_text(
        f'net: "{tmp_path / "net.prototxt"}" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 random_seed: 1 '
        "display: 1 solver_mode: CPU"
    )
    weights = []
    for memory in ("", "90K"):
        run = fit(file, out=tmp_path / f"run{memory}", progress=False, memory=memory)
        weights.append(run.net.weights())
        assert any(one.spec.message.checkpoint for one in run.net.made) == bool(memory)
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_layer_that_writes_its_weights_in_forward_is_computed_once() -> None:
    text = """
layer { name: "data" type: "DummyData" top: "x" dummy_data_param {
  shape { dim: 4 dim: 3 dim: 4 dim: 4 } data_filler { type: "gaussian" } } }
layer { name: "mex" type: "MEX" bottom: "x" top: "m" %(mark)s mex_param { num_instances: 3
  block_param { block_size: 1 } softmax_mode: true normalize_offsets: true normalize_offsets_projected: true
  use_log_space_parameters: true epsilon_filler { type: "constant" value: 1 } offsets_filler { type: "gaussian" } } }
layer { name: "relu" type: "ReLU" bottom: "m" top: "r" %(mark)s }
layer { name: "loss" type: "Reduction" bottom: "r" top: "loss" loss_weight: 1 }
"""
    plain, marked = (
        steps(make_net(text % {"mark": mark}, TRAIN, seed=1)) for mark in ("", "checkpoint: true")
    )
    assert plain[0] == marked[0]
    for name, value in plain[1].items():
        assert torch.equal(value, marked[1][name]), name
