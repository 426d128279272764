"""Classifier: a net that takes images and gives class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from netspec.layers.blob import Array
from netspec.pycaffe import io
from netspec.pycaffe.mode import TEST
from netspec.pycaffe.net import Net


def configured(
    net: Net,
    mean: Array | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> io.Transformer:
    """The Transformer of a net's first input, for images (H, W, C)."""
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer


class Classifier(Net):
    """A net for whole images, with their preparation.

    image_dims: images are first brought to this size, then cropped to the net's; by default the net's.
    """

    def __init__(
        self,
        model_file: str | Path,
        pretrained_file: str | Path,
        image_dims: Sequence[int] | None = None,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ):
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = configured(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else image_dims

    def predict(self, inputs: Sequence[Array], oversample: bool = True) -> Array:
        """Class probabilities (N, K) of N images (H, W, C).

        oversample: the mean over ten crops (corners, centre and their mirror images), else the centre.
        """
        size = (int(self.image_dims[0]), int(self.image_dims[1]))
        images = np.array([io.resize_image(image, size) for image in inputs])
        if oversample:
            images = io.oversample(images, self.crop_dims)
        else:
            h, w = (int(n) for n in self.crop_dims)
            y, x = (size[0] - h) // 2, (size[1] - w) // 2
            images = images[:, y : y + h, x : x + w]
        name = self.inputs[0]
        batch = np.array([self.transformer.preprocess(name, image) for image in images])
        probabilities = self.forward_all(None, **{name: batch})[self.outputs[0]]
        return (
            np.asarray(probabilities.reshape(-1, 10, probabilities[0].size).mean(1))
            if oversample
            else probabilities
        )
