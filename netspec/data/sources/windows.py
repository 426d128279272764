"""The source of WindowData: crops of pictures around boxes, foreground and background in a fixed ratio
(R-CNN).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec.data.draws import derive, integers
from netspec.data.files.idx import Array
from netspec.data.files.images import decode, resize
from netspec.data.source import Stream, failure, mistake
from netspec.data.transform import Transformer, near
from netspec.schema.spec import LayerSpec

FIELD = "window_data_param"


@dataclass(frozen=True)
class Window:
    """A box in picture number `image`, corners inclusive, and how well it covers an object of `label`."""

    image: int
    label: int
    overlap: float
    box: tuple[int, int, int, int]


def read_windows(spec: LayerSpec, path: Path) -> tuple[list[tuple[str, int]], list[Window]]:
    """Pictures (path, channels) and windows of a window file.

    An entry is `# <index>`, the picture's path, channels, height, width, number of windows, and a line
    `<class> <overlap> <x1> <y1> <x2> <y2>` for each window. Raises DataError naming the line that is not so.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise failure(spec, f"{path}: {error.strerror or error}", FIELD, "source") from error
    pictures: list[tuple[str, int]] = []
    windows: list[Window] = []
    at = 0

    def take(what: str) -> str:
        nonlocal at
        if at >= len(lines):
            raise ValueError(f"the file ends, expected {what}")
        at += 1
        return lines[at - 1].strip()

    try:
        while at < len(lines):
            start = take("an entry")
            if not start:
                continue
            if not start.startswith("#"):
                raise ValueError("expected '# <index>'")
            name, channels = take("a picture's path"), int(take("its channels"))
            take("its height")
            take("its width")
            pictures.append((name, channels))
            for _ in range(int(take("the number of windows"))):
                label, overlap, *corners = take("a window").split()
                x1, y1, x2, y2 = map(int, corners)
                if x2 < x1 or y2 < y1 or min(x1, y1) < 0:
                    raise ValueError(f"the box {x1} {y1} {x2} {y2} is empty or starts outside the picture")
                windows.append(Window(len(pictures) - 1, int(label), float(overlap), (x1, y1, x2, y2)))
    except ValueError as error:
        raise failure(spec, f"{path}:{at}: not a window file: {error}", FIELD, "source") from error
    return pictures, windows


