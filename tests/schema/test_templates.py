"""Templates: three kinds of them, macros of the library, places of mistakes, and what hostile ones may not do."""

from __future__ import annotations

import itertools
import os
import random
import time
from pathlib import Path

import pytest

from netspec import schema
from netspec.errors import SpecError
from netspec.schema.templates import kind_of, rendered


def write(folder: Path, text: str, name: str = "net.prototmp") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# What the templates of the SimNets fork's experiments do, in miniature


def test_macro_with_an_argument_that_is_not_given() -> None:
    text = (
        "{% macro m(a, mask) %}{% if mask %}masked{% else %}{{ a }}{% endif %}{% endmacro %}{{ m('plain') }}"
    )
    assert schema.render_text(text, {}) == "plain"
    with pytest.raises(SpecError, match="mask"):
        schema.render_text("{% macro m(mask) %}{{ mask }}{% endmacro %}{{ m() }}", {})
    with pytest.raises(SpecError, match="'mask' has no value"):
        schema.render_text("{% if mask %}x{% endif %}", {})


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("{{ ('stage: \"%s\"' | format(stage)) if stage }}", {"stage": None}, ""),
        ("{{ ('stage: \"%s\"' | format(stage)) if stage }}", {"stage": "a"}, 'stage: "a"'),
        ("{% set half = ((size / parts) | int) %}{{ half }}", {"size": 128, "parts": 4}, "32"),
        ("{{ 1.0 / 255.0 }}", {}, "0.00392156862745098"),
        ("{{ rate | float }} {{ on | bool }}", {"rate": 0, "on": False}, "0.0 false"),
        ("{{ p if on else 1 }}", {"p": 0.5, "on": True}, "0.5"),
        ("data_{{ '%.2f' | format(p) }}", {"p": 0.25}, "data_0.25"),
        ("{% for x in [0,1,-1] %}{{ '_%d' | format(x) }}{% endfor %}", {}, "_0_1_-1"),
        ("{{ (2 - (x | abs)) * 2 }}", {"x": -1}, "2"),
        ("{{ name ~ '_mex' if top == None else top }}", {"name": "a", "top": None}, "a_mex"),
        (
            "{{ 'run_314159_%d' | format(3) }} {{ 'n_20161231 { dim: 123456 } %d' % 4 }}",
            {},
            "run_314159_3 n_20161231 { dim: 123456 } 4",
        ),
        ("{{ '{:>5}|{}'.format('a', 100000) }}", {}, "    a|100000"),
        ("{{ delta }} {{ seed }}", {"delta": 1e-16, "seed": "9508113122"}, "1e-16 9508113122"),
    ],
)
def test_expressions_of_the_originals(text: str, values: dict[str, object], expected: str) -> None:
    assert schema.render_text(text, values) == expected


# Templates of others


def test_percent() -> None:
    text = 'name: "%(name)s" # 5%% of\nbase_lr: %(rate).3f\nmax_iter: %(n)d\n'
    assert kind_of(text) == "percent"
    assert (
        schema.render_text(text, {"name": "a", "rate": 0.1, "n": 7.9})
        == 'name: "a" # 5% of\nbase_lr: 0.100\nmax_iter: 7\n'
    )


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("a %(n)d\nb %(rat)s", 2, "'rat' has no value; did you mean 'rate'"),
        ("%(n)d\n\n50% of", 3, "a percent sign is written %%"),
        ("%(name)d", 1, "%d format"),
        ("%(n)9999999999d", 1, "more than"),
    ],
)
def test_mistakes_of_percent(text: str, line: int, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint) as raised:
        schema.render_text(text, {"n": 1, "rate": 2, "name": "x"}, "t", engine="percent")
    position = raised.value.problems[0].position
    assert position is not None
    assert position.line == line


def test_dollar() -> None:
    text = "# costs $5\ninput_dim: $HEIGHT input_dim: ${WIDTH}\nname: '$$'"
    assert kind_of(text) == "dollar"
    values = {"HEIGHT": 3, "WIDTH": 4}
    assert schema.render_text(text, values) == "# costs $5\ninput_dim: 3 input_dim: 4\nname: '$'"
    with pytest.raises(SpecError, match=r"t:2:1: template: 'HEIGHT' has no value; did you mean 'HEIGH'"):
        schema.render_text(text, {"HEIGH": 3}, "t")


def test_values_are_plain_data() -> None:
    with pytest.raises(SpecError, match="value 'x' is a object"):
        schema.render_text("{{ x }}", {"x": object()})


# Files beside the template, and the places of mistakes


def test_macros_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "{% macro relu(x) %}{{ x }}!{% endmacro %}", "parts/relu.prototmp")
    path = write(tmp_path, "{% from 'parts/relu.prototmp' import relu %}{{ relu('a') }}")
    assert schema.render(path, {}) == "a!"


