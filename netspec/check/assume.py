"""Shapes for net inputs whose data is not here, inferred from the layers that read them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from netspec.errors import SpecError
from netspec.layers.base import Shape
from netspec.net.graph import Graph, Step
from netspec.net.shapes import top_shapes

SIZES = ((3, 224, 224), (1, 28, 28), (3, 227, 227), (3, 32, 32), (3, 256, 256), (3, 300, 300), (3, 512, 512))
"""Image shapes to try where a data layer does not tell: the commonest first."""


@dataclass(frozen=True)
class Demand:
    """The shape that a reader needs. soft: the shape is a guess, such as that of an image."""

    shape: Shape
    soft: bool = False


def labels(step: Step, scores: Shape) -> Shape:
    """The shape of labels for `scores`: one label per place outside the axis of classes."""
    axis = step.kind.classes_along(step.layer) % len(scores)
    outer, inner = scores[:axis], scores[axis + 1 :]
    if prod(inner) == 1:
        return outer or (1,)
    return (*outer, 1, *inner) if axis == 1 else (*outer, *inner)


def gains(step: Step, scores: Shape) -> Shape:
    """The shape of a matrix of gains for `scores`."""
    classes = scores[step.kind.classes_along(step.layer) % len(scores)]
    return 1, 1, classes, classes


BESIDE_SCORES: dict[str, Callable[[Step, Shape], Shape]] = {
    "label": labels,
    "row label": lambda _, scores: scores[:1] if len(scores) > 1 else (1,),
    "row index": lambda _, first: first[:1],
    "gains": gains,
}
"""The shape of a bottom by its role, from the shape of the first bottom."""


def carries(step: Step) -> bool:
    """Whether a layer's top plays the role of its first bottom, whatever its other bottoms hold."""
    count = len(step.reads)
    return step.kind.carries and all(step.kind.role(i, count) == "like" for i in range(1, count))


Size = tuple[int, int, int]


def sizes(graph: Graph) -> tuple[Size, ...]:
    """Image shapes to try: those that layers mention (what an Upsample or Interp restores), then the usual ones."""
    mentioned = []
    for step in graph.steps:
        up, interp = step.layer.message.upsample_param, step.layer.message.interp_param
        crop = step.layer.message.augmentation_param
        for height, width in (
            (up.upsample_h, up.upsample_w), (interp.height, interp.width), (crop.crop_height, crop.crop_width)
        ):  # fmt: skip
            if height and width:
                mentioned.append((3, height, width))
    return (*sorted(set(mentioned), reverse=True)[:3], *SIZES)


def input_shapes(
    graph: Graph,
    steps: Collection[Step],
    size: Size,
    batch: int | None = None,
    given: Mapping[str, Shape] | None = None,
) -> dict[str, Shape]:
    """Shapes of the tops of `steps`, by name. `size` is that of images; `batch` replaces what the layers say.

    given: shapes of inputs that are known.
    """
    known = {slot: given[graph.name(slot)] for slot in graph.inputs if given and graph.name(slot) in given}
    return _Search(graph, list(steps), size, batch, known).run()


RANDOM = {
    "label": "label", "row label": "label", "binary label": "label", "label rows": "label",
    "index": "index", "row index": "index", "lengths": "index", "regions": "regions", "continuation": "continuation",
    "boxes": "boxes",
}  # fmt: skip
"""Roles of bottoms that restrict random values."""


def roles(graph: Graph) -> dict[int, str]:
    """The role of each input for its readers: "label", "regions", "boxes", "index", "continuation" or "" (any
    other).
    """
    by_slot: dict[int, str] = {}
    for step in reversed(graph.steps):
        for i, slot in enumerate(step.reads):
            role = RANDOM.get(step.kind.role(i, len(step.reads)), "")
            if step.kind.carries:
                role = next((by_slot[top] for top in step.writes if by_slot.get(top)), role)
            by_slot[slot] = role or by_slot.get(slot, "")
    return {slot: by_slot.get(slot, "") for slot in graph.inputs}


