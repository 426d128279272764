"""`netspec fmt`: the same message, the same comments, and nothing left to do the second time."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from netspec import schema
from netspec.errors import SpecError
from netspec.schema import printer
from netspec.schema.descriptors import is_repeated
from netspec.schema.formatting import WIDTH, format_text, substance
from netspec.schema.lexer import STRING, Tokens

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "nets").rglob("*.prototxt"), *(ROOT / "tests" / "corpus").rglob("*.prototxt")])


def comments_of(text: str) -> list[str]:
    """The comments of a text, found without the code under test: a sign # outside of the lexer's strings."""
    strings, tokens = set[int](), Tokens(text)
    while tokens.current.kind != "end":
        token = tokens.next()
        if token.kind == STRING:
            strings |= set(range(token.offset, token.offset + len(token.text)))
    comments, at = [], 0
    while at < len(text):
        if text[at] == "#" and at not in strings:
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            comments.append(text[at:end].rstrip())
            at = end
        at += 1
    return comments


def parsed(text: str, kind: str) -> tuple[str, list[tuple[object, ...]]]:
    """The message as protobuf prints it (NaN equals NaN there), and the fields that the schema does not know."""
    document = schema.parse(kind, text, unknown="keep")
    return text_format.MessageToString(document.message), [
        (one.path, one.name, one.value, one.is_value) for one in document.unknown
    ]


def check(text: str, kind: str | None = None) -> str:
    made = format_text(text)
    kind = kind or schema.guess_kind(text)
    assert parsed(made, kind) == parsed(text, kind)
    assert comments_of(made) == comments_of(text)
    assert format_text(made) == made
    return made


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_every_file_says_the_same(path: Path) -> None:
    text = schema.load_text(path)
    if path.name == "places.prototxt":  # a template: ${WHOM}
        with pytest.raises(SpecError, match="is this a template"):
            format_text(text)
        return
    try:
        schema.parse(schema.guess_kind(text), text, unknown="keep")
    except SpecError:  # it is there for mistakes in its names and values
        assert substance(text) == substance(made := format_text(text))
        assert format_text(made) == made
        return
    check(text)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("name:'a';\n", 'name: "a"\n'),
        ('layer{name:"a"type:"b"}', 'layer { name: "a" type: "b" }\n'),
        ("layer: <\nname: 'say \"x\"'>", "layer {\n  name: 'say \"x\"'\n}\n"),
        (
            "\n\nlayer {\n\n\n  name: 'a'\n\n\n  type: 'b'\n\n}\n\n\n\n",
            'layer {\n  name: "a"\n\n  type: "b"\n}\n',
        ),
        ("layer { # of data\nname: 'a' }# end\n", 'layer { # of data\n  name: "a"\n} # end\n'),
        ("layer {}", "layer {}\n"),
        ("a: [1,2 ,\n3]", "a: [1, 2, 3]\n"),
        ("a: [ # few\n1, # one\n# then\n2\n]", "a: [ # few\n  1, # one\n  # then\n  2\n]\n"),
        ("a: [{b: 1},{b: 2}]", "a: [{ b: 1 }, { b: 2 }]\n"),
        ("a: - # why\n 5", "# why\na: -5\n"),
        ('a: "x" # one\n  "y" # two\n', '# one\na: "x" "y" # two\n'),
        ("a: 1 ; # c\nb: 2, c: 3\n", "a: 1 # c\nb: 2 c: 3\n"),
        ("a: 1\n# x\n\n# y\nb: 2", "a: 1\n# x\n\n# y\nb: 2\n"),
        ("[some.ext] { a: 1 }", "[some.ext] { a: 1 }\n"),
        ("a: 1 # c  \t\r\n", "a: 1 # c\n"),
        ("layer {\n  a: 1 } layer { a: 2 }", "layer {\n  a: 1\n}\nlayer { a: 2 }\n"),
    ],
)
def test_the_form(text: str, made: str) -> None:
    assert format_text(text) == made
    assert format_text(made) == made


def test_long_lines_are_broken() -> None:
    fields = " ".join(f'bottom: "blob_{i}"' for i in range(20))
    made = format_text(f"layer {{ {fields} }}")
    assert made.startswith('layer {\n  bottom: "blob_0" bottom: ')
    assert max(map(len, made.splitlines())) <= WIDTH
    numbers = format_text(f"a: [{', '.join(map(str, range(100)))}]")
    assert numbers.startswith("a: [\n  0, 1, 2, ")
    assert max(map(len, numbers.splitlines())) <= WIDTH
    assert numbers.splitlines()[-2].endswith(" 99")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("layer {\n  name: 'a'\n", "f:3:1: expected '}', found the end of the file"),
        ("layer { name }", "f:1:14: expected ':' or '{' after 'name', found '}'"),
        ("a: [1,]", "f:1:7: expected a value after ',', found ']'"),
        ("a: [1 2]", "f:1:7: expected ',' or ']', found '2'"),
        ("a: }", "f:1:4: expected a value for 'a', found '}'"),
        ("}", "f:1:1: expected a field name, found '}'"),
        ("{% if x %}", "f:1:1: expected a field name, found '{'"),
        ("a: 'x", "f:1:4: this string has no closing quote on its line"),
        ("a: 1;;", "f:1:6: expected a field name, found ';'"),
        ("a { " * 200, "f:1:405: expected at most 100 levels"),
    ],
)
def test_what_is_no_spec_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(SpecError) as error:
        format_text(text, "f")
    assert str(error.value).startswith(complaint)


