"""CIFAR-10 from its binary batches, or from an npz of differences or JPEG scans; never from pickles."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from netspec.data.files.idx import Array, Npz
from netspec.errors import DataError

RECORD = 1 + 3 * 32 * 32
"""Bytes of a record of a binary batch: the label, then the R, G and B planes (the data set's own page)."""
BATCHES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
PER_BATCH = 10_000
SPLITS = {"train": 50_000, "test": 10_000}

Images = tuple[Array, Array]
"""(N, 3, 32, 32) uint8 in the order R, G, B, and (N,) uint8 labels."""


def find(folder: Path) -> Callable[[str], Images] | None:
    """How to read the set from `folder` ('train' or 'test' -> images), or None when it holds none of its
    forms.
    """
    for place in (folder / "cifar-10-batches-bin", folder):
        if all((place / name).is_file() for name in (*BATCHES["train"], *BATCHES["test"])):
            return lambda split: from_batches(place, split)
    archive = folder / "cifar-10-binary.tar.gz"
    if archive.is_file():
        return lambda split: from_archive(archive, split)
    residuals = folder / "cifar10_from_jpeg.npz"
    if residuals.is_file():
        return lambda split: from_residuals(residuals, split)
    scans = folder / "cifar10_jpeg_scans.npz"
    if scans.is_file():
        return lambda split: from_scans(scans, split)
    return None


def unpack(data: bytes, name: str) -> Images:
    """Images and labels of one binary batch."""
    if len(data) != PER_BATCH * RECORD:
        raise DataError(f"{name}: {len(data)} bytes, a batch of CIFAR-10 has {PER_BATCH * RECORD}")
    records = np.frombuffer(data, np.uint8).reshape(PER_BATCH, RECORD)
    labels = records[:, 0]
    if labels.max() > 9:
        raise DataError(f"{name}: holds label {labels.max()}, CIFAR-10 has 0 to 9")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels


def from_batches(folder: Path, split: str) -> Images:
    """The set from the unpacked binary version."""
    parts = []
    for name in BATCHES[split]:
        path = folder / name
        if path.stat().st_size != PER_BATCH * RECORD:
            raise DataError(
                f"{path}: {path.stat().st_size} bytes, a batch of CIFAR-10 has {PER_BATCH * RECORD}"
            )
        parts.append(unpack(path.read_bytes(), str(path)))
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def from_archive(path: Path, split: str) -> Images:
    """The set from the published archive, read in place."""
    batches: dict[str, Images] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name in BATCHES[split]:
                    file = archive.extractfile(member)
                    batches[name] = unpack(
                        file.read(PER_BATCH * RECORD + 1) if file else b"", f"{path}: {name}"
                    )
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: {error}") from error
    if missing := [name for name in BATCHES[split] if name not in batches]:
        raise DataError(f"{path}: holds no {missing[0]}")
    parts = [batches[name] for name in BATCHES[split]]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def from_residuals(path: Path, split: str) -> Images:
    """The set from planes G, R-G, B-G, each stored as differences to the left, then to the upper neighbour,
    mod 256.
    """
    npz, count = Npz(path), SPLITS[split]
    expected = (count, 3, 32, 32)
    if npz.shape(f"{split}_residual") != expected:
        raise DataError(
            f"{path}: {split}_residual has shape {npz.shape(f'{split}_residual')}, expected {expected}"
        )
    planes = npz.read(f"{split}_residual")
    if planes.dtype != np.uint8:
        raise DataError(f"{path}: {split}_residual holds {planes.dtype}, expected uint8")
    planes = np.add.accumulate(planes, axis=3, dtype=np.uint8)
    planes = np.add.accumulate(planes, axis=2, dtype=np.uint8)
    green = planes[:, 0].copy()
    planes[:, 0] = planes[:, 1] + green
    planes[:, 1] = green
    planes[:, 2] += green
    return planes, labels_of(npz, split)


def from_scans(path: Path, split: str) -> Images:
    """The set from JPEG scans that share one header; needs Pillow."""
    from PIL import Image

    npz, count = Npz(path), SPLITS[split]
    head = npz.read("header").astype(np.uint8).tobytes()
    scans, offsets = npz.read(f"{split}_scans"), npz.read(f"{split}_offsets")
    if (
        offsets.shape != (count + 1,)
        or offsets[0] != 0
        or (np.diff(offsets) < 0).any()
        or offsets[-1] > len(scans)
    ):
        raise DataError(f"{path}: {split}_offsets do not cut {split}_scans into {count} pieces")
    images = np.empty((count, 3, 32, 32), np.uint8)
    for i in range(count):
        jpeg = head + scans[offsets[i] : offsets[i + 1]].tobytes() + b"\xff\xd9"
        try:
            with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
                if image.size != (32, 32) or image.mode != "RGB":
                    raise DataError(f"{path}: image {i} is {image.size} {image.mode}, expected 32x32 RGB")
                images[i] = np.asarray(image).transpose(2, 0, 1)
        except DataError:
            raise
        except Exception as error:  # decoders raise anything on damaged pictures
            raise DataError(f"{path}: image {i} of {split} does not decode ({error})") from error
    return images, labels_of(npz, split)


def labels_of(npz: Npz, split: str) -> Array:
    labels = npz.read(f"{split}_label")
    if labels.shape != (SPLITS[split],) or labels.dtype != np.uint8 or labels.max() > 9:
        raise DataError(f"{npz.path}: {split}_label is not {SPLITS[split]} labels from 0 to 9")
    return labels
