"""Masks of missing pixels. One convention: 1 (True) is observed, 0 (False) is missing.

A mask depends on the seed and the image's key alone, so that it is the same for any batch size and order. The kinds:

iid        each pixel is missing with probability `probability`
rects      `count` rectangles of `width` x `height` pixels (default square), wholly inside, may overlap
           (Generative-ConvACs: px ~ U{0 .. W - width}, py likewise)
nonzero    `count` of the image's non-zero pixels, without replacement; all of them when there are fewer
           (Globerson and Roweis 2006, Dekel and Shamir 2008)
pixels     `count` draws of a pixel with replacement (Zethraeus 2019)
lines      `count` draws of a column with replacement (Zethraeus 2019)
square     one square of side `width` (default half the image's shorter side), corner ~ U{0 .. size - width -
           1} as MisConv's program draws it
trapezoid  a quadrilateral with two horizontal sides that covers `probability` (default 0.5) of the area; its
           height, its sides' lengths and its place are random (MisConv's text does not give the shape)
noise      exactly the share `probability` (default 0.75) of the pixels, chosen without replacement (MisConv)
mar        the rule of MIWAE's experiments: with h = the mean of the lower half + 0.3 (pixels in 0..1), k ~
           Binomial(2, h); k = 0 hides the second quarter of the rows, k = 1 the upper half, k = 2 the first
           quarter
file       masks from `source`: idx, npy, npz (array `mask`), png, or a folder of png files in the order of
           their names; one mask for all images or one each; not 0 is observed, unless `missing_is_one`

Where a field is given several times, each image draws one of its values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netspec.data.draws import derive, integers, uniform
from netspec.data.files import idx
from netspec.data.files.idx import Array
from netspec.data.files.images import decode
from netspec.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Missing:
    """How pixels go missing; see the module's docstring for the kinds and which numbers they use."""

    kind: str
    probability: Sequence[float] = ()
    count: Sequence[int] = ()
    width: Sequence[int] = ()
    height: Sequence[int] = ()
    seed: int = 0
    value: float = float("nan")
    """The value of a missing pixel after the transform."""
    per_channel: bool = False
    """Each channel gets its own mask (the two cameras of NORB)."""
    source: str = ""
    missing_is_one: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            hint = did_you_mean(self.kind, KINDS, f"known: {', '.join(KINDS)}")
            raise DataError(f"no kind of missingness is called {self.kind!r}{hint}")
        for name in NEEDS[self.kind]:
            if not getattr(self, name):
                raise DataError(f"missing data of kind {self.kind!r} needs a {name}")
        if not all(0 <= p <= 1 for p in self.probability):
            raise DataError(f"a probability of missing data is outside 0 to 1: {list(self.probability)}")

    @classmethod
    def of(cls, param: Any, seed: int) -> Missing:
        """From a MissingParameter; its own seed takes precedence over `seed`."""
        return cls(
            kind=param.kind,
            probability=tuple(param.probability),
            count=tuple(param.count),
            width=tuple(param.width),
            height=tuple(param.height),
            seed=param.seed if param.HasField("seed") else seed,
            value=param.value,
            per_channel=param.per_channel,
            source=param.source,
            missing_is_one=param.missing_is_one,
        )

    def mask(self, images: Array, keys: Array) -> Array:
        """(N, 1, H, W) bool, or (N, C, H, W) with `per_channel` and where a mask file has channels.

        images: (N, C, H, W) raw pixels 0..255; only nonzero and mar look at values. keys: one integer per image.
        """
        keys = np.asarray(keys)
        if not self.per_channel or self.kind == "file":
            return KINDS[self.kind](self, images, keys, self.seed)
        channels = [
            KINDS[self.kind](self, images[:, c : c + 1], keys, derive(self.seed, "channel", c))
            for c in range(images.shape[1])
        ]
        return np.concatenate(channels, axis=1)

    def larger(self, shape: Sequence[int]) -> bool:
        """Whether a rectangle or a square reaches beyond images of `shape` (H, W)."""
        if self.kind not in ("rects", "square"):
            return False
        return max(self.width, default=0) > shape[1] or max(self.height or self.width, default=0) > shape[0]

    def choose(self, name: str, keys: Array, seed: int, default: float | None = None) -> Array:
        """One of the given values of a number for each key."""
        values = np.array(getattr(self, name) or [default])
        if len(values) == 1:
            return np.repeat(values, len(keys))
        chosen: Array = values[integers(derive(seed, "choice", name), keys, 1, len(values))[:, 0]]
        return chosen


