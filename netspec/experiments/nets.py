"""Net files that a rendered solver names."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def own_folder(document: Any, template: Path) -> None:
    """Rewrite a rendered solver's net files so that they are also found beside its template."""
    message = document.message
    if document.kind != "solver":
        return
    for name in ("net", "train_net"):
        if message.HasField(name):
            setattr(message, name, beside(getattr(message, name), template))
    message.test_net[:] = [beside(entry, template) for entry in message.test_net]


def beside(name: str, template: Path) -> str:
    """A file's name; led by the template's folder where the file lies there and not in the working directory."""
    there = template.parent / name
    return str(there.absolute()) if not Path(name).is_file() and there.is_file() else name
