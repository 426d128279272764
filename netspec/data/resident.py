"""Resident: a data set on the device, transformed once, where each example is the same whenever it is shown."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.data.sources.named import DatasetSource

SHARE = 0.25
"""Of the device's free memory: what a data set may take."""


def stands_still(source: object) -> bool:
    """Whether every image of a source is shown alike each time: nothing is cropped, mirrored, drawn on or hidden."""
    if not isinstance(source, DatasetSource) or len(source.shapes) > 2:
        return False
    transform = source.transform
    moved = any(transform.crop) or transform.mirror or transform.rectangles
    return not moved and source.hiding.missing is None and not source.spec.message.dataset_param.binarize


class Resident:
    """The images and labels of a source on a device; `make` in place of the source's own gives the same values."""

    def __init__(self, source: DatasetSource, device: torch.device):
        begin, end = source.begin, source.begin + source.order.n
        keys = np.arange(source.order.n)
        images = source.transform(source.data.images[begin:end], keys)
        self.images = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self.labels = torch.from_numpy(source.data.labels[begin:end].astype(np.float32)).to(device)
        self.order, self.tops = source.order, len(source.shapes)

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        """The samples at these places of the stream, on the device."""
        chosen = torch.from_numpy(self.order(positions)).to(self.images.device)
        return (self.images[chosen], self.labels[chosen])[: self.tops]


def settle_on(source: object, device: torch.device) -> bool:
    """Let a source give its samples from the device, where it can and the device has room; says whether it does."""
    if device.type != "cuda" or not stands_still(source) or not isinstance(source, DatasetSource):
        return False
    size = 4 * source.order.n * int(np.prod(source.shapes[0][1:]))
    if size > SHARE * torch.cuda.mem_get_info(device)[0]:
        return False
    source.make = Resident(source, device).make  # type: ignore[method-assign]
    return True
