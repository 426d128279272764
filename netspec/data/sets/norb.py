"""Small NORB: its original files of binary matrices, and the pictures as the Generative-ConvACs experiments
use them.

A file holds, in little-endian 32-bit words: the type's magic number, the number of axes, their lengths (at
least three
words, 1 where there are fewer axes), then the values, last axis fastest (LeCun, Huang and Bottou 2004).
`-dat` is
(N, 2, 96, 96) bytes, `-cat` (N,) and `-info` (N, 4) integers (instance, elevation, azimuth, lighting).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from netspec.data.files.idx import MOST_BYTES, Array, at_most
from netspec.errors import DataError
from netspec.schema.regular import refuse_special

TYPES: dict[int, np.dtype[Any]] = {
    0x1E3D4C51: np.dtype("<f4"),
    0x1E3D4C53: np.dtype("<f8"),
    0x1E3D4C54: np.dtype("<i4"),
    0x1E3D4C55: np.dtype("u1"),
    0x1E3D4C56: np.dtype("<i2"),
}
"""Element type by magic number."""
STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
CLASSES = ("animal", "human", "airplane", "truck", "car")


def read(path: Path) -> Array:
    """The matrix of a file, also of a gzip'ed one; DataError when it is not there, damaged, or too large."""
    refuse_special(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            return _read(cast(BinaryIO, file), path)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _read(file: BinaryIO, path: Path) -> Array:
    head = at_most(file, 8)
    magic, axes = (int(word) for word in np.frombuffer(head, "<u4")) if len(head) == 8 else (0, 0)
    if magic not in TYPES:
        raise DataError(f"{path}: is no matrix file of NORB")
    if not 1 <= axes <= 8:
        raise DataError(f"{path}: declares {axes} axes")
    words = at_most(file, 4 * max(axes, 3))
    if len(words) < 4 * max(axes, 3):
        raise DataError(f"{path}: ends within its header")
    shape, dtype = tuple(int(n) for n in np.frombuffer(words, "<u4")[:axes]), TYPES[magic]
    size = prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        raise DataError(f"{path}: declares shape {shape}, {size} bytes: too large")
    data = at_most(file, size + 1)
    if len(data) != size:
        raise DataError(f"{path}: shape {shape} needs {size} bytes, found {len(data)}")
    values: Array = np.frombuffer(data, dtype).reshape(shape)
    return values


def write(path: Path, values: Array) -> None:
    """Write a matrix in the same format (for tests and generated sets)."""
    kinds = {dtype.str: magic for magic, dtype in TYPES.items()}
    magic = kinds.get(values.dtype.newbyteorder("<").str if values.dtype.itemsize > 1 else values.dtype.str)
    if magic is None:
        raise DataError(f"{path}: values of type {values.dtype} have no place in a matrix file")
    shape = [*values.shape, *[1] * (3 - values.ndim)]
    head = np.array([magic, values.ndim, *shape], "<u4")
    path.write_bytes(head.tobytes() + np.ascontiguousarray(values).tobytes())


def load(folder: Path, half: str) -> tuple[Array, Array, Array]:
    """(images (N, 2, 96, 96) uint8, classes (N,), info (N, 4)) of "train" or "test", checked
    against each other.
    """
    images, classes, info = (
        read(_find(folder, f"{STEMS[half]}-{part}.mat")) for part in ("dat", "cat", "info")
    )
    n = len(images)
    if images.ndim != 4 or images.shape[1] != 2 or images.dtype != np.uint8:
        raise DataError(f"{folder}: {half} images are {images.dtype} {images.shape}, not uint8 (N, 2, H, W)")
    if classes.shape != (n,) or info.shape != (n, 4):
        raise DataError(f"{folder}: {n} {half} images, but classes {classes.shape} and info {info.shape}")
    if n and not 0 <= classes.min() <= classes.max() < len(CLASSES):
        raise DataError(f"{folder}: a class of the {half} images is outside 0 to {len(CLASSES) - 1}")
    return images, classes, info


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder}: has no {name} (nor {name}.gz); small NORB is to be had from its authors' page"
    )


def small(images: Array, size: int = 32) -> Array:
    """(N, 2, size, size) float32, 0..255: each image reduced by a cubic spline."""
    from scipy.ndimage import zoom

    factor = size / images.shape[2]
    parts = [zoom(image.astype(np.float32), (1, factor, factor), order=3) for image in images]
    reduced: Array = np.clip(np.stack(parts), 0, 255).astype(np.float32)
    return reduced


def held_out(classes: Array, info: Array, seed: int = 1) -> Array:
    """The training images held out for validation: one toy (instance) of each class, drawn with `seed`."""
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(classes), bool)
    for label in np.unique(classes):
        instances = np.unique(info[classes == label, 0])
        chosen |= (classes == label) & (info[:, 0] == generator.choice(instances))
    return chosen


def generate(folder: Path, n: int, seed: int = 1) -> None:
    """Write both halves in the original format, n images each, of shapes that differ by class and
    by camera.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for k, half in enumerate(("train", "test")):
        generator = np.random.default_rng([seed, k])
        classes = np.arange(n, dtype=np.int32) % len(CLASSES)
        info = np.stack([generator.integers(0, limit, n) for limit in (10, 9, 18, 6)], 1).astype(np.int32)
        images = np.stack(list(_shapes(classes, info, generator)))
        for part, values in (("dat", images), ("cat", classes), ("info", info)):
            write(folder / f"{STEMS[half]}-{part}.mat", values)


def _shapes(classes: Array, info: Array, generator: np.random.Generator) -> Iterator[Array]:
    """A pair of 96x96 pictures: class + 2 bars on grey, turned by the azimuth, the second camera shifted."""
    rows, columns = np.mgrid[:96, :96] - 47.5
    for label, (_, _, azimuth, lighting) in zip(classes, info, strict=True):
        angle = azimuth * np.pi / 18
        pair = []
        for shift in (-2, 2):
            across = (columns - shift) * np.cos(angle) + rows * np.sin(angle)
            along = rows * np.cos(angle) - (columns - shift) * np.sin(angle)
            bars = (np.sin(across * (label + 2) * np.pi / 30) > 0) & (abs(along) < 25) & (abs(across) < 30)
            pair.append(150 - 20 * lighting * bars + 8 * generator.standard_normal((96, 96)))
        yield np.clip(np.stack(pair), 0, 255).astype(np.uint8)
