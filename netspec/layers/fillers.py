"""Fillers: the initial values of a blob. One function per type, which takes the random generator.

Sources: BVLC include/caffe/filler.hpp and the same file of the SimNets fork (dirichlet, identity, bernoulli, rects).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil, prod, sqrt
from typing import Any

import torch
from torch import Tensor

from netspec.errors import NetspecError, did_you_mean, nearest, one_line

Filler = Callable[[Tensor, Any, torch.Generator | None], None]

fillers: dict[str, Filler] = {}
"""Filler function by type name."""


class FillerError(NetspecError):
    """A filler that cannot fill the given blob; says which field is at fault."""


def fill(blob: Tensor, filler: Any, generator: torch.Generator | None, strict: bool = False) -> None:
    """Fill `blob` in place as the FillerParameter `filler` says; None means zeros.

    generator: source of randomness; None takes torch's default one.
    strict: take the SimNets fork's formula where it differs from BVLC's (type "bilinear") or from what its
    comment promises ("rects" comes out one pixel short per side).
    Raises FillerError for an unknown type or a blob that the type cannot fill.
    """
    if filler is None:
        with torch.no_grad():
            blob.zero_()
        return
    name = chosen(filler, strict)
    with torch.no_grad(), numbers_for(blob, name):
        fillers[name](blob, filler, generator)


def refuse(blob: Tensor, filler: Any, strict: bool = False) -> None:
    """FillerError where `fill` would raise it for this blob, which may be on the meta device: nothing is filled.

    What depends on draws (type "rects", "bernoulli" with `use_range`) is not looked at.
    """
    if filler is None:
        return
    name = chosen(filler, strict)
    with torch.no_grad(), numbers_for(blob, name):
        if name in ("xavier", "msra"):
            sqrt(3.0 / fan(blob, filler))
        elif name in ("bilinear", "bilinear_old"):
            square_side(blob)
        elif name in ROWS:
            ROWS[name](blob, filler)
        elif name in ("constant", "uniform", "gaussian") or (name == "bernoulli" and not filler.use_range):
            fillers[name](torch.empty(1), filler, torch.Generator())


def chosen(filler: Any, strict: bool) -> str:
    """The name of the function that fills; FillerError for an unknown type, or a field that it does not take."""
    name = str("bilinear_old" if strict and filler.type == "bilinear" else filler.type)
    name = "rects_short" if strict and name == "rects" else name
    if name not in fillers:
        near = nearest(name, fillers)
        raise FillerError(f"unknown filler type {name!r}" + (f"; did you mean {near!r}?" if near else ""))
    if filler.sparse >= 0 and name != "gaussian":
        raise FillerError(f"filler {name!r} does not take `sparse`; only 'gaussian' does")
    return name


@contextmanager
def numbers_for(blob: Tensor, name: str) -> Iterator[None]:
    """FillerError for numbers that torch does not take."""
    try:
        yield
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise FillerError(f"filler {name!r} cannot fill {tuple(blob.shape)}: {one_line(error)}") from error


STRICT = ("bilinear_old", "rects_short")
"""Formulas of the SimNets fork, used in place of others of the same name."""


def unknown_types(
    message: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path of its `type`, what is wrong) for every FillerParameter in a message with an unknown type."""
    if message.DESCRIPTOR.name == "FillerParameter":
        if message.type not in fillers:
            known = f"known: {', '.join(name for name in fillers if name not in STRICT)}"
            yield (
                (*path, "type"),
                f"unknown filler {message.type!r}{did_you_mean(message.type, fillers, known)}",
            )
        return
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.name == "blobs":
            continue
        if hasattr(value, "DESCRIPTOR"):
            yield from unknown_types(value, (*path, descriptor.name))
        else:
            for i, element in enumerate(value):
                yield from unknown_types(element, (*path, descriptor.name, i))


def named(name: str) -> Callable[[Filler], Filler]:
    def add(function: Filler) -> Filler:
        fillers[name] = function
        return function

    return add


