"""Nets for the user's own data, made from templates: which values may be chosen, and writing both files or neither."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from netspec.data.files.idx import Array
from netspec.data.tables.split import TEST, Split
from netspec.errors import DataError, NetspecError, did_you_mean
from netspec.schema import shipped
from netspec.schema.templates import render


def held_out(test: float, count: int, labels: Array | None, source: str) -> tuple[int, str]:
    """(how many examples a test share takes, what is to be said where there are too few of them to take any)."""
    if not test:
        return 0, ""
    try:
        return len(Split(TEST, test=test).rows(count, labels)), ""
    except DataError:  # of an empty part
        what = "1 example is" if count == 1 else f"{count} examples are"
        return 0, f"{source}: {what} too few to hold out {test:g} of them; all are trained on"


def whole_batches(examples: int, most: int = 1000) -> tuple[int, int]:
    """(size, number) of batches that test each of `examples` examples exactly once.

    The size is the largest divisor of `examples` that is at most `most`; where that is small, all at once.
    """
    if not examples:
        return 0, 1
    size = next((size for size in range(min(examples, most), 0, -1) if examples % size == 0), 1)
    return (size, examples // size) if size * 20 >= min(examples, most) else (examples, 1)


def checked(settings: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The settings, unchanged; NetspecError lists the template's values where one is unknown."""
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known, f"there are {', '.join(known)}")
            raise NetspecError(f"--set {name}: no such value{hint}")
    return dict(settings)


def solver_of(net: Path) -> Path:
    """The name of a net's solver."""
    return net.with_name(f"{net.stem}_solver.prototxt")


def next_steps(net: Path, solver: Path, question: str) -> str:
    """The two files, and what to type next."""
    return f"{net}\n{solver}\nnext: netspec train {net}\nthen: {question}"


def write_both(net: Path, solver: Path, template: str, values: Mapping[str, Any]) -> None:
    """Render <template>.prototmp and <template>_solver.prototmp to net and solver; where one fails, neither is left.

    DataError where one of them is there already.
    """
    texts = {
        path: render(shipped.folder() / f"{template}{end}.prototmp", values)
        for path, end in ((net, ""), (solver, "_solver"))
    }
    written: list[Path] = []
    try:
        for path, text in texts.items():
            if path.exists():
                raise DataError(f"{path}: exists; remove it, or give another --out")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except BaseException:
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise
