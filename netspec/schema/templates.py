"""Spec templates: text with values put in, for searches over settings and for nets that repeat themselves.

Three kinds, told apart by their text:
  jinja    `.prototmp` files in Jinja2: `{{ width }}`, `{% for %}`, macros; a name without a value is an error.
           `{{ x|bool }}` writes a value as `true` or `false`. `{% import "netspec/simnets.prototmp" as simnets %}`
           takes macros of the library (netspec/schema/library); other names are files of the template's own folder.
  percent  Python's `%(name)s`, as the SimNets fork's hyper_train.py has them without a rendering engine
  dollar   `$NAME` and `${NAME}`, as FlowNet's deploy templates have them

A template is a program that somebody else wrote. It runs in a sandbox, in a separate process with limited memory and
time (see `template_worker`): it reads nothing outside its folder, and an endless one is refused after 0.4 seconds of
processor time.

Mistakes in the rendered text point into that text, and name the line of the template that wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netspec.errors import Position, Problem, SpecError, did_you_mean
from netspec.schema.document import Document
from netspec.schema.read import guess_kind, load_text, parse
from netspec.schema.template_guards import FILE, LAST_SECONDS, MARK
from netspec.schema.template_process import worker

ENGINES = ("jinja", "percent", "dollar")


@dataclass(frozen=True)
class Rendered:
    """A template with its values put in."""

    text: str
    template: str
    """The template's file."""
    _request: Mapping[str, Any] = field(repr=False)

    def origin(self, line: int) -> tuple[str, int] | None:
        """(file, line) of the template that wrote a line of the text; None where that is unknown."""
        return self._origins().get(line)

    def _origins(self) -> dict[int, tuple[str, int]]:
        if self._request["engine"] != "jinja":
            return {n: (self.template, n) for n in range(1, self.text.count("\n") + 2)}
        reply = worker.ask({**self._request, "marks": True}) or {}
        # A template that reads its own output sees the marks too; then they are of no use.
        if MARK.sub("", reply.get("text", "")) != self.text:
            return {}
        places: dict[int, tuple[str, int]] = {}
        last: tuple[str, int] | None = None
        for n, line in enumerate(reply["text"].split("\n"), 1):
            head, *parts = MARK.split(line)  # text, then (file, line, text) per mark
            marks = [
                ((reply["files"][int(file)], int(number)), text)
                for file, number, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
            ]
            wrote = next((place for place, text in marks if text.strip()), marks[-1][0] if marks else last)
            place = last if head.strip() else wrote
            places |= {n: place} if place else {}
            last = marks[-1][0] if marks else last
        return places

    def parse(self, file: str = "") -> Document:
        """Read the text as a net or a solver; `file` is the name that errors give.

        Raises SpecError: its problems point into the text and name the line of the template.
        """
        name = file or f"{self.template} (rendered)"
        try:
            return parse(guess_kind(self.text, self.template), self.text, name)
        except SpecError as error:
            raise self.blame(error) from None

    def blame(self, error: SpecError) -> SpecError:
        """The same error, each problem with the line of the template that wrote its place."""
        places = self._origins()
        problems = []
        for problem in error.problems:
            place = places.get(problem.position.line) if problem.position else None
            text = f"{problem.message} (template {place[0]}:{place[1]})" if place else problem.message
            problems.append(Problem(text, problem.position))
        return SpecError(problems)


def render(path: str | Path, values: Mapping[str, Any], engine: str | None = None) -> str:
    """The text of the template file with `values` put in; SpecError at the line that fails."""
    return rendered(path, values, engine).text


def render_text(
    text: str, values: Mapping[str, Any], file: str = "<template>", engine: str | None = None
) -> str:
    """Like `render` for a text at hand, which has no folder to include from."""
    return fill(text, values, file, None, engine).text


def rendered(path: str | Path, values: Mapping[str, Any], engine: str | None = None) -> Rendered:
    """Like `render`, with the way back from a line of the text to that of the template."""
    file = Path(path)
    refuse_huge(file)
    return fill(load_text(file), values, str(path), str(file.resolve().parent), engine)


def refuse_huge(path: Path) -> None:
    """Raise SpecError for a path that is no file, and for a file too long for a template."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise SpecError(f"{path}: is no file")
    if path.is_file() and path.stat().st_size > FILE:
        raise SpecError(f"{path}: is longer than {FILE >> 20} MB: no template")


def fill(text: str, values: Mapping[str, Any], file: str, folder: str | None, engine: str | None) -> Rendered:
    """Fill a text at hand; `folder` is where it may include from. Raises SpecError at the line that fails."""
    if engine not in (None, *ENGINES):
        raise SpecError(
            f"engine {engine!r} is none of {', '.join(ENGINES)}{did_you_mean(str(engine), ENGINES)}"
        )
    request = {
        "engine": engine or kind_of(text),
        "text": text,
        "file": file,
        "folder": folder,
        "values": {name: plain(value, name) for name, value in values.items()},
        "marks": False,
    }
    reply = worker.ask(request)
    if reply is None:
        taken = f"takes more than {LAST_SECONDS} s of processor time, or more memory than a template may"
        raise SpecError(f"template: {taken}", Position(file, 1))
    if "error" in reply:
        place = Position(reply["file"] or file, reply["line"] or 1)
        raise SpecError(message_of(reply, values), place)
    return Rendered(reply["text"], file, request)


def kind_of(text: str) -> str:
    """The engine that a text is written for."""
    if re.search(r"\{\{|\{%|\{#", text):
        return "jinja"
    if re.search(r"%\(\w+\)", text):
        return "percent"
    return "dollar" if re.search(r"\$(\w|\{\w)", without_comments(text)) else "jinja"


def without_comments(text: str) -> str:
    """A prototxt's text less what stands behind `#` (a quoted one included: this is to tell engines apart)."""
    return re.sub(r"#.*", "", text)


def plain(value: Any, name: str) -> Any:
    """A value as plain data: numbers, texts, lists and mappings of them. Raises SpecError for anything else."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner, name) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, name) for inner in value]
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:  # a number of numpy's
        return plain(value.item(), name)
    raise SpecError(
        f"template: value {name!r} is a {type(value).__name__}; a template takes numbers, texts and lists"
    )


def message_of(reply: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """What went wrong, in words."""
    if reply["name"]:
        given = ", ".join(sorted(values)) or "none"
        return (
            f"template: {reply['name']!r} has no value{did_you_mean(reply['name'], values)} (given: {given})"
        )
    return f"template: {reply['error']}"
