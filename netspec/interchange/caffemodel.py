"""caffemodel: weights of every Caffe, V0 to V2, old and new sizes, 16, 32 and 64 bits, read and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netspec import schema
from netspec.data.files import whole
from netspec.errors import DataError, SnapshotError
from netspec.interchange.blobs import (
    Array,
    StoredBlob,
    Table,
    encode_blob,
    read_blob,
    rewrite,
    with_values,
    without_values,
)
from netspec.net.net import Net
from netspec.schema.descriptors import enum
from netspec.schema.encoded import BYTES, FIXED32, FIXED64, VARINT, Span, spans, varint
from netspec.schema.regular import refuse_special
from netspec.schema.upgrade import V1_TYPES
from netspec.schema.upgrade_v0 import V0_TYPES
from netspec.schema.wire import Dialect

MOST_BYTES = 2**31
"""Protobuf's own limit on a message."""
MOST_BLOBS = 100_000
SIMNETS_TYPES = {
    "GeneralizedHingeLoss",
    "LogLikelihoodLoss",
    "MEX",
    "Noise",
    "OneHot",
    "Permutation",
    "Similarity",
    "SumLoss",
    "Translation",
}
_V2, _V1 = 100, 2
_BLOBS: Table = {_V2: {7: {}}, _V1: {6: {}, 1: {50: {}}}}


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a weight file, its type in today's spelling."""

    name: str
    type: str
    blobs: tuple[StoredBlob, ...]

    def arrays(self) -> list[Array]:
        """The values of its blobs."""
        return [blob.array() for blob in self.blobs]


@dataclass(frozen=True)
class Caffemodel:
    """The contents of a weight file: the layers in file order, including Caffe's own Split layers."""

    name: str
    layers: tuple[StoredLayer, ...]
    data: bytes
    file: str

    def message(self) -> Any:
        """The net that the file describes, as a NetParameter without values in the current syntax."""
        return schema.read_binary_net(self.skeleton(), self.file)

    def skeleton(self) -> bytes:
        """The file without values and gradients; `fill` puts values back."""
        return rewrite(self.data, _BLOBS, without_values)


def read_caffemodel(path: str | Path) -> Caffemodel:
    """The layers of a .caffemodel; SnapshotError, with file and reason, when it is not one or is damaged."""
    return parse_caffemodel(read_file(Path(path)), str(path))


def read_file(path: Path) -> bytes:
    """A file's bytes; SnapshotError when it cannot be read or is too large for a message."""
    try:
        refuse_special(path)
        if (size := path.stat().st_size) >= MOST_BYTES:
            raise SnapshotError(f"{path}: {size} bytes; such files end below {MOST_BYTES}")
        return path.read_bytes()
    except DataError as error:
        raise SnapshotError(str(error)) from None
    except (OSError, ValueError) as error:  # the latter for a name with a NUL
        raise SnapshotError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from None


def parse_caffemodel(data: bytes, file: str = "<bytes>") -> Caffemodel:
    """The layers of an encoded NetParameter."""
    name = ""
    old: list[StoredLayer] = []
    new: list[StoredLayer] = []
    count = 0
    try:
        for span in messages(data, file):
            if span.number == 1:
                name = text(data, span)
            elif span.number in (_V2, _V1):
                layer = (_v2_layer if span.number == _V2 else _v1_layer)(data, span, file)
                (new if span.number == _V2 else old).append(layer)
                count += 1 + len(layer.blobs)
                if count > MOST_BLOBS:
                    raise SnapshotError(f"{file}: has more than {MOST_BLOBS:,} layers and blobs")
    except IndexError as problem:
        raise SnapshotError(f"{file}: truncated or damaged: {problem}") from None
    if not (old or new):
        raise SnapshotError(f"{file}: is no caffemodel: it holds no layer")
    return Caffemodel(name, tuple(old or new), data, file)


def messages(data: bytes, file: str) -> Iterator[Span]:
    """The fields of a file, SnapshotError at one that no protobuf message can have."""
    for span in spans(data, 0, len(data)):
        if span.wire not in (VARINT, FIXED64, BYTES, FIXED32) or span.number == 0:
            raise SnapshotError(f"{file}: is no protobuf message: byte {span.tag} begins no field")
        yield span


def text(data: bytes, span: Span) -> str:
    """A string field; bytes that are not UTF-8 become question marks, as in the rest of the schema."""
    raw = data[span.start : span.end]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("ascii", "replace").replace("\ufffd", "?")


def _v2_layer(data: bytes, layer: Span, file: str) -> StoredLayer:
    name = kind = ""
    blobs: list[Span] = []
    for span in spans(data, layer.start, layer.end):
        if span.wire == BYTES and span.number == 1:
            name = text(data, span)
        elif span.wire == BYTES and span.number == 2:
            kind = text(data, span)
        elif span.wire == BYTES and span.number == 7:
            blobs.append(span)
    return StoredLayer(name, kind, _blobs(data, blobs, name, file))


