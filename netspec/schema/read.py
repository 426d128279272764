"""Files and texts to Documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from netspec.errors import DataError, Position, SpecError, no_such_file
from netspec.schema import shipped
from netspec.schema.descriptors import descriptor, message_class
from netspec.schema.document import Document
from netspec.schema.lexer import END, NAME, Tokens
from netspec.schema.parser import Parser
from netspec.schema.place import Place, UpgradeProblem
from netspec.schema.regular import read_regular
from netspec.schema.upgrade import upgrade_net, upgrade_solver

Unknown = Literal["error", "keep"]
TABLES = (".csv", ".tsv", ".parquet")
"""Endings of files that hold rows, not nets."""
_MESSAGES = {"net": "NetParameter", "solver": "SolverParameter"}


def read_net(path: str | Path, unknown: Unknown = "error") -> Document:
    """Read a network file; SpecError names every mistake with its line."""
    return _read(path, "net", unknown)


def read_solver(path: str | Path, unknown: Unknown = "error") -> Document:
    """Read a solver file."""
    return _read(path, "solver", unknown)


def read(path: str | Path, unknown: Unknown = "error") -> Document:
    """Read a file that is a network or a solver; its field names tell which."""
    return _read(path, None, unknown)


def parse_net(text: str, file: str = "<text>", unknown: Unknown = "error") -> Document:
    """Like `read_net` for a text at hand; `file` is the name that errors give."""
    return parse("net", text, file, unknown)


def parse_solver(text: str, file: str = "<text>", unknown: Unknown = "error") -> Document:
    """Like `read_solver` for a text at hand."""
    return parse("solver", text, file, unknown)


def parse(kind: str, text: str, file: str = "<text>", unknown: Unknown = "error") -> Document:
    """Parse a text as "net", "solver" or any message of the schema, and upgrade old syntax.

    With `unknown="error"` fields that the schema does not know are mistakes; with "keep" they are skipped and
    listed in `Document.unknown`.
    """
    message = message_class(_MESSAGES.get(kind, kind))()
    try:
        document = Parser(message, text, file, unknown == "keep").document(kind)
    except SpecError:
        refuse_template(text, file)
        raise
    place = Place(message, document.root)
    try:
        if kind == "net":
            document.legacy = tuple(upgrade_net(place, _unknown_v1_types(document)))
        elif kind == "solver":
            document.legacy = tuple(upgrade_solver(place))
    except UpgradeProblem as problem:
        raise SpecError(str(problem), document.position(problem.node.offset)) from None
    return document


JINJA = re.compile(r"\{\{|\{%")


def refuse_template(text: str, file: str) -> None:
    """Where an unreadable text is a template, raise a SpecError that says so in place of its other mistakes."""
    if (marker := JINJA.search(text)) is None:
        return
    before = text[: marker.start()]
    place = Position(file, before.count("\n") + 1, marker.start() - (before.rfind("\n") + 1) + 1)
    message = f"unexpected character {marker.group()!r}: this is a template (Jinja2) whose places are not filled in; "
    raise SpecError(message + f"netspec render {file} name=value fills them in", place)


def _unknown_v1_types(document: Document) -> dict[int, str]:
    """Types as written of the V1 layers whose type is not in the schema, by index of the layer."""
    types = {}
    for field in document.unknown:
        if field.is_value and len(field.path) == 3 and field.path[0] == "layers" and field.path[2] == "type":
            types[int(field.path[1])] = field.name
    return types


def guess_kind(text: str, file: str = "") -> str:
    """ "net" or "solver", whichever has more of the field names at the top level of the text."""
    nets = set(descriptor("NetParameter").fields_by_name)
    solvers = set(descriptor("SolverParameter").fields_by_name)
    tokens, depth, score = Tokens(text), 0, 0
    while tokens.current.kind != END:
        token = tokens.next()
        if token.text in ("{", "<", "["):
            depth += 1
        elif token.text in ("}", ">", "]"):
            depth -= 1
        elif token.kind == NAME and depth == 0 and tokens.current.text in (":", "{", "<"):
            score += (token.text in nets) - (token.text in solvers)
    if score == 0:
        return "solver" if "solver" in Path(file).name.lower() else "net"
    return "net" if score > 0 else "solver"


def _read(path: str | Path, kind: str | None, unknown: Unknown) -> Document:
    path = shipped.find(path)
    file = str(path)
    text = load_text(path)
    return parse(kind or guess_kind(text, file), text, file, unknown)


def load_text(path: str | Path) -> str:
    """The text of a spec file; comments in other encodings than UTF-8 are tolerated (read as Latin-1)."""
    path = Path(path)
    try:
        raw = read_regular(path)
        if path.suffix.lower() in TABLES:
            raise SpecError(f"{path} is a table, not a net{_own_data(path)}")
    except DataError as problem:
        raise SpecError(str(problem)) from None
    except FileNotFoundError:
        raise SpecError(_absent(path)) from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a directory; a file is needed{_own_data(path)}") from None
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise SpecError(f"{path}: cannot be read: {reason}") from None
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):  # as editors of Windows write it
        raw = raw.decode("utf-16", "replace").encode()
    if b"\0" in raw:
        raise SpecError(f"{path} is not a text file{_binary_hint(raw)}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if "\r" in text and "\n" not in text:
        text = text.replace("\r", "\n")
    if Tokens(text).current.kind == END:
        raise SpecError(f"{path} is empty")
    return text


def _binary_hint(raw: bytes) -> str:
    if raw[:4] == b"\x89HDF":
        return "; it is HDF5 (weights or data?)"
    return "; if it holds weights (.caffemodel), give it as weights"


def _own_data(path: Path) -> str:
    return f"; for data of your own: netspec arrange {path}"


def _absent(path: Path) -> str:
    if path.name != str(path):
        return no_such_file(path)
    told = no_such_file(path, (name for name in shipped.names() if not name.endswith("_solver")))
    hint = "; netspec list names the nets that come with netspec, netspec arrange DATA makes a net of yours"
    return told if "?" in told or path.suffix else told + hint
