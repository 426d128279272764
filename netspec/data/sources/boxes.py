"""The source of caffe-yolo's BoxData: pictures of a database whose Datums hold boxes beside them."""

from __future__ import annotations

import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from netspec import schema
from netspec.data.draws import derive, integers
from netspec.data.files.idx import Array
from netspec.data.files.protos import read_datum
from netspec.data.source import Stream, failure, mistake
from netspec.data.sources.database import open_database
from netspec.data.transform import Transformer, near
from netspec.errors import DataError
from netspec.schema.spec import LayerSpec

BOX = 6
"""Numbers of a box in float_data: class, difficult, x, y, width, height."""


def cells(boxes: Array, side: int) -> Array:
    """The label (7 side^2,) of boxes (K, 6)."""
    out = np.zeros((7, side**2), np.float32)
    out[2] = -1
    place = np.zeros((side**2, 4), np.float32)
    for kind, difficult, *box in boxes:
        column, row = (min(max(int(np.floor(v * side)), 0), side - 1) for v in box[:2])
        cell = side * row + column
        out[:3, cell] = difficult, 1, kind
        place[cell] = box
    out[3:] = place.reshape(4, -1)
    return out.ravel()


class BoxSource(Stream):
    """data, and labels for each number of cells."""

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        p = spec.message.data_param
        super().__init__(int(p.batch_size))
        self.spec, self.seed = spec, seed
        if not p.batch_size or not p.source:
            raise mistake(spec, "needs a source and batch_size > 0", "data_param")
        self.sides = [int(side) for side in p.side] or [7]
        if len(spec.tops) > 1 and len(self.sides) != len(spec.tops) - 1:
            text = f"{len(self.sides)} sides for {len(spec.tops) - 1} tops of labels"
            raise mistake(spec, text, "data_param", "side")
        self.transform = Transformer(spec, phase, seed)
        if any(self.transform.crop):
            raise mistake(spec, "a crop does not go with boxes", "transform_param")
        self.mirror, self.transform.mirror = self.transform.mirror, False
        try:
            self.database = open_database(near(spec, p.source), "LMDB" if p.backend == p.LMDB else "LEVELDB")
            try:
                shape = self.sample(0)[0].shape
            except Exception:
                self.database.close()
                raise
        except DataError as error:
            raise failure(spec, str(error), "data_param", "source") from error
        labels = [(self.batch_size, 7 * side**2) for side in self.sides]
        self.shapes = [(self.batch_size, *shape), *labels][: len(spec.tops)]

    def sample(self, position: int) -> tuple[Array, Array]:
        """The transformed picture of a place in the stream, and its boxes (K, 6)."""
        key, value = self.database.at(position)
        name = f"{self.database.path}: record {key.decode('utf-8', 'replace')!r}"
        try:
            datum = schema.Datum.FromString(value)
        except DecodeError as error:
            raise DataError(f"{name}: not a Datum ({error})") from error
        if len(datum.float_data) % BOX:
            raise DataError(f"{name}: {len(datum.float_data)} numbers of boxes, no multiple of {BOX}")
        boxes = np.array(datum.float_data, np.float32).reshape(-1, BOX)
        if not np.isfinite(boxes).all():
            raise DataError(f"{name}: a box of numbers that are not finite")
        datum.ClearField("float_data")
        image = read_datum(datum.SerializeToString(), name).image
        if self.mirror and integers(derive(self.seed, "boxes"), np.array([position]), 1, 2)[0, 0]:
            image = image[:, :, ::-1]
            boxes[:, 2] = 1 - boxes[:, 2]
        return self.transform(image[None], np.array([position]), True)[0], boxes

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        pairs = [self.sample(int(position)) for position in positions]
        if {image.shape for image, _ in pairs} != {tuple(self.shapes[0][1:])}:
            text = f"pictures differ in size from the first, {self.shapes[0][2:]}"
            raise failure(self.spec, text, "data_param", "source")
        tops = [np.stack([image for image, _ in pairs])]
        tops += [np.stack([cells(boxes, side) for _, boxes in pairs]) for side in self.sides]
        return tuple(torch.from_numpy(top) for top in tops[: len(self.shapes)])

    def close(self) -> None:
        self.database.close()