@dataclass
class _Search:
    """Walks on the meta device; each infers from the known shapes what the next unknown inputs must be."""

    graph: Graph
    steps: list[Step]
    size: Size
    batch: int | None
    given: dict[int, Shape] = field(default_factory=dict)

    def run(self) -> dict[str, Shape]:
        wanted = [slot for step in self.steps for slot in step.writes]
        for step in self.steps:
            likely = step.kind.likely_shapes(step.layer, self.image(step))
            for slot, shape in zip(step.writes, likely or (), strict=False):
                self.given.setdefault(slot, shape)
        for _ in wanted:
            walked = self.walk()
            new = {slot: walked[slot].shape for slot in wanted if slot in walked and slot not in self.given}
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
        """The shapes that readers demand of slots not known yet, traced back to the inputs."""
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
                if carries(step) and (not step.kind.resizes or self.is_label(unknown[0])):
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
        """The tops' shapes; empty where the layer finds a mistake, which the real walk will report."""
        slots: list[Any] = [shapes.get(i) for i in range(len(self.graph.slots))]
        try:
            layer = step.kind(step.layer, step.layer.phase(self.graph.spec.phase))
            return list(top_shapes(layer, step, self.graph, slots, {}))
        except SpecError:
            return ()

    def ask(
        self, step: Step, shapes: Mapping[int, Shape], roots: Mapping[int, Step], needs: dict[int, Demand]
    ) -> None:
        """Note the shapes that a layer demands of its unknown bottoms."""
        known = [shapes.get(slot) for slot in step.reads]
        for i, slot in enumerate(step.reads):
            if slot in shapes or (slot in needs and not needs[slot].soft):
                continue
            demand = self.demand(step, i, known, roots[slot])
            if demand is not None and (slot not in needs or not demand.soft):
                needs[slot] = demand

    def demand(self, step: Step, i: int, known: list[Shape | None], maker: Step) -> Demand | None:
        kind, first, role = step.kind, known[0], step.kind.role(i, len(known))
        image = self.image(maker, step)
        own = kind.needs(step.layer, i, known, image)
        if own is not None:
            return Demand(own)
        if i and role in BESIDE_SCORES:
            return None if first is None else Demand(BESIDE_SCORES[role](step, first))
        if kind.alike:
            like = next((shape for shape in known if shape is not None), None)
            # Where nothing is known yet a bottom in front may still be an image.
            return Demand(like) if like is not None else None if i else Demand(image, True)
        if role == "regions" and i:
            return Demand((2, 5))
        if kind.role(0, len(known)) == "sequence":
            return self.sequence(i, known, maker)
        if role == "index":
            return Demand((self.rows(maker), self.columns()))
        if role == "ignored":
            return None
        several = kind.bottoms.most is None and role in ("values", "image")
        return Demand(image, True) if i == 0 or several else None

    def sequence(self, i: int, known: list[Shape | None], maker: Step) -> Demand | None:
        if i == 1:
            return Demand(known[0][:2]) if known[0] is not None else None
        time = (known[1] if len(known) > 1 else None) or (self.rows(maker), self.columns())
        return Demand((*time, 64) if i == 0 else (time[1], 64), True)

    def trace(self, step: Step, roots: Mapping[int, Step], needs: dict[int, Demand]) -> None:
        """Carry the demand on the tops of a layer that passes shapes on to its bottom."""
        bottom = step.reads[0]
        parts = {i: needs[top] for i, top in enumerate(step.writes) if top in needs}
        if not parts or (bottom in needs and not needs[bottom].soft):
            return
        first = next(iter(parts.values()))
        if step.kind.resizes:
            image = self.image(roots[bottom])
            needs[bottom] = Demand((first.shape[0], 1, *image[2:]))
            return
        shapes = {i: demand.shape for i, demand in parts.items()}
        sure = [i for i, demand in parts.items() if not demand.soft]
        needs[bottom] = Demand(step.kind.bottom_for(step.layer, shapes, sure), first.soft)

    def is_label(self, slot: int) -> bool:
        return any(word in self.graph.name(slot).lower() for word in ("label", "gt", "target"))

    # What data layers say

    def rows(self, maker: Step) -> int:
        return self.batch or batch_size(maker)

    def columns(self) -> int:
        """The sequences beside each other: as many as there are images."""
        return next((self.rows(step) for step in self.steps if step.kind.of_images), 2)

    def image(self, maker: Step, reader: Step | None = None) -> Shape:
        """The shape of the images of a data layer, for `reader` (a 3-D convolution takes volumes)."""
        channels, height, width = pixels(maker, self.size)
        kernel = reader.layer.message.convolution_param.kernel_size if reader is not None else ()
        if len(kernel) == 3:
            return (self.rows(maker), channels, 64, 64, 64)
        return (self.rows(maker), channels, height, width)


def batch_size(step: Step) -> int:
    """The batch size in a data layer's parameters; 1 where they have none."""
    for descriptor, value in step.layer.message.ListFields():
        if descriptor.name.endswith("data_param") and getattr(value, "batch_size", 0):
            return int(value.batch_size)
    return 1


def pixels(step: Step, size: Size) -> Size:
    """Channels, height and width from a data layer's parameters, with `size` for what they leave open."""
    message, (channels, height, width) = step.layer.message, size
    transform = message.transform_param
    if len(transform.mean_value) > 1:
        channels = len(transform.mean_value)
    for descriptor, value in message.ListFields():
        if not descriptor.name.endswith("data_param"):
            continue
        if getattr(value, "new_height", 0) and value.new_width:
            height, width = value.new_height, value.new_width
        color = value.DESCRIPTOR.fields_by_name.get("is_color")
        if color is not None and (color.has_default_value or value.HasField("is_color")):
            channels = 3 if value.is_color else 1  # whatever the files hold
    if transform.force_gray:
        channels = 1
    for resizing in transform.resize_param[:1]:
        if resizing.height and resizing.width:
            height, width = resizing.height, resizing.width
    if transform.crop_size:
        height = width = transform.crop_size
    return channels, height, width
