"""What a test watches for: values that are not finite, reported with layer and count, and labels that are all
missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from netspec.data import Feeder
from netspec.net.net import Net
from netspec.net.random_state import random_state, set_random_state
from netspec.run.watch import Diverged, Pass, counts, finite, guilty_output
from netspec.schema.spec import LayerSpec


class Labels:
    """Counts, for each input that a layer reads as labels, how many of its values are NaN."""

    def __init__(self, net: Net):
        self.readers: dict[int, tuple[LayerSpec, int]] = {}
        """Number of the input to the layer that reads it as labels, of classes, of rows or binary, and as which bottom;
        also where a layer of one bottom, such as a Slice or a Reshape, stands between.
        """
        makers = {slot: step for step in net.graph.steps for slot in step.writes}
        for step in net.graph.steps:
            for i, slot in enumerate(step.reads):
                if step.kind.scores_unlabelled or "label" not in step.kind.role(i, len(step.reads)).split():
                    continue
                while slot not in net.graph.inputs and slot in makers and len(makers[slot].reads) == 1:
                    (slot,) = makers[slot].reads
                if slot in net.graph.inputs:
                    self.readers.setdefault(net.graph.inputs.index(slot), (step.layer, i))
        self.seen = dict.fromkeys(self.readers, 0)
        self.present = {i: torch.zeros((), dtype=torch.long) for i in self.readers}

    def look(self, batch: Sequence[Tensor]) -> None:
        """Count a batch."""
        for i in self.readers:
            if batch[i].is_floating_point():
                self.seen[i] += batch[i].numel()
                self.present[i] = self.present[i].to(batch[i].device) + (~batch[i].isnan()).sum()

    def counts(self) -> dict[int, tuple[int, int]]:
        """For each input (values seen, values that are not NaN)."""
        return {i: (self.seen[i], int(self.present[i])) for i in self.readers}

    def take(self, counts: Sequence[Mapping[int, tuple[int, int]]]) -> None:
        """Go by what several processes have seen."""
        for i in self.readers:
            self.seen[i] = sum(one[i][0] for one in counts)
            self.present[i] = torch.tensor(sum(one[i][1] for one in counts))

    def all_missing(self) -> list[str]:
        """A text per input whose labels were all NaN so far."""
        return [
            str(
                layer.problem(
                    f"its labels are all NaN ({self.seen[i]} of {self.seen[i]} values)", "bottom", bottom
                )
            )
            for i, (layer, bottom) in self.readers.items()
            if self.seen[i] and not int(self.present[i])
        ]


class Sight:
    """Watches one test of a net."""

    def __init__(self, net: Net, feeder: Feeder):
        self.net, self.feeder = net, feeder
        self.start, self.before = feeder.state(), random_state(feeder.device)
        self.labels = Labels(net)

    def batch(self, batch: Sequence[Tensor]) -> None:
        """Take note of a batch."""
        self.labels.look(batch)

    def judge(self, sums: Mapping[str, Tensor], batches: int, strict: bool = True) -> list[str]:
        """Warnings for outputs whose sum over the batches is NaN, each with the layer that it comes from and a count.

        Raises Diverged where that is a loss, or a loss is infinite (both only if `strict`), or where all labels are
        missing.
        """
        if missing := self.labels.all_missing():
            raise Diverged(f"the test has nothing to score: {missing[0]}")
        losses = {self.net.graph.name(slot) for slot, _ in self.net.graph.losses}
        bad = {
            name: self.net.graph.find(name)
            for name, value in sums.items()
            if (not finite(value) if name in losses else bool(value.isnan().any()))
        }
        if not bad:
            return []
        texts = self.trace({name: slot for name, slot in bad.items() if slot is not None}, batches)
        for name in losses & bad.keys() if strict else ():
            raise Diverged(texts[name])
        return list(texts.values())

    def trace(self, bad: Mapping[str, int], batches: int) -> dict[str, str]:
        """For each `bad` output, the place where it is first not finite; runs the batches again and keeps every
        blob.
        """
        after = self.feeder.state(), random_state(self.feeder.device)
        self.feeder.load_state(self.start)
        set_random_state(self.feeder.device, self.before)
        texts = {name: f"output {name!r} is not finite over {batches} batches of the test" for name in bad}
        left = dict(bad)
        for number in range(batches):
            with torch.no_grad():
                slots = self.net.slots(*self.feeder.next())
            for name, slot in list(left.items()):
                if not finite(slots[slot]):
                    culprit = guilty_output(Pass(self.net, slots, torch.zeros(())), [slot]) or self.of_data(
                        slots
                    )
                    texts[name] = f"output {name!r} is not finite in batch {number} of the test: {culprit}"
                    del left[name]
            if not left:
                break
        self.feeder.load_state(after[0])
        set_random_state(self.feeder.device, after[1])
        return texts

    def of_data(self, slots: Mapping[int, Tensor]) -> str:
        """Which input of the net is not finite."""
        for slot in self.net.graph.inputs:
            if not finite(slots[slot]):
                return f"input {self.net.graph.name(slot)!r} is not ({counts(slots[slot])})"
        return "the values that lead to it are too large"