# 2,000 generated specs: a random message, written in a random hand


def written(message: Any, rng: random.Random) -> str:
    """A message as somebody writes it: comments, separators, brackets and line ends anywhere that is allowed."""
    count = 0

    def gap(least: str = "") -> str:
        nonlocal count
        shown = rng.choice([least, " ", " ", " ", "\n", "\n  ", "\n\n", "\n\n\n\t", "  "])
        if rng.random() < 0.1:
            count += 1
            word = rng.choice(["why", "{", "a: 1", '"', "x  "])
            shown += rng.choice(["", " ", "\n"]) + f"# {count} {word}\n"
        return shown

    def scalar(field: Any, value: Any) -> str:
        text = printer._scalar(field, value)
        if text[0] == '"' and "'" not in text and '"' not in text[1:-1] and rng.random() < 0.3:
            text = f"'{text[1:-1]}'"
        elif text[0] == '"' and "\\" not in text and len(text) > 3 and rng.random() < 0.2:
            cut = rng.randrange(2, len(text) - 1)
            text = f'{text[:cut]}"{gap()}"{text[cut:]}'
        elif text[0] == "-":
            text = f"-{gap()}{text[1:]}"
        return text

    def block(inner: Any) -> str:
        opening, closing = rng.choice(["{}", "{}", "{}", "<>"])
        return f"{opening}{gap()}{fields(inner)}{gap()}{closing}"

    def fields(inner: Any) -> str:
        made = ""
        for field, value in inner.ListFields():
            values = list(value) if is_repeated(field) else [value]
            below = field.message_type is not None
            if is_repeated(field) and rng.random() < 0.3:
                shown = f"{gap()},{gap()}".join(block(v) if below else scalar(field, v) for v in values)
                made += f"{field.name}{gap()}:{gap()}[{gap()}{shown}{gap()}]{gap(' ')}"
                continue
            for v in values:
                colon = rng.choice(["", gap() + ":"]) if below else gap() + ":"
                made += f"{field.name}{colon}{gap()}{block(v) if below else scalar(field, v)}"
                made += rng.choice([gap(" "), gap(" "), gap() + ";" + gap(), gap() + "," + gap()])
        return made

    return gap() + fields(message) + gap()


def random_message(message: Any, rng: random.Random, depth: int = 0) -> Any:
    """Some fields of a message with values of their types."""
    fields = list(message.DESCRIPTOR.fields)
    for field in rng.sample(fields, min(len(fields), rng.randrange(1, 5))):
        repeated = is_repeated(field)
        if field.message_type is not None:
            for _ in range(rng.randrange(1, 3) if repeated else 1) if depth < 4 else ():
                holder = getattr(message, field.name)
                inner = holder.add() if repeated else holder
                inner.SetInParent()
                random_message(inner, rng, depth + 1)
            continue
        values = [random_value(field, rng) for _ in range(rng.randrange(1, 4) if repeated else 1)]
        if repeated:
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, values[0])
    return message


def random_value(field: Any, rng: random.Random) -> Any:
    kind = field.cpp_type
    if field.enum_type is not None:
        return rng.choice(field.enum_type.values).number
    if kind == field.CPPTYPE_STRING:
        text = "".join(rng.choice("ab_/. '\"#\\{é\n") for _ in range(rng.randrange(0, 12)))
        return text.encode() if field.type == field.TYPE_BYTES else text
    if kind == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice([0.0, -1.5, 1e-5, 3e20, float("inf"), float("-inf"), float("nan"), rng.gauss(0, 1)])
    signed = kind in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    return rng.randrange(-1000 if signed else 0, 1000)


@pytest.mark.parametrize("part", range(20))
def test_generated_specs(part: int) -> None:
    """100 of 2,000 a part."""
    commented = 0
    for seed in range(100 * part, 100 * part + 100):
        rng = random.Random(seed)
        kind = rng.choice(["NetParameter", "NetParameter", "SolverParameter", "LayerParameter"])
        message = random_message(schema.message_class(kind)(), rng)
        while not message.IsInitialized():  # lacks a field that must be there: no file can say that
            message = random_message(schema.message_class(kind)(), rng)
        text = written(message, rng)
        check(text, kind)
        commented += "#" in text
    assert commented > 30


def test_a_long_file_takes_time_in_proportion() -> None:
    """60,000 strings; looking past each from the start of the file took minutes."""
    text = "".join(f'layer {{ name: "r{i}" type: "ReLU" bottom: "x" }}\n' for i in range(20_000))
    started = time.process_time()
    assert format_text(text).count("ReLU") == 20_000
    assert time.process_time() - started < 60
