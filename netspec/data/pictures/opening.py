"""Opens pictures from a folder, picture files, a list, .npz, .npy, idx, HDF5, LMDB or LevelDB, told apart by the
path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from netspec.data.files import idx
from netspec.data.files.idx import Array
from netspec.data.files.images import decode
from netspec.data.files.protos import read_datum
from netspec.data.pictures.arrays import arrays_of, of_arrays
from netspec.data.pictures.collection import Pictures
from netspec.data.sources.database import open_database
from netspec.errors import DataError, no_such_file
from netspec.schema.regular import read_regular

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".jp2",
    ".ras",
    ".gif",
)
ARRAYS = (".npz", ".npy", ".h5", ".hdf5")


def open_pictures(
    source: str | Path | Sequence[str | Path],
    *,
    size: tuple[int, int] | None = None,
    color: bool | None = None,
    classes: Sequence[str] = (),
) -> Pictures:
    """The pictures of a folder or file, or of several picture files.

    size: (height, width) to resize to; color: three channels or one; by default those of the first picture.
    classes: names of the known classes, in the order of their numbers; by default those of the source.
    A folder with sub-folders of pictures has one class per sub-folder, in the order of their names; one with pictures
    alone has no labels. DataError where there are no pictures, or they cannot be read.
    """
    if not isinstance(source, str | Path):
        paths = [Path(file) for file in source]
        if len(paths) == 1:
            return open_pictures(paths[0], size=size, color=color, classes=classes)
        return of_files("the pictures", paths, [""] * len(paths), size, color, classes)
    path = Path(source)
    if not path.exists():
        raise DataError(no_such_file(path, what="file or folder"))
    if path.is_dir() and not ((path / "data.mdb").is_file() or (path / "CURRENT").is_file()):
        pictures = of_files(str(path), *in_folder(path), size, color, classes)
    elif path.is_dir() or path.name == "data.mdb":
        pictures = of_database(path)
    elif path.suffix.lower() in SUFFIXES:
        pictures = of_files(str(path), [path], [""], size, color, classes)
    elif path.suffix.lower() in ARRAYS or is_idx(path):
        images, labels, notes = arrays_of(path)
        pictures = of_arrays(str(path), images, labels, notes)
    else:
        pictures = of_files(str(path), *in_list(path), size, color, classes)
    pictures.size, pictures.color = size or pictures.size, color if color is not None else pictures.color
    if classes and not pictures.class_names:
        pictures.class_names = tuple(classes)
    return pictures


def is_idx(path: Path) -> bool:
    """Whether a file starts as idx files do, compressed or not."""
    try:
        with idx.reading(path) as file:
            idx.header(file, path)
    except DataError:
        return False
    return True


def is_list(path: Path) -> bool:
    """Whether the first line of a text file begins with the path of a picture."""
    try:
        with open(path, encoding="utf-8") as file:
            first = file.readline(10_000).strip()
    except (OSError, UnicodeDecodeError):
        return False
    return any(Path(text).suffix.lower() in SUFFIXES for text in (first, first.rpartition(" ")[0]))


def in_folder(folder: Path) -> tuple[list[Path], list[str]]:
    """(picture files, the class of each: its sub-folder's name, "" in a flat folder)."""
    try:
        entries = sorted(folder.iterdir())
        subs = [file for file in entries if file.is_dir() and not file.name.startswith(".")]
        own = [file for file in entries if is_picture(file)]
        classed = [(file, sub.name) for sub in subs for file in sorted(sub.rglob("*")) if is_picture(file)]
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error
    if own and classed:
        raise DataError(
            f"{folder}: holds pictures ({own[0].name}) beside sub-folders of pictures ({classed[0][1]}/); put each "
            "into the sub-folder of its class"
        )
    if not own and not classed:
        raise DataError(f"{folder}: holds no pictures ({', '.join(SUFFIXES)}), nor do its sub-folders")
    pairs = classed or [(file, "") for file in own]
    return [path for path, _ in pairs], [name for _, name in pairs]


def is_picture(path: Path) -> bool:
    """Whether a file's name is a picture's."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def in_list(path: Path) -> tuple[list[Path], list[str]]:
    """(picture files, class of each or "") of a list with one `<path>` or `<path> <class>` per line; paths are relative
    to the list's folder or to the working directory.
    """
    try:
        lines = read_regular(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is neither a picture nor a list of pictures ({error})") from error
    files, kinds = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text, kind = line.strip(), ""
        if Path(text).suffix.lower() not in SUFFIXES:
            first, _, kind = text.rpartition("\t" if "\t" in text else "," if "," in text else " ")
            text, kind = first.strip(), kind.strip()
        if not text or Path(text).suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{path}:{number}: expected a picture's path, and its class behind it; found {line!r}"
            )
        file = Path(text) if Path(text).is_absolute() else path.parent / text
        files.append(file if file.exists() else Path(text))
        kinds.append(kind)
    if not files:
        raise DataError(f"{path}: the list is empty")
    return files, kinds


def of_files(
    where: str,
    paths: Sequence[Path],
    kinds: Sequence[str],
    size: tuple[int, int] | None,
    color: bool | None,
    classes: Sequence[str],
) -> Pictures:
    """Picture files, decoded when they are asked for; the class of each by name, "" where unknown."""
    names = tuple(classes) or tuple(sorted({kind for kind in kinds if kind}, key=by_number))
    numbers = {name: i for i, name in enumerate(names)}
    labels = np.array([numbers.get(kind, np.nan) for kind in kinds], np.float32)
    strange = sorted({kind for kind in kinds if kind and kind not in numbers})
    told = f"{where}: {{!r}} is none of the classes ({', '.join(names)}); its pictures have no label"
    if color is None:
        color = len(decode(paths[0], None, str(paths[0]), own=True)) == 3
    read: Callable[[int], Array] = lambda i: decode(paths[i], color, str(paths[i]), own=True)  # noqa: E731
    return Pictures(
        where,
        [str(path) for path in paths],
        read,
        labels,
        names,
        [told.format(file) for file in strange[:1]],
        size,
        color,
    )


def by_number(name: str) -> tuple[int, int, str]:
    """Sorts names that are whole numbers by their value, before other names in the order of the alphabet."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def of_database(path: Path) -> Pictures:
    """The records of an LMDB or LevelDB."""
    database = open_database(path, "LEVELDB" if (path / "CURRENT").is_file() else "LMDB")
    if database.count is None:
        i = 0
        while database.count is None:
            database.at(i)
            i += 1
    labels = np.full(database.count, np.nan, np.float32)
    images: dict[int, Array] = {}

    def read(i: int) -> Array:
        key, value = database.at(i)
        record = read_datum(value, f"{path}: record {key.decode('utf-8', 'replace')!r}")
        images.clear()
        images[i] = record.image
        labels[i] = record.label if record.label >= 0 else np.nan
        return record.image

    for i in range(database.count):  # labels lie in the records
        read(i)
    return Pictures(str(path), [f"{i}" for i in range(database.count)], read, labels)
