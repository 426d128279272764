"""Records of data sets of every kind, to be written into others; the mean image."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from netspec import schema
from netspec.data.files import idx
from netspec.data.files.idx import Array
from netspec.data.files.images import decode, encode, resize
from netspec.data.files.protos import datum, read_datum
from netspec.data.pictures import Pictures, open_pictures
from netspec.data.pictures.opening import ARRAYS, SUFFIXES, is_idx, is_list
from netspec.data.sets import cifar, datasets
from netspec.data.sets.catalogue import KNOWN
from netspec.data.sets.tables import TABLES
from netspec.data.sources.database import open_database
from netspec.data.sources.lists import integer
from netspec.data.tables.reading import PARQUET, Rows
from netspec.data.tables.split import WHOLE_TRAIN
from netspec.data.tables.table import Layout
from netspec.errors import DataError, did_you_mean
from netspec.schema.regular import read_regular

MOST_KEY = 500
"""Characters of a key: an LMDB takes 511 bytes."""
TABLES_END = (".csv", ".tsv", ".tab", *PARQUET)
"""Endings of files that are always tables."""


@dataclass(frozen=True)
class Example:
    """One record to write: its key, its image (C, H, W), colour in the order B, G, R, and its label, NaN where unknown.

    `encoded` holds the bytes of a picture file, which are written in place of pixels.
    """

    key: str
    image: Array
    label: float
    encoded: bytes = b""

    def datum(self) -> bytes:
        """The Datum's bytes; an unknown label is -1. DataError for a label that is no whole number."""
        label = UNKNOWN if self.label != self.label else int(self.label)
        if label != self.label and label != UNKNOWN:
            raise DataError(
                f"record {self.key}: the label {self.label:g} is no whole number, as databases hold; write .h5 or .npz"
            )
        if self.encoded:
            return bytes(schema.Datum(data=self.encoded, label=label, encoded=True).SerializeToString())
        return datum(self.image, label)


UNKNOWN = -1
"""The label of a record whose class is not known."""


# Where records come from


RGB = ("cifar10",)
"""Data sets whose databases hold their planes in the order R, G, B, as nets trained on them expect."""


def from_cifar(folder: Path, split: str) -> Iterator[Example]:
    """The images of CIFAR-10's binary version, planes R, G, B, keyed by their number in 5 digits.

    Source: Caffe, examples/cifar10/convert_cifar_data.cpp.
    """
    read = cifar.find(folder)
    if read is None:
        names = ", ".join((*cifar.BATCHES["train"], *cifar.BATCHES["test"]))
        raise DataError(f"{folder}: holds no CIFAR-10 in its binary version ({names})")
    images, labels = read(split)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield Example(f"{i:05}", np.ascontiguousarray(image), int(label))


def from_named(name: str, split: str = "whole_train", shuffle: int | None = None) -> Iterator[Example]:
    """The images of a named data set, keyed by their number in 8 digits. shuffle: a seed.

    Colour is as Caffe's example makes the set's database: CIFAR's planes are R, G, B; others' B, G, R.
    """
    data = datasets.load(name, split)
    step = 1 if name in RGB else -1
    for place, i in enumerate(ordered(len(data), shuffle)):
        yield Example(f"{place:08}", np.ascontiguousarray(data.images[i, ::step]), int(data.labels[i]))


def from_idx(images: Path, labels: Path | None = None, shuffle: int | None = None) -> Iterator[Example]:
    """The images of an idx file, keyed by their number in 8 digits.

    labels: their file; by default the one beside it that bears the same name with `labels` and `idx1` in
    place of `images` and `idx3`. DataError when they do not fit each other.
    """
    values = idx.read(images)
    labels = labels or images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    if values.ndim < 3 or values.dtype != np.uint8:
        raise DataError(f"{images}: holds {values.dtype} of shape {values.shape}, not images of bytes")
    if labels == images:
        raise DataError(f"{images}: where are its labels? Give their file")
    numbers = idx.read(labels)
    if numbers.shape != values.shape[:1]:
        raise DataError(f"{labels}: has shape {numbers.shape}, {images} holds {len(values)} images")
    values = values.reshape(len(values), -1, *values.shape[-2:])
    for place, i in enumerate(ordered(len(values), shuffle)):
        yield Example(f"{place:08}", values[i], int(numbers[i]))


