"""Caffe's tools for data under their own names: convert_imageset, convert_mnist_data, convert_cifar_data,
compute_image_mean and extract_features, with the arguments and flags that scripts of its time give them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from netspec.data.files.protos import write_blob
from netspec.data.writing.convert import from_any, from_cifar, from_idx, from_list, mean_image
from netspec.data.writing.databases import write_database
from netspec.errors import NetspecError
from netspec.pycaffe import glog
from netspec.pycaffe.flags import Flags, UsageError, parse
from netspec.run.evaluate import extract


@dataclass(frozen=True)
class Tool:
    """One tool: what it does, its flags with their defaults, what it takes, at least and at most."""

    run: Callable[..., None]
    flags: Flags
    usage: str
    least: int
    most: int


def say(text: str) -> None:
    glog.info(text, "tools.cpp:1")


def convert_imageset(root: str, listed: str, target: str, *, flags: Flags) -> None:
    """Pictures of a list into a database; what is resized is resized to -resize_height and -resize_width."""
    size = (flags["resize_height"], flags["resize_width"])
    if any(size) and not all(size):
        raise UsageError("-resize_height and -resize_width are given together")
    unread = 0

    def skip(text: str) -> None:
        nonlocal unread
        unread += 1
        glog.error(text, "tools.cpp:1")

    records = from_list(
        Path(listed),
        root,
        size=size if all(size) else None,
        color=not flags["gray"],
        encoded=flags["encode_type"] or flags["encoded"],
        same_size=flags["check_size"],
        shuffle=time.time_ns() if flags["shuffle"] else None,
        skip=skip,
    )
    say(f"Processed {write_database(records, Path(target), flags['backend'].upper())} files.")
    if unread:
        say(f"{unread} pictures could not be read and are left out.")


def convert_mnist_data(images: str, labels: str, target: str, *, flags: Flags) -> None:
    """A pair of idx files into a database."""
    n = write_database(from_idx(Path(images), Path(labels)), Path(target), flags["backend"].upper())
    say(f"A total of {n} items.")


def convert_cifar_data(folder: str, target: str, backend: str, *, flags: Flags) -> None:
    """CIFAR-10's binary version into the databases cifar10_train_<kind> and cifar10_test_<kind>, planes R, G, B."""
    if backend.lower() not in ("lmdb", "leveldb"):
        raise UsageError(f"the kind of database is lmdb or leveldb, found {backend!r}")
    for split, words in (("train", "Training"), ("test", "Testing")):
        place = Path(target) / f"cifar10_{split}_{backend.lower()}"
        say(f"Writing {words} data")
        say(f"{write_database(from_cifar(Path(folder), split), place, backend.upper())} items in {place}")


def compute_image_mean(source: str, target: str = "", *, flags: Flags) -> None:
    """The mean image of a database. Its kind is seen from its files, whatever -backend says."""
    average = mean_image(from_any(source))
    if target:
        say(f"Write to {target}")
        write_blob(Path(target), average)
    say(f"Number of channels: {len(average)}")
    for channel, value in enumerate(average.mean((1, 2), dtype=float)):
        say(f"mean_value channel [{channel}]: {value:.6g}")


def extract_features(
    weights: str, net: str, blobs: str, targets: str, batches: str, backend: str, *device: str, flags: Flags
) -> None:
    """Blobs of a net in phase TEST, each into a database of its own."""
    names, places = blobs.split(","), [Path(target) for target in targets.split(",")]
    if len(names) != len(places):
        raise UsageError(f"{len(names)} blobs and {len(places)} data sets; give as many of both")
    if not batches.isdecimal():
        raise UsageError(f"the number of batches is a whole number, found {batches!r}")
    gpu = f"cuda:{device[1] if len(device) > 1 else 0}" if device and device[0] == "GPU" else "cpu"
    say("Extracting Features")
    rows = extract(net, places[0], names, weights, batches=int(batches), backend=backend.upper(), places=places,
                   device=gpu)  # fmt: skip
    say(f"Extracted features of {rows} query images for {len(names)} feature blobs")
    say("Successfully extracted the features!")


TOOLS = {
    "convert_imageset": Tool(
        convert_imageset,
        {"gray": False, "shuffle": False, "backend": "lmdb", "resize_width": 0, "resize_height": 0,
         "check_size": False, "encoded": False, "encode_type": ""},
        "[FLAGS] ROOTFOLDER/ LISTFILE DB_NAME", 3, 3),
    "convert_mnist_data": Tool(convert_mnist_data, {"backend": "lmdb"}, "[FLAGS] IMAGES LABELS DB_NAME", 3, 3),
    "convert_cifar_data": Tool(convert_cifar_data, {}, "INPUT_FOLDER OUTPUT_FOLDER DB_TYPE", 3, 3),
    "compute_image_mean": Tool(compute_image_mean, {"backend": "lmdb"}, "[FLAGS] INPUT_DB [OUTPUT_FILE]", 1, 2),
    "extract_features": Tool(
        extract_features, {}, "WEIGHTS NET BLOB[,BLOB...] DB_NAME[,DB_NAME...] BATCHES DB_TYPE [CPU|GPU [ID]]",
        6, 8),
}  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run `<tool> arguments...`; gives the exit status: 0, 1 for wrong usage, 2 for another error."""
    tool = TOOLS[argv[0]]
    try:
        words, flags = parse(argv[1:], tool.flags)
        if not tool.least <= len(words) <= tool.most:
            raise UsageError(f"takes {tool.usage}")
        tool.run(*words, flags=flags)
    except UsageError as error:
        glog.write(2, f"{argv[0]}: {error}\nusage: {argv[0]} {tool.usage}", "tools.cpp:1")
        return 1
    except NetspecError as error:
        glog.write(2, str(error), "tools.cpp:1")
        return 2
    return 0
