"""Images and arrays on their way into and out of nets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from netspec import schema
from netspec.layers.blob import Array
from netspec.pycaffe.proto import caffe_pb2

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovecor_str",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "caffe_pb2",
    "datum_to_array",
    "load_image",
    "oversample",
    "resize_image",
]

# Axes: images are (H, W, C), blobs (N, C, H, W).

LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)
"""Weights of R, G, B in grey (ITU-R BT.709), as scikit-image's, which pycaffe reads images with."""


def blobproto_to_array(blob: Any, return_diff: bool = False) -> Array:
    """The values (or gradients) of a BlobProto, of its `shape` or its old four sizes.

    ValueError when their number is not that of the shape.
    """
    double, single = (blob.double_diff, blob.diff) if return_diff else (blob.double_data, blob.data)
    data = np.array(double if len(double) else single, float)
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return data.reshape(blob.num, blob.channels, blob.height, blob.width)
    return data.reshape(tuple(blob.shape.dim))


def array_to_blobproto(array: Array, diff: Array | None = None) -> Any:
    """A BlobProto with these values and, if given, gradients."""
    blob = schema.BlobProto()
    blob.shape.dim.extend(array.shape)
    blob.data.extend(array.astype(float).flat)
    if diff is not None:
        blob.diff.extend(diff.astype(float).flat)
    return blob


def arraylist_to_blobprotovector_str(arrays: Sequence[Array]) -> bytes:
    """Several arrays as an encoded BlobProtoVector."""
    vector = schema.BlobProtoVector()
    vector.blobs.extend(array_to_blobproto(array) for array in arrays)
    return bytes(vector.SerializeToString())


arraylist_to_blobprotovecor_str = arraylist_to_blobprotovector_str
"""Its name in old versions."""


