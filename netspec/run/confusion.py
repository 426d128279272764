"""What a classifier takes for what: the confusion matrix of its test nets, and the examples that it finds hardest."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from netspec.data.class_names import class_names
from netspec.errors import SpecError
from netspec.net.graph import Step
from netspec.net.net import Net
from netspec.run.evaluate import fed, tests_of

FAMILIES = ("accuracy", "loss")
"""Types of layers that read scores and labels, the preferred ones."""


@dataclass(order=True)
class Hard:
    """An example whose label the net finds unlikely."""

    probability: float
    """Of its label."""
    index: int
    """The example's number in the test, from 0."""
    label: int
    taken_for: int
    picture: Tensor | None = field(compare=False, default=None)
    """(C, H, W), where the net's input is a picture."""


@dataclass
class Confusion:
    """The confusion of one test net: `counts` (classes, classes) of labels by predictions, and its hardest examples,
    hardest first.
    """

    counts: Tensor
    hardest: list[Hard]
    names: tuple[str, ...] = ()
    """Of the classes, in the order of their numbers; () where the data layer tells none."""

    def name(self, number: int) -> str:
        """The name of a class, or its number."""
        return self.names[number] if len(self.names) == len(self.counts) else str(number)

    @property
    def accuracy(self) -> float:
        """Share of examples that are taken for their label; NaN where there are none."""
        total = int(self.counts.sum())
        return int(self.counts.diagonal().sum()) / total if total else math.nan

    @property
    def per_class(self) -> list[float]:
        """Share of each class that is taken for it; NaN for a class without examples."""
        return (self.counts.diagonal().double() / self.counts.sum(1).double()).tolist()

    def as_json(self) -> dict[str, Any]:
        """Plain data; null for a class without examples."""
        shares = [None if math.isnan(share) else share for share in self.per_class]
        hard = [
            {
                "index": example.index,
                "label": example.label,
                "taken_for": example.taken_for,
                "probability": example.probability,
            }
            for example in self.hardest
        ]
        classes = [self.name(i) for i in range(len(self.counts))]
        return {"classes": classes, "confusion": self.counts.tolist(), "per_class": shares, "hardest": hard}

    def lines(self, names: Sequence[str] = ()) -> list[str]:
        """The matrix and the accuracy of each class as text: a row per label."""
        names = names or [self.name(i) for i in range(len(self.counts))]
        wide = max(len(str(int(self.counts.max()))), *(len(name) for name in names)) + 1
        side = max(len("label"), *(len(name) for name in names))
        head = "label".ljust(side) + "".join(name.rjust(wide) for name in names) + "  right"
        rows = [
            name.ljust(side)
            + "".join(str(int(count)).rjust(wide) for count in row)
            + ("      -" if math.isnan(share) else f"{100 * share:6.1f}%")
            for name, row, share in zip(names, self.counts, self.per_class, strict=True)
        ]
        return [head, *rows]


def confusion(
    source: str | Path,
    weights: str | Path | None = None,
    *,
    hardest: int = 0,
    iterations: int | None = None,
    stages: Sequence[str] = (),
    device: str | None = None,
    seed: int = 1,
) -> list[Confusion]:
    """The confusion of each test net of a run folder, a solver or a net, over `iterations` batches (see `evaluate`).

    hardest: number of examples to keep, those whose label has the lowest probability under the softmax of the scores.
    Labels that are NaN, ignored or no class are left out. Raises SpecError for a net without scores and labels.
    """
    wanted = tests_of(Path(source), weights, stages, device)
    confusions = []
    for spec, batches in wanted.nets:
        with fed(spec, wanted, seed) as (net, feeder):
            step = classifier(net)
            matrix, hard, seen = None, list[tuple[float, int, Hard]](), 0
            with torch.no_grad():
                for _ in range(iterations or batches):
                    slots = net.slots(*feeder.next())
                    scores, labels = slots[step.reads[0]], slots[step.reads[1]]
                    axis = int(getattr(layer_of(net, step), "class_axis", 1))
                    matrix = add(matrix, scores.movedim(axis, -1), labels)
                    if hardest:
                        hold(hard, hardest, scores.movedim(axis, -1), labels, picture(net, slots), seen)
                    seen += len(scores)
        if matrix is None:
            raise SpecError(f"{source}: the test has no batches")
        confusions.append(
            Confusion(
                matrix,
                [entry for _, _, entry in sorted(hard, key=lambda entry: -entry[0])],
                names_of(net),
            )
        )
    return confusions


def predictions(
    source: str | Path,
    weights: str | Path | None = None,
    *,
    iterations: int | None = None,
    device: str | None = None,
    seed: int = 1,
) -> tuple[Tensor, Tensor]:
    """(labels, predicted classes) of the first test net, one entry per example, in the order of the data.

    Labels that are NaN, ignored or no class are -1. Raises SpecError as `confusion` does.
    """
    wanted = tests_of(Path(source), weights, (), device)
    (spec, batches), *_ = wanted.nets
    labels, taken = [], []
    with fed(spec, wanted, seed) as (net, feeder), torch.no_grad():
        step = classifier(net)
        axis = int(getattr(layer_of(net, step), "class_axis", 1))
        for _ in range(iterations or batches):
            slots = net.slots(*feeder.next())
            scores = slots[step.reads[0]].movedim(axis, -1)
            own, known = classes(slots[step.reads[1]], scores.shape[-1])
            labels.append(torch.where(known, own, -1))
            taken.append(scores.reshape(-1, scores.shape[-1]).argmax(1).cpu())
    return torch.cat(labels), torch.cat(taken)


