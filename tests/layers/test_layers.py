"""Every layer type, every case, through the checks of netspec.testing."""

from __future__ import annotations

import pytest

from netspec import schema
from netspec.layers import registry
from netspec.layers.base import Layer
from netspec.testing import CHECKS, check_layer
from tests.cases import Case, all_cases, kind_of

CASES = all_cases()
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
OURS = {name: kind for name, kind in registry.items() if kind.__module__.startswith("netspec.")}


def fullest_cases() -> dict[str, Case]:
    """For each type a case, the first with the most bottoms."""
    fullest: dict[str, Case] = {}
    counts: dict[str, int] = {}
    for case in CASES:
        for layer in schema.parse_net(case.text).message.layer:
            if len(layer.bottom) > counts.get(layer.type, -1):
                fullest[layer.type], counts[layer.type] = case, len(layer.bottom)
    return fullest


FULLEST = fullest_cases()
each_type = pytest.mark.parametrize("name", sorted(set(OURS) & set(FULLEST)))
IN_EVERY_RUN = {case.name for case in FULLEST.values()}
one_case_a_type = pytest.mark.parametrize(  # the other cases are slow
    "case",
    [pytest.param(case, marks=() if case.name in IN_EVERY_RUN else pytest.mark.slow) for case in CASES],
    ids=lambda case: case.name,
)


def hold(case: Case, check: str, kind: type[Layer] | None = None) -> None:
    """Run one check; skip where it does not apply."""
    not_applicable = check_layer(kind or kind_of(case), case, [check])[check]
    if not_applicable is not None:
        pytest.skip(not_applicable)


def test_every_type_has_a_case() -> None:
    sources = {name for name, kind in registry.items() if kind.is_source}
    assert set(registry) - set(FULLEST) - sources == set()


def test_names_of_cases_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_check_runs_here() -> None:
    assert set(CHECKS) == {*OF_A_CLASS, "shapes", "bottoms", "gradients", "missing", "compilation", "export"}


OF_A_CLASS = ("family", "roles", "documentation", "cost")


@pytest.mark.parametrize("check", OF_A_CLASS)
@each_type
def test_what_a_class_says(name: str, check: str) -> None:
    hold(FULLEST[name], check, OURS[name])


@pytest.mark.parametrize("name", sorted(set(OURS) - set(FULLEST)))
@pytest.mark.parametrize("check", ["family", "roles", "documentation"])
def test_what_a_source_says(name: str, check: str) -> None:
    CHECKS[check](OURS[name], CASES[0])  # these look at the class alone


@each_case
def test_shapes_and_dtype(case: Case) -> None:
    hold(case, "shapes")


@each_case
def test_bottoms_and_blobs_are_left_alone(case: Case) -> None:
    hold(case, "bottoms")


@one_case_a_type
def test_gradients(case: Case) -> None:
    hold(case, "gradients")


@each_case
def test_missing(case: Case) -> None:
    hold(case, "missing")


@one_case_a_type
def test_compiled_equals_eager(case: Case) -> None:
    hold(case, "compilation")


@one_case_a_type
def test_exports(case: Case) -> None:
    hold(case, "export")
