"""Metrics and pictures of a run for TensorBoard, and for any module that speaks the API of wandb.

`tensorboard` writes event files into the folder tensorboard of the run's own. Any other name is a module that the user
names, such as trackio (local and offline) or wandb: `init(project=, name=, config=)`, `log({...}, step=)`, `finish()`,
and `Image(array)` where it has it. Only named modules are imported.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from netspec.errors import NetspecError, SpecError
from netspec.net.net import Net
from netspec.queries.sampling import sample
from netspec.queries.tree import Tree

PROJECT = "netspec"
MOST = 64
"""Most filters in a picture."""
SAMPLES = 4
"""Samples of each class."""


class Tracker(Protocol):
    """Where numbers and pictures go."""

    def numbers(self, values: Mapping[str, float], iteration: int) -> None: ...

    def picture(self, name: str, image: Tensor, iteration: int) -> None:
        """An image (C, H, W) in [0, 1]."""

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `folder`/tensorboard."""

    def __init__(self, folder: Path):
        self.writer: Any = summary_writer()(str(folder / "tensorboard"))

    def numbers(self, values: Mapping[str, float], iteration: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, iteration)

    def picture(self, name: str, image: Tensor, iteration: int) -> None:
        self.writer.add_image(name, image, iteration)

    def close(self) -> None:
        self.writer.close()


class Module:
    """A module with wandb's functions."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]):
        self.module = module_of(name)
        self.module.init(project=PROJECT, name=folder.name, config=dict(config))

    def numbers(self, values: Mapping[str, float], iteration: int) -> None:
        self.module.log(dict(values), step=iteration)

    def picture(self, name: str, image: Tensor, iteration: int) -> None:
        if hasattr(self.module, "Image"):
            pixels = (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy()
            self.module.log(
                {name: self.module.Image(pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels)},
                step=iteration,
            )

    def close(self) -> None:
        self.module.finish()


def summary_writer() -> Any:
    """TensorBoard's writer of event files. Raises NetspecError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise NetspecError(f"TensorBoard is not installed: pip install tensorboard ({error})") from None
    return SummaryWriter


def module_of(name: str) -> Any:
    """The module of a name. Raises NetspecError where it cannot be imported or lacks wandb's functions."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        raise NetspecError(f"{name!r} is no name of a module to track with")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        remedy = f" (pip install {name})" if name in ("trackio", "wandb") else ""
        raise NetspecError(f"module {name!r} to track with cannot be imported: {error}{remedy}") from None
    lacking = [function for function in ("init", "log", "finish") if not hasattr(module, function)]
    if lacking:
        raise NetspecError(f"module {name!r} has no {lacking[0]}(): it does not speak wandb's API")
    return module


def require(names: Sequence[str]) -> None:
    """See that each can be tracked with, before anything is trained. Raises NetspecError for one that cannot."""
    for name in names:
        if name == "tensorboard":
            summary_writer()
        else:
            module_of(name)


def trackers(names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """One tracker per name. Raises NetspecError for one that is not installed."""
    return [TensorBoard(folder) if name == "tensorboard" else Module(name, folder, config) for name in names]


class Tracking:
    """What a run tells its trackers: lines of its metrics, filters after each test, samples at the end."""

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any]):
        self.trackers = trackers(names, folder, config)

    def line(self, line: Mapping[str, Any]) -> None:
        """A line of the metrics."""
        values = numbers_of(line)
        for tracker in self.trackers if values else ():
            tracker.numbers(values, line["iteration"])

    def filters(self, net: Net, iteration: int) -> None:
        """The first layer's filters, where they are pictures."""
        weights = next((param.value for param in net.params if is_filters(param.value)), None)
        if self.trackers and weights is not None:
            self.show("filters", weights[:MOST].detach().float().cpu(), iteration)

    def samples(self, nets: Sequence[Net], iteration: int) -> None:
        """Samples of each class, where a test net is generative."""
        if not self.trackers or not nets:
            return
        try:
            tree = Tree(nets[0])
        except SpecError:  # a net of another kind has none to show
            return
        device = nets[0].params[0].value.device
        labels = torch.arange(tree.classes, device=device).repeat_interleave(SAMPLES)
        with torch.no_grad():
            drawn = sample(tree, labels, torch.Generator(device).manual_seed(0), noise=False)
        if drawn.shape[1] in (1, 3):
            self.show("samples", drawn.float().cpu(), iteration)

    def show(self, name: str, images: Tensor, iteration: int) -> None:
        picture = tiled(images)
        for tracker in self.trackers:
            tracker.picture(name, picture, iteration)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a line of metrics, by names that group them: train/loss, test/accuracy, gradient/ip/0."""
    kind = line["kind"]
    values: dict[str, Any] = {}
    if kind == "train":
        values = {"train/loss": line["loss"], "train/lr": line["lr"]}
        values |= {f"train/outputs/{name}": value for name, value in line["outputs"].items()}
        values |= {"gradient/norm": line["gradient_norm"]} if "gradient_norm" in line else {}
        values |= {f"gradient/{name}": value for name, value in line.get("gradient_norms", {}).items()}
    elif kind == "test":
        head = "test" if line["net"] == 0 else f"test {line['net']}"
        values = {f"{head}/{name}": value for name, value in line["outputs"].items()}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def is_filters(value: Tensor) -> bool:
    return value.dim() == 4 and value.shape[1] in (1, 3) and min(value.shape[2:]) > 1


def tiled(images: Tensor) -> Tensor:
    """Images (N, C, H, W) side by side in one (C, ...), about square; each is stretched from its least to its largest
    value.
    """
    n, c, h, w = images.shape
    flat = images.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    scaled = (images - low.view(-1, 1, 1, 1)) / (high - low).clamp(min=1e-12).view(-1, 1, 1, 1)
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    page = torch.ones(c, rows * (h + 1) + 1, columns * (w + 1) + 1)
    for i, image in enumerate(scaled.nan_to_num(0.5)):
        top, left = 1 + i // columns * (h + 1), 1 + i % columns * (w + 1)
        page[:, top : top + h, left : left + w] = image
    return page
