"""Shapes for net inputs whose data is not here, found from what the layers that read them need."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from netspec.errors import SpecError
from netspec.layers import registry
from netspec.layers.base import Shape
from netspec.net.graph import Graph, Step
from netspec.net.shapes import top_shapes

SIZES = ((3, 224, 224), (1, 28, 28), (3, 227, 227), (3, 32, 32), (3, 256, 256), (3, 300, 300), (3, 512, 512))
"""Image shapes to try where a data layer does not tell: the commonest first."""

LABELLED = (
    "SoftmaxWithLoss",
    "SoftmaxWithLossOHEM",
    "Accuracy",
    "InfogainLoss",
    "SegAccuracy",
    "FocalLoss",
    "SoftmaxFocalLoss",
)
"""Types whose second bottom holds one label for each prediction of the first."""
NUMBERED = ("MultinomialLogisticLoss", "HingeLoss", "CenterLoss", "MarginInnerProduct")
"""Types whose second bottom holds one label for each row of the first."""
ALIKE = (
    "EuclideanLoss", "SigmoidCrossEntropyLoss", "SigmoidCrossEntropyBalanceLoss", "L1Loss", "SmoothL1Loss",
    "SmoothL1LossOHEM", "Eltwise", "Correlation", "Correlation1D", "TripletLoss",
)  # fmt: skip
"""Types whose bottoms have one shape."""
REGIONS = ("ROIPooling", "PSROIPooling", "ROIAlign")
SEQUENCES = ("CTCLoss", "CtcLoss", "WarpCTCLoss")
"""Types whose last bottom holds rows of labels."""
RECURRENT = ("LSTM", "RNN", "Lstm")
PASSING = (
    "Power", "AbsVal", "Split", "Sigmoid", "TanH", "Threshold", "Exp", "Log", "ReLU", "Dropout", "Flatten",
    "Reshape", "Slice",
)  # fmt: skip
"""Types that a label or an image goes through on its way to the layer that tells what it is."""
SHRINKING = ("Interp", "Pooling")
"""Types that a picture of labels goes through in another size."""


@dataclass(frozen=True)
class Demand:
    """The shape that a reader needs; a `soft` one is only likely, such as an image's."""

    shape: Shape
    soft: bool = False


Size = tuple[int, int, int]


def sizes(graph: Graph) -> tuple[Size, ...]:
    """Image shapes to try: those that layers mention (what an Upsample or Interp restores), then the usual ones."""
    found = []
    for step in graph.steps:
        up, interp = step.layer.message.upsample_param, step.layer.message.interp_param
        crop = step.layer.message.augmentation_param
        for height, width in (
            (up.upsample_h, up.upsample_w), (interp.height, interp.width), (crop.crop_height, crop.crop_width)
        ):  # fmt: skip
            if height and width:
                found.append((3, height, width))
    return (*sorted(set(found), reverse=True)[:3], *SIZES)


def input_shapes(
    graph: Graph, steps: Collection[Step], size: Size, batch: int | None = None
) -> dict[str, Shape]:
    """Shapes of the tops of `steps`, by name. `size` is that of images; `batch` replaces what the layers say."""
    return _Search(graph, list(steps), size, batch).run()


def roles(graph: Graph) -> dict[int, str]:
    """What each input is to its readers: "label", "regions", "index", "continuation" or "" (anything else)."""
    found: dict[int, str] = {}
    for step in reversed(graph.steps):
        for i, slot in enumerate(step.reads):
            role = _role(step.layer.type, i, len(step.reads))
            if step.layer.type in (*PASSING, *SHRINKING, "Concat"):
                role = next((found[top] for top in step.writes if found.get(top)), role)
            found[slot] = role or found.get(slot, "")
    return {slot: found.get(slot, "") for slot in graph.inputs}


def _role(kind: str, i: int, count: int) -> str:
    if (kind in (*LABELLED, *NUMBERED) and i == 1) or (kind == "ContrastiveLoss" and i == 2):
        return "label"
    if kind in ("SigmoidCrossEntropyLoss", "SigmoidCrossEntropyBalanceLoss") and i == 1:
        return "label"
    if kind in REGIONS and i == 1:
        return "regions"
    if kind in SEQUENCES and i > 0:
        return "label" if i == count - 1 else "continuation" if count == 3 else "index"
    if (kind in RECURRENT and i == 1) or (kind == "LSTMUnit" and i == 2):
        return "continuation"
    if kind == "Embed" or (kind == "BatchReindex" and i == 1) or (kind == "Filter" and i == count - 1):
        return "index"
    return ""


