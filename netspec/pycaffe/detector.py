"""Detector: a net that classifies windows of images (R-CNN; Girshick et al. 2014)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from netspec.layers.blob import Array
from netspec.pycaffe import io
from netspec.pycaffe.classifier import configured
from netspec.pycaffe.mode import TEST
from netspec.pycaffe.net import Net

Window = Sequence[float]
"""(top, left, bottom, right) in pixels."""


class Detector(Net):
    """A net for windows, each warped to the net's input.

    context_pad: so many pixels of the input show what surrounds the window; beyond the image, the mean.
    """

    def __init__(
        self,
        model_file: str | Path,
        pretrained_file: str | Path,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ):
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = configured(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the context, and what stands for pixels outside the image: the mean as an image."""
        self.context_pad = context_pad
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        self.crop_mean: Array = np.zeros((height, width, channels), np.float32)
        mean = self.transformer.mean.get(name)
        if context_pad and mean is not None:
            image = np.broadcast_to(mean, (channels, height, width)).transpose(1, 2, 0)
            if name in self.transformer.channel_swap:
                image = image[:, :, np.argsort(self.transformer.channel_swap[name])]
            self.crop_mean = image / self.transformer.raw_scale.get(name, 1.0)

    def detect_windows(
        self, images_windows: Iterable[tuple[str | Path, Iterable[Window]]]
    ) -> list[dict[str, Any]]:
        """A dict with filename, window and prediction for each window of each (image file, windows)."""
        detections: list[dict[str, Any]] = []
        crops = []
        name = self.inputs[0]
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                crops.append(self.transformer.preprocess(name, self.crop(image, window)))
                detections.append({"window": window, "filename": filename})
        if crops:
            predictions = self.forward_all(None, **{name: np.array(crops)})[self.outputs[0]]
            for entry, prediction in zip(detections, predictions, strict=True):
                entry["prediction"] = prediction.squeeze()
        return detections

    def detect_selective_search(self, image_fnames: Iterable[str | Path]) -> list[dict[str, Any]]:
        """`detect_windows` on the proposals of selective search, by the package of that name."""
        search: Any = importlib.import_module("selective_search_ijcv_with_python")
        files = [str(Path(name).absolute()) for name in image_fnames]
        windows = search.get_windows(files, cmd="selective_search_rcnn")
        return self.detect_windows(zip(files, windows, strict=True))

    def crop(self, im: Array, window: Window) -> Array:
        """The window of an image, with its context where that is set."""
        top, left, bottom, right = (int(place) for place in window)
        if not self.context_pad:
            return im[top:bottom, left:right]
        size = self.crop_mean.shape[0]
        scale = size / (size - 2.0 * self.context_pad)
        half = np.array([(bottom - top + 1) / 2, (right - left + 1) / 2])
        centre = np.array([top, left]) + half
        first, last = np.round(centre - scale * half), np.round(centre + scale * half)
        ratio = size / (last - first + 1)
        pad = np.round(np.maximum(0, -first) * ratio).astype(int)
        limits = np.array(im.shape[:2])
        first, last = first.clip(0, limits).astype(int), last.clip(0, limits).astype(int)
        part = np.minimum(np.round((last - first + 1) * ratio).astype(int), size - pad)
        framed = self.crop_mean.copy()
        inside = im[first[0] : last[0], first[1] : last[1]]
        warped = io.resize_image(inside, part)
        framed[pad[0] : pad[0] + part[0], pad[1] : pad[1] + part[1]] = warped
        return framed
