"""The places of a file at which one small change can be made, and the changed trees."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("layers", "net", "solver", "queries")
"""Rooms of netspec that are judged."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
}
MESSAGES = ("fail", "require", "problem", "warn", "SpecError", "DataError", "SnapshotError", "Problem")
"""Calls whose texts are for the reader; tests of wording are not what is judged here."""


@dataclass(frozen=True, order=True)
class Site:
    """A change that can be made: `node` counts the nodes of the file's tree in the order of ast.walk."""

    path: str
    line: int
    node: int
    change: str

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line}:{self.node}:{self.change}"


def files() -> list[Path]:
    """The files of the judged rooms."""
    return sorted(path for room in ROOMS for path in (ROOT / "netspec" / room).rglob("*.py"))


def left_out(tree: ast.AST) -> set[int]:
    """Ids of the nodes that say nothing when changed: annotations, texts of errors, decorators, `__all__`."""
    outside: set[int] = set()

    def leave(*nodes: ast.AST | None) -> None:
        for node in nodes:
            if node is not None:
                outside.update(id(child) for child in ast.walk(node))

    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
            leave(node)
        elif isinstance(node, ast.AnnAssign | ast.arg):
            leave(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            leave(node.returns, *node.decorator_list)
        elif isinstance(node, ast.ClassDef):
            leave(*node.decorator_list)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            leave(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
            if isinstance(node.value.op, ast.BitOr):  # an alias of types
                leave(node)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in MESSAGES:
                leave(*(node.args[1:] if name == "require" else node.args), *node.keywords)
    return outside


def changes(node: ast.AST) -> Iterator[str]:
    """Names of the changes that can be made at a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield "compare"
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        parts = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.value]
        if not any(isinstance(p, ast.JoinedStr) or isinstance(getattr(p, "value", 0), str) for p in parts):
            yield "operator"
    elif isinstance(node, ast.BoolOp):
        yield "and-or"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "unary"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield "constant"
    elif isinstance(node, ast.If | ast.IfExp):
        yield "condition"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement"


def sites(path: Path) -> list[Site]:
    """Every change that can be made to a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    outside = left_out(tree)
    place = str(path.relative_to(ROOT))
    return [
        Site(place, getattr(node, "lineno", 0), i, change)
        for i, node in enumerate(ast.walk(tree))
        if id(node) not in outside
        for change in changes(node)
    ]


def changed(site: Site) -> tuple[ast.Module, str]:
    """The tree of a file with the change made, and `before -> after` in one line."""
    tree = ast.parse((ROOT / site.path).read_text(encoding="utf-8"))
    node = list(ast.walk(tree))[site.node]
    shown = node.test if isinstance(node, ast.If | ast.IfExp) else node
    before = ast.unparse(shown).replace("\n", " ")
    after = MAKERS[site.change](node)
    if after is not None:
        Exchange(node, after).visit(tree)
        shown = after
    elif isinstance(node, ast.If | ast.IfExp):
        shown = node.test
    text = f"{before} -> {ast.unparse(shown)}".replace("\n", " ")
    return ast.fix_missing_locations(tree), text


class Exchange(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.copy_location(self.new, node) if node is self.old else super().generic_visit(node)


def _compare(node: ast.AST) -> None:
    assert isinstance(node, ast.Compare)
    node.ops = [COMPARISONS[type(node.ops[0])]()]


def _operator(node: ast.AST) -> None:
    assert isinstance(node, ast.BinOp | ast.AugAssign)
    node.op = OPERATORS[type(node.op)]()


def _and_or(node: ast.AST) -> None:
    assert isinstance(node, ast.BoolOp)
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()


def _unary(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.UnaryOp)
    return node.operand


def _constant(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.Constant)
    value = node.value
    if isinstance(value, bool):
        return ast.Constant(not value)
    if isinstance(value, int):
        return ast.Constant(value + 1)
    assert isinstance(value, float)
    return ast.Constant(2 * value if value else 1.0)


def _condition(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _statement(node: ast.AST) -> ast.AST:
    return ast.Pass()


MAKERS: dict[str, Callable[[ast.AST], ast.AST | None]] = {
    "compare": _compare,
    "operator": _operator,
    "and-or": _and_or,
    "unary": _unary,
    "constant": _constant,
    "condition": _condition,
    "statement": _statement,
}
