"""What layer classes say of themselves: every type says it, in words that other rooms know."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import netspec
from netspec.draw.families import COLOURS
from netspec.layers import registry
from netspec.layers.traits import FAMILIES

OURS = {name: kind for name, kind in registry.items() if kind.__module__.startswith("netspec.")}


def test_drawings_have_a_colour_for_every_family() -> None:
    assert tuple(COLOURS) == FAMILIES


FORMATS = ("schema", "interchange", "pycaffe", "data/writing")
"""Rooms that read and write other programs' names of types: old versions, wire numbers, torch, ONNX, pycaffe."""
NAMED = {
    "rendering/levels.py": 13,  # the layers of which a level of a rendering model is made
    "model/model.py": 8,
    "model/pages.py": 2,
    "model/inputs.py": 2,
    "model/rows.py": 1,
    "cli/asking.py": 1,
    "sklearn/training.py": 1,  # the layer that takes the rows
}
"""How often files of other rooms may write a type's name; fewer is better."""


def type_names(path: Path) -> Counter[str]:
    """How often a file writes the name of each registered type as a string, outside `__all__` and annotations."""
    words: Counter[str] = Counter()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            continue
        strings = [
            n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
        words.update(text for text in strings if text in OURS)
    return words


def test_other_rooms_name_no_type() -> None:
    root = Path(netspec.__file__).parent
    places = {str(path.relative_to(root)): path for path in root.rglob("*.py")}
    written = {
        name: type_names(path)
        for name, path in places.items()
        if not name.startswith(("layers/", *(f"{room}/" for room in FORMATS)))
    }
    for name in ("lab/baselines/__init__.py",):  # the imputation called Mean
        written.pop(name, None)
    too_many = {n: dict(w) for n, w in written.items() if w.total() > NAMED.get(n, 0)}
    assert not too_many
