"""The source of the Pictures layer: the user's images, transformed, with missing pixels if asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.data.hiding import Hiding
from netspec.data.pictures import Pictures, open_pictures
from netspec.data.source import Order, Shape, Stream, failure, mistake
from netspec.data.tables.split import ALL, Split
from netspec.data.transform import Transformer, near
from netspec.errors import DataError
from netspec.schema.spec import TEST, LayerSpec

FIELD = "pictures_param"


def opened(spec: LayerSpec) -> Pictures:
    """The pictures that the layer names; DataError at its source where they are not there."""
    p = spec.message.pictures_param
    check(spec)
    try:
        return open_pictures(
            near(spec, p.source),
            size=(int(p.new_height), int(p.new_width)) if p.new_height else None,
            color=p.is_color if p.HasField("is_color") else None,
            classes=tuple(p.class_name),
        )
    except DataError as error:
        raise failure(spec, str(error), FIELD, "source") from error


def check(spec: LayerSpec) -> None:
    """SpecError at a field of a Pictures layer that is wrong for any data."""
    p = spec.message.pictures_param
    if not p.source:
        raise mistake(spec, "needs a source: a folder, a list, or a file of pictures", FIELD)
    if not p.batch_size:
        raise mistake(spec, "needs batch_size > 0", FIELD)
    if bool(p.new_height) != bool(p.new_width):
        raise mistake(spec, "new_height and new_width must both be set, or none", FIELD)
    try:
        Split.of(p.split)
    except DataError as error:
        raise mistake(spec, str(error), FIELD, "split") from error


def shapes(spec: LayerSpec, phase: str, own: tuple[int, int, int] | None = None) -> list[Shape]:
    """Shapes of data, label and mask; no file is read where the layer says the pictures' size and colour."""
    check(spec)
    p = spec.message.pictures_param
    if own is None and p.new_height and p.HasField("is_color"):
        own = (3 if p.is_color else 1, int(p.new_height), int(p.new_width))
    if own is None:
        own = opened(spec).shape
    c, h, w = Transformer(spec, phase, 0).shape(own)
    masks = c if p.missing.per_channel else 1
    return [(p.batch_size, c, h, w), (p.batch_size,), (p.batch_size, masks, h, w)][: len(spec.tops)]


class PicturesSource(Stream):
    """data = transformed pictures, `missing.value` (NaN) at missing pixels; label; mask, 1 where observed."""

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        p: Any = spec.message.pictures_param
        self.pictures = opened(spec)
        super().__init__(int(p.batch_size))
        self.spec = spec
        self.shapes = shapes(spec, phase, self.pictures.shape)
        try:
            split = Split.of(p.split, phase)
            count, labels = len(self.pictures), self.pictures.labels
            self.chosen = split.rows(count, labels) if split.part != ALL else np.arange(count)
        except DataError as error:
            raise failure(spec, str(error), FIELD, "split") from error
        if len(spec.tops) > 1 and np.isnan(self.pictures.labels[self.chosen]).all():
            self.notes.append(f"{spec}: the pictures of {p.source} have no labels")
        self.samples = len(self.chosen)
        self.order = Order(self.samples, p.shuffle, seed)
        self.transform = Transformer(spec, phase, seed)
        self.hiding = Hiding(spec, FIELD, phase, seed)
        self.notes += self.pictures.notes

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        chosen = self.chosen[self.order(positions)]
        try:
            raw = self.pictures.block(chosen)
        except DataError as error:
            raise failure(self.spec, str(error), FIELD, "source") from error
        data = self.transform(raw, positions, True)
        labels = torch.from_numpy(self.pictures.labels[chosen])
        mask = self.hiding.hide(data, lambda: self.transform.place(raw, positions), chosen, positions)
        tops = [torch.from_numpy(data), labels]
        if len(self.shapes) > 2:
            mask = np.broadcast_to(mask, (len(data), *self.shapes[2][1:]))
            tops.append(torch.from_numpy(mask.astype(np.float32)))
        return tuple(tops[: len(self.shapes)])


def part_of(
    spec: LayerSpec, part: str = "", begin: int | None = None, end: int | None = None
) -> tuple[Array, Array]:
    """(pictures (N, C, H, W) before the transform, labels (N,) int64, -1 where unknown): those from `begin` up to `end`
    of a part of the layer's data.

    part: train, validation, test, whole_train or all; default: what the layer is tested on. DataError where the part
    is empty.
    """
    pictures, split = opened(spec), Split.of(spec.message.pictures_param.split, TEST)
    try:
        chosen = replace(split, part=part or split.part).rows(len(pictures), pictures.labels)
    except DataError as error:
        raise failure(spec, str(error), FIELD, "split") from error
    wanted = chosen[begin:end]
    if not len(wanted):
        last = len(chosen) if end is None else end
        raise failure(spec, f"has no pictures {begin or 0} to {last} among {len(chosen)}", FIELD, "source")
    return pictures.block(wanted), np.nan_to_num(pictures.labels[wanted], nan=-1).astype(np.int64)


def settle(spec: LayerSpec, earlier: Any = None) -> list[str]:
    """Write the pictures' size, colour and classes into the layer's message where it lacks them.

    earlier: the message of the training net's layer of the same name, whose classes and size apply here too.
    """
    p = spec.message.pictures_param
    if earlier is not None:
        first = earlier.pictures_param
        if not p.new_height and first.new_height:
            p.new_height, p.new_width = first.new_height, first.new_width
        if not p.HasField("is_color") and first.HasField("is_color"):
            p.is_color = first.is_color
        if not len(p.class_name):
            p.class_name.extend(first.class_name)
    pictures = opened(spec)
    channels, height, width = pictures.shape
    p.new_height, p.new_width, p.is_color = height, width, channels == 3
    if not len(p.class_name):
        p.class_name.extend(pictures.class_names)
    return []
