"""The source of the Dataset layer: batches of a named data set, with missing pixels if asked for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from netspec.data.binarising import KINDS as BINARY
from netspec.data.binarising import binarised, binary_seed
from netspec.data.draws import derive
from netspec.data.files.idx import Array
from netspec.data.hiding import Hiding
from netspec.data.sets.catalogue import Known
from netspec.data.sets.datasets import SPLITS, Labelled, load, named
from netspec.data.source import Order, Shape, Stream, failure, mistake
from netspec.data.transform import Transformer
from netspec.errors import DataError, did_you_mean
from netspec.schema.spec import LayerSpec


def known(spec: LayerSpec) -> Known:
    """The data set that the layer names; SpecError at the field that is wrong."""
    p = spec.message.dataset_param
    try:
        entry = named(p.name)
    except DataError as error:
        raise mistake(spec, str(error), "dataset_param", "name") from error
    if p.split not in SPLITS:
        raise mistake(spec, f"no split {p.split!r}; there are {', '.join(SPLITS)}", "dataset_param", "split")
    if not p.batch_size:
        raise mistake(spec, "needs batch_size > 0", "dataset_param")
    return entry


def shapes(spec: LayerSpec, phase: str) -> list[Shape]:
    """Shapes of data, label, mask and clean data, from the catalogue: no file is read."""
    entry, p = known(spec), spec.message.dataset_param
    c, h, w = Transformer(spec, phase, 0).shape(entry.shape)
    masks = c if p.missing.per_channel else 1
    data = (p.batch_size, c, h, w)
    return [data, (p.batch_size,), (p.batch_size, masks, h, w), data][: len(spec.tops)]


def balanced(labels: Array, count: int, seed: int) -> Array:
    """Indices of `count` examples, in ascending order, with equally many per class (or one more in some classes).

    A smaller count chooses a subset of what a larger one chooses. The choice of a class's examples depends on the seed
    and the class alone. Raises DataError where a class has too few.
    """
    kinds = np.unique(labels)
    share, more = divmod(count, len(kinds))
    chosen = []
    for i, kind in enumerate(kinds):
        mine, wanted = np.flatnonzero(labels == kind), share + (i < more)
        if len(mine) < wanted:
            raise DataError(f"labels {count} needs {wanted} of class {int(kind)}, which has {len(mine)}")
        generator = np.random.Generator(np.random.PCG64(derive(seed, "labels", int(kind))))
        chosen.append(generator.permutation(mine)[:wanted])
    return np.sort(np.concatenate(chosen))


class DatasetSource(Stream):
    """data = transformed images, `missing.value` (NaN) at missing pixels; label; mask, 1 where observed; the data
    before pixels were removed.
    """

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        p = spec.message.dataset_param
        super().__init__(p.batch_size)
        self.shapes = shapes(spec, phase)
        self.spec, self.phase, self.seed = spec, phase, seed
        self.data: Labelled = self._load()
        self.notes += self.data.notes
        if p.HasField("labels"):
            self.data = self._with_few_labels(self.data)
        self.begin = int(p.begin)
        end = min(int(p.end), len(self.data)) if p.HasField("end") else len(self.data)
        if self.begin >= end:
            raise mistake(
                spec, f"begin {self.begin}, end {end} leave none of {len(self.data)} images", "dataset_param"
            )
        self.order = Order(end - self.begin, p.shuffle, seed)
        self.transform = Transformer(spec, phase, seed)
        if p.binarize and p.binarize not in BINARY:
            hint = did_you_mean(p.binarize, BINARY, f"known: {', '.join(BINARY)}")
            raise mistake(
                spec, f"no way to binarize is called {p.binarize!r}{hint}", "dataset_param", "binarize"
            )
        self.binary_seed = binary_seed(spec, seed)
        self.hiding = Hiding(spec, "dataset_param", phase, seed)

    def held(self, top: int) -> Array | None:
        return np.asarray(self.data.labels[self.begin : self.begin + self.order.n]) if top == 1 else None

    def _load(self) -> Labelled:
        p = self.spec.message.dataset_param
        try:
            data = load(p.name, p.split, p.stand_in)
        except DataError as error:
            raise failure(self.spec, str(error), "dataset_param", "name") from error
        if data.images.shape[1] == 3:  # colour is in the order B, G, R, as of decoded pictures
            data = Labelled(data.images[:, ::-1], data.labels, data.notes)
        return data

    def _with_few_labels(self, data: Labelled) -> Labelled:
        """The data with only `labels` labels, the others NaN; or only the labelled examples."""
        p = self.spec.message.dataset_param
        try:
            kept = balanced(data.labels, p.labels, p.label_seed)
        except DataError as error:
            raise mistake(self.spec, str(error), "dataset_param", "labels") from error
        if p.labelled_only:
            return Labelled(data.images[kept], data.labels[kept], data.notes)
        labels = np.full(len(data), np.nan, np.float32)
        labels[kept] = data.labels[kept]
        return Labelled(data.images, labels, data.notes)

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        chosen = self.order(positions) + self.begin
        raw = self.data.images[chosen]
        if binary := self.spec.message.dataset_param.binarize:
            raw = binarised(raw, binary, self.binary_seed, chosen, positions)
        data = self.transform(raw, positions)
        labels = torch.from_numpy(self.data.labels[chosen].astype(np.float32))
        clean = data.copy() if len(self.shapes) > 3 else None
        mask = self.hiding.hide(data, lambda: self.transform.place(raw, positions), chosen, positions)
        tops = [torch.from_numpy(data), labels]
        if len(self.shapes) > 2:
            mask = np.broadcast_to(mask, (len(data), *self.shapes[2][1:]))
            tops.append(torch.from_numpy(mask.astype(np.float32)))
        if clean is not None:
            tops.append(torch.from_numpy(clean))
        return tuple(tops[: len(self.shapes)])
