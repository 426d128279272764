"""Reading, shaping and asking a net import neither a compiler nor sympy: they take as long again as torch itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from netspec.net.meta import ALGEBRA, MARK, OF_NUMBERS, SIZES, SYMBOLS, StandIn, guarded, without_compiler
from tests.places import ROOT

LOOK = "import sys; assert 'torch' in sys.modules; print([n for n in sys.modules if n in ('torch._dynamo', 'sympy')])"


@pytest.mark.parametrize(
    "script",
    [
        "import netspec; netspec.load('nets/ht_cac_digits.prototxt')",
        "from netspec.cli import app; app(['check', 'nets/ht_cac_digits.prototxt'], standalone_mode=False)",
        "import netspec, torch; m = netspec.load('nets/ht_cac_digits.prototxt'); x = torch.zeros(2, 1, 8, 8); "
        "x[0] = torch.nan; m.posterior(x); m.complete(x); m.most_probable_completion(x); "
        "m.expected_completion(x); m.marginals(x)",
    ],
    ids=["load", "check", "queries"],
)
def test_no_compiler_is_imported(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\n{LOOK}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_torch_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [hasattr(function, MARK) for function in guarded()]
    assert before  # else this torch is built in another way, and the module can go
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    with without_compiler():
        assert all(hasattr(function, MARK) for function in guarded())
        assert torch.empty(3, device="meta").exp().shape == (3,)
    assert [hasattr(function, MARK) for function in guarded()] == before


NUMBERS = {
    "sym_and": [(True,), (True, False), (True, True, True)],
    "sym_or": [(False,), (True, False), (False, False)],
    "sym_eq": [(2, 2), (2, 3), ((2, 3), (2, 3)), ((2, 3), (2, 4)), ((2,), (2, 3)), (((1,), 2), ((1,), 2))],
    "is_nested_int": [(3,)],
    "has_guarding_hint": [(3,), (True,)],
    "guarding_hint_or_throw": [(3,), (0,), (True,), (False,)],
}


@pytest.mark.filterwarnings("ignore:guard_size_oblivious:FutureWarning")  # torch still calls it
@pytest.mark.parametrize("name", OF_NUMBERS)
def test_numbers_are_answered_as_torch_answers(name: str) -> None:
    from torch.fx.experimental import symbolic_shapes

    own = getattr(symbolic_shapes, name, None)
    if own is None:
        pytest.skip("this torch has no such function")
    for values in NUMBERS.get(name, [(True,), (False,)]):
        found, wanted = OF_NUMBERS[name](*values), own(*values)
        assert (found, type(found)) == (wanted, type(wanted))


def test_what_is_no_number_goes_to_torch() -> None:
    from torch.fx.experimental import symbolic_shapes

    size = symbolic_shapes.ShapeEnv().create_unbacked_symint()
    assert SIZES["is_nested_int"](size) is False
    assert isinstance(SIZES["sym_eq"](size, 3), torch.SymBool)
    assert SIZES["guard_or_false"](size == 7) is False
    with pytest.raises(AssertionError):
        SIZES["guard_or_false"]("text")


@pytest.mark.slow
@pytest.mark.parametrize(
    "inside",
    [
        "from torch.fx.experimental.symbolic_shapes import ShapeEnv, guard_or_false; ShapeEnv()",
        "import sympy; assert sympy.core.numbers.Integer(2) + 1 == 3",
        "from sympy import Integer; from sympy.core.numbers import Rational; assert Integer(2) + Rational(1) == 3",
        "import sympy; kept = sympy.Basic; assert not isinstance(3, kept)",
        "import torch.utils._sympy.functions",
        "import sympy as held",
        "pass",
    ],
)
def test_the_modules_themselves_are_there_when_they_are_needed(inside: str) -> None:
    """What takes the place of a module lets go of it; nets are exported with symbolic sizes afterwards."""
    held = 'assert held.Symbol("x") + 0 == sympy.Symbol("x") and issubclass(sympy.Symbol, held.Basic)'
    script = f"""
import sys, torch
from netspec.net.meta import StandIn, without_compiler
with without_compiler():
    assert (torch.empty(2, 1, device="meta") * torch.empty(3, device="meta")).shape == (2, 3)
    {inside}
    assert (torch.empty(2, 1, device="meta") * torch.empty(3, device="meta")).shape == (2, 3)
assert not [name for name, module in sys.modules.items() if isinstance(module, StandIn)]
n = torch.export.Dim("n", min=2)
made = torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(4, 3),), dynamic_shapes=({{0: n}},))
assert made.module()(torch.zeros(7, 3)).shape == (7, 2)
import sympy
assert sympy.Integer(2) + sympy.Symbol("x") - 2 == sympy.Symbol("x")
{held if "held" in inside else ""}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_stands_in_for_what_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    kept = {name: sys.modules.get(name) for name in (SYMBOLS, ALGEBRA)}
    with without_compiler():
        for name, module in kept.items():
            assert module is None or sys.modules[name] is module
        assert all(
            module is not None or isinstance(sys.modules[name], StandIn) for name, module in kept.items()
        )
