"""Text format -> message, with the place of every field and all mistakes of the file at once.

One walk fills the message and the tree of places.  It keeps its own stack, so that nesting cannot exhaust
Python's, and stops at 100 levels as protobuf does.  A mistake in a value or a name is noted and the walk
goes on; a mistake in the punctuation ends it.
"""

from __future__ import annotations

import contextlib
from typing import Any

from netspec.errors import Position, Problem, SpecError
from netspec.schema.document import Document, Node, UnknownField, line_starts, position
from netspec.schema.forks import OLD_NAMES
from netspec.schema.frame import (
    LAYERS,
    Frame,
    expected,
    home_of,
    layer_name,
    layer_type,
    nearest_field,
    opening,
    path_of,
)
from netspec.schema.lexer import BAD, END, NAME, NUMBER, STRING, SYMBOL, Token, Tokens, unquote
from netspec.schema.values import BadValue, FieldInfo, MessageInfo, Raw, convert, message_info

MAX_DEPTH = 100
# Reading stops at more mistakes or unknown fields than this, so that time and memory stay bounded.
MAX_PROBLEMS = 1000
MAX_UNKNOWN = 10_000
_CLOSE = {"{": "}", "<": ">"}
LISTS_ELSEWHERE = {("SolverParameter", "device_id")}
"""Fields with a single value that forks made repeated, without effect here."""


class _Stop(Exception):
    """The text cannot be read any further; the problem is already noted."""


