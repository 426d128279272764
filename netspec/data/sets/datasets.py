"""Named data sets: found on $NETSPEC_DATA, in the user's cache, downloaded, or replaced by a stand-in.

Searched in order: in each folder of $NETSPEC_DATA (separated by os.pathsep), `<folder>/<name>/`, then the files lying
in the folder itself; then `<cache>/netspec/data/<name>/`, where <cache> is $XDG_CACHE_HOME or ~/.cache. A set that is
in none of these places is downloaded into the cache ($NETSPEC_MIRROR, an address that serves `<name>/<file>`, is tried
first).

Splits: `whole_train` and `test` are the files' own; `train` is whole_train without its last images, which are
`validation` (10,000 of mnist, fashion-mnist and cifar10). digits (scikit-learn's 1,797 images of 8x8, its
values 0..16 scaled to 0..255) is cut by rank: of each class, counting from 0, every image of rank 5 mod 6 is
in `test` and of rank 4 mod 6 in `validation`, 29 a class each; the rest is `train`; `whole_train` is train,
then validation.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from netspec.data.files import idx
from netspec.data.files.idx import Array
from netspec.data.files.images import resize
from netspec.data.sets import cifar
from netspec.data.sets.catalogue import KNOWN, ROLES, Known
from netspec.data.sets.fetch import Remote, check, fetch
from netspec.errors import DataError, did_you_mean

SPLITS = ("train", "validation", "whole_train", "test")
NAME_ONE = "or name a `stand_in` in the layer's dataset_param"


@dataclass(frozen=True)
class Labelled:
    """Images (N, C, H, W) uint8, colour in the order R, G, B; labels (N,) uint8; notes for the run's record."""

    images: Array
    labels: Array
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


def load(name: str, split: str = "train", stand_in: str = "") -> Labelled:
    """One split of a named data set.

    stand_in: the set to use, resized, when `name` is absent and cannot be downloaded; stderr and `notes` say so. Raises
    DataError for an unknown name or split, a damaged file, and an absent set (the error says where to put which file).
    """
    known = named(name)
    if split not in SPLITS:
        raise DataError(f"data set {name!r} has no split {split!r}; it has {', '.join(SPLITS)}")
    if stand_in:
        named(stand_in)
    try:
        whole = parts(known, split)
    except Absent as absence:
        if not stand_in or stand_in == name:
            raise
        return standing_in(known, stand_in, split, absence)
    return Labelled(*cut(known, split, *whole))


def named(name: str) -> Known:
    """The catalogue's entry; DataError with the nearest name when there is none."""
    if name not in KNOWN:
        raise DataError(
            f"no data set is called {name!r}" + did_you_mean(name, KNOWN, f"known: {', '.join(KNOWN)}")
        )
    return KNOWN[name]


class Absent(DataError):
    """A data set is neither on this machine nor downloadable."""


def parts(known: Known, split: str) -> tuple[Array, Array]:
    """All images and labels of the files from which `split` is cut."""
    if known.name == "digits":
        return digits()
    half = "test" if split == "test" else "train"
    folder = locate(known) or download(known)
    if folder == cache() / known.name:
        verify(known, folder)
    if known.name == "cifar10":
        return _cifar(folder, half)
    return idx_pair(known, folder, half)


def cut(known: Known, split: str, images: Array, labels: Array) -> tuple[Array, Array]:
    """The split's images and labels out of the whole file set."""
    if known.name == "digits":
        chosen = digit_splits()[split]
        return images[chosen], labels[chosen]
    n = len(labels)
    # Files that are smaller than the published ones hold out the same share.
    held = known.held_out if n > known.held_out else n // 6
    bounds = {"train": slice(0, n - held), "validation": slice(n - held, n)}.get(split, slice(0, n))
    return images[bounds], labels[bounds]


# Where files are


def folders() -> list[Path]:
    """The folders of $NETSPEC_DATA."""
    return [Path(part).expanduser() for part in os.environ.get("NETSPEC_DATA", "").split(os.pathsep) if part]


def cache() -> Path:
    """The user's cache of data sets."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "netspec" / "data"


def locate(known: Known) -> Path | None:
    """The first folder that holds the set's files."""
    for folder in folders():
        for place, name_given in ((folder / known.name, True), (folder, folder.name == known.name)):
            if holds(known, place, name_given):
                return place
    return cache() / known.name if holds(known, cache() / known.name, True) else None


def holds(known: Known, folder: Path, name_given: bool) -> bool:
    """Whether `folder` holds all files of the set; without the set's name on the folder, labels must be the
    set's.
    """
    if known.name == "cifar10":
        return cifar.find(folder) is not None
    paths = {role: idx_path(folder, role) for role in ROLES}
    if not all(path.is_file() for path in paths.values()):
        return False
    return name_given or label_digest(paths["train labels"]) in known.label_digests


def idx_path(folder: Path, role: str) -> Path:
    """The file of a role: uncompressed if there, else compressed; '.' in place of '-' before 'idx' is
    accepted.
    """
    stem = ROLES[role]
    names = [stem, f"{stem}.gz"]
    names += [name.replace("-idx", ".idx") for name in names]
    return next((folder / name for name in names if (folder / name).is_file()), folder / f"{stem}.gz")


def label_digest(path: Path) -> str:
    with idx.reading(path) as file:
        return hashlib.sha256(idx.at_most(file, 1 << 20)).hexdigest()


def download(known: Known) -> Path:
    """Fetch the set's files into the cache; Absent, with the reasons and the remedy, when that fails."""
    folder = cache() / known.name
    mirror = os.environ.get("NETSPEC_MIRROR")
    mirrors = (f"{mirror.rstrip('/')}/{known.name}",) if mirror else ()
    for remote in known.files.values():
        if (folder / remote.name).is_file():
            continue
        try:
            fetch(remote, folder, mirrors)
        except DataError as error:
            raise absent(known, str(error)) from error
    return folder