@named("constant")
def constant(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Every value is `value`."""
    blob.fill_(filler.value)


@named("uniform")
def uniform(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Values ~ U(min, max)."""
    if filler.min > filler.max:
        raise FillerError(f"filler 'uniform': min {filler.min} exceeds max {filler.max}")
    blob.uniform_(filler.min, filler.max, generator=generator)


@named("gaussian")
def gaussian(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Values ~ N(mean, std^2); with `sparse` n, each is kept with probability n / shape[0], else 0."""
    if filler.std < 0:
        raise FillerError(f"filler 'gaussian': std {filler.std} is negative")
    blob.normal_(filler.mean, filler.std, generator=generator)
    if filler.sparse >= 0:
        keep = min(filler.sparse / blob.shape[0], 1.0)
        blob.mul_(torch.empty_like(blob).bernoulli_(keep, generator=generator))


@named("xavier")
def xavier(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Values ~ U(-s, s), s = sqrt(3 / n), n the fan that `variance_norm` chooses (Glorot and Bengio 2010)."""
    scale = sqrt(3.0 / fan(blob, filler))
    blob.uniform_(-scale, scale, generator=generator)


@named("msra")
def msra(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Values ~ N(0, 2 / n), n the fan that `variance_norm` chooses (He et al. 2015)."""
    blob.normal_(0.0, sqrt(2.0 / fan(blob, filler)), generator=generator)


def fan(blob: Tensor, filler: Any) -> float:
    """FAN_IN: count / shape[0]. FAN_OUT: count / shape[1]. AVERAGE: their mean."""
    fan_in = blob.numel() / blob.shape[0]
    fan_out = blob.numel() / (blob.shape[1] if blob.dim() > 1 else 1)
    if filler.variance_norm == filler.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_out if filler.variance_norm == filler.FAN_OUT else fan_in


@named("bilinear")
def bilinear(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Every HxH plane is the kernel of bilinear upsampling, centred for even and odd H alike."""
    side = square_side(blob)
    half = ceil(side / 2)
    tent(blob, half, (side - 1) / (2 * half))


@named("bilinear_old")
def bilinear_old(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """The kernel as Caffe had it before 2016 (and the SimNets fork has): off centre for some sizes."""
    half = ceil(square_side(blob) / 2)
    tent(blob, half, (2 * half - 1 - half % 2) / (2 * half))


def square_side(blob: Tensor) -> int:
    if blob.dim() != 4 or blob.shape[2] != blob.shape[3]:
        raise FillerError(
            f"filler 'bilinear' needs a blob of square planes (N, C, H, H), found {tuple(blob.shape)}"
        )
    return blob.shape[3]


@named("diagonal")
def diagonal(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Plane (n, n) is `diag_val` n (1 where not given) over its size, every other plane zero."""
    has_planes(blob, filler)
    blob.zero_()
    size = prod(blob.shape[2:])
    for n in range(min(blob.shape[:2])):
        blob[n, n] = (filler.diag_val[n] if n < len(filler.diag_val) else 1.0) / size


def has_planes(blob: Tensor, filler: Any) -> None:
    if blob.dim() < 2:
        raise FillerError(f"filler 'diagonal' needs a blob (N, C, ...), found {tuple(blob.shape)}")


def tent(blob: Tensor, half: int, centre: float) -> None:
    line = 1 - (torch.arange(blob.shape[3], dtype=torch.float64) / half - centre).abs()
    blob.copy_((line[:, None] * line[None, :]).expand(blob.shape))


@named("positive_unitball")
def positive_unitball(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Rows of U(0, 1) divided by their sum; a row is `primal_dim` values, or all that follow shape[0]."""
    rows = torch.empty(row_shape(blob, filler), dtype=torch.float64).uniform_(0, 1, generator=generator)
    blob.copy_(to_log(rows / rows.sum(1, keepdim=True), filler).view(blob.shape))


@named("dirichlet")
def dirichlet(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Rows ~ Dirichlet(alpha, ..., alpha) over the first `filled_size` entries, zero beyond; see `to_log`."""
    n, dim, used = filled_rows(blob, filler)
    gamma = torch._standard_gamma(
        torch.full((n, used), filler.alpha, dtype=torch.float64), generator=generator
    )
    rows = torch.zeros(n, dim, dtype=torch.float64)
    rows[:, :used] = gamma / gamma.sum(1, keepdim=True)
    blob.copy_(to_log(rows, filler).view(blob.shape))


def filled_rows(blob: Tensor, filler: Any) -> tuple[int, int, int]:
    """Number and length of a Dirichlet filler's rows, and how much of each is filled."""
    if filler.alpha <= 0:
        raise FillerError(f"filler 'dirichlet': alpha {filler.alpha} is not positive")
    n, dim = row_shape(blob, filler)
    used = filler.filled_size if filler.filled_size > 0 else dim
    if used > dim:
        raise FillerError(f"filler 'dirichlet': filled_size {used} exceeds the row length {dim}")
    return n, dim, used


@named("identity")
def identity(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Row i is zero but for a 1 at column i mod `cyclic_length` (default: the row length)."""
    n, dim, cycle = cyclic_rows(blob, filler)
    rows = torch.zeros(n, dim, dtype=torch.float64)
    rows[torch.arange(n), torch.arange(n) % cycle] = 1
    blob.copy_(to_log(rows, filler).view(blob.shape))


def cyclic_rows(blob: Tensor, filler: Any) -> tuple[int, int, int]:
    """Number and length of an identity filler's rows, and after how many columns the ones begin anew."""
    n, dim = row_shape(blob, filler)
    cycle = filler.cyclic_length if filler.cyclic_length > 0 else dim
    if cycle > dim:
        raise FillerError(f"filler 'identity': cyclic_length {cycle} exceeds the row length {dim}")
    return n, dim, cycle


@named("bernoulli")
def bernoulli(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """1 with probability p, else 0; `to_log`: 0 with probability p, else `fudge_factor` (a large negative number).

    p is `non_zero_probability`, or with `use_range` one draw ~ U(min, max) for the whole blob.
    """
    p = filler.non_zero_probability
    if filler.use_range:
        p = float(torch.empty(()).uniform_(filler.min, filler.max, generator=generator))
    if not 0 <= p <= 1:
        raise FillerError(f"filler 'bernoulli': probability {p} is outside [0, 1]")
    if filler.to_log:
        blob.bernoulli_(1 - p, generator=generator).mul_(filler.fudge_factor)
    else:
        blob.bernoulli_(p, generator=generator)


@named("rects")
def rects(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """Zeros with rectangles of ones: their number is drawn once, their places and sides for each sample."""
    draw_rects(blob, filler, generator, shorter=0)


@named("rects_short")
def rects_short(blob: Tensor, filler: Any, generator: torch.Generator | None) -> None:
    """`rects` as the SimNets fork draws them: each side one pixel shorter than asked for."""
    draw_rects(blob, filler, generator, shorter=1)


MOST_RECTS = 10_000
"""Rectangles of a sample: they are drawn one by one."""


def draw_rects(blob: Tensor, filler: Any, generator: torch.Generator | None, shorter: int) -> None:
    if blob.dim() != 4:
        raise FillerError(f"filler 'rects' needs a blob (N, C, H, W), found {tuple(blob.shape)}")

    def draw(most: int) -> int:
        return int(torch.randint(max(most, 0) + 1, (), generator=generator))

    def side(length: int) -> slice:
        start = draw(length - min(max(filler.min_width, 1), length))
        extra = draw(min(length - start - filler.min_width, filler.max_width - filler.min_width))
        return slice(start, max(start, start + filler.min_width + extra - shorter))

    blob.zero_()
    if filler.max_rects <= 0 or filler.max_width <= 0:
        return
    if max(filler.min_rects, filler.max_rects) > MOST_RECTS:
        raise FillerError(f"filler 'rects': more than {MOST_RECTS} are not drawn")
    count = filler.min_rects + draw(filler.max_rects - filler.min_rects)
    for sample in blob:
        for _ in range(count):
            columns, rows = side(blob.shape[3]), side(blob.shape[2])
            sample[:, rows, columns] = 1
    if filler.to_log:
        blob.mul_(filler.fudge_factor)


def row_shape(blob: Tensor, filler: Any) -> tuple[int, int]:
    """(number of rows, row length): `primal_dim` long if given, else one row for each index of the first axis."""
    if filler.primal_dim <= 0:
        return blob.shape[0], prod(blob.shape[1:])
    if blob.numel() % filler.primal_dim:
        raise FillerError(f"primal_dim {filler.primal_dim} does not divide the blob's {blob.numel()} values")
    return blob.numel() // filler.primal_dim, filler.primal_dim


def to_log(rows: Tensor, filler: Any) -> Tensor:
    """log(rows + fudge_factor) when the filler says `to_log`, else the rows."""
    return (rows + filler.fudge_factor).log() if filler.to_log else rows


ROWS: dict[str, Callable[[Tensor, Any], object]] = {
    "positive_unitball": row_shape, "dirichlet": filled_rows, "identity": cyclic_rows, "diagonal": has_planes,
}  # fmt: skip
"""What each of these looks at of a blob's shape and its own fields before it fills."""
