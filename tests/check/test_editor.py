"""What docs/editor gives to editors: the grammar's patterns, and the matcher on what `netspec check` really prints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from netspec import schema
from netspec.check import check
from netspec.schema.lexer import NUMBER, STRING, Tokens
from tests.places import ROOT

EDITOR = ROOT / "docs" / "editor"
GRAMMAR = json.loads((EDITOR / "syntaxes" / "prototxt.tmLanguage.json").read_text())
MATCHERS = [
    json.loads((EDITOR / "package.json").read_text())["contributes"]["problemMatchers"][0],
    json.loads((EDITOR / "vscode" / "tasks.json").read_text())["tasks"][0]["problemMatcher"],
]


def test_the_matcher_reads_every_problem_and_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.prototxt"
    path.write_text('layer { name: "x" type: "ReLU" bottom: "none" top: "y" }\n# z\nlayer { typ: "ReLU" }\n')
    report = check(path)
    lines = str(report).splitlines()
    for matcher in MATCHERS:
        pattern = matcher["pattern"]
        matches = [match for line in lines if (match := re.match(pattern["regexp"], line))]
        assert len(matches) == len(report.problems) + len(report.warnings) > 0
        for match, problem in zip(matches, [*report.problems, *report.warnings], strict=True):
            assert problem.position is not None
            assert match[pattern["file"]] == str(path)
            assert int(match[pattern["line"]]) == problem.position.line
            assert int(match[pattern["column"]]) == problem.position.column
            assert match[pattern["message"]] == problem.message
            assert re.fullmatch(r"NS\d+", match[pattern["code"]])
        background = matcher["background"]
        assert re.match(background["beginsPattern"], "checking")
        assert re.match(background["endsPattern"], "checked: 1 of 1 not ok; waiting for changes")


def scopes(line: str) -> dict[int, str]:
    """The scope of each place of a line, by the grammar's patterns in their order."""
    by_place: dict[int, str] = {}

    def rules(name: str) -> list[dict[str, Any]]:
        entry = GRAMMAR["repository"][name]
        listed = entry["patterns"] if "patterns" in entry and "begin" not in entry else [entry]
        return [
            inner for one in listed for inner in (rules(one["include"][1:]) if "include" in one else [one])
        ]

    at = 0
    while at < len(line):
        for rule in rules("entries"):
            if "begin" in rule:
                whole = rf"{rule['begin']}(?:\\.|[^\\{rule['begin']}])*(?:{rule['end']})"
            else:
                whole = rule["match"]
            match = re.compile(whole).match(line, at)
            if match and match.end() > at:
                for group, name in rule.get("captures", {"0": rule}).items():
                    for place in range(*match.span(int(group))):
                        by_place[place] = name["name"]
                at = match.end()
                break
        else:
            at += 1
    return by_place


def test_the_grammar_colours_what_the_lexer_reads() -> None:
    for path in sorted((ROOT / "nets").glob("*.prototxt")):
        for line in path.read_text().splitlines():
            by_place = scopes(line)
            comment = next((at for at, scope in by_place.items() if scope.startswith("comment")), len(line))
            tokens = Tokens(line)
            while tokens.current.kind != "end":
                token = tokens.next()
                scope = by_place.get(token.offset, "")
                assert token.offset < comment
                if token.kind == STRING:
                    assert scope.startswith(("string", "entity.name.type")), line
                elif token.kind == NUMBER:
                    assert scope.startswith("constant.numeric"), line
                elif token.kind == "name":
                    fields = schema.descriptor("LayerParameter").fields_by_name
                    expected = ("entity", "variable", "keyword") if token.text in fields else ("",)
                    assert scope, line
                    assert scope.startswith(expected), line
