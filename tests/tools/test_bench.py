"""The nets that tools/bench/nets.py --caffe times are their twins in plain PyTorch, and its figures are complete."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.places import ROOT
from tools.bench import caffe as bench_caffe
from tools.bench import limit
from tools.bench import nets as bench_nets
from tools.bench.plain_nets import PLAIN


@pytest.mark.parametrize("name", ["lenet", "cifar10_full", "googlenet", "caffenet"])
def test_twins_give_the_same(name: str) -> None:
    """In double precision: in single, a maximum of a pooling window may fall to a neighbour, and its gradient too."""
    net, module, (x, label) = bench_caffe.twins(name, batch=2)
    net, module, x = net.double(), module.double(), x.double()
    for layer in net.made:
        layer.phase = "TEST"  # no dropout
    module.apply(lambda one: one.eval() if isinstance(one, nn.Dropout) else None)
    loss = net.objective(net(x, label))
    expected = module(x, label.long())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-7)  # loss_weight is a single-precision 0.3
    theirs = torch.autograd.grad(expected, list(module.parameters()))
    ours = torch.autograd.grad(loss, [param.value for param in net.params])
    for param, mine, other in zip(net.params, ours, theirs, strict=True):
        assert (mine - other).abs().max() <= 1e-6 * other.abs().max(), param.name


def test_figures() -> None:
    entry = bench_caffe.measure("lenet", 2, compiled=False)
    assert set(PLAIN) == set(bench_caffe.CAFFE)
    assert entry["batch"] == 64
    assert entry["forward_eager_over_plain"] > 0
    row = bench_caffe.table({"lenet": entry}).splitlines()[-1]
    assert row.startswith("| lenet | 64 | 15.7 / 32 |")
    assert row.count("|") == 9


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # of inductor
def test_the_limit_is_below_the_floor() -> None:
    """And the page has a row a net with its goals."""
    entry = bench_nets.measure(ROOT / "nets/ht_cac_digits.prototxt", 1)
    assert entry["limit"]["least_ms"] > 0
    assert entry["floor_over_limit_cpu"] > 0.5  # not 1: one round on a busy machine
    assert entry["flops_step"] > 2 * entry["multiply_adds_forward"] > 0
    rates = limit.rates(1)
    assert min(rates.values()) > 0
    page = bench_nets.speed_table({"rates": rates, "nets": {"ht_cac_digits": entry}})
    assert page.splitlines()[-1].startswith("| ht_cac_digits |")
    assert page.splitlines()[-1].endswith("| limit 8.0 |")


def test_the_page_says_whose_figures_are_given() -> None:
    page = ROOT / "docs" / "results" / "bench_caffe.md"
    assert bench_caffe.ORIGIN in page.read_text()
