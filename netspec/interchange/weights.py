"""Weights from and to every kind of file, for a net or by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from netspec.errors import DataError, Problem, SnapshotError, SpecError
from netspec.interchange import hdf5, safetensors, snapshot_files
from netspec.interchange.blobs import Array, StoredBlob
from netspec.interchange.caffemodel import Caffemodel, parse_caffemodel, read_file, write_caffemodel
from netspec.layers.base import Layer
from netspec.layers.basic.batch_norm import dialect_of
from netspec.net.net import Net
from netspec.schema.regular import refuse_special

Found = tuple[list[str], list[str]]
"""(names of our blobs that the source lacks, names of its blobs that have no place in the net)."""


Weights = str | Path | Mapping[str, Tensor]
"""A weight file, a run folder (its newest snapshot), or blobs by '<layer>/<index>'."""


@dataclass(frozen=True)
class Taken:
    """The result of copying weights into a net."""

    source: str
    """The source in words."""
    missing: list[str]
    """Names of the net's blobs that the source lacks."""
    unused: list[str]
    """Names of the source's blobs that have no place in the net."""


class Blob(Protocol):
    """A blob of a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def check(self) -> None: ...

    def array(self) -> Array: ...

    def fits(self, shape: Sequence[int]) -> bool: ...


def kind_of(path: str | Path) -> str:
    """The kind of a weight file by its first bytes: "safetensors", "hdf5", else "caffemodel"; SnapshotError when it
    does not exist.
    """
    try:
        refuse_special(path)
        with open(path, "rb") as file:
            start = file.read(16)
    except DataError as error:
        raise SnapshotError(str(error)) from None
    except (OSError, ValueError) as error:  # the latter for a name with a NUL
        raise SnapshotError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from None
    if start.startswith(hdf5.SIGNATURE):
        return "hdf5"
    size = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and 2 <= size < 1 << 27:
        return "safetensors"
    return "caffemodel"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Blobs of any weight file, or a run folder's newest, by '<layer>/<index>'; equal names of layers get '#2', '#3'.

    Old 4-D sizes of biases and InnerProduct are brought up to date.
    Raises SnapshotError when the file is damaged or of no known kind.
    """
    path = snapshot_files.weights_file(Path(path))
    kind = kind_of(path)
    if kind == "safetensors":
        return safetensors.load(path)[0]
    if kind == "hdf5":
        stored = hdf5.read_weights(path)
        return {f"{name}/{j}": tensor(b.array()) for name, blobs in stored.items() for j, b in blobs.items()}
    model = parse_caffemodel(read_file(Path(path)), str(path))
    return named(model)


def named(model: Caffemodel) -> dict[str, Tensor]:
    """The blobs of a caffemodel by name."""
    blobs: dict[str, Tensor] = {}
    for layer in model.layers:
        stem, k = layer.name, 1
        while layer.blobs and f"{stem}/0" in blobs:
            k += 1
            stem = f"{layer.name}#{k}"
        for j, blob in enumerate(layer.blobs):
            blobs[f"{stem}/{j}"] = tensor(today(layer.type, j, blob))
    return blobs


def today(kind: str, j: int, blob: StoredBlob) -> Array:
    """The values of a blob; old 4-D sizes become the sizes that a layer of its type has now."""
    values = blob.array()
    axes = 2 if kind == "InnerProduct" and j == 0 else 1
    old = kind in ("Convolution", "Deconvolution", "InnerProduct") and blob.legacy and values.ndim == 4
    if not old or (axes == 1 and j == 0) or any(size != 1 for size in values.shape[:-axes]):
        return values
    return values.reshape(values.shape[-axes:])


def tensor(array: Array) -> Tensor:
    """A tensor of its own memory, in the machine's byte order."""
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def load_weights(net: Net, path: str | Path) -> Found:
    """Copy the weights of any file into `net`, layer by layer of equal name; all or nothing.

    path: .caffemodel, .caffemodel.h5 or .safetensors, the content decides; or a run folder, for its newest snapshot.
    Gives names of our blobs that the file lacks, and of its blobs that belong to no layer of ours.
    Raises SnapshotError for a damaged file, SpecError where numbers of blobs or shapes differ.
    """
    path = snapshot_files.weights_file(Path(path))
    kind, file = kind_of(path), str(path)
    if kind == "safetensors":
        return net.load_weights(safetensors.load(path)[0], file)
    if kind == "hdf5":
        return load_layers(net, list(hdf5.read_weights(path).items()), file, partial=True)
    return load_caffemodel(net, parse_caffemodel(read_file(Path(path)), file))


def take_weights(net: Net, weights: Weights, *, need: Literal["all", "any", "none"] = "any") -> Taken:
    """Copy weights of any origin into `net`; all or nothing.

    need: how many of the net's blobs the source must hold: all, any (at least one, where the net has some), or none.
    Raises SnapshotError where it holds fewer or is damaged, SpecError where numbers of blobs or shapes differ.
    """
    if isinstance(weights, Mapping):
        source = "the given weights"
        missing, unused = net.load_weights(weights, source)
    else:
        source = str(weights)
        missing, unused = load_weights(net, weights)
    if need == "all" and missing:
        raise SnapshotError(f"{source}: has no blob {', '.join(missing)} of the net")
    if need == "any" and len(missing) == len(net.params):
        raise SnapshotError(f"{source}: has no blob of this net; its first is {next(iter(unused), 'none')!r}")
    return Taken(source, missing, unused)


