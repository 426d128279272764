"""Protobuf text format cut into tokens.

Our own lexer rather than the Tokenizer of google.protobuf.text_format: that one is private, has changed
between versions and costs a second walk over the file.  Tests hold the two to the same answers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NAME, NUMBER, STRING, SYMBOL, BAD, END = "name", "number", "string", "symbol", "bad", "end"

# The quantifiers of the strings are possessive, so that an unterminated one fails in linear time.
_TOKEN = re.compile(
    r"""
      (?P<skip>   (?:[ \t\r\n\f\v]++|\#[^\n]*+)++ )
    | (?P<name>   [A-Za-z_][A-Za-z0-9_]*+ )
    | (?P<number> (?:0[xX][0-9a-fA-F]++ | (?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+[fF]?+)
                  (?![A-Za-z0-9_.]) )
    | (?P<string> "(?:[^"\\\n]++|\\.)*+" | '(?:[^'\\\n]++|\\.)*+' )
    | (?P<symbol> [{}<>\[\]:;,\-.] )
    | (?P<bad>    . )
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"[^\s{}<>\[\]:;,#\"']+")


class Token(NamedTuple):
    """One token: its kind, its text as written, and its offset."""

    kind: str
    text: str
    offset: int


class Tokens:
    """The tokens of a text, one at a time; `current` is the one not yet used."""

    __slots__ = ("_scan", "_text", "current")

    def __init__(self, text: str, start: int = 0):
        self._text = text
        self._scan = _TOKEN.finditer(text, start)
        self.current = Token(END, "", start)
        self.next()

    def next(self) -> Token:
        """Use up the current token and return it."""
        used = self.current
        for match in self._scan:
            kind = match.lastgroup
            if kind != "skip":
                self.current = Token(kind or BAD, match.group(), match.start())
                break
        else:
            self.current = Token(END, "", len(self._text))
        return used

    def take(self, symbol: str) -> bool:
        """Use up `symbol` if it is the current token; returns whether it was."""
        if self.current.text == symbol and self.current.kind == SYMBOL:
            self.next()
            return True
        return False

    def complaint(self, token: Token) -> str:
        """Why a BAD token cannot be read, with the remedy where one is known."""
        rest = self._text[token.offset : token.offset + 400]
        if token.text in "\"'":
            return "this string has no closing quote on its line"
        if token.text == "/":
            return "unexpected '/'; a comment begins with '#'"
        if token.text.isdigit() or token.text == ".":
            word = _WORD.match(rest)
            number = (word.group() if word else token.text)[:60]
            return f"{number!r} is not a number; a space may be missing after it"
        if token.text in "$%":
            return f"unexpected character {token.text!r}: is this a template whose places are not filled in?"
        if token.text < " " or token.text == "\x7f":
            return f"control character {token.text!r} in the text; is this a text file?"
        return f"unexpected character {token.text!r}"


_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"?])|([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))",
    re.DOTALL,
)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34, "?": 63}


def unquote(text: str) -> bytes:
    """The bytes that a quoted string stands for; ValueError for an escape that protobuf does not know."""
    body = text[1:-1]
    if "\\" not in body:
        return body.encode("utf-8", "replace")
    out, last = bytearray(), 0
    for match in _ESCAPE.finditer(body):
        out += body[last : match.start()].encode("utf-8", "replace")
        last = match.end()
        simple, octal, hexadecimal, short, long, other = match.groups()
        if other is not None:
            raise ValueError(
                f"'\\{other}' is not an escape; write a backslash as '\\\\' (or use '/' in paths)"
            )
        if simple:
            out.append(_SIMPLE[simple])
        elif octal or hexadecimal:
            out.append((int(octal, 8) if octal else int(hexadecimal, 16)) & 0xFF)
        else:
            code = int(short or long, 16)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise ValueError(f"{match.group()!r} is not a character")
            out += chr(code).encode()
    return bytes(out + body[last:].encode("utf-8", "replace"))
