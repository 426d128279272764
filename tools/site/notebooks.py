"""Notebooks as pages of the site: their texts, their code, and what it printed and drew."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any


def as_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """(the page, its pictures by file name) of a notebook that was run."""
    lines: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for part, output in enumerate(cell.get("outputs", [])):
            lines += shown(output, f"{path.stem}_{number}_{part}", pictures)
    return "\n".join(lines), pictures


def shown(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> list[str]:
    """Lines that show one output of a cell; pictures are added to `pictures`."""
    data = output.get("data", {})
    if "image/svg+xml" in data:
        pictures[f"{name}.svg"] = "".join(data["image/svg+xml"]).encode()
        return [f"![what the cell drew]({name}.svg)", ""]
    if "image/png" in data:
        pictures[f"{name}.png"] = base64.b64decode("".join(data["image/png"]))
        return [f"![what the cell drew]({name}.png)", ""]
    if "text/html" in data:
        return ["".join(data["text/html"]), ""]
    text = "".join(output.get("text", data.get("text/plain", "")))
    return ["```text", text.rstrip("\n"), "```", ""] if text else []