def load_caffemodel(net: Net, model: Caffemodel) -> Found:
    """Copy a caffemodel's weights into `net`; see `load_weights`."""
    refuse_transposed(net, model)
    layers = [(layer.name, dict(enumerate(layer.blobs))) for layer in model.layers]
    return load_layers(net, layers, model.file)


def load_layers(
    net: Net, layers: Iterable[tuple[str, Mapping[int, Blob]]], file: str, partial: bool = False
) -> Found:
    """Copy blobs by layer name as Caffe's CopyTrainedLayersFrom does.

    A layer of the file goes to ours of that name (the k-th of several to the k-th), or nowhere.
    partial: a blob that ours shares with another layer may be absent.
    """
    ours: dict[str, list[Layer]] = {}
    for layer in net.made:
        ours.setdefault(layer.spec.name, []).append(layer)
    seen: dict[str, int] = {}
    problems: list[Problem] = []
    copies: list[tuple[Layer, int, Blob]] = []
    unused: list[str] = []
    for name, blobs in layers:
        if name not in ours:
            unused += [f"{name}/{j}" for j in blobs]
            continue
        seen[name] = seen.get(name, -1) + 1
        layer = ours[name][min(seen[name], len(ours[name]) - 1)]
        problems += compare(net, layer, blobs, file, partial)
        copies += [(layer, j, blob) for j, blob in blobs.items()]
    if problems:
        raise SpecError(problems)
    for _, _, blob in copies:
        blob.check()
    taken = set()
    with torch.no_grad():
        for layer, j, blob in copies:
            values = tensor(blob.array())
            if spreads(layer, j, blob):
                layer.blob(j).copy_(values.mean((2, 3), keepdim=True))
            else:
                layer.blob(j).copy_(values.reshape(layer.blob_shapes[j]))
            taken.add(id(layer.blobs[j]))
    net.look()
    return [param.name for param in net.params if id(param.value) not in taken], unused


def compare(net: Net, layer: Layer, blobs: Mapping[int, Blob], file: str, partial: bool) -> list[Problem]:
    """The reason why the blobs of a file do not fit `layer`."""
    n = len(layer.blobs)
    shared = {id(p.value) for p in net.params if len(p.users) > 1} if partial else set()
    lacking = [j for j in range(n) if j not in blobs and id(layer.blobs[j]) not in shared]
    if lacking or any(j >= n for j in blobs):
        shapes = ", ".join(str(tuple(blob.shape)) for blob in blobs.values()) or "none"
        text = f"has {n} blobs, {file} holds {len(blobs)} for it: {shapes}"
        if layer.spec.type == "BN" and (dialect := dialect_of([tuple(b.shape) for b in blobs.values()])):
            text += f'; those of a net with dialect: "{dialect}"'
        return [layer.spec.problem(text)]
    problems = []
    for j, blob in blobs.items():
        shape = layer.blob_shapes[j]
        if not blob.fits(shape) and not spreads(layer, j, blob):
            text = f"blob {j} has shape {shape}, {file} holds {tuple(blob.shape)}"
            if layer.spec.type == "InnerProduct" and blob.fits(shape[::-1]):
                text += "; the file's is transposed (inner_product_param { transpose: })"
            problems.append(layer.spec.problem(text))
    return problems


def spreads(layer: Layer, j: int, blob: Blob) -> bool:
    """Whether a blob of another image size can be laid out over our blob j."""
    ours, theirs = layer.blob_shapes[j], tuple(blob.shape)
    return j in layer.spreads and len(theirs) == 4 and theirs[:2] == ours[:2] and theirs != ours


def refuse_transposed(net: Net, model: Caffemodel) -> None:
    """SpecError where a square InnerProduct of the file is transposed, which its shape does not show."""
    square = {
        layer.spec.name: layer
        for layer in net.made
        if layer.spec.type == "InnerProduct" and layer.blob_shapes[0][0] == layer.blob_shapes[0][1]
    }
    if not square:
        return
    problems = []
    for stored in model.message().layer:
        layer = square.get(stored.name)
        if layer is None or stored.type != "InnerProduct":
            continue
        if bool(stored.inner_product_param.transpose) != bool(layer.param.transpose):
            text = f"transpose is {str(layer.param.transpose).lower()} here, the other way in {model.file}"
            problems.append(layer.spec.problem(text, "inner_product_param", "transpose"))
    if problems:
        raise SpecError(problems)


def save_weights(net: Net, path: str | Path) -> None:
    """Write the weights of `net`: .caffemodel, .caffemodel.h5 (or .h5), .safetensors, by its ending."""
    target = Path(path)
    if target.suffix == ".safetensors":
        safetensors.save(target, net.weights(), {"net": net.graph.spec.name})
    elif target.suffix in (".h5", ".hdf5"):
        hdf5.write_weights(target, owned(net))
    elif target.suffix == ".caffemodel":
        write_caffemodel(net, target)
    else:
        raise SnapshotError(f"{path}: weights are written as .caffemodel, .caffemodel.h5 or .safetensors")


def owned(net: Net) -> list[tuple[str, dict[int, Array]]]:
    """For each layer the blobs that it owns, by index."""
    layers: list[tuple[str, dict[int, Array]]] = [(layer.spec.name, {}) for layer in net.made]
    for param in net.params:
        i, j = param.users[0]
        layers[i][1][j] = param.value.detach().cpu().numpy()
    return layers
