"""What layer classes say of themselves: every type says it, in words that other rooms know."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import netspec
from netspec import schema
from netspec.draw.families import COLOURS
from netspec.layers import registry
from netspec.layers.base import Layer, exactly
from netspec.layers.traits import FAMILIES, ROLES
from netspec.net.make import make_net
from tests.cases import Case, all_cases

OURS = {name: kind for name, kind in registry.items() if kind.__module__.startswith("netspec.")}


def says(kind: type[Layer], name: str) -> bool:
    """Whether a class, or one between it and Layer, sets the attribute."""
    return any(name in vars(base) for base in kind.__mro__[: kind.__mro__.index(Layer)])


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_type_says_its_family_and_the_roles_of_its_bottoms(name: str) -> None:
    kind = OURS[name]
    assert says(kind, "family")
    assert kind.family in FAMILIES
    assert says(kind, "roles")
    assert set(kind.roles) <= set(ROLES)
    assert bool(kind.roles) == (kind.bottoms != exactly(0)) or name == "Python"
    assert kind.bottoms.most is None or len(kind.roles) <= kind.bottoms.most
    assert (kind.family == "loss") == kind.is_loss
    assert kind.family == "data" or not kind.is_source


def test_drawings_have_a_colour_for_every_family() -> None:
    assert tuple(COLOURS) == FAMILIES


def first_cases() -> dict[str, Case]:
    """For each type a case, the first with the most bottoms."""
    found: dict[str, Case] = {}
    counts: dict[str, int] = {}
    for case in all_cases():
        for layer in schema.parse_net(case.text).message.layer:
            if len(layer.bottom) > counts.get(layer.type, -1):
                found[layer.type], counts[layer.type] = case, len(layer.bottom)
    return found


CASES = first_cases()


@pytest.mark.parametrize("name", sorted(set(OURS) & set(CASES)))
def test_a_type_with_weights_or_two_maps_says_how_many_products_it_adds_up(name: str) -> None:
    case = CASES[name]
    net = make_net(case.text, case.phase, device="meta")
    for step, layer in zip(net.graph.steps, net.made, strict=True):
        if step.layer.type != name:
            continue
        maps = [i for i in range(len(step.reads)) if layer.role(i, len(step.reads)) == "image"]
        if layer.blobs or (len(maps) > 1 and not layer.paired):
            number = layer.multiply_adds(
                [net.shapes[slot] for slot in step.reads], [net.shapes[slot] for slot in step.writes]
            )
            assert number is not None
            assert number > 0 or says(type(layer), "products") or says(type(layer), "multiply_adds")


FORMATS = ("schema", "interchange", "pycaffe", "data/writing")
"""Rooms that read and write other programs' names of types: old versions, wire numbers, torch, ONNX, pycaffe."""
NAMED = {
    "rendering/levels.py": 13,  # the layers of which a level of a rendering model is made
    "model/model.py": 8,
    "model/pages.py": 2,
    "model/inputs.py": 2,
    "model/rows.py": 1,
    "cli/asking.py": 1,
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
