"""Nets and blobs as scripts know them from OpenCV's dnn module, for those whose OpenCV has lost its Caffe reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from netspec import schema
from netspec.data.files.images import resize
from netspec.errors import NetspecError, SnapshotError, did_you_mean
from netspec.interchange.blobs import Array
from netspec.interchange.caffemodel import Caffemodel, parse_caffemodel
from netspec.interchange.dialects import told
from netspec.interchange.weights import load_caffemodel, load_weights
from netspec.net import reading
from netspec.net.graph import compile
from netspec.net.make import make_net
from netspec.net.net import Net, build
from netspec.schema import spec
from netspec.schema.spec import TEST


def read_net_from_caffe(prototxt: str | Path | bytes, caffemodel: str | Path | bytes | None = None) -> DnnNet:
    """The net of a prototxt with its weights, as cv2.dnn.readNetFromCaffe gave it: phase TEST, numpy in and out.

    Both may be file names, or the bytes of the files. Raises SpecError for mistakes in the net or weights that do
    not fit it, SnapshotError when the weights are damaged or lack a layer.

    >>> import numpy as np, netspec
    >>> text = b'''
    ...     layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }
    ...     layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'''
    >>> net = netspec.read_net_from_caffe(text)
    >>> net.setInput(np.array([[-1, 0, 2]], np.float32))
    >>> net.forward()
    array([[0., 0., 2.]], dtype=float32)
    """
    if isinstance(prototxt, bytes):
        document = schema.parse_net(prototxt.decode("utf-8", "replace"), "<prototxt>", unknown="keep")
        reading.judge(document)
    else:
        document = reading.read(prototxt, "net")
    net_spec = spec.net(document, TEST)
    if caffemodel is None:
        net = make_net(net_spec)
    else:
        inside = isinstance(caffemodel, bytes)
        file = "<caffemodel>" if inside else str(caffemodel)
        given = parse_caffemodel(caffemodel, file) if isinstance(caffemodel, bytes) else caffemodel
        net = make_net(told(net_spec, given))
        missing, _ = (
            load_caffemodel(net, given) if isinstance(given, Caffemodel) else load_weights(net, given)
        )
        if missing:
            raise SnapshotError(f"{file}: has no blob {', '.join(missing)} of the net")
    return DnnNet(net)


class DnnNet:
    """A net with the methods of cv2.dnn.Net; arrays are (N, C, H, W) float32.

        net = netspec.read_net_from_caffe("deploy.prototxt", "weights.caffemodel")
        net.setInput(netspec.blob_from_image(image, 1.0, (224, 224), (104, 117, 123)))
        probabilities = net.forward()

    An input may be of another shape than the prototxt says: the net is then made anew with the same weights.
    """

    def __init__(self, net: Net):
        self.net = net.requires_grad_(False)
        self._inputs: dict[str, Tensor] = {}

    def empty(self) -> bool:
        """Whether the net has no layers."""
        return not self.getLayerNames()

    def setInput(
        self,
        blob: Array,
        name: str = "",
        scalefactor: float = 1.0,
        mean: float | Sequence[float] = 0.0,
    ) -> None:
        """Give an input (by default the first) its values: (blob - mean) * scalefactor, mean by channel."""
        names = self.net.input_names
        name = name or names[0]
        if name not in names:
            raise NetspecError(f"the net has no input {name!r}{did_you_mean(name, names)}")
        values = np.asarray(blob, np.float32)
        if np.any(mean):
            shift = np.asarray(mean, np.float32).reshape(-1)
            channels = shift[: values.shape[1]] if values.ndim > 1 else shift
            values = values - (
                channels.reshape(1, -1, *[1] * (values.ndim - 2)) if channels.size > 1 else channels
            )
        self._inputs[name] = torch.from_numpy(np.array(values * np.float32(scalefactor), np.float32))

    @overload
    def forward(self, outputName: str = "") -> Array: ...

    @overload
    def forward(self, outputName: list[str] | tuple[str, ...]) -> tuple[Array, ...]: ...

    def forward(self, outputName: str | list[str] | tuple[str, ...] = "") -> Array | tuple[Array, ...]:
        """The output of a layer, by its name or its top's (default: the last layer), or of several."""
        names = [outputName] if isinstance(outputName, str) else list(outputName)
        wanted = [self._slot(name) for name in names]
        values = self._values()
        arrays = tuple(values[slot].numpy().copy() for slot in wanted)
        return arrays[0] if isinstance(outputName, str) else arrays

    def getLayerNames(self) -> tuple[str, ...]:
        """Names of the layers that compute, in order."""
        return tuple(step.layer.name for step in self.net.graph.steps if not step.kind.is_source)

    def getLayerId(self, layer: str) -> int:
        """The number of a layer, from 1; -1 when there is none of that name."""
        names = self.getLayerNames()
        return names.index(layer) + 1 if layer in names else -1

    def getUnconnectedOutLayersNames(self) -> tuple[str, ...]:
        """Names of the layers whose tops no layer reads."""
        makers = {self.net.graph.slots[slot].maker for slot in self.net.graph.outputs}
        steps = enumerate(self.net.graph.steps)
        return tuple(step.layer.name for i, step in steps if i in makers and not step.kind.is_source)

    def getUnconnectedOutLayers(self) -> Array:
        """Numbers of these layers."""
        return np.array([self.getLayerId(name) for name in self.getUnconnectedOutLayersNames()], np.int32)

    def getParam(self, layer: str | int, numParam: int = 0) -> Array:
        """A copy of a blob of a layer, which is given by name or number."""
        name = self.getLayerNames()[layer - 1] if isinstance(layer, int) else layer
        return self.net.layer(name).blob(numParam).numpy().copy()

    def setParam(self, layer: str | int, numParam: int, blob: Array) -> None:
        """Replace a blob of a layer."""
        name = self.getLayerNames()[layer - 1] if isinstance(layer, int) else layer
        mine = self.net.layer(name).blob(numParam)
        mine.copy_(torch.from_numpy(np.array(blob, np.float32)).reshape(mine.shape))

    def getLayerTypes(self) -> list[str]:
        """Types in use, each once."""
        types = (step.layer.type for step in self.net.graph.steps if not step.kind.is_source)
        return list(dict.fromkeys(types))

    def getLayersCount(self, layerType: str) -> int:
        """How many layers are of a type."""
        return sum(step.layer.type == layerType for step in self.net.graph.steps)

    def setPreferableBackend(self, backendId: int) -> None:
        """Taken and ignored: torch computes."""

    def setPreferableTarget(self, targetId: int) -> None:
        """Taken and ignored: the CPU computes."""

    def enableFusion(self, fusion: bool) -> None:
        """Taken and ignored."""

    def _slot(self, name: str) -> int:
        graph = self.net.graph
        if not name:
            return max(slot for step in graph.steps for slot in step.writes if not step.kind.is_source)
        for step in graph.steps:
            if step.layer.name == name and step.writes:
                return step.writes[0]
        number = graph.find(name)
        if number is None:
            names = [*self.getLayerNames(), *(slot.name for slot in graph.slots)]
            raise NetspecError(f"the net has no layer {name!r}{did_you_mean(name, names)}")
        return number

    def _values(self) -> dict[int, Tensor]:
        missing = [name for name in self.net.input_names if name not in self._inputs]
        if missing:
            raise NetspecError(f"input {missing[0]!r} has no values; call setInput first")
        shapes = {name: tuple(value.shape) for name, value in self._inputs.items()}
        if any(self.net.shape(name) != shape for name, shape in shapes.items()):
            graph = compile(replace(self.net.graph.spec))
            self.net = build(graph, seed=0, share=self.net, input_shapes=shapes).requires_grad_(False)
        with torch.no_grad():
            return self.net.slots(*(self._inputs[name] for name in self.net.input_names))


