"""Test nets during training: the same batches and random numbers in every test, outputs averaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from netspec.data import Feeder
from netspec.data.writing.sinks import Sinks
from netspec.layers import ranks
from netspec.net.compiling import compile_net
from netspec.net.net import Net, explained
from netspec.net.random_state import random_state, set_random_state
from netspec.run.averages import Averages
from netspec.run.folder import plain
from netspec.run.progress import Progress
from netspec.run.sight import Sight
from netspec.run.spread import from_all, from_lead


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
        self.looks = True
        self.draws: set[int] = set()
        """Numbers of the nets that were seen to draw random numbers."""

    def run(self, device: torch.device) -> Iterable[dict[str, Any]]:
        """The averaged outputs of each net, one after another; the random numbers of training stay as they are."""
        after = random_state(device)
        for i, net in enumerate(self.nets):
            torch.manual_seed(self.seed + i)
            self.feeders[i].load_state(self.starts[i])
            if self.looks:
                net.look()
            outputs = self.averaged(i, device)
            set_random_state(device, after)
            yield plain(outputs)

    def averaged(self, i: int, device: torch.device) -> dict[str, Tensor]:
        """The averaged outputs of net i, its batches dealt out to the ranks.

        A net that draws random numbers draws them batch after batch: each rank goes through all of its batches. Where
        ranks have statistics of their own, those of the first are tested.
        """
        now, net, feeder = ranks.current(), self.nets[i], self.feeders[i]
        if now.world == 1:
            return average(net, feeder, self.batches[i], self.solver)
        if not now.whole:
            with ranks.among(ranks.ALONE):
                mine = average(net, feeder, self.batches[i], self.solver) if now.leads else {}
            return from_lead({name: value.cpu() for name, value in mine.items()})
        before = random_state(device)
        if i not in self.draws:
            outputs = average(net, feeder, self.batches[i], self.solver, now)
            if not any(from_all(differ(before, random_state(device)))):
                return outputs
            self.draws.add(i)
            set_random_state(device, before)
            feeder.load_state(self.starts[i])
        with ranks.among(ranks.ALONE):
            return average(net, feeder, self.batches[i], self.solver)

    def alike(self) -> None:
        """From now on every rank runs every batch, as the layers' weights are brought together for each."""
        self.draws = set(range(len(self.nets)))
        self.looks = False

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


def differ(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    """Whether states of the generators are not the same."""
    return not all(map(torch.equal, before, after))


def average(
    net: Net, feeder: Feeder, batches: int, solver: Any = None, among: ranks.Ranks = ranks.ALONE
) -> dict[str, Tensor]:
    """Outputs of `net`, each averaged over `batches` batches; its HDF5Output layers begin their files anew.

    An output of a DetectionEvaluate layer becomes the mean average precision over all batches, by `solver`'s ap_version
    (default Integral); with its show_per_class_result, that of each label too, as <output>/<label>.
    Raises Diverged, with layer and count, where a loss is not finite (unless the solver has early_stop.nan: false) or
    all labels are NaN; warns of other NaN.
    among: ranks of which each runs every world-th batch; each gets the averages over all.
    """
    sight = Sight(net, feeder)
    averages = Averages(detected(net), solver)
    if among.world > 1:
        feeder.deal(among.rank, among.world, strided=False)
    own: list[dict[str, Tensor]] = []
    with ranks.among(ranks.ALONE), torch.no_grad(), Sinks(net, call=explained) as sinks:
        for _ in range(among.rank, batches, among.world):
            batch = feeder.next()
            sight.batch(batch)
            tops = net.run(sinks, *batch) if sinks else net(*batch)
            if among.world > 1:
                own.append({name: value.cpu() for name, value in net.outputs(tops).items()})
                continue
            for name, value in net.outputs(tops).items():
                averages.add(name, value)
    if among.world > 1:
        feeder.deal(0, 1)
        sight.labels.take(from_all(sight.labels.counts()))
        of_ranks = from_all(own)
        for k in range(batches):
            for name, value in of_ranks[k % among.world][k // among.world].items():
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
    slots = {slot for step in net.graph.steps if step.kind.gathers for slot in step.writes}
    return [net.graph.name(slot) for slot in net.graph.outputs if slot in slots]
