"""Print the journey of a command through the house: the files and rooms that its calls pass, in their order.

    python -m tools.journey train [FILE]       `netspec train FILE` up to the first value of the training objective
    python -m tools.journey pixel              a pixel of a data set up to the loss of a linear net
    python -m tools.journey complete           `model.complete(x)` of a generative net

Every call of a function of netspec is seen by sys.setprofile. A file counts once, a change of room each time that a
call goes from a function in one room into one in another. `--json` prints the figures alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import netspec

HOME = Path(netspec.__file__).resolve().parent
DIGITS = HOME.parent / "nets" / "ht_cac_digits.prototxt"
LINEAR = """
name: "linear"
layer { name: "data" type: "Dataset" top: "x" top: "label"
  dataset_param { name: "digits" split: "train" batch_size: 8 } transform_param { scale: 0.0625 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "scores"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""


class Arrived(BaseException):
    """Ends the journey; no handler of the program takes it for an error of its own."""


class Journey:
    """What was passed so far."""

    def __init__(self, until: str = ""):
        self.until = until
        """The function, as "file.py:name", whose return ends the journey."""
        self.files: dict[str, None] = {}
        self.rooms: dict[str, None] = {}
        self.functions: set[tuple[str, str]] = set()
        self.changes = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take note of a call (see sys.setprofile)."""
        if event not in ("call", "return"):
            return
        file = place_of(frame)
        if file is None:
            return
        if event == "return":
            if f"{file}:{frame.f_code.co_name}" == self.until and argument is not None:
                sys.setprofile(None)
                raise Arrived
            return
        if frame.f_code.co_name == "<module>":
            return
        self.files.setdefault(file)
        self.rooms.setdefault(room_of(file))
        self.functions.add((file, frame.f_code.co_qualname))
        caller = frame.f_back
        while caller is not None and place_of(caller) is None:
            caller = caller.f_back
        before = place_of(caller) if caller is not None else None
        if before is not None and room_of(before) != room_of(file):
            self.changes += 1

    def figures(self) -> dict[str, int]:
        """The lengths of the journey."""
        return {
            "files": len(self.files), "rooms": len(self.rooms),
            "functions": len(self.functions), "room_changes": self.changes,
        }  # fmt: skip


def place_of(frame: FrameType) -> str | None:
    """The file of a frame within netspec; None for code of others."""
    path = Path(frame.f_code.co_filename)
    return str(path.relative_to(HOME)) if path.is_relative_to(HOME) else None


def room_of(file: str) -> str:
    """The folder directly under netspec that a file lies in; a loose file is a room of its own."""
    return file.split("/")[0].removesuffix(".py")


def travel(journey: Journey, steps: Callable[[], object]) -> Journey:
    """Run `steps` with the journey's eyes open."""
    sys.setprofile(journey)
    try:
        steps()
    except Arrived:
        return journey
    finally:
        sys.setprofile(None)
    return journey


def train(file: Path) -> Journey:
    """`netspec train FILE` up to the first training objective."""
    from netspec.cli import app

    with tempfile.TemporaryDirectory() as folder:
        words = ["train", str(file), "--out", f"{folder}/run", "--iterations", "1"]
        return travel(Journey("net/net.py:objective"), lambda: app(words, standalone_mode=False))


def pixel() -> Journey:
    """A pixel of the digits up to the loss of a linear net."""
    from netspec import data
    from netspec.net.make import make_net

    net = make_net(LINEAR, "TRAIN")
    feeder = data.feeder(net, 1, device=torch.device("cpu"))
    try:
        return travel(Journey(), lambda: net.objective(net(*feeder.next())))
    finally:
        feeder.close()


def complete(file: Path) -> Journey:
    """A completion by a generative net with random weights."""
    model = netspec.load(file, netspec.make_net(file).weights())
    x = torch.full((1, *model.image_shape), float("nan"))
    return travel(Journey(), lambda: model.complete(x))


def main() -> None:
    """Print one journey."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=["train", "pixel", "complete"])
    parser.add_argument("file", nargs="?", type=Path, default=DIGITS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for module in pkgutil.walk_packages(netspec.__path__, "netspec."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # imports are no part of the way
    if options.which == "train":
        journey = train(options.file)
    elif options.which == "pixel":
        journey = pixel()
    else:
        journey = complete(options.file)
    if options.json:
        print(json.dumps(journey.figures()))
        return
    room = ""
    for file in journey.files:
        if room_of(file) != room:
            room = room_of(file)
            print(room)
        print(f"    {file}")
    print(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in journey.figures().items()))


if __name__ == "__main__":
    main()
