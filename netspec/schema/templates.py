"""Spec templates (`.prototmp`): Jinja2 text with values put in, for searches over settings.

`{{ x|bool }}` writes a value as `true` or `false`.  Templates run in Jinja2's sandbox and a name without a
value is an error, at its line.  Mistakes in the rendered text point into that text, which the run folder
keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netspec.errors import Position, SpecError, did_you_mean
from netspec.schema.read import load_text

_FALSE = ("", "0", "false", "no", "off", "none")


def render(path: str | Path, values: Mapping[str, Any]) -> str:
    """The text of the template file with `values` put in; SpecError at the line that fails."""
    return render_text(load_text(path), values, str(path))


def render_text(text: str, values: Mapping[str, Any], file: str = "<template>") -> str:
    """Like `render` for a text at hand."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    environment.filters["bool"] = as_bool
    try:
        return environment.from_string(text).render(dict(values))
    except TemplateError as problem:
        line = getattr(problem, "lineno", None) or _line(problem)
        raise SpecError(_message(problem, values), Position(file, line)) from None
    except Exception as problem:
        # A template is a small program of the user's: whatever it raises is a mistake in it.
        raise SpecError(
            f"template: {type(problem).__name__}: {problem}", Position(file, _line(problem))
        ) from None


def as_bool(value: Any) -> str:
    """`true` or `false`; the words false, no, off and none count as false, as do 0 and nothing."""
    if isinstance(value, str):
        return "false" if value.strip().lower() in _FALSE else "true"
    return "true" if value else "false"


def _line(problem: BaseException) -> int:
    """The line of the template that was being rendered: Jinja2 maps its frames back to it."""
    line, trace = 1, problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _message(problem: Exception, values: Mapping[str, Any]) -> str:
    text = str(problem)
    if text.endswith(" is undefined"):
        name = text.split("'")[1] if "'" in text else ""
        given = ", ".join(sorted(values)) or "none"
        return f"template: {name!r} has no value{did_you_mean(name, values)} (given: {given})"
    return f"template: {text}"