class Parser:
    """One run over one text; `document()` gives the result or raises all problems together."""

    def __init__(self, message: Any, text: str, file: str, keep_unknown: bool):
        self.message, self.text, self.file, self.keep_unknown = message, text, file, keep_unknown
        self.lines = line_starts(text)
        self.tokens = Tokens(text)
        self.problems: list[tuple[int, str, Frame | None]] = []
        self.unknown: list[tuple[int, Frame | None, dict[str, Any]]] = []
        self.root = Frame(message, message_info(message.DESCRIPTOR), Node(0), "", 0, "")
        self.stack = [self.root]

    # --- results

    def document(self, kind: str) -> Document:
        """Parse; SpecError with every problem (and every unknown field, unless they are kept)."""
        with contextlib.suppress(_Stop):
            self._walk()
        unknown = [self._unknown_field(*entry) for entry in self.unknown]
        problems = [(offset, self._problem(offset, text, layer)) for offset, text, layer in self.problems]
        if not self.keep_unknown:
            problems += [
                (entry[0], field.problem) for entry, field in zip(self.unknown, unknown, strict=True)
            ]
        if problems:
            raise SpecError([problem for _, problem in sorted(problems, key=lambda pair: pair[0])])
        return Document(kind, self.message, self.file, self.text, self.root.node, unknown)

    def _position(self, offset: int) -> Position:
        return position(self.file, self.lines, offset)

    def _problem(self, offset: int, text: str, layer: Frame | None) -> Problem:
        return Problem(self._with_layer(text, layer), self._position(offset))

    def _with_layer(self, text: str, layer: Frame | None) -> str:
        if layer is None:
            return text
        kind = layer_type(layer)
        name = layer_name(layer)
        return "layer" + (f" {name!r}" if name else "") + (f" ({kind})" if kind else "") + f": {text}"

    def _unknown_field(self, offset: int, layer: Frame | None, details: dict[str, Any]) -> UnknownField:
        text = self._with_layer(details.pop("complaint"), layer)
        name = layer_name(layer) if layer else None
        kind = layer_type(layer) if layer else None
        place = self._position(offset)
        return UnknownField(position=place, layer=name, layer_type=kind, text=text, **details)

    def _note(self, text: str, offset: int) -> None:
        self.problems.append((offset, text, self.stack[-1].layer))
        if len(self.problems) == MAX_PROBLEMS:
            raise self._stop("too many mistakes; is this a prototxt file?", offset)

    def _note_unknown(self, offset: int, layer: Frame | None, details: dict[str, Any]) -> None:
        self.unknown.append((offset, layer, details))
        if len(self.unknown) == MAX_UNKNOWN:
            raise self._stop("too many unknown fields; is this a file of Caffe?", offset)

    def _stop(self, text: str, offset: int) -> _Stop:
        self._note(text, offset)
        return _Stop()

    # --- the walk

    def _walk(self) -> None:
        tokens, stack = self.tokens, self.stack
        while True:
            token = tokens.current
            if token.kind == NAME:
                self._field(tokens.next())
            elif token.kind == END:
                if len(stack) > 1:
                    frame = stack[-1]
                    raise self._stop(f"'{frame.name} {opening(frame)}' is never closed", frame.node.offset)
                self._check_required(stack[0])
                return
            elif token.text == stack[-1].close:
                tokens.next()
                self._close()
            elif token.text == "[":
                self._extension(tokens.next())
            else:
                raise self._unexpected(token, "a field name" if len(stack) == 1 else self._or_close())

    def _or_close(self) -> str:
        frame = self.stack[-1]
        line = self._position(frame.node.offset).line
        return f"a field name or the '{frame.close}' of '{frame.name}' (line {line})"

    def _unexpected(self, token: Token, expected: str) -> _Stop:
        if token.kind == BAD:
            return self._stop(self.tokens.complaint(token), token.offset)
        seen = "the end of the file" if token.kind == END else repr(token.text[:60])
        return self._stop(f"expected {expected}, found {seen}", token.offset)

    def _field(self, name: Token) -> None:
        frame = self.stack[-1]
        field = frame.info.fields.get(name.text) if frame.info else None
        if field is None and frame.info is not None:
            self._unknown_name(frame, frame.info, name)
        colon = self.tokens.take(":")
        symbol = self.tokens.current.text if self.tokens.current.kind == SYMBOL else ""
        if symbol == "[":
            self.tokens.next()
            if field is not None and not field.repeated:
                self._one_value(frame, field, name)
                field = None
            if self.tokens.take("]"):
                self._separator()
            else:
                self._list(field, name)
        elif symbol in ("{", "<"):
            self._open(field, name, name.offset)
        else:
            if not colon:
                self._missing_colon(name)
            self._scalar(field, name, name.offset)
            self._separator()

    def _one_value(self, frame: Frame, field: FieldInfo, name: Token) -> None:
        """A list for a field of one value: a mistake, or another fork's form of it."""
        text = f"field '{field.name}' takes one value, found a list"
        owner = frame.message.DESCRIPTOR.name
        if (owner, field.name) not in LISTS_ELSEWHERE:
            self._note(text, name.offset)
            return
        details = {"path": path_of(self.stack, field.name), "name": field.name, "owner": owner}
        details |= {"complaint": f"{text}, as multi-GPU forks do", "nearest": None, "value": None}
        self._note_unknown(name.offset, frame.layer, details)

    def _separator(self) -> None:
        if not self.tokens.take(";"):
            self.tokens.take(",")

    def _missing_colon(self, name: Token) -> None:
        if self.tokens.current.kind in (NUMBER, STRING) or self.tokens.current.text == "-":
            self._note(f"':' is missing after '{name.text}'", name.offset)
            return
        raise self._unexpected(self.tokens.current, f"':' or '{{' after '{name.text}'")

    def _extension(self, bracket: Token) -> None:
        """`[some.extension] { ... }`: no Caffe dialect has one, so it is an unknown field."""
        words = []
        while self.tokens.current.kind == NAME or self.tokens.current.text in (".", "/"):
            words.append(self.tokens.next().text)
        if not words or not self.tokens.take("]"):
            raise self._unexpected(self.tokens.current, "the name of an extension and ']'")
        self._field(Token(NAME, f"[{''.join(words)}]", bracket.offset))

    # --- messages

    def _open(self, field: FieldInfo | None, name: Token, offset: int, in_list: bool = False) -> None:
        parent = self.stack[-1]
        bracket = self.tokens.next()
        if len(self.stack) > MAX_DEPTH:
            raise self._stop(f"messages nested more than {MAX_DEPTH} deep", offset)
        message, info = None, None
        node, index = Node(offset), 0
        if field is not None and field.below is None:
            self._note(f"field '{name.text}' takes {expected(field)}, found a message", offset)
        elif field is not None and not self._is_duplicate(field, offset):
            holder = getattr(parent.message, field.name)
            message = holder.add() if field.repeated else holder
            message.SetInParent()
            info = message_info(field.below)
            parent.node.add(field.name, node)
            index = len(parent.node.children[field.name]) - 1
        frame = Frame(message, info, node, name.text, index, _CLOSE[bracket.text])
        frame.in_list = in_list
        frame.list_field = field
        frame.layer = frame if info is not None and info.name in LAYERS else parent.layer
        self.stack.append(frame)

    def _close(self) -> None:
        frame = self.stack[-1]
        self._check_required(frame)
        self.stack.pop()
        if frame.in_list:
            if self.tokens.take(","):
                field = frame.list_field if frame.message is not None else None
                self._list(field, Token(NAME, frame.name, frame.node.offset))
                return
            self._expect_end_of_list()
        self._separator()

    def _check_required(self, frame: Frame) -> None:
        if frame.info is not None:
            for name in frame.info.required:
                if not frame.message.HasField(name) and name not in frame.node.children:
                    self._note(f"{frame.name or frame.info.name} needs a field '{name}'", frame.node.offset)

    # --- values

    def _list(self, field: FieldInfo | None, name: Token) -> None:
        """The elements of `[1, 2]` from the current token; a message among them hands over to the walk."""
        while True:
            token = self.tokens.current
            if token.kind == SYMBOL and token.text in _CLOSE:
                self._open(field, name, token.offset, in_list=True)
                return
            self._scalar(field, name, token.offset)
            if not self.tokens.take(","):
                self._expect_end_of_list()
                self._separator()
                return

    def _expect_end_of_list(self) -> None:
        if not self.tokens.take("]"):
            raise self._unexpected(self.tokens.current, "',' or ']'")

    def _scalar(self, field: FieldInfo | None, name: Token, offset: int) -> None:
        raw = self._raw(name)
        frame = self.stack[-1]
        if field is None:
            if self.unknown and self.unknown[-1][0] == name.offset:
                self.unknown[-1][2]["value"] = str(raw)
            return
        if field.below is not None:
            self._note(f"field '{field.name}' takes a message in braces, found {raw}", raw.offset)
            return
        if self._is_duplicate(field, offset):
            return
        frame.node.add(field.name, Node(offset))
        if field.name == "type" and frame.layer is frame:
            frame.type_text = raw.text
        try:
            value = convert(field, raw)
        except BadValue as problem:
            self._bad_value(frame, field, raw, problem)
            return
        if field.repeated:
            getattr(frame.message, field.name).append(value)
        else:
            setattr(frame.message, field.name, value)

    def _is_duplicate(self, field: FieldInfo, offset: int) -> bool:
        first = None if field.repeated else self.stack[-1].node.children.get(field.name)
        if not first:
            return False
        line = self._position(first[0].offset).line
        self._note(f"field '{field.name}' is given twice (first in line {line}), but takes one value", offset)
        return True

    def _raw(self, name: Token) -> Raw:
        """The scalar at the current token, as written."""
        tokens = self.tokens
        offset = tokens.current.offset
        if tokens.current.kind == STRING:
            data, text = b"", tokens.current.text[1:-1]
            while tokens.current.kind == STRING:
                token = tokens.next()
                try:
                    data += unquote(token.text)
                except ValueError as problem:
                    self._note(f"field '{name.text}': {problem}", token.offset)
            return Raw("string", text, False, data, offset)
        negative = tokens.take("-")
        if tokens.current.kind not in (NUMBER, NAME):
            raise self._unexpected(tokens.current, f"a value for '{name.text}'")
        token = tokens.next()
        return Raw(token.kind, token.text, negative, b"", offset)

    # --- what the schema does not know

    def _bad_value(self, frame: Frame, field: FieldInfo, raw: Raw, problem: BadValue) -> None:
        text = f"field '{field.name}' {problem}"
        if not problem.is_enum_name:
            self._note(text, raw.offset)
            return
        owner = frame.message.DESCRIPTOR.name
        details = {
            "path": path_of(self.stack, field.name),
            "name": raw.text,
            "owner": owner,
            "complaint": text,
        }
        details |= {"nearest": problem.nearest, "value": str(raw), "is_value": True}
        self._note_unknown(raw.offset, frame.layer, details)

    def _unknown_name(self, frame: Frame, info: MessageInfo, name: Token) -> None:
        near = nearest_field(info, name.text) if len(self.unknown) < MAX_PROBLEMS else None
        inside = frame.name or {"NetParameter": "the net", "SolverParameter": "the solver"}.get(
            info.name, info.name
        )
        text = f"unknown field '{name.text[:60]}' in {inside}"
        line = self._position(frame.node.offset).line
        if len(self.stack) > 1 and name.text in ("layer", "layers") and near != name.text:
            text += f"; is a '{frame.close}' missing before it? '{frame.name}' is open since line {line}"
        elif remedy := OLD_NAMES.get((info.name, name.text)):
            text += f"; {remedy}"
            near = None
        elif home := home_of(self.stack, info, name.text):
            text += f"; it belongs {home}"
        elif near:
            text += f"; did you mean '{near}'?"
        details = {
            "path": path_of(self.stack, name.text),
            "name": name.text,
            "owner": info.name,
            "complaint": text,
        }
        self._note_unknown(name.offset, frame.layer, details | {"nearest": near, "value": None})
