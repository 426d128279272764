"""Shapes on the meta device without torch's compiler, and without sympy.

torch computes many shapes by Python functions. On the first call it imports torch._dynamo, which takes as long as
`import torch`, only to mark these functions as not to be compiled. Outside of compilation the mark is not needed.
The same functions ask torch.fx.experimental.symbolic_shapes about sizes that may be symbols, and import sympy for it,
which takes three quarters of `import torch`. Sizes that are numbers need no algebra.
"""

from __future__ import annotations

import importlib
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import CellType, FunctionType, ModuleType
from typing import Any

MARK = "__dynamo_disable"
"""The attribute in which torch/_compile.py keeps the replacement of a function; torch._dynamo makes it when it is
missing.
"""


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within, operators on the meta device import neither torch._dynamo nor sympy; afterwards torch is as it was.

    This changes nothing in versions of torch that are built differently; 2.11 to 2.13 were examined.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    marked = [function for function in guarded() if not hasattr(function, MARK)]
    for function in marked:
        setattr(function, MARK, function)
    try:
        with stood_in(ALGEBRA, EXPRESSIONS), stood_in(SYMBOLS, SIZES):
            yield
    finally:
        for function in marked:
            delattr(function, MARK)


SYMBOLS, ALGEBRA = "torch.fx.experimental.symbolic_shapes", "sympy"


class StandIn(ModuleType):
    """In the place of a module that takes long to import: gives what is known of it for sizes that are numbers, and
    imports the module itself as soon as anything else is asked for. It is no package: `import sympy.core` as the first
    import of sympy fails within.
    """

    def __init__(self, name: str, known: Mapping[str, Any]):
        super().__init__(name)
        self.__dict__["known_of_it"] = known

    def __getattr__(self, name: str) -> Any:
        known = self.__dict__["known_of_it"]
        inside = (
            name == "__path__" and self.__name__ == ALGEBRA
        )  # asked for by the import of a module in a package
        if name.startswith("__") and not inside:
            raise AttributeError(name)
        if name not in known or not isinstance(sys.modules.get(self.__name__), StandIn):
            return getattr(module_itself(self.__name__), name)
        return known[name]


def module_itself(name: str) -> Any:
    """The module in whose place something may stand."""
    for one in (SYMBOLS, ALGEBRA):
        if isinstance(sys.modules.get(one), StandIn):
            del sys.modules[one]
    return importlib.import_module(name)


@contextmanager
def stood_in(name: str, known: Mapping[str, Any]) -> Iterator[None]:
    """Within, something stands in the place of a module that is not imported yet."""
    if name in sys.modules:
        yield
        return
    stand_in = sys.modules[name] = StandIn(name, known)
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


def answering(name: str, of_numbers: Callable[..., Any]) -> Callable[..., Any]:
    """A function of SYMBOLS: of numbers at once, of all else by the module's own."""

    def answer(*values: Any, **options: Any) -> Any:
        if not options and plain(values):
            return of_numbers(*values)
        return getattr(module_itself(SYMBOLS), name)(*values, **options)

    return answer


def plain(value: Any) -> bool:
    """Whether it is a number, or a tuple of such."""
    return all(map(plain, value)) if type(value) is tuple else type(value) in (bool, int)


def same(value: Any) -> Any:
    """What is a number, or true or false, already."""
    return value


OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "expect_true": same,
    "guard_or_false": same,
    "guard_or_true": same,
    "guard_size_oblivious": same,
    "guarding_hint_or_throw": same,
    "has_guarding_hint": lambda value: True,
    "is_nested_int": lambda value: False,
    "statically_known_true": same,
    "sym_and": lambda *values: all(values),
    "sym_eq": operator.eq,
    "sym_or": lambda *values: any(values),
}
"""What torch asks about sizes while it computes a shape, as it answers for numbers."""
SIZES = {name: answering(name, function) for name, function in OF_NUMBERS.items()}
EXPRESSIONS = {
    "Basic": type("Basic", (), {"__doc__": "The class of all expressions, of which there are none yet."})
}


@cache
def guarded() -> tuple[FunctionType, ...]:
    """The functions behind torch's operators that import the compiler when they are called."""
    import torch._decomp

    tables = torch._decomp.global_decomposition_table.values()
    waiting = [
        function for table in tables for function in table.values() if isinstance(function, FunctionType)
    ]
    seen: set[int] = set()
    functions: list[FunctionType] = []
    while waiting:
        function = waiting.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        inner = [content for cell in function.__closure__ or () if (content := contents(cell)) is not None]
        if function.__code__.co_filename.endswith("torch/_compile.py"):
            functions += inner
        waiting += inner
    return tuple(functions)


def contents(cell: CellType) -> FunctionType | None:
    """The function in a closure's cell; None for a cell with other contents or none."""
    try:
        content = cell.cell_contents
    except ValueError:
        return None
    return content if isinstance(content, FunctionType) else None
