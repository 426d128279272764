"""Parameters of a plan: the values that each takes, listed for a grid or drawn for a random search.

Two ways to write them mean the same: the objects of the SimNets fork's hyper_train.py (`{"name": "base_lr", "type":
"sample", "sample_type": "logspace", "min": 0.001, "max": 0.1, "sample_count": 3}`) and short YAML (`base_lr: {logspace:
[0.001, 0.1], count: 3}`).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from netspec.errors import SpecError, did_you_mean

RANGES = ("linspace", "logspace", "uniform", "log_uniform")
LISTS = ("preset", "choice")
PERMUTATIONS = ("radius_permute", "cyclic_shift_permute")
KINDS = (*LISTS, *RANGES, *PERMUTATIONS)
DRAWN = ("choice", "uniform", "log_uniform", "radius_permute")
"""Kinds whose values are random."""
CASTS = ("int", "float", "string")
MOST = 100_000
"""Values of one parameter, and points of one group."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, and what it may be."""

    name: str
    kind: str
    values: tuple[Any, ...] = ()
    """Of kinds preset and choice."""
    low: float = 0.0
    high: float = 0.0
    count: int | None = None
    """Values in a grid; None where the kind itself says."""
    cast: str = ""
    """"int" (cut, not rounded), "float" or "string"; "" as it comes."""
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """(name, values) pairs; the parameter exists only where each named parameter has one of its values."""
    shape: tuple[int, ...] = ()
    """Of permutations: height, width, and max_R or s_x, s_y."""

    @property
    def fixed(self) -> bool:
        """Whether the value is the same in all points."""
        return self.kind == "preset" and len(self.values) == 1 and not self.when

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether the parameter exists, given the values of the parameters before it."""
        return all(name in values and values[name] in allowed for name, allowed in self.when)

    def grid(self, seed: int) -> list[Any]:
        """The values that a grid has."""
        if self.kind == "preset":
            return [self.as_cast(value) for value in self.values]
        number = self.count if self.count is not None else max(1, len(self.values))
        return list(itertools.islice(self.draws(seed), number))

    def draws(self, seed: int) -> Iterator[Any]:
        """An endless stream of values: presets and spaces in turn, other kinds at random; equal seeds give equal
        streams.
        """
        chance = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return (self.as_cast(value) for value in self._endless(chance))

    def _endless(self, chance: np.random.Generator) -> Iterator[Any]:
        if self.kind == "preset":
            return itertools.cycle(self.values)
        if self.kind == "choice":
            return (self.values[chance.integers(len(self.values))] for _ in itertools.repeat(None))
        if self.kind in PERMUTATIONS:
            return itertools.repeat(permutation(self.kind, self.shape, chance))
        if self.kind == "linspace":
            return itertools.cycle(np.linspace(self.low, self.high, self.count or 1).tolist())
        if self.kind == "uniform":
            return (float(chance.uniform(self.low, self.high)) for _ in itertools.repeat(None))
        sign, least, most = self.magnitudes()
        if self.kind == "logspace":
            return itertools.cycle((sign * np.logspace(least, most, self.count or 1)).tolist())
        return (float(sign * 10 ** chance.uniform(least, most)) for _ in itertools.repeat(None))

    def magnitudes(self) -> tuple[int, float, float]:
        """(sign, least, most) of a logarithmic range, the latter as powers of ten."""
        least, most = sorted(np.log10(np.abs([self.low, self.high])).tolist())
        return int(np.sign(self.low)), least, most

    def as_cast(self, value: Any) -> Any:
        """A value converted to its data type; SpecError where it cannot be."""
        try:
            if self.cast == "int":
                return int(float(value)) if isinstance(value, str) else int(value)
            if self.cast == "float":
                return float(value)
            return str(value) if self.cast == "string" else value
        except (TypeError, ValueError, OverflowError):
            raise SpecError(f"parameter {self.name!r}: {value!r} is no {self.cast}") from None


def permutation(kind: str, shape: tuple[int, ...], chance: np.random.Generator) -> str:
    """Of a grid's cells in row order, as layer Permutation takes it: the number of the cell at each place."""
    height, width, *by = shape
    cells = np.arange(height * width).reshape(height, width)
    if kind == "cyclic_shift_permute":
        across, down = by
        cells = np.roll(cells, (down, across), axis=(0, 1))
    else:
        swap_nearby(cells, by[0], chance)
    return ",".join(map(str, cells.ravel().tolist()))


def swap_nearby(cells: np.ndarray[Any, Any], radius: int, chance: np.random.Generator) -> None:
    """Swap cells with neighbours in `radius` rounds, so that no cell ends more than `radius` from its place.

    A swap moves two cells by at most one row and one column; a cell that has moved `radius` times stays.
    """
    height, width = cells.shape
    moves = np.zeros_like(cells)
    for _ in range(radius):
        for place in chance.permutation(cells.size):
            row, column = divmod(int(place), width)
            if moves[row, column] == radius:
                continue
            near = [
                (r, c)
                for r in range(max(0, row - 1), min(height, row + 2))
                for c in range(max(0, column - 1), min(width, column + 2))
                if moves[r, c] < radius
            ]
            other = near[chance.integers(len(near))]
            if other == (row, column):
                continue
            for grid in (cells, moves):
                grid[row, column], grid[other] = grid[other], grid[row, column]
            moves[row, column] += 1
            moves[other] += 1


# Reading


