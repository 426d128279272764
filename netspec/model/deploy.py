"""A TEST net cut down to what classifies: data in, class scores out; no labels, no losses, no files read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from netspec.errors import SpecError
from netspec.layers import registry
from netspec.layers.base import Shape
from netspec.layers.basic.noise import input_layer
from netspec.schema.spec import LayerSpec, NetSpec


@dataclass(frozen=True)
class Deployed:
    """A net cut down."""

    spec: NetSpec
    """The layers that the class scores need, with an Input layer in place of the data layer."""
    scores: str
    """The blob of class scores: log likelihoods or logits, so that their order is that of the classes."""
    data: LayerSpec
    """The data layer as it was written: it knows the transform and the data set."""
    mask: bool
    """Whether the net also reads the data layer's third top, 1 where a pixel is observed."""
    completes: bool = False
    """Whether `scores` is the blob COMPLETED: the data with its missing values filled in, and not class scores."""


COMPLETED = "completed"
"""The blob that holds the completed data of a net that does not classify."""


def deploy(spec: NetSpec) -> Deployed:
    """Cut `spec` down to the class scores; SpecError where no blob of class scores is to be found.

    The class scores are the first of these that the net has: the blob that the last Accuracy compares with the label;
    the blob that the last loss compares with it; the blob "completed"; the top of the last layer (before a Softmax).
    """
    data = data_layer(spec)
    labels = {data.tops[1]} if len(data.tops) > 1 else set()
    scores, end = scores_blob(spec, data, labels)
    kept = needed(spec.layers[:end], scores)
    read = {name for layer in kept for name in layer.bottoms}
    if touching := labels & read:
        reader = next(layer for layer in kept if set(layer.bottoms) & touching)
        raise SpecError([reader.problem(f"through it the class scores {scores!r} depend on the label")])
    if data.tops[0] not in read:
        raise SpecError([data.problem(f"the class scores {scores!r} do not depend on {data.tops[0]!r}")])
    extra = tuple(i for i in range(2, len(data.tops)) if data.tops[i] in read)
    mask = 2 in extra
    layers = tuple(_as_input(data, spec.phase, extra) if layer is data else layer for layer in kept)
    return Deployed(replace(spec, layers=layers), scores, data, mask, scores == COMPLETED)


def data_layer(spec: NetSpec) -> LayerSpec:
    """The first layer that brings data in; SpecError when there is none."""
    for layer in spec.layers:
        kind = registry.get(layer.type)
        if kind is not None and kind.is_source and layer.tops:
            return layer
    raise SpecError(f"{spec.file}: the net has no layer that brings data in (in phase {spec.phase})")


def scores_blob(spec: NetSpec, data: LayerSpec, labels: set[str]) -> tuple[str, int]:
    """(name of the blob of class scores, index of the layer before which it stands)."""
    readers = [(i, layer) for i, layer in enumerate(spec.layers) if labels.intersection(layer.bottoms[1:])]
    for family in ("accuracy", "loss"):
        of_family = [
            pair for pair in readers if (kind := registry.get(pair[1].type)) and kind.family == family
        ]
        if of_family:
            end, layer = of_family[-1]
            return _before_softmax(spec.layers[:end], scores_of(layer))
    if any(COMPLETED in layer.tops for layer in spec.layers):
        return COMPLETED, len(spec.layers)
    makers = [(i, layer) for i, layer in enumerate(spec.layers) if layer.tops and layer is not data]
    if not makers:
        raise SpecError(f"{spec.file}: the net has no layer that could give class scores")
    end, last = makers[-1]
    return _before_softmax(spec.layers[: end + 1], last.tops[0])


def scores_of(layer: LayerSpec) -> str:
    """The blob that a layer takes for class scores: the bottom of that role, else its first."""
    count, kind = len(layer.bottoms), registry[layer.type]
    return next(
        (blob for i, blob in enumerate(layer.bottoms) if kind.role(i, count) == "scores"), layer.bottoms[0]
    )


def _before_softmax(layers: tuple[LayerSpec, ...], blob: str) -> tuple[str, int]:
    for i in reversed(range(len(layers))):
        if blob in layers[i].tops:
            kind = registry.get(layers[i].type)
            if kind is not None and kind.is_softmax:
                return scores_of(layers[i]), i
            break
    return blob, len(layers)


def needed(layers: tuple[LayerSpec, ...], blob: str) -> list[LayerSpec]:
    """The layers that compute the final value of `blob`."""
    wanted, kept = {blob}, []
    for layer in reversed(layers):
        if wanted.intersection(layer.tops):
            wanted.difference_update(layer.tops)
            wanted.update(layer.bottoms)
            kept.append(layer)
    return kept[::-1]


def _as_input(data: LayerSpec, phase: str, extra: tuple[int, ...]) -> LayerSpec:
    """An Input layer with a data layer's first top and its tops number `extra`, in their shapes."""
    shapes: list[Shape] = registry[data.type](data, phase).source_shapes()
    chosen = [0, *extra]
    return input_layer(data, {data.tops[i]: shapes[i] for i in chosen})
