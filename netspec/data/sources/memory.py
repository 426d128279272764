"""The source of MemoryData: arrays that the program gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.data.source import Stream, failure, mistake
from netspec.data.transform import Transformer
from netspec.schema.spec import LayerSpec


class MemorySource(Stream):
    """data, label from `reset` (as they are) or `add` (through the transformer); round and round.

    `next` before either raises DataError. Not read ahead, since the arrays may change between batches.
    """

    ahead = False

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        p = spec.message.memory_data_param
        super().__init__(int(p.batch_size))
        self.spec = spec
        size = (int(p.batch_size), int(p.channels), int(p.height), int(p.width))
        if min(size) < 1:
            raise mistake(spec, "needs batch_size, channels, height and width > 0", "memory_data_param")
        self.transform = Transformer(spec, phase, seed)
        self.shapes = [size, (size[0],)][: len(spec.tops)]
        self.data = self.labels = torch.empty(0)

    def reset(self, data: Array | Tensor, labels: Array | Tensor) -> None:
        """Take (n, C, H, W) and n labels, n a multiple of the batch size; go back to the first."""
        data, labels = torch.as_tensor(data).float(), torch.as_tensor(labels).float().reshape(-1)
        expected = tuple(self.shapes[0][1:])
        if tuple(data.shape[1:]) != expected or len(data) != len(labels):
            raise failure(
                self.spec, f"takes images {expected}, a label each; got {tuple(data.shape)}, {len(labels)}"
            )
        if not len(data) or len(data) % self.batch_size:
            raise failure(self.spec, f"{len(data)} images are no multiple of batch_size {self.batch_size}")
        self.data, self.labels, self.position = data, labels, 0

    def add(self, images: Sequence[Array], labels: Sequence[int]) -> None:
        """Take uint8 images (C, H, W), transformed once now."""
        keys = np.arange(len(images))
        parts = [self.transform(image[None], keys[i : i + 1], True) for i, image in enumerate(images)]
        self.reset(
            np.concatenate(parts) if parts else np.empty(0, np.float32), np.asarray(labels, np.float32)
        )

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        if not len(self.data):
            raise failure(self.spec, "has no data yet; call reset(data, labels) on its source")
        places = torch.from_numpy(positions % len(self.data))
        return (self.data[places], self.labels[places])[: len(self.shapes)]
