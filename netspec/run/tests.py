"""Test nets during training: the same batches and random numbers in every test, outputs averaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from netspec.data import Feeder
from netspec.data.writing.sinks import Sinks
from netspec.net.compiling import compile_net
from netspec.net.net import Net, explained
from netspec.net.random_state import random_state, set_random_state
from netspec.run.averages import Averages
from netspec.run.folder import plain
from netspec.run.progress import Progress
from netspec.run.sight import Sight


class TestNets:
    """The nets that a solver tests, each with its data at the start of a test and its number of batches."""

    __test__ = False  # not for pytest

    def __init__(
        self,
        nets: Sequence[Net],
        feeders: Sequence[Feeder],
        batches: Sequence[int],
        seed: int,
        solver: Any = None,
    ):
        """solver: the SolverParameter, for how detections are scored."""
        self.nets, self.feeders, self.batches, self.seed = list(nets), list(feeders), list(batches), seed
        self.solver = solver
        self.starts = [feeder.state() for feeder in feeders]

    def run(self, device: torch.device) -> Iterable[dict[str, Any]]:
        """The averaged outputs of each net, one after another; the random numbers of training stay as they are."""
        after = random_state(device)
        for i, net in enumerate(self.nets):
            torch.manual_seed(self.seed + i)
            self.feeders[i].load_state(self.starts[i])
            net.look()
            outputs = average(net, self.feeders[i], self.batches[i], self.solver)
            set_random_state(device, after)
            yield plain(outputs)

    def compile(self) -> list[int]:
        """Compile every net; returns the numbers of those that could not be compiled."""
        failed = []
        for i, net in enumerate(self.nets):
            if any(net is earlier for earlier in self.nets[:i]):
                continue
            with torch.no_grad():
                if compile_net(net, self.feeders[i].next()) is not None:
                    failed.append(i)
            self.feeders[i].load_state(self.starts[i])
        return failed


def average(net: Net, feeder: Feeder, batches: int, solver: Any = None) -> dict[str, Tensor]:
    """Outputs of `net`, each averaged over `batches` batches; its HDF5Output layers begin their files anew.

    An output of a DetectionEvaluate layer becomes the mean average precision over all batches, by `solver`'s ap_version
    (default Integral); with its show_per_class_result, that of each label too, as <output>/<label>.
    Raises Diverged, with layer and count, where a loss is not finite (unless the solver has early_stop.nan: false) or
    all labels are NaN; warns of other NaN.
    """
    sight = Sight(net, feeder)
    averages = Averages(detected(net), solver)
    with torch.no_grad(), Sinks(net, call=explained) as sinks:
        for _ in range(batches):
            batch = feeder.next()
            sight.batch(batch)
            tops = net.run(sinks, *batch) if sinks else net(*batch)
            for name, value in net.outputs(tops).items():
                averages.add(name, value)
    for text in sight.judge(averages.sums, batches, solver is None or solver.early_stop.nan):
        Progress(0).warn(text)
    means = averages.means(batches)
    for name, gathered in averages.detections.items():
        means[name] = torch.tensor(gathered.mean())
        if solver is not None and solver.show_per_class_result:
            means |= {f"{name}/{label}": torch.tensor(ap) for label, ap in gathered.by_label().items()}
    return means


def detected(net: Net) -> list[str]:
    """Names of the outputs that are rows of detections."""
    made = {slot for step in net.graph.steps if step.kind.gathers for slot in step.writes}
    return [net.graph.name(slot) for slot in net.graph.outputs if slot in made]