def blob_from_image(
    image: Array,
    scalefactor: float = 1.0,
    size: tuple[int, int] | None = None,
    mean: float | Sequence[float] = 0.0,
    swapRB: bool = False,
    crop: bool = False,
    ddepth: Any = np.float32,
) -> Array:
    """An image (H, W, C) as a blob (1, C, H, W), with the arithmetic of cv2.dnn.blobFromImage.

    size: (width, height) to resize to, bilinearly; with `crop` the shorter side is fitted and the middle cut out.
    mean: subtracted by channel, in the order of the blob's channels; then all is multiplied by `scalefactor`.
    swapRB: first and last of three channels change places. ddepth: float32 or uint8, the latter as it is.

    >>> import numpy as np, netspec
    >>> netspec.blob_from_image(np.full((2, 2, 3), 128, np.uint8), scalefactor=1 / 256).shape
    (1, 3, 2, 2)
    """
    return blob_from_images([image], scalefactor, size, mean, swapRB, crop, ddepth)


def blob_from_images(
    images: Sequence[Array],
    scalefactor: float = 1.0,
    size: tuple[int, int] | None = None,
    mean: float | Sequence[float] = 0.0,
    swapRB: bool = False,
    crop: bool = False,
    ddepth: Any = np.float32,
) -> Array:
    """Images as one blob (N, C, H, W); see `blob_from_image`. Without `size`, all become as large as the first."""
    if not len(images):
        raise NetspecError("there are no images")
    if np.dtype(ddepth) not in (np.dtype(np.float32), np.dtype(np.uint8)):
        raise NetspecError(f"ddepth must be float32 or uint8, found {np.dtype(ddepth)}")
    if np.dtype(ddepth) == np.uint8 and (scalefactor != 1 or np.any(mean)):
        raise NetspecError("a uint8 blob takes no mean and no scalefactor")
    first = planes(images[0])
    width, height = size if size and any(size) else (first.shape[2], first.shape[1])
    blobs = [fitted(planes(image), height, width, crop) for image in images]
    blob = np.stack(blobs)
    if swapRB and blob.shape[1] >= 3:
        order = [2, 1, 0, *range(3, blob.shape[1])]
        blob = blob[:, order]
    if np.dtype(ddepth) == np.uint8:
        return np.ascontiguousarray(blob, np.uint8)
    given = np.asarray(mean, np.float64).reshape(-1)
    if given.size > max(4, blob.shape[1]):
        raise NetspecError(f"mean has {given.size} values for {blob.shape[1]} channels")
    shift = np.zeros(max(4, blob.shape[1]))  # one number is that of the first channel, as in OpenCV
    shift[: given.size] = given
    centred = blob.astype(np.float32) - shift[: blob.shape[1], None, None].astype(np.float32)
    return np.ascontiguousarray(centred * np.float32(scalefactor), np.float32)


def planes(image: Array) -> Array:
    """(H, W) or (H, W, C) as (C, H, W)."""
    image = np.asarray(image)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise NetspecError(f"an image is (H, W) or (H, W, C), found shape {image.shape}")
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def fitted(image: Array, height: int, width: int, crop: bool) -> Array:
    """The image in another size: stretched, or scaled to cover it and cut in the middle."""
    if image.shape[1:] == (height, width):
        return image
    if not crop:
        return resize(image, height, width)
    factor = float(
        max(np.float32(width / np.float32(image.shape[2])), np.float32(height / np.float32(image.shape[1])))
    )
    tall, wide = round(image.shape[1] * factor), round(image.shape[2] * factor)
    scaled = resize(image, tall, wide, 1 / factor)
    top, left = int(0.5 * (tall - height)), int(0.5 * (wide - width))
    return scaled[:, top : top + height, left : left + width]
