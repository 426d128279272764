"""Split layers, as Caffe puts them behind every blob that is read more than once, under Caffe's names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from netspec import schema
from netspec.schema.spec import LayerSpec, NetSpec

Maker = tuple[int, int]
"""Which top of which layer."""


def insert_splits(spec: NetSpec) -> NetSpec:
    """The net in which every blob has one reader at most; `<blob>_<layer>_<top>_split_<k>` is its k-th copy.

    A written loss_weight counts as a reader: the weight goes to the first copy. Bottoms that nobody makes are
    left as they are, for the compiler to complain about. A layer in place on a blob that others read too
    works on its copy (Caffe refuses such nets). Source: Caffe, insert_splits.cpp.
    """
    return _Splitting(spec).run()


@dataclass
class _Splitting:
    spec: NetSpec
    makers: dict[tuple[int, int], Maker] = field(default_factory=dict)
    """The maker behind each (layer, bottom)."""
    counts: Counter[Maker] = field(default_factory=Counter)
    weights: dict[Maker, float] = field(default_factory=dict)
    used: Counter[Maker] = field(default_factory=Counter)
    """How many copies of a blob are given out."""
    names: dict[Maker, str] = field(default_factory=dict)
    """The name that each top has in the new net."""

    def run(self) -> NetSpec:
        self.count()
        layers: list[LayerSpec] = []
        for i, layer in enumerate(self.spec.layers):
            layers.append(self.renamed(i, layer))
            layers += [self.split(i, j) for j in range(len(layer.tops)) if self.counts[i, j] > 1]
        return replace(self.spec, layers=tuple(layers))

    def count(self) -> None:
        """Who reads what, and how often."""
        newest: dict[str, Maker] = {}
        for i, layer in enumerate(self.spec.layers):
            for j, name in enumerate(layer.bottoms):
                if name in newest:
                    self.makers[i, j] = newest[name]
                    self.counts[newest[name]] += 1
            for j, name in enumerate(layer.tops):
                newest[name] = i, j
                written = layer.message.loss_weight
                if j < len(written) and written[j]:
                    self.weights[i, j] = written[j]
                    self.counts[i, j] += 1
                    self.used[i, j] = 1

    def split_name(self, maker: Maker) -> str:
        return f"{self.names[maker]}_{self.spec.layers[maker[0]].name}_{maker[1]}_split"

    def renamed(self, i: int, layer: LayerSpec) -> LayerSpec:
        """The layer with its bottoms led to the copies, and without the loss weights that go there too."""
        bottoms = list(layer.bottoms)
        for j in range(len(bottoms)):
            maker = self.makers.get((i, j))
            if maker is None:
                continue
            bottoms[j] = self.names[maker]
            if self.counts[maker] > 1:
                bottoms[j] = f"{self.split_name(maker)}_{self.used[maker]}"
                self.used[maker] += 1
        tops = [
            bottoms[j] if layer.bottoms[j : j + 1] == (name,) else name for j, name in enumerate(layer.tops)
        ]
        self.names.update({(i, j): name for j, name in enumerate(tops)})
        moved = [j for j in range(len(tops)) if (i, j) in self.weights and self.counts[i, j] > 1]
        if not moved and tuple(bottoms) == layer.bottoms:
            return layer
        message: Any = type(layer.message)()
        message.CopyFrom(layer.message)
        message.bottom[:], message.top[:] = bottoms, tops
        for j in moved:
            message.loss_weight[j] = 0
        return replace(layer, bottoms=tuple(bottoms), tops=tuple(tops), message=message)

    def split(self, i: int, j: int) -> LayerSpec:
        """The layer that copies top j of layer i."""
        name, count, weight = self.split_name((i, j)), self.counts[i, j], self.weights.get((i, j))
        tops = tuple(f"{name}_{k}" for k in range(count))
        weights = [] if weight is None else [weight] + [0.0] * (count - 1)
        blob = self.names[i, j]
        message = schema.LayerParameter(
            name=name, type="Split", bottom=[blob], top=list(tops), loss_weight=weights
        )
        layer = self.spec.layers[i]
        return LayerSpec(name, "Split", (blob,), tops, message, layer.document, layer.path)