@dataclass
class _Search:
    """Walks on the meta device: each tells from what is known what the next unknown inputs must be."""

    graph: Graph
    steps: list[Step]
    size: Size
    batch: int | None
    given: dict[int, Shape] = field(default_factory=dict)

    def run(self) -> dict[str, Shape]:
        wanted = [slot for step in self.steps for slot in step.writes]
        for step in self.steps:
            if step.layer.type == "AnnotatedData":
                self.given.update(zip(step.writes, self.annotated(step), strict=False))
        for _ in wanted:
            found = self.walk()
            new = {slot: found[slot].shape for slot in wanted if slot in found and slot not in self.given}
            if not new:
                break
            self.given |= new
        for step in self.steps:
            for i, slot in enumerate(step.writes):
                first = i == 0 and "label" not in self.graph.name(slot)
                image = self.image(step)
                self.given.setdefault(slot, image if first else image[:1])
        return {self.graph.name(slot): self.given[slot] for slot in wanted}

    # One walk

    def walk(self) -> dict[int, Demand]:
        """What readers need of each slot that is not known yet, traced back to the inputs."""
        graph = self.graph
        makers = {slot: step for step in self.steps for slot in step.writes}
        roots: dict[int, Step] = {slot: step for slot, step in makers.items() if slot not in self.given}
        shapes: dict[int, Shape] = dict(self.given)
        needs: dict[int, Demand] = {}
        passed: list[Step] = []
        sources = {id(step) for step in self.steps}
        for step in graph.steps:
            if id(step) in sources:
                continue
            unknown = [slot for slot in step.reads if slot not in shapes]
            if unknown and all(slot in roots for slot in unknown):
                kind = step.layer.type
                scaled = kind == "Eltwise" and len(step.reads) == 1
                if kind in PASSING or scaled or (kind in SHRINKING and self.is_label(unknown[0])):
                    roots.update((top, roots[unknown[0]]) for top in step.writes)
                    passed.append(step)
                    continue
                self.ask(step, shapes, roots, needs)
                continue
            if not unknown:
                shapes.update(zip(step.writes, self.tops(step, shapes), strict=False))
        for step in reversed(passed):
            self.trace(step, roots, needs)
        return needs

    def tops(self, step: Step, shapes: Mapping[int, Shape]) -> Sequence[Shape]:
        """The tops' shapes; none where the layer finds a mistake, which the real walk will report."""
        slots: list[Any] = [shapes.get(i) for i in range(len(self.graph.slots))]
        try:
            layer = step.kind(step.layer, step.layer.phase(self.graph.spec.phase))
            return list(top_shapes(layer, step, self.graph, slots, {}))
        except SpecError:
            return ()

    def ask(
        self, step: Step, shapes: Mapping[int, Shape], roots: Mapping[int, Step], needs: dict[int, Demand]
    ) -> None:
        """Note what a layer with unknown bottoms needs of them."""
        known = [shapes.get(slot) for slot in step.reads]
        for i, slot in enumerate(step.reads):
            if slot in shapes or (slot in needs and not needs[slot].soft):
                continue
            demand = self.demand(step, i, known, roots[slot])
            if demand is not None and (slot not in needs or not demand.soft):
                needs[slot] = demand

    def demand(self, step: Step, i: int, known: list[Shape | None], maker: Step) -> Demand | None:
        kind, first = step.layer.type, known[0]
        if kind in (*LABELLED, *NUMBERED) and i == 1:
            return None if first is None else Demand(labels(step, first, kind in NUMBERED))
        if kind in ALIKE:
            like = next((shape for shape in known if shape is not None), None)
            # Where nothing is known yet a bottom in front may still be an image.
            return Demand(like) if like is not None else None if i else Demand(self.image(maker), True)
        if kind == "ContrastiveLoss" and i == 2:
            return None if first is None else Demand(first[:1])
        if kind == "InfogainLoss" and i == 2:
            return None if first is None else Demand((1, 1, *gains(step, first)))
        if kind in REGIONS and i == 1:
            return Demand((2, 5))
        if kind in RECURRENT:
            return self.sequence(i, known, maker)
        if kind in SEQUENCES and i > 0:
            return None if first is None else Demand(self.label_rows(first, i, len(known)))
        if kind == "Embed":
            return Demand((self.rows(maker), self.columns()))
        if kind in ("Filter", "BatchReindex") and i == len(known) - 1:
            return None if first is None else Demand(first[:1])
        if kind == "Silence":
            return None
        if kind == "Downsample" and i == 0 and known[1:]:
            other, image = known[1], self.image(maker)
            return None if other is None else Demand((*other[:2], *image[2:]))
        images = i == 0 or kind == "Concat" or (kind in registry and registry[kind].paired)
        return Demand(self.image(maker, step), True) if images else None

    def sequence(self, i: int, known: list[Shape | None], maker: Step) -> Demand | None:
        if i == 1:
            return Demand(known[0][:2]) if known[0] is not None else None
        time = known[1] or (self.rows(maker), self.columns())
        return Demand((*time, 64) if i == 0 else (time[1], 64), True)

    def label_rows(self, scores: Shape, i: int, count: int) -> Shape:
        """The shape of a CTC loss's bottom i of `count`, for scores (T, N, C)."""
        time, number = scores[:2]
        if count == 2:
            return (number, max(time // 2, 1))
        return (number,) if count == 4 and i < 3 else (time, number)

    def trace(self, step: Step, roots: Mapping[int, Step], needs: dict[int, Demand]) -> None:
        """Carry what is needed of a passing layer's tops to its bottom."""
        bottom = step.reads[0]
        parts = {i: needs[top] for i, top in enumerate(step.writes) if top in needs}
        if not parts or (bottom in needs and not needs[bottom].soft):
            return
        first = next(iter(parts.values()))
        if step.layer.type == "Slice":
            needs[bottom] = Demand(unsliced(step, parts), first.soft)
        elif step.layer.type in SHRINKING:
            image = self.image(roots[bottom])
            needs[bottom] = Demand((first.shape[0], 1, *image[2:]))
        else:
            needs[bottom] = first

    def is_label(self, slot: int) -> bool:
        return any(word in self.graph.name(slot).lower() for word in ("label", "gt", "target"))

    # What data layers say

    def rows(self, maker: Step) -> int:
        return self.batch or batch_size(maker)

    def columns(self) -> int:
        """The sequences beside each other: as many as there are images."""
        return next((self.rows(step) for step in self.steps if step.layer.type != "HDF5Data"), 2)

    def image(self, maker: Step, reader: Step | None = None) -> Shape:
        """The shape of the images of a data layer, for `reader` (a 3-D convolution takes volumes)."""
        channels, height, width = pixels(maker, self.size)
        kernel = reader.layer.message.convolution_param.kernel_size if reader is not None else ()
        if len(kernel) == 3:
            return (self.rows(maker), channels, 64, 64, 64)
        return (self.rows(maker), channels, height, width)

    def annotated(self, step: Step) -> tuple[Shape, Shape]:
        image = self.image(step)
        return image, (1, 1, image[0] * step.layer.message.annotated_data_param.boxes_per_image, 8)


def labels(step: Step, scores: Shape, flat: bool) -> Shape:
    """One label for each place of `scores` outside the axis of classes."""
    message = step.layer.message
    has_accuracy = step.layer.type == "Accuracy"
    axis = (message.accuracy_param.axis if has_accuracy else message.softmax_param.axis) % len(scores)
    outer, inner = scores[:axis], scores[axis + 1 :]
    if flat or not inner or prod(inner) == 1:
        return outer or (1,)
    return (*outer, 1, *inner) if axis == 1 else (*outer, *inner)


def gains(step: Step, scores: Shape) -> tuple[int, int]:
    """The sides of the matrix of gains for `scores`."""
    classes = scores[step.layer.message.infogain_loss_param.axis % len(scores)]
    return classes, classes


def unsliced(step: Step, parts: Mapping[int, Demand]) -> Shape:
    """The shape that Slice must cut for its tops to have the shapes that are asked for."""
    p, count = step.layer.message.slice_param, len(step.writes)
    shape = max((demand.shape for demand in parts.values()), key=len)
    axis = p.slice_dim if p.HasField("slice_dim") else p.axis
    axis = axis % len(shape) if axis < 0 else axis
    shape = shape + (1,) * (axis + 1 - len(shape))
    points = list(p.slice_point)
    if not points:
        sizes = [demand.shape[axis] if axis < len(demand.shape) else 1 for demand in parts.values()]
        return (*shape[:axis], count * max(sizes), *shape[axis + 1 :])
    last = parts.get(count - 1)
    if last is not None and not last.soft:
        rest = last.shape[axis] if axis < len(last.shape) else 1
    else:  # as large as the one before
        rest = points[-1] - (points[-2] if len(points) > 1 else 0)
    return (*shape[:axis], points[-1] + rest, *shape[axis + 1 :])


def batch_size(step: Step) -> int:
    """The batch size that a data layer's parameters give; 1 where none does."""
    for descriptor, value in step.layer.message.ListFields():
        if descriptor.name.endswith("data_param") and getattr(value, "batch_size", 0):
            return int(value.batch_size)
    return 1


def pixels(step: Step, size: Size) -> Size:
    """Channels, height and width that a data layer's parameters give, with `size` for what they leave open."""
    message, (channels, height, width) = step.layer.message, size
    transform = message.transform_param
    if len(transform.mean_value) > 1:
        channels = len(transform.mean_value)
    for descriptor, value in message.ListFields():
        if not descriptor.name.endswith("data_param"):
            continue
        if getattr(value, "new_height", 0) and value.new_width:
            height, width = value.new_height, value.new_width
        if not getattr(value, "is_color", True):
            channels = 1
    if transform.force_gray:
        channels = 1
    if transform.resize_param.height and transform.resize_param.width:
        height, width = transform.resize_param.height, transform.resize_param.width
    if transform.crop_size:
        height = width = transform.crop_size
    return channels, height, width
