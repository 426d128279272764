"""Shapes on the meta device without torch's compiler.

torch computes many shapes by Python functions. On the first call it imports torch._dynamo, which takes as long as
`import torch`, only to mark these functions as not to be compiled. Outside of compilation the mark is not needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import CellType, FunctionType

MARK = "__dynamo_disable"
"""The attribute in which torch/_compile.py keeps the replacement of a function; torch._dynamo makes it when it is
missing.
"""


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within, operators on the meta device do not import torch._dynamo; afterwards torch is as it was.

    This changes nothing in versions of torch that are built differently; 2.11 to 2.13 were examined.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    marked = [function for function in guarded() if not hasattr(function, MARK)]
    for function in marked:
        setattr(function, MARK, function)
    try:
        yield
    finally:
        for function in marked:
            delattr(function, MARK)


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
