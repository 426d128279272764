"""Test nets during training: the same batches and random numbers in every test, outputs averaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from netspec.compiled import compile_net
from netspec.data import Feeder
from netspec.data.sinks import Sinks
from netspec.net import Net, explained
from netspec.runs import plain
from netspec.state import random_state, set_random_state


class TestNets:
    """The nets that a solver tests, each with its data at the start of a test and its number of batches."""

    __test__ = False  # not for pytest

    def __init__(self, nets: Sequence[Net], feeders: Sequence[Feeder], batches: Sequence[int], seed: int):
        self.nets, self.feeders, self.batches, self.seed = list(nets), list(feeders), list(batches), seed
        self.starts = [feeder.state() for feeder in feeders]

    def run(self, device: torch.device) -> Iterable[dict[str, Any]]:
        """The averaged outputs of each net, one after another; the random numbers of training stay as they are."""
        after = random_state(device)
        for i, net in enumerate(self.nets):
            torch.manual_seed(self.seed + i)
            self.feeders[i].load_state(self.starts[i])
            outputs = average(net, self.feeders[i], self.batches[i])
            set_random_state(device, after)
            yield plain(outputs)

    def compile(self) -> list[int]:
        """Compile every net; gives the numbers of those that had to be left as they are."""
        failed = []
        for i, net in enumerate(self.nets):
            if compile_net(net, self.feeders[i].next()) is not None:
                failed.append(i)
            self.feeders[i].load_state(self.starts[i])
        return failed


def average(net: Net, feeder: Feeder, batches: int) -> dict[str, Tensor]:
    """Outputs of `net`, each averaged over so many batches; its HDF5Output layers write anew what they get."""
    sums: dict[str, Tensor] = {}
    with torch.no_grad(), Sinks(net, call=explained) as sinks:
        for _ in range(batches):
            batch = feeder.next()
            tops = net.run(sinks, *batch) if sinks else net(*batch)
            for name, value in net.outputs(tops).items():
                sums[name] = sums[name] + value if name in sums else value.clone()
    return {name: value / batches for name, value in sums.items()}
