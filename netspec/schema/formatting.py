"""`netspec fmt`: a spec file in its canonical form, with every comment, field and value as it was.

Two spaces a level, one space around what stands on a line, strings in double quotes, messages in braces, no
separators, at most one empty line. Fields that share a line go on sharing it; a line of more than 120 columns is
broken. The form needs no schema: a file with fields that netspec does not know has one too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netspec.errors import SpecError
from netspec.schema.formatting_reader import CLOSING, COMMENT, Block, Comment, Entry, Reader, lexemes, quoted
from netspec.schema.lexer import END

WIDTH = 120
"""Most columns of a line with several fields, its comment not counted."""
STEP = "  "


def format_text(text: str, file: str = "<text>") -> str:
    """The text in canonical form; formatting a canonical text changes nothing.

    Raises SpecError where brackets, names and values do not follow one another as they must. Names and values of fields
    are not checked: `netspec check` does that.
    """
    block = Reader(text, file).block("", 0)
    formatted = "".join(f"{line}\n" for line in lines_of(block.entries, ""))
    if substance(formatted) != substance(text):  # a guard: no such text is known
        raise SpecError(f"{file}: formatting would change what it says; it is left as it is")
    return formatted


def substance(text: str) -> tuple[list[str], list[str]]:
    """What formatting must keep: the tokens (without separators, brackets and quotes made alike) and the comments."""
    parts = lexemes(text)
    words = [
        word.text for word in parts if word.kind not in (COMMENT, END) and not word.symbol(":", ";", ",")
    ]
    same = {"<": "{", ">": "}"}
    return (
        [quoted(word) if word[0] in "\"'" else same.get(word, word) for word in words],
        [word.text for word in parts if word.kind == COMMENT],
    )


def lines_of(entries: Sequence[Entry | Comment], indent: str) -> Iterator[str]:
    """The lines of a block's inside."""
    at = 0
    while at < len(entries):
        first = entries[at]
        if first.blank and at:
            yield ""
        if isinstance(first, Comment):
            yield indent + first.text
            at += 1
            continue
        row = [first]
        while at + len(row) < len(entries):
            later = entries[at + len(row)]
            if isinstance(later, Comment) or not later.joins:
                break
            row.append(later)
        yield from filled(row, indent)
        at += len(row)


def filled(row: Sequence[Entry], indent: str, last: Entry | None = None) -> Iterator[str]:
    """Entries side by side, as many as fit on a line; an entry of several lines stands alone.

    last: the last element of a list, which has no comma after it.
    """
    line = ""
    for entry in row:
        shown = on_one_line(entry)
        comma = "," if last is not None and entry is not last else ""
        if shown is None or (len(indent) + len(shown) > WIDTH and can_spread(entry)):
            if line:
                yield indent + line
                line = ""
            yield from spread(entry, indent, comma)
            continue
        shown += comma
        if line and len(indent) + len(line) + 1 + len(shown) > WIDTH:
            yield indent + line
            line = ""
        line = f"{line} {shown}" if line else shown
        if entry.note:
            yield indent + line + behind(entry.note)
            line = ""
    if line:
        yield indent + line


def on_one_line(entry: Entry) -> str | None:
    """An entry without its comment as one line; None where it takes several."""
    lead = f"{entry.name}: " if entry.name else ""
    if not isinstance(entry.value, Block):
        return lead + " ".join(entry.value)
    block = entry.value
    if block.note or (block.spread and block.bracket != "["):
        return None
    inner = []
    for entry_ in block.entries:
        shown = None if isinstance(entry_, Comment) or entry_.note else on_one_line(entry_)
        if shown is None:
            return None
        inner.append(shown)
    if block.bracket == "[":
        return f"{lead}[{', '.join(inner)}]"
    body = f"{{ {' '.join(inner)} }}" if inner else "{}"
    return f"{entry.name} {body}" if entry.name else body


def can_spread(entry: Entry) -> bool:
    """Whether it has a place at which a line can be broken."""
    return bool(entry.value.entries) if isinstance(entry.value, Block) else len(entry.value) > 1


def spread(entry: Entry, indent: str, comma: str) -> Iterator[str]:
    """An entry on several lines."""
    end = comma + behind(entry.note)
    if not isinstance(entry.value, Block):
        if entry.name:
            yield f"{indent}{entry.name}:"
            indent += STEP * 2
        rows = [indent + piece for piece in entry.value]
        yield from rows[:-1]
        yield rows[-1] + end
        return
    block = entry.value
    opening = "[" if block.bracket == "[" else "{"
    lead = f"{entry.name}: " if opening == "[" else f"{entry.name} " if entry.name else ""
    yield f"{indent}{lead}{opening}{behind(block.note)}"
    yield from (elements if opening == "[" else lines_of)(block.entries, indent + STEP)
    yield f"{indent}{CLOSING[opening]}{end}"


def elements(entries: Sequence[Entry | Comment], indent: str) -> Iterator[str]:
    """The lines of a list's inside: a comma behind each element but the last."""
    last = next((entry for entry in reversed(entries) if isinstance(entry, Entry)), None)
    row: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Entry):
            row.append(entry)
            continue
        yield from filled(row, indent, last)
        row = []
        yield indent + entry.text
    yield from filled(row, indent, last)


def behind(note: str) -> str:
    return f" {note}" if note else ""