def iid(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    n, _, height, width = images.shape
    draws = uniform(derive(seed, "iid"), keys, height * width)
    return (draws >= how.choose("probability", keys, seed)[:, None]).reshape(n, 1, height, width)


def rects(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    n, _, image_height, image_width = images.shape
    counts = how.choose("count", keys, seed)
    widths = how.choose("width", keys, seed)
    heights = how.choose("height", keys, seed) if how.height else widths
    widths, heights = widths.clip(1, image_width), heights.clip(1, image_height)
    most = int(counts.max(initial=0))
    room = np.stack([image_height - heights + 1, image_width - widths + 1], 1)
    corners = integers(derive(seed, "rects"), keys, 2 * most, np.tile(room, (1, most))).reshape(n, most, 2)
    missing = np.zeros((n, image_height, image_width), bool)
    rows, columns = np.arange(image_height), np.arange(image_width)
    for i in range(most):
        y, x = corners[:, i, 0, None], corners[:, i, 1, None]
        in_rows = (rows >= y) & (rows < y + heights[:, None]) & (i < counts)[:, None]
        in_columns = (columns >= x) & (columns < x + widths[:, None])
        missing |= in_rows[:, :, None] & in_columns[:, None, :]
    return ~missing[:, None]


def nonzero(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    n, _, height, width = images.shape
    candidates = (images != 0).any(1).reshape(n, -1)
    draws = np.where(candidates, uniform(derive(seed, "nonzero"), keys, height * width), 2.0)
    ranks = draws.argsort(1, kind="stable").argsort(1)
    missing = candidates & (ranks < how.choose("count", keys, seed)[:, None])
    observed: Array = ~missing.reshape(n, 1, height, width)
    return observed


def pixels(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    n, _, height, width = images.shape
    hit = drawn(height * width, how.choose("count", keys, seed), derive(seed, "pixels"), keys)
    return ~hit.reshape(n, 1, height, width)


def lines(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    n, _, height, width = images.shape
    hit = drawn(width, how.choose("count", keys, seed), derive(seed, "lines"), keys)
    return ~np.broadcast_to(hit[:, None, None, :], (n, 1, height, width))


def drawn(n: int, counts: Array, seed: int, keys: Array) -> Array:
    """(len(keys), n) bool: which of n items `counts` draws with replacement hit."""
    most = int(counts.max(initial=0))
    draws = integers(seed, keys, most, n)
    hit = np.zeros((len(keys), n), bool)
    rows = np.repeat(np.arange(len(keys)), most)
    used = (np.arange(most) < counts[:, None]).ravel()
    hit[rows[used], draws.ravel()[used]] = True
    return hit


def square(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    _n, _, height, width = images.shape
    sides = how.choose("width", keys, seed, min(height, width) // 2).clip(1, min(height, width))
    room = np.stack([np.maximum(height - sides, 1), np.maximum(width - sides, 1)], 1)
    corners = integers(derive(seed, "square"), keys, 2, room)
    rows, columns = np.arange(height) - corners[:, :1], np.arange(width) - corners[:, 1:]
    in_rows, in_columns = (rows >= 0) & (rows < sides[:, None]), (columns >= 0) & (columns < sides[:, None])
    return ~(in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def trapezoid(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    _n, _, height, width = images.shape
    area = how.choose("probability", keys, seed, 0.5) * height * width
    draws = uniform(derive(seed, "trapezoid"), keys, 5)
    least = np.ceil(area / width).astype(int).clip(1, height)
    tall = least + (draws[:, 0] * (height - least + 1)).astype(int)
    middle = area / tall
    spread = (2 * draws[:, 1] - 1) * np.minimum(middle, width - middle)
    first_row = (draws[:, 2] * (height - tall + 1)).astype(int)
    upper, lower = middle + spread, middle - spread
    upper_left, lower_left = draws[:, 3] * (width - upper), draws[:, 4] * (width - lower)
    rows = np.arange(height)[None] - first_row[:, None]
    share = (rows + 0.5) / tall[:, None]
    left = upper_left[:, None] * (1 - share) + lower_left[:, None] * share
    right = left + upper[:, None] * (1 - share) + lower[:, None] * share
    columns = np.arange(width) + 0.5
    inside = (columns >= left[..., None]) & (columns < right[..., None])
    inside &= ((rows >= 0) & (rows < tall[:, None]))[..., None]
    observed: Array = ~inside[:, None]
    return observed


def noise(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    n, _, height, width = images.shape
    counts = np.rint(how.choose("probability", keys, seed, 0.75) * height * width)
    ranks = uniform(derive(seed, "noise"), keys, height * width).argsort(1, kind="stable").argsort(1)
    observed: Array = ranks >= counts[:, None]
    return observed.reshape(n, 1, height, width)


def mar(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    n, _, height, width = images.shape
    h = images[:, :, height // 2 :].mean((1, 2, 3)) / 255 + 0.3
    k = (uniform(derive(seed, "mar"), keys, 2) < h[:, None]).sum(1)
    rows = np.arange(height)
    first, second = rows < height // 4, (rows >= height // 4) & (rows < height // 2)
    missing = np.stack([second, first | second, first])[k]
    return ~np.broadcast_to(missing[:, None, :, None], (n, 1, height, width))


def from_file(how: Missing, images: Array, keys: Array, seed: int) -> Array:
    n, channels, height, width = images.shape
    masks = read_masks(Path(how.source))
    masks = masks[:, None] if masks.ndim == 3 else masks
    if masks.shape[1] not in (1, channels) or masks.shape[2:] != (height, width):
        raise DataError(
            f"{how.source}: masks of shape {masks.shape[1:]} for images of shape {images.shape[1:]}"
        )
    if len(masks) > 1 and len(masks) <= keys.max(initial=0):
        raise DataError(f"{how.source}: holds {len(masks)} masks, image number {keys.max()} needs one")
    chosen = masks[keys] if len(masks) > 1 else np.repeat(masks, n, 0)
    observed: Array = (chosen != 0) ^ how.missing_is_one
    return observed


_files: dict[Path, tuple[int, Array]] = {}


def read_masks(path: Path) -> Array:
    """(N, H, W) or (N, C, H, W) from a mask file or a folder of png files; kept until the file changes."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"{path}: no such mask file") from error
    if path in _files and _files[path][0] == stamp:
        return _files[path][1]
    if path.is_dir():
        names = sorted(path.glob("*.png"))
        planes = [decode(name, False, str(name)) for name in names]
        if not planes or len({plane.shape for plane in planes}) > 1:
            raise DataError(f"{path}: holds no png files, or of different sizes")
        masks = np.concatenate(planes) > 127
    elif path.suffix == ".png":
        masks = decode(path, False, str(path)) > 127
    elif path.suffix == ".npy":
        masks = idx.npy(path)
    elif path.suffix == ".npz":
        masks = idx.Npz(path).read("mask")
    else:
        masks = idx.read(path)
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim not in (3, 4):
        raise DataError(f"{path}: holds shape {masks.shape}, masks are (H, W), (N, H, W) or (N, C, H, W)")
    _files.clear()
    _files[path] = (stamp, masks)
    return masks


KINDS: dict[str, Callable[[Missing, Array, Array, int], Array]] = {
    "iid": iid,
    "rects": rects,
    "nonzero": nonzero,
    "pixels": pixels,
    "lines": lines,
    "square": square,
    "trapezoid": trapezoid,
    "noise": noise,
    "mar": mar,
    "file": from_file,
}

NEEDS: dict[str, tuple[str, ...]] = dict.fromkeys(KINDS, ()) | {
    "iid": ("probability",),
    "rects": ("count", "width"),
    "nonzero": ("count",),
    "pixels": ("count",),
    "lines": ("count",),
    "file": ("source",),
}