def ordered(n: int, shuffle: int | None) -> list[int]:
    """0 ... n - 1, shuffled with the seed where there is one."""
    order = list(range(n))
    if shuffle is not None:
        random.Random(shuffle).shuffle(order)
    return order


def from_list(
    source: Path,
    root: str = "",
    *,
    size: tuple[int, int] | None = None,
    color: bool = True,
    encoded: bool | str = False,
    same_size: bool = False,
    shuffle: int | None = None,
    skip: Callable[[str], None] | None = None,
) -> Iterator[Example]:
    """The pictures of a list `<path> <integer>`, keyed `<number in 8 digits>_<path>` as convert_imageset
    does.

    size: (height, width) to resize to. encoded: keep the files' bytes, and encode resized pictures again; a word
    ("png") encodes all as that kind. same_size: DataError at the first of another size. shuffle: a seed. skip: called
    for each unreadable picture, which is then left out; DataError without `skip`, and where no picture can be read.
    """
    lines = numbered_paths(source)
    lines = [lines[i] for i in ordered(len(lines), shuffle)]
    first: tuple[int, ...] | None = None
    unread = None
    for i, (name, number) in enumerate(lines):
        path = Path(root + name)
        try:
            image = decode(path, color, str(path))
        except DataError as error:
            if skip is None:
                raise
            skip(str(error))
            unread = unread or error
            continue
        if size:
            image = resize(image, *size)
        if same_size and first not in (None, image.shape):
            raise DataError(f"{path}: has shape {image.shape}, the first picture {first}")
        first = first or image.shape
        data = encoded_bytes(image, path, encoded, size is not None) if encoded else b""
        yield Example(f"{i:08}_{name}", image, number, data)
    if unread is not None and first is None:
        raise DataError(f"{source}: none of its {len(lines)} pictures can be read; the first: {unread}")


def numbered_paths(source: Path) -> list[tuple[str, int]]:
    """(path, number) of each line `<path> <integer>` of a list; DataError at a line that is different."""
    lines = []
    try:
        for at, line in enumerate(read_regular(source).decode("utf-8").splitlines(), 1):
            name, _, label = line.strip().rpartition(" ")
            if line.strip():
                number = integer(label)
                if not name or number is None:
                    raise DataError(f"{source}:{at}: expected a path and an integer, found {line!r}")
                lines.append((name.strip(), number))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: {error}") from error
    return lines


def encoded_bytes(image: Array, path: Path, encoded: bool | str, resized: bool) -> bytes:
    """The bytes of a picture file: those of `path` itself where they are of the right kind and size."""
    kind = encoded if isinstance(encoded, str) else path.suffix[1:]
    if not resized and kind_of(path.suffix[1:]) == kind_of(kind):
        return read_regular(path)
    return encode(image, kind, str(path))


def kind_of(ending: str) -> str:
    """A file's kind by its ending: jpg and jpeg are one."""
    return {"jpeg": "jpg"}.get(ending.lower(), ending.lower())


def from_database(path: Path, backend: str = "LMDB") -> Iterator[Example]:
    """The records of a database, decoded."""
    database = open_database(path, backend)
    try:
        i = 0
        while database.count is None or i < database.count:
            key, value = database.at(i)
            if i and database.count == i:  # the end was found by going round
                return
            record = read_datum(value, f"{path}: record {key.decode('utf-8', 'replace')!r}")
            yield Example(key.decode("utf-8", "replace"), record.image, record.label)
            i += 1
    finally:
        database.close()


def from_pictures(pictures: Pictures, shuffle: int | None = None) -> Iterator[Example]:
    """Pictures of any kind in one size, keyed by their number in 8 digits and their name. shuffle: a seed."""
    for place, i in enumerate(ordered(len(pictures), shuffle)):
        name = "" if pictures.names[i] == str(i) else f"_{pictures.names[i]}"
        yield Example(f"{place:08}{name}"[:MOST_KEY], pictures.image(i), float(pictures.labels[i]))


