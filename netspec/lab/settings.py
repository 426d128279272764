"""Settings of the laboratory: a way of going missing, written as on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netspec.data.draws import derive
from netspec.data.files.idx import Array
from netspec.data.masks import Missing
from netspec.errors import DataError, did_you_mean

CLEAN = "clean"


@dataclass(frozen=True)
class Setting:
    """One column of a table: its name, such as "iid:0.25" or "rects:1x7", and how pixels go missing (None:
    not).
    """

    name: str
    how: Missing | None

    def observed(self, pixels: Array, keys: Array, seed: int, repeat: int = 0) -> Array:
        """(N, 1 or C, H, W) bool, true where observed; a function of the seed, the setting, the repeat and
        the keys.
        """
        if self.how is None:
            return np.ones((len(pixels), 1, *pixels.shape[2:]), bool)
        seeded = replace(self.how, seed=derive(seed, "laboratory", self.name, repeat))
        return seeded.mask(pixels, keys)

    def larger(self, shape: Sequence[int]) -> str:
        """What is to be said where the mask of this setting is larger than images of `shape` (H, W); else ""."""
        return (
            ""
            if self.how is None or not self.how.larger(shape)
            else (f"{self.name}: is larger than the images of {shape[0]}x{shape[1]}, and cut to them")
        )


def parse(text: str, per_channel: bool = False) -> Setting:
    """A setting from its name: clean, or <kind>:<number>.

    iid:P  rects:NxW or rects:NxWxH  nonzero:N  pixels:N  lines:N  square[:W]  trapezoid[:P]  noise[:P]  mar
    file:PATH
    (see `netspec.data.masks`). Raises DataError that says what was expected.
    """
    kind, _, argument = (part.strip() for part in text.partition(":"))
    if kind == CLEAN and not argument:
        return Setting(CLEAN, None)
    if kind not in FORMS:
        raise DataError(
            f"no missingness is called {kind!r}" + did_you_mean(kind, FORMS, f"known: {', '.join(FORMS)}")
        )
    form, read = FORMS[kind]
    try:
        numbers = read(argument)
    except ValueError:
        raise DataError(f"{text!r}: expected {form}") from None
    return Setting(
        f"{kind}:{argument}" if argument else kind, Missing(kind, per_channel=per_channel, **numbers)
    )


def parse_all(
    iid: Iterable[str] = (), rects: Iterable[str] = (), others: Iterable[str] = (), clean: bool = True
) -> list[Setting]:
    """Settings of a command line: values of --iid and --rects, further settings by name, and clean first."""
    names = [*(f"iid:{p}" for p in iid), *(f"rects:{r}" for r in rects), *others]
    return [parse(name) for name in ([CLEAN] if clean else []) + [name for name in names if name != CLEAN]]


def _probability(text: str) -> dict[str, Any]:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return {"probability": (value,)}


def _whole(name: str) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        if int(text) < 0:
            raise ValueError
        return {name: (int(text),)}

    return read


def _rects(text: str) -> dict[str, Any]:
    numbers = [int(part) for part in text.split("x")]
    if len(numbers) not in (2, 3) or min(numbers) < 0 or min(numbers[1:]) < 1:
        raise ValueError
    return dict(zip(("count", "width", "height"), ((n,) for n in numbers), strict=False))


def _optional(read: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    return lambda text: read(text) if text else {}


def _nothing(text: str) -> dict[str, Any]:
    if text:
        raise ValueError
    return {}


def _path(text: str) -> dict[str, Any]:
    if not text:
        raise ValueError
    return {"source": text}


FORMS: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "iid": ("iid:P with a probability P", _probability),
    "rects": ("rects:NxW or rects:NxWxH, N rectangles W wide and H high", _rects),
    "nonzero": ("nonzero:N, N non-zero pixels", _whole("count")),
    "pixels": ("pixels:N draws of a pixel", _whole("count")),
    "lines": ("lines:N draws of a column", _whole("count")),
    "square": ("square or square:W, its side", _optional(_whole("width"))),
    "trapezoid": ("trapezoid or trapezoid:P, its share of the area", _optional(_probability)),
    "noise": ("noise or noise:P, its share of the pixels", _optional(_probability)),
    "mar": ("mar without a number", _nothing),
    "file": ("file:PATH", _path),
}

FIG_4 = parse_all(
    ("0.25", "0.5", "0.75", "0.9", "0.95", "0.99"), [f"{n}x{w}" for n in (1, 2, 3) for w in (7, 11, 15)]
)
"""Clean and the 15 settings of Fig. 4 of Sharir et al. 2018."""
