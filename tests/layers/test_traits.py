"""What layer classes say of themselves: every type says it, in words that other rooms know."""

from __future__ import annotations

import pytest

from netspec.draw.families import COLOURS
from netspec.layers import registry
from netspec.layers.base import Layer, exactly
from netspec.layers.traits import FAMILIES, ROLES

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
