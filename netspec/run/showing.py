"""A run as a notebook shows it: where it lies, what its last test gave, its curves."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netspec.run.trainer import Run


def as_html(run: Run) -> str:
    """Folder, iterations and results as a table, with the loss plot below where there is one."""
    lines = [
        ("folder", str(run.folder)),
        ("iteration", f"{run.iteration:,}"),
        ("time of training", f"{run.seconds:.0f} s"),
    ]
    for i, outputs in enumerate(run.results):
        net = f"test {i}, " if len(run.results) > 1 else "test "
        lines += [(net + name, f"{value:.6g}") for name, value in outputs.items() if isinstance(value, float)]
    if run.interrupted:
        lines.append(("state", "stopped before its end"))
    if run.ended:
        lines.append(("ended", run.ended))
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in lines)
    plot = run.folder / "loss.png"
    picture = ""
    if plot.is_file():
        data = base64.b64encode(plot.read_bytes()).decode()
        picture = f'<img alt="loss and tests by iteration" src="data:image/png;base64,{data}">'
    return f"<table>{rows}</table>{picture}"