def absent(known: Known, reasons: str) -> Absent:
    """The error for an absent set whose download failed for these reasons."""
    missing, remedy = whereabouts(known)
    return Absent(f"{missing}, and the download failed ({reasons}). {remedy}, {NAME_ONE}")


def whereabouts(known: Known) -> tuple[str, str]:
    """In words: where a set was sought, and which files to put where."""
    files = ", ".join(remote.name for remote in known.files.values())
    other = " (or cifar10_from_jpeg.npz, or cifar-10-batches-bin/)" if known.name == "cifar10" else ""
    searched = ", ".join(str(folder) for folder in folders()) or "not set"
    return (
        f"data set {known.name!r} is not on $NETSPEC_DATA ({searched}), nor in {cache() / known.name}",
        f"Put {files}{other} into {cache() / known.name}/ or into $NETSPEC_DATA/{known.name}/",
    )


def lack(name: str, stand_in: str) -> str:
    """A remark on a named set that is not on this machine, without any download; "" where it is."""
    known = named(name)
    if not known.files or locate(known) is not None:
        return ""
    missing, remedy = whereabouts(known)
    if stand_in:
        return f"{missing}; it would be downloaded, and if that fails {stand_in!r} stands in for it. {remedy}"
    return f"{missing}; it would be downloaded. {remedy}, {NAME_ONE}"


def verify(known: Known, folder: Path) -> None:
    """Compare cached files that have published names with their published sizes and checksums, once per process."""
    for remote in known.files.values():
        path = folder / remote.name
        if path.is_file():
            stat = path.stat()
            _verify(path, remote, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _verify(path: Path, remote: Remote, size: int, stamp: int) -> None:
    try:
        check(path, remote)
    except DataError as error:
        raise DataError(
            f"{path}: is not the published file ({error}); remove it, and it is downloaded again. "
            f"Files of your own belong on $NETSPEC_DATA"
        ) from error


# Reading


def idx_pair(known: Known, folder: Path, half: str) -> tuple[Array, Array]:
    """Images and labels of the 'train' or 'test' files, checked against each other."""
    paths = idx_path(folder, f"{half} images"), idx_path(folder, f"{half} labels")
    stamps = tuple(path.stat().st_mtime_ns for path in paths)
    return _idx_pair(known.name, *paths, stamps)


@lru_cache(maxsize=4)
def _idx_pair(
    name: str, images_path: Path, labels_path: Path, stamps: tuple[int, ...]
) -> tuple[Array, Array]:
    images, labels = idx.read(images_path), idx.read(labels_path)
    expected = KNOWN[name].shape
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != expected[1:]:
        raise DataError(
            f"{images_path}: holds {images.dtype} of shape {images.shape}, "
            f"{name} is uint8 of (N, {expected[1]}, {expected[2]})"
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{labels_path}: holds {labels.dtype} of shape {labels.shape} for {len(images)} images"
        )
    if not len(labels) or labels.max() >= len(KNOWN[name].classes):
        raise DataError(f"{labels_path}: no labels, or labels above {len(KNOWN[name].classes) - 1}")
    return images[:, None], labels


@lru_cache(maxsize=2)
def _cifar(folder: Path, half: str) -> tuple[Array, Array]:
    read = cifar.find(folder)
    if read is None:
        raise DataError(f"{folder}: the archive of CIFAR-10 went away")
    return read(half)


@lru_cache(maxsize=1)
def digits() -> tuple[Array, Array]:
    """scikit-learn's digits in file order, scaled to 0..255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise Absent("data set 'digits' comes with scikit-learn, which is not installed") from error
    loaded = load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    return images[:, None], loaded.target.astype(np.uint8)


@lru_cache(maxsize=1)
def digit_splits() -> dict[str, Array]:
    """Indices of each split of digits, by rank within the class (see the module's docstring)."""
    labels = digits()[1]
    ranks = np.zeros(len(labels), int)
    for digit in range(10):
        ranks[labels == digit] = np.arange((labels == digit).sum())
    each = KNOWN["digits"].held_out // 10
    test, validation = ((ranks % 6 == r) & (ranks < 6 * each) for r in (5, 4))
    train, held = np.flatnonzero(~test & ~validation), np.flatnonzero(validation)
    return {
        "train": train,
        "validation": held,
        "whole_train": np.concatenate([train, held]),
        "test": np.flatnonzero(test),
    }


def standing_in(known: Known, stand_in: str, split: str, reason: DataError) -> Labelled:
    """The split of another set, resized to the wanted shape; announced on stderr."""
    from rich.console import Console

    other = load(stand_in, split)
    channels, height, width = known.shape
    images = resize(other.images, height, width)
    if images.shape[1] == 1:
        images = np.repeat(images, channels, axis=1)
    elif channels == 1:
        images = np.rint(luma(images)).astype(np.uint8)
    note = (
        f"data set {known.name!r} is absent: {stand_in!r} stands in for it, resized to "
        f"{channels}x{height}x{width} ({len(other)} images as split {split!r}). "
        f"Results are not results on {known.name}."
    )
    Console(stderr=True).print(f"[bold red]warning:[/] {note}\n[dim]{reason}[/]")
    return Labelled(images, other.labels, (note, *other.notes))


def luma(images: Array) -> Array:
    """(N, 1, H, W) from (N, 3, H, W) in the order R, G, B (ITU-R 601)."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.tensordot(images.astype(np.float32), weights, ([1], [0]))[:, None]
