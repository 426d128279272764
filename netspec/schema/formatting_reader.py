"""Reads the text of a spec into entries and comments, for `netspec fmt`; needs no schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from netspec.errors import SpecError
from netspec.schema.document import line_starts, position
from netspec.schema.lexer import BAD, END, NAME, NUMBER, STRING, SYMBOL, Tokens
from netspec.schema.parser import MAX_DEPTH

COMMENT = "comment"
CLOSING = {"{": "}", "<": ">", "[": "]"}


@dataclass(frozen=True)
class Lexeme:
    """A token or a comment, and its line."""

    kind: str
    text: str
    line: int
    offset: int

    def symbol(self, *texts: str) -> bool:
        """Whether it is one of these signs."""
        return self.kind == SYMBOL and self.text in texts


@dataclass
class Comment:
    """A comment on a line of its own."""

    text: str
    blank: bool = False
    """Whether an empty line comes before it."""


@dataclass
class Block:
    """The content of brackets."""

    bracket: str
    entries: list[Entry | Comment] = field(default_factory=list)
    note: str = ""
    """The comment behind the opening bracket."""
    spread: bool = True
    """Whether its brackets are on different lines."""


@dataclass
class Entry:
    """A field, or an element of a list, which has no name."""

    name: str
    value: list[str] | Block
    """Pieces of a string, a single word, or the content of brackets."""
    blank: bool = False
    joins: bool = False
    """Whether it is on the same line as the entry before it."""
    note: str = ""
    """The comment behind it."""


def lexemes(text: str) -> list[Lexeme]:
    """The tokens and comments of a text in order; the last is its end."""
    tokens, lines = Tokens(text), line_starts(text)
    parts: list[Lexeme] = []
    last = 0
    while True:
        token = tokens.current
        for start, shown in comments(text, last, token.offset):
            parts.append(Lexeme(COMMENT, shown, position("", lines, start).line, start))
        parts.append(Lexeme(token.kind, token.text, position("", lines, token.offset).line, token.offset))
        if token.kind == END:
            return parts
        last = token.offset + len(token.text)
        tokens.next()


def comments(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    """(offset, text) of each comment in a stretch that holds no token; blanks at their ends are no part of them."""
    while (start := text.find("#", start, end)) >= 0:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        yield start, text[start:stop].rstrip(" \t\r\f\v")
        start = stop


def quoted(text: str) -> str:
    """A string in double quotes, where its content allows that."""
    return text if text[0] == '"' or '"' in text else f'"{text[1:-1]}"'


class Reader:
    """From a text to its entries."""

    def __init__(self, text: str, file: str):
        self.text, self.file = text, file
        self.words = lexemes(text)
        self.at = 0
        self.line = 0
        """Of the token used last."""
        self.strays: list[Comment] = []
        """Comments inside a field whose line has no room for them; they move above the field."""

    @property
    def word(self) -> Lexeme:
        return self.words[self.at]

    def use(self) -> Lexeme:
        """Use up a token or a comment."""
        word = self.word
        self.at += 1
        self.line = word.line
        return word

    def after(self) -> Lexeme:
        """The next token; comments before it are strays."""
        while self.word.kind == COMMENT:
            self.strays.append(Comment(self.use().text))
        return self.word

    def wrong(self, expected: str) -> SpecError:
        word = self.word
        if word.kind == BAD:
            tokens = Tokens(self.text, word.offset)
            text = tokens.complaint(tokens.current)
        else:
            seen = "the end of the file" if word.kind == END else repr(word.text[:60])
            text = f"expected {expected}, found {seen}"
        return SpecError(text, position(self.file, line_starts(self.text), word.offset))

    def block(self, bracket: str, depth: int) -> Block:
        """The content from an opening bracket up to its closing one; the whole file without a bracket."""
        if depth > MAX_DEPTH:
            raise self.wrong(f"at most {MAX_DEPTH} levels")
        block, begun = Block(bracket), self.line
        closing = CLOSING.get(bracket, "")
        read: Callable[[int], Entry] = self.element if bracket == "[" else self.named
        separated = True
        while True:
            word = self.word
            if word.kind == COMMENT:
                self.comment(block, begun)
            elif word.kind == END if not bracket else word.symbol(closing):
                break
            elif not separated and word.symbol(",", *(";" if bracket != "[" else "")):
                self.use()
                separated = True
            elif word.kind == END or (bracket == "[" and not separated):
                raise self.wrong(f"',' or '{closing}'" if bracket == "[" else f"'{closing}'")
            else:
                self.entry(block, read, depth)
                separated = False
        if bracket == "[" and separated and any(isinstance(entry, Entry) for entry in block.entries):
            raise self.wrong("a value after ','")
        if bracket:
            self.use()
            block.spread = self.line != begun
        return block

    def comment(self, block: Block, begun: int) -> None:
        """A comment between entries: behind one, behind the opening bracket, or on a line of its own."""
        word, before = self.word, self.line
        last = block.entries[-1] if block.entries else None
        self.use()
        if word.line == before and isinstance(last, Entry) and not last.note:
            last.note = word.text
        elif word.line == before == begun and block.bracket and last is None and not block.note:
            block.note = word.text
        else:
            block.entries.append(Comment(word.text, word.line > before + 1))

    def entry(self, block: Block, read: Callable[[int], Entry], depth: int) -> None:
        """Read an entry; comments inside it move above it."""
        first, before = self.word, self.line
        beside = bool(block.entries) and isinstance(block.entries[-1], Entry) and not block.entries[-1].note
        outer, self.strays = self.strays, []
        new = read(depth)
        above, self.strays = self.strays, outer
        new.blank = first.line > before + 1
        new.joins = beside and first.line == before and not above
        if above:
            above[0].blank, new.blank = new.blank, False
        block.entries += [*above, new]

    def named(self, depth: int) -> Entry:
        """`name: value` or `name { ... }`"""
        if self.word.symbol("["):  # an extension
            name = self.use().text
            while self.after().kind == NAME or self.word.symbol(".", "/"):
                name += self.use().text
            if not self.word.symbol("]"):
                raise self.wrong("the name of an extension and ']'")
        elif self.word.kind == NAME:
            name = ""
        else:
            raise self.wrong("a field name")
        name += self.use().text
        colon = self.after().symbol(":")
        if colon:
            self.use()
        if self.after().symbol("[", "{", "<"):
            return Entry(name, self.bracketed(depth))
        if not colon:
            raise self.wrong(f"':' or '{{' after {name!r}")
        return Entry(name, self.scalar(f"a value for {name!r}"))

    def element(self, depth: int) -> Entry:
        """A value of a list."""
        if self.word.symbol("{", "<"):
            return Entry("", self.bracketed(depth))
        return Entry("", self.scalar("a value"))

    def bracketed(self, depth: int) -> Block:
        bracket = self.use().text
        return self.block(bracket, depth + 1)

    def scalar(self, expected: str) -> list[str]:
        """A number or a name with its sign, or the pieces of a string."""
        if self.word.kind == STRING:
            pieces = [quoted(self.use().text)]
            while self.next_token().kind == STRING:
                self.after()
                pieces.append(quoted(self.use().text))
            return pieces
        sign = self.use().text if self.word.symbol("-") else ""
        if self.after().kind not in (NUMBER, NAME):
            raise self.wrong(expected)
        return [sign + self.use().text]

    def next_token(self) -> Lexeme:
        """The next token, with the comments before it left where they are."""
        at = self.at  # no islice: it would pass over all that was read, for each string again
        while self.words[at].kind == COMMENT:
            at += 1
        return self.words[at]