def from_table(rows: Rows, layout: Layout) -> Iterator[Example]:
    """The rows of a table, each an image (1, 1, D) of its cells as a Table layer gives them, NaN where missing; the
    class, or the target's value, is the label. One piece of the table is in memory at a time.
    """
    places = layout.fit(rows.names, str(rows.path))
    number = 0
    for piece in rows.pieces():
        values, labels = layout.encode(piece, places)
        for row, label in zip(values, labels.tolist(), strict=True):
            yield Example(f"{number:08}", row[None, None], label)
            number += 1


def is_table(source: str) -> bool:
    """Whether a source is a table, by the file's ending or as a named table."""
    path = Path(source)
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    return ending in TABLES_END if path.is_file() else source in TABLES


def names_classes(path: Path) -> bool:
    """Whether a list of pictures gives classes by name or not at all: its first line does not end with a whole
    number.
    """
    if not is_list(path):
        return False
    with open(path, encoding="utf-8") as file:
        return integer(file.readline().strip().rpartition(" ")[2]) is None


def from_any(
    source: str,
    *,
    split: str = "whole_train",
    labels: Path | None = None,
    root: str = "",
    size: tuple[int, int] | None = None,
    color: bool = True,
    encoded: bool | str = False,
    same_size: bool = False,
    shuffle: int | None = None,
    skip: Callable[[str], None] | None = None,
) -> Iterator[Example]:
    """The records of whatever `source` names: a database, an idx file, a list or a folder of pictures, an array file,
    or a data set by name. See the functions above for the rest; DataError for what does not apply to its kind.
    """
    path = Path(source)
    if split != WHOLE_TRAIN and source not in KNOWN:
        raise DataError(f"{source}: is no named data set, which split {split!r} is for")
    database = path.is_dir() and ((path / "data.mdb").is_file() or (path / "CURRENT").is_file())
    own = (path.is_dir() and not database) or path.suffix.lower() in (*ARRAYS, *SUFFIXES)
    if own or (path.is_file() and not root and names_classes(path)):
        if root or encoded or same_size:
            raise DataError(f"{source}: root, encoded and same size are for lists of pictures with numbers")
        return from_pictures(open_pictures(path, size=size, color=None if color else False), shuffle)
    listed = path.is_file() and not is_idx(path) and path.name != "data.mdb"
    if not listed and (root or encoded or same_size or not color):
        raise DataError(f"{source}: is no list of pictures; root, gray, encoded and same size are for lists")
    if listed:
        options = {"size": size, "color": color, "encoded": encoded, "same_size": same_size, "skip": skip}
        return from_list(path, root, shuffle=shuffle, **options)  # type: ignore[arg-type]
    if path.is_dir() or path.name == "data.mdb":
        if shuffle is not None:
            raise DataError(f"{source}: a database is read in the order of its keys, not shuffled")
        examples = from_database(path, "LEVELDB" if (path / "CURRENT").is_file() else "LMDB")
    elif path.is_file():
        examples = from_idx(path, labels, shuffle)
    elif source in KNOWN:
        examples = from_named(source, split, shuffle)
    else:
        hint = did_you_mean(source, KNOWN, f"known: {', '.join(KNOWN)}")
        raise DataError(f"{source}: no such file, and no data set of that name{hint}")
    return (
        (replace(example, image=resize(example.image, *size)) for example in examples) if size else examples
    )


# Reading through them


def mean_image(examples: Iterable[Example]) -> Array:
    """The mean of the images, (C, H, W) float32; write it with `protos.write_blob` for use as a mean_file."""
    total: Array | None = None
    n = 0
    for example in examples:
        if total is None:
            total = np.zeros(example.image.shape, np.float64)
        if example.image.shape != total.shape:
            raise DataError(
                f"record {example.key!r} has shape {example.image.shape}, the first {total.shape}"
            )
        total += example.image
        n += 1
    if total is None:
        raise DataError("no records to take a mean of")
    return (total / n).astype(np.float32)