def _v1_layer(data: bytes, layer: Span, file: str) -> StoredLayer:
    """A layer of the older syntaxes; one of V0 keeps name, type and blobs in a message of its own."""
    name, kind, oldest = "", "", ""
    blobs: list[Span] = []
    types = enum("V1LayerParameter.LayerType").values_by_number
    for span in spans(data, layer.start, layer.end):
        if span.number == 4 and span.wire == BYTES:
            name = text(data, span)
        elif span.number == 5 and span.wire == VARINT:
            value = types.get(varint(data, span.start, span.end)[0])
            kind = V1_TYPES[value.name] if value is not None else ""
        elif span.number == 6 and span.wire == BYTES:
            blobs.append(span)
        elif span.number == 1 and span.wire == BYTES:
            for inner in spans(data, span.start, span.end):
                if inner.number == 1 and inner.wire == BYTES:
                    name = text(data, inner)
                elif inner.number == 2 and inner.wire == BYTES:
                    oldest = text(data, inner)
                elif inner.number == 50 and inner.wire == BYTES:
                    blobs.append(inner)
    return StoredLayer(name, V0_TYPES.get(oldest, oldest) or kind, _blobs(data, blobs, name, file))


def _blobs(data: bytes, encoded: list[Span], layer: str, file: str) -> tuple[StoredBlob, ...]:
    if len(encoded) > MOST_BLOBS:
        raise SnapshotError(f"{file}: layer {layer!r} has {len(encoded):,} blobs")
    return tuple(
        read_blob(data, span.start, span.end, f"{file}: layer {layer!r}, blob {j}")
        for j, span in enumerate(encoded)
    )


# --- writing


def fill(skeleton: bytes, arrays: Iterable[Array]) -> bytes:
    """A weight file from one without values: one array for each blob, in order."""
    values = iter(arrays)
    return rewrite(skeleton, _BLOBS, lambda blob: with_values(blob, next(values)))


def net_message(net: Net) -> Any:
    """The net as a NetParameter without blobs: what was compiled for its phase, as Caffe saves it."""
    message = schema.NetParameter(name=net.graph.spec.name)
    for step in net.graph.steps:
        layer = message.layer.add()
        layer.CopyFrom(step.layer.message)
        layer.ClearField("blobs")
        if not layer.strict:
            layer.ClearField("strict")  # a field of ours, of no use to Caffe
        layer.top[:] = step.layer.tops
        layer.phase = ("TRAIN", "TEST").index(net.graph.spec.phase)
        if step.kind.is_loss and not layer.loss_weight:
            layer.loss_weight.append(1.0)  # a loss layer of Caffe writes its weight into its own message
    return message


def net_arrays(net: Net) -> list[list[Array]]:
    """The blobs of each layer; a shared blob appears in every layer that uses it."""
    return [[layer.blob(j).detach().cpu().numpy() for j in range(len(layer.blobs))] for layer in net.made]


def encode_net(message: Any, layers: list[list[Array]], dialect: Dialect | None = None) -> bytes:
    """A caffemodel's bytes from a NetParameter (current syntax) and the arrays of each of its layers.

    dialect: whose field numbers to use; by default the SimNets fork's where the net has a layer of that fork.
    Raises SnapshotError when the dialect cannot hold one of the layers.
    """
    copy = type(message)()
    copy.CopyFrom(message)
    for layer, arrays in zip(copy.layer, layers, strict=True):
        layer.ClearField("blobs")
        for array in arrays:
            layer.blobs.add().shape.dim[:] = array.shape
            layer.blobs[-1].shape.SetInParent()
    if dialect is None:
        dialect = "simnets" if any(layer.type in SIMNETS_TYPES for layer in copy.layer) else "bvlc"
    return fill(schema.write_binary_net(copy, dialect), (array for arrays in layers for array in arrays))


def write_caffemodel(net: Net, path: str | Path, dialect: Dialect | None = None) -> None:
    """Write a net and its weights as the Caffe of `dialect` does; `path` is the old file or the whole new one."""
    whole.write_whole(Path(path), encode_net(net_message(net), net_arrays(net), dialect))


def write_blob(path: str | Path, array: Array) -> None:
    """Write one array as a binaryproto (BlobProto)."""
    whole.write_whole(Path(path), encode_blob(np.asarray(array)))


def read_blob_file(path: str | Path) -> Array:
    """The array of a binaryproto, in its own shape; SnapshotError when it is not one."""
    data, file = read_file(Path(path)), str(path)
    try:
        for _ in messages(data, file):
            pass
        return read_blob(data, 0, len(data), file).array().copy()
    except IndexError as problem:
        raise SnapshotError(f"{file}: truncated or damaged: {problem}") from None