class WindowSource(Stream):
    """data, label: in each batch first background windows, then round-down(batch_size * fg_fraction)
    foreground ones.

    Foreground: overlap >= fg_threshold, its class as label. Background: overlap < bg_threshold, label 0.
    Windows are drawn with replacement, enlarged by `context_pad` pixels of the crop on each side, warped to
    crop_size x crop_size ('square': the box is first made square), mirrored, and what lies outside the
    picture is 0 after the mean.
    """

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        p = spec.message.window_data_param
        super().__init__(int(p.batch_size))
        self.spec, self.seed = spec, seed
        t = spec.message.transform_param
        self.crop = int(t.crop_size or p.crop_size)
        self.mirror = bool(t.mirror or p.mirror)
        if not p.batch_size or not self.crop:
            raise mistake(spec, "needs batch_size > 0 and a crop_size > 0 in transform_param", FIELD)
        if p.crop_mode not in ("warp", "square"):
            raise mistake(
                spec, f"crop_mode {p.crop_mode!r} is neither 'warp' nor 'square'", FIELD, "crop_mode"
            )
        if 2 * p.context_pad >= self.crop:
            raise mistake(
                spec,
                f"context_pad {p.context_pad} leaves nothing of crop_size {self.crop}",
                FIELD,
                "context_pad",
            )
        if not p.source:
            raise mistake(spec, "needs a source", FIELD)
        path = near(spec, p.source)
        self.pictures, windows = read_windows(spec, path)
        self.foreground = [w for w in windows if w.overlap >= p.fg_threshold]
        self.background = [w for w in windows if w.overlap < min(p.bg_threshold, p.fg_threshold)]
        self.wanted = int(p.batch_size * p.fg_fraction)
        for kind, held, need in (
            ("foreground", self.foreground, self.wanted),
            ("background", self.background, p.batch_size - self.wanted),
        ):
            if need and not held:
                raise failure(spec, f"{path}: holds no {kind} window", FIELD, "source")
        if any(w.label < 1 for w in self.foreground):
            raise failure(
                spec, f"{path}: a foreground window has class 0, which is the background", FIELD, "source"
            )
        self.transform = Transformer(spec, phase, seed)
        self.cache: dict[int, Array] | None = {} if p.cache_images else None
        self.shapes = [(self.batch_size, 3, self.crop, self.crop), (self.batch_size,)][: len(spec.tops)]

    def picture(self, i: int) -> Array:
        if self.cache is not None and i in self.cache:
            return self.cache[i]
        path = near(self.spec, self.spec.message.window_data_param.root_folder + self.pictures[i][0])
        image = decode(path, True, str(self.spec.problem(str(path), FIELD, "source")))
        if self.cache is not None:
            self.cache[i] = image
        return image

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        draws = integers(derive(self.seed, "windows"), positions, 2, 2**31)
        data = np.zeros(self.shapes[0], np.float32)
        labels = np.zeros(self.batch_size, np.float32)
        for i, (pick, flip) in enumerate(draws):
            front = i >= self.batch_size - self.wanted
            pool = self.foreground if front else self.background
            window = pool[int(pick) % len(pool)]
            self.cut(window, self.mirror and bool(flip % 2), data[i])
            labels[i] = window.label if front else 0
        return (torch.from_numpy(data), torch.from_numpy(labels))[: len(self.shapes)]

    def cut(self, window: Window, flip: bool, out: Array) -> None:
        """Write one window's pixels, less the mean and scaled, into `out` (3, crop, crop), which is 0."""
        image = self.picture(window.image)
        (x1, y1, x2, y2), pads, (height, width) = self.placed(window.box, image.shape[2], image.shape[1])
        if height < 1 or width < 1 or x2 < x1 or y2 < y1:
            return  # wholly outside the picture, as a box may be that the picture's file contradicts
        piece = resize(image[:, y1 : y2 + 1, x1 : x2 + 1], height, width)
        if flip:
            piece = piece[:, :, ::-1]
        top, left = pads[1], pads[2] if flip else pads[0]
        area = (slice(None), slice(top, top + height), slice(left, left + width))
        values = piece.astype(np.float32)
        if self.transform.mean is not None:
            mean = self.transform.mean
            if min(mean.shape[1:]) < self.crop:
                raise failure(
                    self.spec, f"the mean of {mean.shape[1:]} is smaller than crop_size", "transform_param"
                )
            off = (mean.shape[2] - self.crop) // 2
            values -= mean[:, off + top : off + top + height, off + left : off + left + width]
        elif len(self.transform.values):
            means = self.transform.values
            values -= means if len(means) == 1 else means[:, None, None]
        out[area] = values * self.transform.scale

    def placed(
        self, box: tuple[int, int, int, int], width: int, height: int
    ) -> tuple[tuple[int, int, int, int], tuple[int, int, int], tuple[int, int]]:
        """The part of the picture to take, its pads (left, top, right) in the crop, and its (height, width)
        there.
        """
        p = self.spec.message.window_data_param
        pad, square, crop = int(p.context_pad), p.crop_mode == "square", self.crop
        x1, y1, x2, y2 = box
        if not pad and not square:
            x2, y2 = min(x2, width - 1), min(y2, height - 1)
            return (x1, y1, x2, y2), (0, 0, 0), (crop, crop)
        half_h, half_w = (y2 - y1 + 1) / 2, (x2 - x1 + 1) / 2
        centre_x, centre_y = x1 + half_w, y1 + half_h
        if square:
            half_h = half_w = max(half_h, half_w)
        context = crop / (crop - 2 * pad)
        x1, x2 = rounded(centre_x - half_w * context), rounded(centre_x + half_w * context)
        y1, y2 = rounded(centre_y - half_h * context), rounded(centre_y + half_h * context)
        scale_x, scale_y = crop / (x2 - x1 + 1), crop / (y2 - y1 + 1)
        pads = [max(0, -x1), max(0, -y1), max(0, x2 - width + 1), max(0, y2 - height + 1)]
        x1, y1, x2, y2 = x1 + pads[0], y1 + pads[1], x2 - pads[2], y2 - pads[3]
        new_width, new_height = rounded((x2 - x1 + 1) * scale_x), rounded((y2 - y1 + 1) * scale_y)
        left, top, right = rounded(pads[0] * scale_x), rounded(pads[1] * scale_y), rounded(pads[2] * scale_x)
        # Rounding may carry the piece a pixel beyond the crop.
        new_height, new_width = min(new_height, crop - top), min(new_width, crop - left)
        return (x1, y1, x2, y2), (left, top, min(right, crop - new_width)), (new_height, new_width)


def rounded(x: float) -> int:
    """Rounded to the nearest integer, halves away from zero, as C's round."""
    return floor(abs(x) + 0.5) * (1 if x >= 0 else -1)
