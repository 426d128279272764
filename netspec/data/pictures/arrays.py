"""Images from arrays (.npz, .npy, idx and HDF5 files): tells axes apart, and what the values mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from netspec.data.files import idx
from netspec.data.files.idx import MOST_BYTES, Array
from netspec.data.pictures.collection import Pictures
from netspec.data.sources.database import need
from netspec.data.sources.hdf5 import data_set
from netspec.errors import DataError, one_line
from netspec.schema.regular import refuse_special

CHANNELS = (1, 3, 4)
IMAGES = ("images", "image", "data", "x", "X", "x_train", "train_images", "imgs", "arr_0")
LABELS = ("labels", "label", "y", "Y", "target", "targets", "y_train", "train_labels", "classes", "arr_1")
"""Usual names of image arrays, which decide where several arrays would do."""


def arrays_of(path: Path) -> tuple[Array, Array | None, list[str]]:
    """(images in their own layout, labels or None, notes) of an array file; DataError where it holds no images."""
    kind = path.suffix.lower()
    if kind == ".npy":
        return np.asarray(idx.npy(path)), beside(path), []
    if kind == ".npz":
        archive = idx.Npz(path)
        shapes = {name: archive.shape(name) for name in archive.names()}
        images, labels = choose(path, shapes)
        return archive.read(images), archive.read(labels) if labels else None, []
    if kind in (".h5", ".hdf5"):
        return from_hdf5(path)
    return idx.read(path), beside(path), []


def choose(path: Path, shapes: dict[str, tuple[int, ...]]) -> tuple[str, str]:
    """(name of the images, name of their labels or "") among arrays of these shapes."""
    several = [name for name, shape in shapes.items() if len(shape) in (3, 4) and shape[0]]
    if not several:
        held = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
        raise DataError(
            f"{path}: holds no images, which are (N, H, W), (N, C, H, W) or (N, H, W, C); it holds {held}"
        )
    images = next((name for name in IMAGES if name in several), several[0])
    if len(several) > 1 and images not in IMAGES:
        raise DataError(f"{path}: which of {', '.join(several)} are the images? Call them 'images'")
    fitting = [
        name for name, shape in shapes.items() if shape in ((shapes[images][0],), (shapes[images][0], 1))
    ]
    return images, next((name for name in LABELS if name in fitting), fitting[0] if len(fitting) == 1 else "")


def from_hdf5(path: Path) -> tuple[Array, Array | None, list[str]]:
    """Images and labels among the data sets of an HDF5 file."""
    h5py = need("h5py")
    refuse_special(path)
    try:
        with h5py.File(path, "r") as file:
            sets, refused = {}, []
            for name in file:
                try:
                    sets[name] = data_set(file, name, str(path), kinds="fiub")
                except DataError as error:  # text, a group, a link to another file
                    refused.append(error)
            if not sets and refused:
                raise refused[0]
            images, labels = choose(path, {name: tuple(values.shape) for name, values in sets.items()})
            if sets[images].nbytes > MOST_BYTES:
                raise DataError(f"{path}: {images!r} has {sets[images].nbytes} bytes: too large")
            return np.asarray(sets[images][()]), np.asarray(sets[labels][()]) if labels else None, []
    except DataError:
        raise
    except Exception as error:  # h5py raises errors of every kind for what is damaged
        raise DataError(f"{path}: not a readable HDF5 file ({one_line(error)})") from error


def beside(path: Path) -> Array | None:
    """The file of labels beside a file of images: its name with `labels` for `images` and `idx1` for `idx3`, or
    `<stem>_labels` with the same ending.
    """
    names = [
        path.name.replace("images", "labels").replace("idx3", "idx1"),
        f"{path.stem}_labels{path.suffix}",
    ]
    for name in names:
        other = path.with_name(name)
        if name != path.name and other.is_file():
            return np.asarray(idx.npy(other) if other.suffix == ".npy" else idx.read(other))
    return None


def of_arrays(where: str, images: Array, labels: Array | None, notes: list[str]) -> Pictures:
    """Pictures out of images (N, H, W), (N, C, H, W) or (N, H, W, C) of any real type.

    Whole numbers and floats above 1 are levels 0 to 255; floats from 0 to 1, and true and false, are scaled to them.
    Channels are in the order R, G, B. NaN is a missing pixel.
    """
    planes = planar(where, images)
    n = len(planes)
    if not n:
        raise DataError(f"{where}: holds no images")
    factor = 1.0
    if planes.dtype.kind == "b":
        factor = 255.0
    elif planes.dtype.kind == "f":
        least, most = (float(f(planes)) if np.isfinite(planes).any() else 0.0 for f in (np.nanmin, np.nanmax))
        if np.isinf(planes).any():
            raise DataError(f"{where}: has infinite values; a missing pixel is NaN")
        if least >= 0 and most <= 1:
            factor = 255.0
            notes = [*notes, f"{where}: values from 0 to 1 are taken for grey levels over 255"]
    elif planes.dtype.kind not in "iu":
        raise DataError(f"{where}: images of {planes.dtype}; they are numbers")

    def read(i: int) -> Array:
        image = planes[i][:3][::-1] if planes.shape[1] >= 3 else planes[i]
        if planes.dtype == np.uint8:
            return np.ascontiguousarray(image)
        return np.ascontiguousarray(image).astype(np.float32) * np.float32(factor)

    numbers, names = np.full(n, np.nan, np.float32), tuple[str, ...]()
    if labels is not None:
        numbers, names = numbered(where, labels.reshape(-1), n)
    return Pictures(where, [str(i) for i in range(n)], read, numbers, names, notes)


def numbered(where: str, labels: Array, n: int) -> tuple[Array, tuple[str, ...]]:
    """(labels as numbers, names of the classes where labels are texts)."""
    if len(labels) != n:
        raise DataError(f"{where}: {len(labels)} labels for {n} images")
    if labels.dtype.kind in "US":
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in labels.tolist()]
        names = tuple(sorted(set(texts)))
        return np.array([names.index(text) for text in texts], np.float32), names
    if labels.dtype.kind not in "biuf":
        raise DataError(f"{where}: labels of {labels.dtype}; they are numbers or texts")
    return labels.astype(np.float32), ()


def planar(where: str, images: Array) -> Array:
    """Images as (N, C, H, W). Three axes have no channels; with four, the last axis holds the channels where it is 1, 3
    or 4 and the second is not.
    """
    if images.ndim == 2:
        raise DataError(
            f"{where}: holds shape {images.shape}; images are (N, H, W), (N, C, H, W) or (N, H, W, C)"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise DataError(
            f"{where}: holds shape {images.shape}; images are (N, H, W), (N, C, H, W) or (N, H, W, C)"
        )
    if images.shape[1] in CHANNELS:
        return images
    if images.shape[3] in CHANNELS:
        return images.transpose(0, 3, 1, 2)
    raise DataError(f"{where}: holds shape {images.shape}, of which no axis is the 1, 3 or 4 channels")