def test_a_mistake_in_a_macro_is_placed_in_its_file(tmp_path: Path) -> None:
    macros = write(tmp_path, "{% macro m(x) %}\n\n{{ x / 0 }}{% endmacro %}", "m.prototmp")
    path = write(tmp_path, "\n{% from 'm.prototmp' import m %}{{ m(1) }}")
    with pytest.raises(SpecError, match="ZeroDivisionError") as raised:
        schema.render(path, {})
    position = raised.value.problems[0].position
    assert position is not None
    assert (position.file, position.line) == (str(macros), 3)


def test_mistakes_in_the_text_name_the_template_line(tmp_path: Path) -> None:
    write(
        tmp_path,
        "{% macro layer(n) %}layer {\n  name: 'l{{ n }}'\n  typ: 'ReLU' }\n{% endmacro %}",
        "m.prototmp",
    )
    loop = "{% for i in [1,2] %}{{ m.layer(i) }}{% endfor %}"
    path = write(tmp_path, "{% import 'm.prototmp' as m %}\nname: 'x'\n" + loop)
    text = rendered(path, {})
    with pytest.raises(SpecError) as raised:
        text.parse("out.prototxt")
    first, second = raised.value.problems
    assert first.position is not None
    assert second.position is not None
    assert text.text.split("\n")[first.position.line - 1].strip() == "typ: 'ReLU' }"
    assert second.position.line == first.position.line + 3
    assert all(
        str(problem).endswith(f"(template {tmp_path / 'm.prototmp'}:3)") for problem in (first, second)
    )


def test_origins_are_the_lines_that_wrote_the_text() -> None:
    text = "a\n{%- if true %}\n  b\n{% endif -%}\n\nc {{ 'd\ne' }}\nf"
    made = schema.templates.fill(text, {}, "t", None, None)
    lines = made.text.split("\n")
    assert [(line.strip(), made.origin(n)) for n, line in enumerate(lines, 1)] == [
        ("a", ("t", 1)),
        ("b", ("t", 3)),
        ("c d", ("t", 6)),
        ("e", ("t", 6)),
        ("f", ("t", 8)),
    ]


def test_origins_where_a_template_looks_at_its_own_text() -> None:
    text = "{% set x %}a{% endset %}{{ x | length }}\nb"
    made = schema.templates.fill(text, {}, "t", None, None)
    assert (made.text, made.origin(2)) == ("1\nb", None)


# Hostile templates

WALKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% set x = ''.__class__ %}ok",
    "{{ ().__class__.__base__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ x.__class__ }}",
    "{{ '{0.__class__.__mro__}'.format(x) }}",
    "{{ '{0.__init__}' | format(x) | upper }}{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ (x | attr('__class__')) }}",
    "{{ [1] | map(attribute='__class__') | list }}",
    "{{ [1] | groupby('__class__') | list }}",
    "{{ range.__self__ }}",
    "{{ dict.mro() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].system('touch hacked') }}",
    "{{ url_for.__globals__ }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ config.items() }}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "{% macro m() %}{{ caller.__code__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% for a in [1] %}{{ loop.__class__.__init__.__globals__ }}{% endfor %}",
    "{{ ''['__class__'] }}",
    "{{ (1).real.__class__ }}",
    "{{ x.append(1) or x.__reduce__() }}",
    "{{ [].append(1) }}",
    "{{ {}.update(a=1) }}",
    "{% import 'os' as os %}{{ os.system('id') }}",
]
ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro a(n) %}{{ a(n - 1) ~ a(n - 1) if n else '' }}{% endmacro %}{{ a(60) }}",
    "{% for i in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "{% for i in range(10 ** 9) %}x{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}"
    "{% endfor %}{{ n.a == n.b }}",
    "{{ range(99999) | map('string') | map('replace', '', 'x' * 9999) | join }}",
    "{{ lipsum(n=100000000) }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 10 ** 100000000 }}",
    "{% include 'net.prototmp' %}",
    "{% extends 'net.prototmp' %}",
]
HUGE = [
    "{{ 'x' * 99999999999 }}",
    "{{ ('x' * 300000000) | length }}",
    "{{ [1] * 9999999999 }}",
    "{{ 99999999 * 'ab' }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%0999999999d' | format(1) }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=999999999) }}",
    "{{ '%.999999999f' % 1 }}",
    "{{ '%(a)0999999999d' % {'a': 1} }}",
    "{{ 'x'.center(9999999999) }}",
    "{{ 'x'.ljust(999999999) }}{{ 'x'.zfill(999999999) }}",
    "{{ 'x' | center(999999999) }}",
    "{{ 'a\nb' | indent(999999999) }}",
    "{{ [1] | batch(999999999, 'x') | list }}",
    "{{ [1] | slice(999999999) | list }}",
    "{{ 1.5 | round(999999999, 'ceil') }}",
    "{{ {'a': [1]} | tojson(indent=999999999) }}",
    "{{ range(999999999) | list }}",
    "{{ '\t'.expandtabs(9999999999) }}",
    "{{ (1).to_bytes(9999999999, 'big') }}",
    "{% set a = 'x' * 100000 %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "{% set a %}" + "x" * 1000 + "{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "-" * 50000 + "1 }}",
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
]
READS = [
    "{% include '/etc/passwd' %}",
    "{% include '../secret.prototmp' %}",
    "{% include 'a/../../secret.prototmp' %}",
    "{% include 'link.prototmp' %}",
    "{% include ['../secret.prototmp', 'ok.prototmp'] %}",
    "{% include '../secret.prototmp' ignore missing %}",
    "{% include 'linked/secret.prototmp' ignore missing %}",
    "{% import '../secret.prototmp' as s %}{{ s }}",
    "{% from '/etc/hostname' import x %}",
    "{% extends '../secret.prototmp' %}",
    "{% include 'netspec/../templates.py' %}",
    "{% include 'netspec//etc/passwd' %}",
    "{% include 'netspec/nothing.prototmp' %}",
    "{% include '..\\\\secret.prototmp' %}",
    "{% include 'file:///etc/passwd' %}",
    "{% include 'pipe.prototmp' %}",
    "{% include 'link.prototmp\\0' %}",
    "{% include '' %}",
    "{% include '.' %}",
    "{% include '~/.bashrc' %}",
    "{% include '/dev/zero' %}",
    "{% include '/proc/self/environ' %}",
]
ALL = [*WALKS, *ENDLESS, *HUGE, *READS]


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder to run in, with a secret outside of it and links that lead out."""
    inside = tmp_path / "inside"
    inside.mkdir()
    write(tmp_path, "SECRET", "secret.prototmp")
    write(inside, "fine", "ok.prototmp")
    (inside / "link.prototmp").symlink_to(tmp_path / "secret.prototmp")
    (inside / "linked").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe.prototmp")
    return inside


def refused(text: str, folder: Path) -> float:
    """Seconds that it took to refuse a template; fails where it was filled, or something came of it."""
    path = write(folder, text)
    started = time.monotonic()
    with pytest.raises(SpecError) as raised:
        pytest.fail(f"filled: {schema.render(path, {'x': 1, 'y': [1, 2]})[:200]!r}")
    assert "SECRET" not in str(raised.value)
    assert raised.value.problems[0].position is not None
    assert not list(folder.parent.rglob("hacked"))
    return time.monotonic() - started


@pytest.mark.parametrize("text", [*WALKS[::3], *HUGE[::3], *READS[::3], ENDLESS[0], ENDLESS[6]])
def test_hostile_templates_are_refused(text: str, trap: Path) -> None:
    assert refused(text, trap) < 5


@pytest.mark.slow
@pytest.mark.parametrize("text", ALL)
def test_every_hostile_template_is_refused(text: str, trap: Path) -> None:
    assert refused(text, trap) < 5


def disguised(text: str, random: random.Random) -> str:
    """The template within other template text, so that no two are alike."""
    frames = [
        "{}",
        "name: 'x'\n{}",
        "{{% if x %}}{}{{% endif %}}",
        "{{% for i in [1] %}}\n{}{{% endfor %}}",
        "{{% set q = {n} %}}{}",
        "{{% macro f() %}}{}{{% endmacro %}}{{{{ f() }}}}",
        "{{% filter upper %}}{}{{% endfilter %}}",
        "{{% block b{n} %}}{}{{% endblock %}}",
        "{{% with z = {n} %}}{}{{% endwith %}}",
    ]
    frame = random.choice(frames)
    if "extends" in text or "recursive" in text or "self." in text:
        frame = "{{# {n} #}}{}"
    return (
        frame.replace("{n}", str(random.randrange(10**6)))
        .replace("{}", "\0")
        .replace("{{", "{")
        .replace("}}", "}")
        .replace("\0", text)
    )


@pytest.mark.slow
def test_two_thousand_hostile_templates(trap: Path) -> None:
    chance = random.Random(1)
    quick = [
        text for text in ALL if text not in ENDLESS and "set a" not in text
    ]  # those cost a new process each
    for text in itertools.islice(itertools.cycle(quick), 2000):
        assert refused(disguised(text, chance), trap) < 5


def test_after_a_hostile_template_others_are_filled() -> None:
    with pytest.raises(SpecError, match="takes more than"):
        schema.render_text(ENDLESS[0], {})
    assert schema.render_text("{{ 1 + 1 }}", {}) == "2"


def test_a_template_that_is_no_file_is_refused(trap: Path) -> None:
    with pytest.raises(SpecError, match="is no file"):
        schema.render(trap / "pipe.prototmp", {})
    (trap / "long.prototmp").write_text("x" * (2 << 20))
    with pytest.raises(SpecError, match="longer than"):
        schema.render(trap / "long.prototmp", {})
