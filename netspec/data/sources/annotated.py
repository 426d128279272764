"""The source of SSD's AnnotatedData: pictures with boxes from a database of AnnotatedDatums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from netspec import schema
from netspec.data.draws import derive
from netspec.data.files.idx import Array
from netspec.data.files.images import resize
from netspec.data.files.protos import read_datum
from netspec.data.source import Stream, failure, mistake
from netspec.data.sources import augment, noise
from netspec.data.sources.database import open_database
from netspec.data.transform import Transformer, near
from netspec.errors import DataError
from netspec.schema.spec import LayerSpec

COLUMNS = 8
"""A row of the label: image, class, instance, xmin, ymin, xmax, ymax, difficult."""


@dataclass(frozen=True)
class Annotated:
    """A picture (C, H, W), its boxes (K, 4), and their class, instance and difficulty (K, 3)."""

    image: Array
    boxes: Array
    facts: Array


def read_annotated(data: bytes, name: str, color: bool | None) -> Annotated:
    """An AnnotatedDatum's picture and boxes; DataError with `name` when it is none."""
    try:
        message = schema.AnnotatedDatum.FromString(data)
    except DecodeError as error:
        raise DataError(f"{name}: not an AnnotatedDatum ({error})") from error
    image = read_datum(message.datum.SerializeToString(), name, color).image
    boxes, facts = [], []
    for group in message.annotation_group:
        for annotation in group.annotation:
            box = annotation.bbox
            boxes.append([box.xmin, box.ymin, box.xmax, box.ymax])
            facts.append([group.group_label, annotation.instance_id, box.difficult])
    return Annotated(
        image, np.array(boxes, np.float64).reshape(-1, 4), np.array(facts, np.float32).reshape(-1, 3)
    )


class AnnotatedSource(Stream):
    """data = augmented, warped pictures; label (1, 1, R, 8), one row per box, image number -1 where there is no box."""

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        p, t = spec.message.data_param, spec.message.transform_param
        super().__init__(int(p.batch_size))
        self.spec, self.seed = spec, seed
        if not p.batch_size or not p.source:
            raise mistake(spec, "needs a source and batch_size > 0", "data_param")
        for i, resizing in enumerate(t.resize_param):
            if resizing.resize_mode == resizing.FIT_SMALL_SIZE:
                text = "resize_mode FIT_SMALL_SIZE gives pictures of several sizes; use WARP or FIT_LARGE_SIZE_AND_PAD"
                raise mistake(spec, text, "transform_param", "resize_param", i, "resize_mode")
        sizes = [(int(resizing.height), int(resizing.width)) for resizing in t.resize_param]
        for i, size in enumerate(sizes):
            if size != sizes[0]:
                text = f"one resize_param gives {sizes[0]} pixels, another {size}; a batch has one size"
                raise mistake(spec, text, "transform_param", "resize_param", i)
        if any(Transformer(spec, phase, seed).crop):
            raise mistake(spec, "a crop does not go with boxes", "transform_param")
        if t.HasField("noise_param") and (missing := noise.missing(t.noise_param)):
            raise mistake(spec, f"{missing} is not built", "transform_param", "noise_param", missing)
        self.size = sizes[0] if sizes else (0, 0)
        self.transform = Transformer(spec, phase, seed)
        self.mirror, self.transform.mirror = self.transform.mirror, False
        self.color = True if t.force_color else False if t.force_gray else None
        try:
            self.database = open_database(near(spec, p.source), "LMDB" if p.backend == p.LMDB else "LEVELDB")
            try:
                image, _, _ = self.sample(0)
            except Exception:
                self.database.close()
                raise
        except DataError as error:
            raise failure(spec, str(error), "data_param", "source") from error
        self.rows = self.batch_size * int(spec.message.annotated_data_param.boxes_per_image)
        self.shapes = [(self.batch_size, *image.shape), (1, 1, self.rows, COLUMNS)][: len(spec.tops)]

    def sample(self, position: int) -> tuple[Array, Array, Array]:
        """The transformed picture of a place in the stream, its boxes, and their facts."""
        key, value = self.database.at(position)
        name = f"{self.database.path}: record {key.decode('utf-8', 'replace')!r}"
        record = read_annotated(value, name, self.color)
        image, boxes, facts = record.image, record.boxes, record.facts
        t = self.spec.message.transform_param
        generator = np.random.Generator(np.random.PCG64(derive(self.seed, "annotated", position)))
        if t.HasField("distort_param") and len(image) == 3:
            image = augment.distorted(image, t.distort_param, generator)
        if t.HasField("expand_param"):
            fill = self.transform.values if len(self.transform.values) else np.zeros(1, np.float32)
            image, boxes = augment.expanded(image, boxes, t.expand_param, fill, generator)
        samplers = self.spec.message.annotated_data_param.batch_sampler
        part = augment.sampled(boxes, samplers, generator) if len(samplers) else None
        emit = t.emit_constraint if t.HasField("emit_constraint") else None
        if part is None:
            part = np.array([0.0, 0.0, 1.0, 1.0])
        height, width = image.shape[1:]
        sides = np.array([width, height, width, height])
        x1, y1, x2, y2 = (part * sides).astype(int)
        x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
        image = image[:, y1:y2, x1:x2]
        part = np.array([x1, y1, x2, y2]) / sides  # whole pixels, so that boxes keep to theirs
        boxes, keep = augment.projected(part, boxes, emit)
        boxes, facts = boxes[keep], facts[keep]
        if all(self.size):
            image, boxes = self.resized(image, boxes, generator)
        if t.HasField("noise_param") and generator.random() < t.noise_param.prob:
            image = noise.degraded(image, t.noise_param, generator)
        if self.mirror and generator.random() < 0.5:
            image = image[:, :, ::-1]
            boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
        return self.transform(image[None], np.array([position]))[0], boxes, facts

    def resized(self, image: Array, boxes: Array, generator: np.random.Generator) -> tuple[Array, Array]:
        """The picture in the size that one of the resize_params asks for, and its boxes."""
        choices = self.spec.message.transform_param.resize_param
        chosen = choices[0]
        if len(choices) > 1:
            weights = np.array([choice.prob for choice in choices], np.float64)
            chosen = choices[generator.choice(len(choices), p=weights / weights.sum())]
        if chosen.resize_mode == chosen.FIT_LARGE_SIZE_AND_PAD:
            return augment.padded(image, boxes, chosen)
        return resize(image, *self.size), boxes

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        data = np.empty(self.shapes[0], np.float32)
        rows = []
        for i, position in enumerate(positions):
            image, boxes, facts = self.sample(int(position))
            if image.shape != data.shape[1:]:
                raise failure(
                    self.spec,
                    f"a picture comes out as {image.shape}, the first as {data.shape[1:]}; set resize_param",
                    "transform_param",
                )
            data[i] = image
            number = np.full((len(boxes), 1), i)
            rows.append(np.concatenate([number, facts[:, :2], boxes, facts[:, 2:]], 1))
        label = np.concatenate(rows)
        if len(label) > self.rows:
            raise failure(
                self.spec,
                f"a batch has {len(label)} boxes, there is room for {self.rows}; raise boxes_per_image",
                "annotated_data_param",
            )
        out = np.full((1, 1, self.rows, COLUMNS), -1, np.float32)
        out[0, 0, : len(label)] = label
        return (torch.from_numpy(data), torch.from_numpy(out))[: len(self.shapes)]

    def close(self) -> None:
        self.database.close()