def blobprotovector_str_to_arraylist(text: bytes) -> list[Array]:
    """The arrays of an encoded BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in schema.read_binary("BlobProtoVector", text).blobs]


def array_to_datum(array: Array, label: int | None = None) -> Any:
    """A Datum of an array (C, H, W): bytes for uint8, else floats. ValueError unless it has three axes."""
    if array.ndim != 3:
        raise ValueError("Incorrect array shape.")
    datum = schema.Datum()
    datum.channels, datum.height, datum.width = array.shape
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(array.astype(float).flat)
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Any) -> Array:
    """The values (C, H, W) of a Datum that is not encoded."""
    shape = datum.channels, datum.height, datum.width
    if datum.data:
        return np.frombuffer(datum.data, np.uint8).reshape(shape)
    return np.array(datum.float_data, float).reshape(shape)


class Transformer:
    """Prepares images for the inputs of a net, and turns them back.

    inputs: the shape of each input blob by name, as in {"data": net.blobs["data"].data.shape}. `preprocess`
    goes: resize, transpose, channel swap, raw scale, mean, input scale; what is not set is left out.
    """

    def __init__(self, inputs: dict[str, Sequence[int]]):
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def __check_input(self, name: str) -> None:
        if name not in self.inputs:
            raise Exception(f"{name} is not one of the net inputs: {list(self.inputs)}")

    def preprocess(self, in_: str, data: Array) -> Array:
        """An image (H, W, C) as the values of input `in_`, as the settings say."""
        self.__check_input(in_)
        image = np.array(data, np.float32)
        size = tuple(self.inputs[in_][2:])
        if image.shape[:2] != size:
            image = resize_image(image, size)
        if in_ in self.transpose:
            image = image.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            image = image[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            image *= self.raw_scale[in_]
        if in_ in self.mean:
            image -= self.mean[in_]
        if in_ in self.input_scale:
            image *= self.input_scale[in_]
        return image

    def deprocess(self, in_: str, data: Array) -> Array:
        """The image that `preprocess` would have made these values from, but for its size."""
        self.__check_input(in_)
        image: Array = np.array(data).squeeze()
        if in_ in self.input_scale:
            image = image / self.input_scale[in_]
        if in_ in self.mean:
            image = image + self.mean[in_]
        if in_ in self.raw_scale:
            image = image / self.raw_scale[in_]
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return image

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Take the axes in this order; (2, 0, 1) makes (H, W, C) into (C, H, W)."""
        self.__check_input(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise Exception("Transpose order needs to have the same number of dimensions as the input.")
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Take the channels in this order; (2, 1, 0) makes RGB into BGR."""
        self.__check_input(in_)
        if len(order) != self.inputs[in_][1]:
            raise Exception("Channel swap needs to have the same number of dimensions as the input channels.")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Multiply before the mean goes off; 255 makes [0, 1] into [0, 255]."""
        self.__check_input(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: Array) -> None:
        """Subtract a mean: one value per channel, or an image (C, H, W), resized where its size is another.

        ValueError when it has neither form.
        """
        self.__check_input(in_)
        shape = tuple(self.inputs[in_])
        if mean.ndim == 1:
            if mean.shape[0] != shape[1]:
                raise ValueError("Mean channels incompatible with input.")
            mean = mean[:, np.newaxis, np.newaxis]
        else:
            if mean.ndim == 2:
                mean = mean[np.newaxis]
            if mean.ndim != 3:
                raise ValueError("Mean shape invalid")
            if mean.shape != shape[1:]:
                mean = resize_image(mean.transpose(1, 2, 0), shape[2:]).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Multiply last, after the mean went off."""
        self.__check_input(in_)
        self.input_scale[in_] = scale


def load_image(filename: str | Path, color: bool = True) -> Array:
    """An image file as float32 in [0, 1]: (H, W, 3) in the order R, G, B, or (H, W, 1) when not `color`."""
    from netspec.data.files.images import decode

    image: Array = decode(Path(filename), None, str(filename)).transpose(1, 2, 0)[:, :, ::-1] / np.float32(
        255
    )
    if color:
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else np.ascontiguousarray(image)
    return image if image.shape[2] == 1 else (image @ LUMINANCE)[:, :, np.newaxis]


def resize_image(im: Array, new_dims: Sequence[int], interp_order: int = 1) -> Array:
    """An image (H, W, K) of another size (height, width), by splines of `interp_order` (1: linear).

    float32. Pixels are areas, and the image is continued by 0 outside; not smoothed before it gets smaller.
    Images with other than 1 or 3 channels are placed so that corner pixels coincide.
    """
    from scipy import ndimage

    size = (int(new_dims[0]), int(new_dims[1]))
    image = np.asarray(im, np.float32)
    if image.shape[-1] not in (1, 3):
        scale = np.array([size[0] / image.shape[0], size[1] / image.shape[1], 1.0])
        return np.asarray(ndimage.zoom(image, scale, order=interp_order), np.float32)
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return np.full((*size, image.shape[-1]), low, np.float32)
    unit = (image - low) / (high - low)
    return np.asarray(resampled(unit, size, interp_order) * (high - low) + low, np.float32)


def resampled(image: Array, size: tuple[int, int], order: int) -> Array:
    """Values of a spline at the centres of the new pixels, clipped to the range of the image."""
    from scipy import ndimage

    scale = [size[0] / image.shape[0], size[1] / image.shape[1], 1.0]
    zoomed = ndimage.zoom(image, scale, order=order, mode="grid-constant", grid_mode=True)
    return np.asarray(np.clip(zoomed, image.min(), image.max()))


def oversample(images: Sequence[Array] | Array, crop_dims: Sequence[int] | Array) -> Array:
    """Ten crops of each image, (10 N, H', W', K): four corners, the centre, and these mirrored."""
    height, width = images[0].shape[:2]
    h, w = int(crop_dims[0]), int(crop_dims[1])
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w)]
    centre = ((height - h) // 2, (width - w) // 2)
    crops = []
    for image in images:
        parts = [image[y : y + h, x : x + w] for y, x in (*corners, centre)]
        crops += parts + [part[:, ::-1] for part in parts]
    return np.array(crops, np.float32)