def from_object(entry: Any, search: str) -> Parameter:
    """A parameter as hyper_train.py writes it; `search` of its group. Raises SpecError."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise SpecError("a parameter needs a name, a text")
    name, kind = entry["name"], entry.get("type")
    known: tuple[str, ...] = ("preset", "sample", *PERMUTATIONS)
    what = "type"
    if kind == "sample":
        kind, what, known = entry.get("sample_type"), "sample_type", ("choice", *RANGES)
    if kind not in known:
        hint = did_you_mean(str(kind), known)
        raise SpecError(f"parameter {name!r}: unknown {what} {kind!r}{hint} (known: {', '.join(known)})")
    fields = {
        "values": entry.get("values"),
        "low": entry.get("min"),
        "high": entry.get("max"),
        "count": entry.get("sample_count"),
        "cast": entry.get("data_type") or "",
        "shape": [entry.get(key) for key in shape_keys(kind)],
    }
    return checked(name, kind, search, fields)


def shape_keys(kind: str) -> tuple[str, ...]:
    if kind not in PERMUTATIONS:
        return ()
    return ("height", "width", *(("max_R",) if kind == "radius_permute" else ("s_x", "s_y")))


SHORT = ("count", "type", "when")
"""Keys of the short form other than the kind."""


def from_short(name: str, entry: Any, search: str) -> Parameter:
    """A parameter in short: one value, a list of them, or {kind: values or [low, high], count:, type:, when:}."""
    if not isinstance(entry, Mapping):
        return checked(name, "preset", search, {"values": entry if isinstance(entry, list) else [entry]})
    kinds = [key for key in entry if key in KINDS or key == "values"]
    if unknown := [key for key in entry if key not in (*kinds, *SHORT)]:
        raise SpecError(
            f"parameter {name!r}: unknown key {unknown[0]!r}{did_you_mean(str(unknown[0]), (*KINDS, *SHORT))}"
        )
    if len(kinds) != 1:
        raise SpecError(f"parameter {name!r}: needs one of {', '.join(KINDS)}")
    kind, given = ("preset" if kinds[0] == "values" else kinds[0]), entry[kinds[0]]
    fields: dict[str, Any] = {
        "count": entry.get("count"),
        "cast": entry.get("type") or "",
        "when": entry.get("when"),
    }
    if kind in LISTS:
        fields["values"] = given if isinstance(given, list) else [given]
    elif kind in PERMUTATIONS:
        fields["shape"] = given
    else:
        fields["low"], fields["high"] = given if isinstance(given, list) and len(given) == 2 else (None, None)
    return checked(name, kind, search, fields)


def checked(name: str, kind: str, search: str, fields: Mapping[str, Any]) -> Parameter:
    """A parameter, its numbers looked at; SpecError says what it lacks."""

    def fail(text: str) -> SpecError:
        return SpecError(f"parameter {name!r} ({kind}): {text}")

    cast = fields.get("cast") or ""
    if cast not in ("", *CASTS):
        raise fail(f"unknown data type {cast!r}{did_you_mean(str(cast), CASTS)} (known: {', '.join(CASTS)})")
    values = fields.get("values")
    if kind in LISTS and (not isinstance(values, list) or not values):
        raise fail(f"needs a list of values, found {values!r}")
    count = whole(fields.get("count"))
    if fields.get("count") is not None and (count is None or not 1 <= count <= MOST):
        raise fail(f"needs a count from 1 to {MOST}, found {fields.get('count')!r}")
    if kind in RANGES and count is None:
        if search == "grid":
            raise fail("needs a count of values, as it is part of a grid")
        count = 1
    low, high = bounds(kind, fields, fail)
    sizes = [whole(entry) for entry in fields.get("shape") or ()]
    shape = tuple(size for size in sizes if size is not None)
    keys = shape_keys(kind)
    if keys and (len(shape) != len(keys) or len(sizes) != len(keys) or min(shape[:2]) < 1):
        raise fail(f"needs whole numbers {', '.join(keys)}, found {fields.get('shape')!r}")
    return Parameter(
        name,
        kind,
        tuple(values or ()) if kind in LISTS else (),
        low,
        high,
        count,
        cast,
        condition(fields, fail),
        shape,
    )


def bounds(kind: str, fields: Mapping[str, Any], fail: Any) -> tuple[float, float]:
    """The ends of a range; (0, 0) for kinds without one."""
    if kind not in RANGES:
        return 0.0, 0.0
    low, high = fields.get("low"), fields.get("high")
    try:
        low, high = float(low), float(high)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise fail(f"needs two numbers, min and max, found {low!r} and {high!r}") from None
    if not np.isfinite([low, high]).all():
        raise fail(f"needs finite numbers, found {low} and {high}")
    if low > high:
        raise fail(f"min {low:g} is above max {high:g}")
    if kind.startswith("log") and low * high <= 0:
        raise fail(f"min and max need the same sign, and none may be 0: found {low:g} and {high:g}")
    return low, high


def condition(fields: Mapping[str, Any], fail: Any) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """`when: {model: cnn, depth: [2, 3]}` as pairs."""
    when = fields.get("when")
    if when is None:
        return ()
    if not isinstance(when, Mapping):
        raise fail(f"when needs a mapping of parameters to values, found {when!r}")
    return tuple(
        (str(name), tuple(value) if isinstance(value, list) else (value,)) for name, value in when.items()
    )


def whole(value: Any) -> int | None:
    """A whole number, also one written as 3.0 or "3"; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number == int(number) and not isinstance(value, bool) else None