def classifier(net: Net) -> Step:
    """The layer that compares scores with labels: an accuracy layer where there is one, else the last loss."""
    for family in FAMILIES:
        steps = [
            step
            for step in net.graph.steps
            if step.kind.family == family
            and step.kind.roles[:2] == ("scores", "label")
            and len(step.reads) == 2
        ]
        if steps:
            return steps[0] if family == "accuracy" else steps[-1]
    name = net.graph.spec.name or net.graph.spec.file
    raise SpecError(f"net {name!r}: no layer compares scores with labels (Accuracy, or a loss of classes)")


def names_of(net: Net) -> tuple[str, ...]:
    """Names of the classes, as the net's data layer tells them."""
    named = (class_names(layer) for layer in net.graph.spec.layers)
    return next((names for names in named if names), ())


def layer_of(net: Net, step: Step) -> Any:
    """The layer that was made for a step."""
    return net.made[list(net.graph.steps).index(step)]


def add(matrix: Tensor | None, scores: Tensor, labels: Tensor) -> Tensor:
    """The matrix with one more batch: scores (..., C), and one label per row of scores."""
    number = scores.shape[-1]
    matrix = torch.zeros(number, number, dtype=torch.int64) if matrix is None else matrix
    taken = scores.reshape(-1, number).argmax(1).cpu()
    own, known = classes(labels, number)
    matrix.view(-1).index_add_(0, own[known] * number + taken[known], torch.ones_like(own[known]))
    return matrix


def classes(labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """(labels as whole numbers, which of them are classes)."""
    flat = labels.reshape(-1).cpu()
    known = flat.isfinite() & (flat >= 0) & (flat < number)
    return torch.where(known, flat, torch.zeros(())).long(), known


def hold(
    hard: list[tuple[float, int, Hard]],
    most: int,
    scores: Tensor,
    labels: Tensor,
    pictures: Tensor | None,
    seen: int,
) -> None:
    """Keep the hardest examples so far; only nets with a single score per class and example have them."""
    number = scores.shape[-1]
    flat = scores.reshape(-1, number).float()
    if len(flat) != len(scores):
        raise SpecError("the hardest examples are those of nets that classify whole examples, not positions")
    own, known = classes(labels, number)
    likely = flat.softmax(1).cpu()
    for i in known.nonzero().flatten().tolist():
        probability = float(likely[i, own[i]])
        if math.isnan(probability):
            probability = 0.0
        if len(hard) == most and probability >= -hard[0][0]:
            continue
        taken = int(likely[i].argmax())
        own_picture = None if pictures is None else pictures[i].detach().cpu().clone()
        entry = (-probability, -(seen + i), Hard(probability, seen + i, int(own[i]), taken, own_picture))
        (heapq.heapreplace if len(hard) == most else heapq.heappush)(hard, entry)


def picture(net: Net, slots: Any) -> Tensor | None:
    """The net's data where it is images of one or three channels."""
    sources = [slot for step in net.graph.steps if not step.reads for slot in step.writes]
    for slot in (*net.graph.inputs, *sources):
        value: Tensor = slots[slot]
        if value.dim() == 4 and value.shape[1] in (1, 3) and min(value.shape[2:]) > 1:
            return value
    return None


def draw_confusion(counted: Confusion, path: str | Path, names: Sequence[str] = (), title: str = "") -> Path:
    """The matrix as a picture: a row per label, shares of the row as shades, counts as numbers."""
    from netspec.draw.canvas import check_path, figure, write

    path = check_path(path)
    names = names or [counted.name(i) for i in range(len(counted.counts))]
    number = len(names)
    shares = (counted.counts.double() / counted.counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    side = min(16.0, 2.0 + 0.42 * number)
    fig = figure(side + 0.6, side, constrained=True)
    axes = fig.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 8 if number <= 20 else 5
    for label, row in enumerate(counted.counts.tolist()):
        for taken, count in enumerate(row):
            if count:
                colour = "white" if shares[label, taken] > 0.5 else "#333333"
                axes.text(taken, label, str(count), ha="center", va="center", fontsize=size, color=colour)
    axes.set_xticks(range(number), names, fontsize=size, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(number), names, fontsize=size)
    axes.set_xlabel("taken for")
    axes.set_ylabel("label")
    axes.set_title(title or f"accuracy {100 * counted.accuracy:.2f} %", fontsize=10)
    return write(fig, path)


def draw_hardest(counted: Confusion, path: str | Path, names: Sequence[str] = ()) -> Path:
    """Draw the hardest examples, each with its label, its predicted class and its label's probability.

    Raises SpecError where the net's input is no picture.
    """
    from netspec.draw import grid

    shown = [example for example in counted.hardest if example.picture is not None]
    if not shown:
        raise SpecError("the hardest examples cannot be drawn: the net's input is no picture")
    names = names or [counted.name(i) for i in range(len(counted.counts))]
    titles = [
        f"{names[example.label]} as {names[example.taken_for]}, {100 * example.probability:.2g} %"
        for example in shown
    ]
    pictures = torch.stack([example.picture for example in shown if example.picture is not None])
    return grid(
        pictures, path, titles=titles, title="hardest examples: label, taken for, probability of the label"
    )
