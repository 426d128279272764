"""The plot of a table: accuracy against the amount missing, a panel per kind of missingness, a line per method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netspec.draw.canvas import check_path, figure, write
from netspec.lab.methods import SHIFTED
from netspec.lab.settings import CLEAN
from netspec.lab.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f",
           "#000000")  # fmt: skip
MARKERS = "osD^v<>PX"


def plot(table: Table, path: str | Path, title: str = "", page: tuple[float, float] | None = None) -> Path:
    """Draw `table` to `path` (.png, .svg, .pdf), with its confidence intervals; page: inches wide
    and high.
    """
    path = check_path(path)
    panels = by_kind(table)
    width = max(3.2 * sum(1 + 0.12 * len(names) for names in panels.values()) + 2.4, 6.0)
    fig = figure(*(page or (width, 4.2)), constrained=True)
    ratios = [len(names) + 2 for names in panels.values()]
    axes: Any = fig.subplots(1, len(panels), squeeze=False, sharey=True, width_ratios=ratios)[0]
    for place, (kind, names) in zip(axes, panels.items(), strict=True):
        panel(place, table, kind, names)
    axes[0].set_ylabel("accuracy, %")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    if title:
        fig.suptitle(title, fontsize=11, parse_math=False)
    return write(fig, path)


def by_kind(table: Table) -> dict[str, list[str]]:
    """Settings of each kind in the table's order, led by the clean one where there is one."""
    kinds: dict[str, list[str]] = {}
    for name in table.settings:
        if name != CLEAN:
            kinds.setdefault(name.partition(":")[0], []).append(name)
    if CLEAN not in table.settings:
        return kinds
    return {kind: [CLEAN, *names] for kind, names in kinds.items()} or {CLEAN: [CLEAN]}


def looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each method's line is drawn, no two alike; one averaged over shifts has the colour and marker of the plain
    one, dashed and hollow.
    """
    plain = list(dict.fromkeys(method.removesuffix(SHIFTED) for method in methods))
    styles: dict[str, dict[str, Any]] = {}
    for method in methods:
        number, shifted = plain.index(method.removesuffix(SHIFTED)), method.endswith(SHIFTED)
        turn = number // len(COLOURS)  # beyond the tenth each colour gets another marker and line
        styles[method] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[(number + turn) % len(MARKERS)],
            "linestyle": "--" if shifted else ("-", ":", "-.")[turn % 3],
            "markerfacecolor": "white" if shifted else COLOURS[number % len(COLOURS)],
        }
    return styles


def panel(axes: Axes, table: Table, kind: str, names: list[str]) -> None:
    """One kind of missingness: settings side by side in equal steps, since they have no common scale."""
    styles = looks(list(table.cells))
    for method, row in table.cells.items():
        cells = [(i, row[name]) for i, name in enumerate(names) if name in row]
        centres = [100 * cell.accuracy for _, cell in cells]
        low = [centre - 100 * cell.interval[0] for centre, (_, cell) in zip(centres, cells, strict=True)]
        high = [100 * cell.interval[1] - centre for centre, (_, cell) in zip(centres, cells, strict=True)]
        axes.errorbar(
            [i for i, _ in cells], centres, yerr=[low, high], label=method.replace("$", r"\$"), markersize=4,
            linewidth=1.2, capsize=2, **styles[method],
        )  # fmt: skip
    labels = [name.partition(":")[2] or name for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45 if len(names) > 7 else 0, fontsize=8)
    axes.set_xlabel(XLABELS.get(kind, kind))
    axes.grid(True, color="#e0e0e0", linewidth=0.6)


XLABELS = {
    "iid": "probability of a missing pixel",
    "rects": "missing rectangles, number x width",
    "nonzero": "non-zero pixels deleted",
    "pixels": "pixels drawn",
    "lines": "columns drawn",
}
