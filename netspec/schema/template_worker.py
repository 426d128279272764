"""The process in which templates are filled: a program of its own, which knows Jinja2 and little of netspec.

A template is a small program that somebody else wrote. It runs here, on plain data, in Jinja2's sandbox and in a
process whose memory and time the system limits. It is started by `netspec.schema.template_process`, reads requests from
its standard input and writes replies to its standard output, each a length of 8 bytes and so much JSON.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn


def bare_packages() -> None:
    """Let modules of netspec.schema be imported without what their packages import: this process starts in 0.1 s."""
    sys.path[:] = json.loads(sys.argv[1])
    for name, folder in (("netspec", Path(__file__).parents[1]), ("netspec.schema", Path(__file__).parent)):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package


if __name__ == "__main__":
    bare_packages()

from jinja2 import BaseLoader, StrictUndefined, TemplateNotFound, TemplateSyntaxError
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.sandbox import ImmutableSandboxedEnvironment

from netspec.schema import template_guards as guards
from netspec.schema.template_guards import Failure, Refused


class Slow(BaseException):
    """The template's time is over; not an Exception, so that no handler in Jinja2 catches it."""


def as_bool(value: Any) -> str:
    """`true` or `false`; the words false, no, off and none count as false, as do 0 and nothing."""
    if isinstance(value, str):
        return "false" if value.strip().lower() in ("", "0", "false", "no", "off", "none") else "true"
    return "true" if value else "false"


class Missing(StrictUndefined):
    """A name without a value, which is a mistake; but a missing argument of a macro may be tested, and is false."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        if (self._undefined_hint or "").endswith("was not provided"):
            return False
        return bool(self._fail_with_undefined_error())


class Loader(BaseLoader):
    """Included templates: those of the library, and those in the folder of the template."""

    def __init__(self, folder: str | None, library: str):
        self.folder, self.library = folder, library
        self.made: dict[str, Any] = {}
        """Templates by file."""

    def get_source(self, environment: Any, template: str) -> tuple[str, str, Callable[[], bool]]:
        path = guards.within(template, self.folder, self.library)
        try:
            return guards.read(path), path, lambda: True
        except FileNotFoundError:
            raise TemplateNotFound(template) from None

    def load(self, environment: Any, name: str, globals: Any = None) -> Any:
        template = super().load(environment, name, globals)
        self.made[template.filename or name] = template
        return template


class Marks(Extension):
    """Adds marks to a template's text, one at the beginning of each line, that tell where a rendered line came from."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        files: list[str] = self.environment.files  # type: ignore[attr-defined]
        file = str(stream.filename)
        if file not in files:
            files.append(file)
        for token in stream:
            if token.type != "data":
                yield token
                continue
            lines = enumerate(token.value.split("\n"), token.lineno)
            text = "\n".join(f"\x01{files.index(file)}:{line}\x02{part}" for line, part in lines)
            yield Token(token.lineno, "data", text)


WIDE = ("center", "indent", "format", "wordwrap", "truncate", "batch", "slice", "round", "tojson")
"""Filters whose arguments decide the size of their result."""


class Environment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, with limits on what one operation makes."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def __init__(self, loader: Loader, marks: bool):
        self.files: list[str] = []
        super().__init__(
            loader=loader,
            undefined=Missing,
            autoescape=False,
            keep_trailing_newline=True,
            extensions=[Marks] if marks else [],
        )
        self.filters["bool"] = as_bool
        for name in WIDE:
            self.filters[name] = guards.guarded(self.filters[name])
        for name in ("lipsum", "cycler", "joiner"):
            self.globals.pop(name, None)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            guards.refuse_power(left, right)
        elif operator == "%" and isinstance(left, str):
            guards.refuse_width(left)
        elif operator == "*":
            guards.refuse_repeat(left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        guards.refuse_call(function, args)
        return super().call(context, function, *args, **kwargs)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        kind = type(obj).__name__
        raise SecurityError(f"access to attribute {attribute!r} of {kind!r} object is unsafe")


def jinja(request: Mapping[str, Any]) -> dict[str, Any]:
    """The text of the request's template with its values put in; Failure where it cannot be filled."""
    loader = Loader(request["folder"], request["library"])
    environment = Environment(loader, request["marks"])
    try:
        code = environment.compile(request["text"], request["file"], request["file"])
        template = environment.template_class.from_code(environment, code, environment.make_globals(None))
        loader.made[request["file"]] = template
        pieces, size = [], 0
        for piece in template.root_render_func(template.new_context(dict(request["values"]))):
            pieces.append(piece)
            size += len(piece)
            if size > guards.OUTPUT:
                raise Refused(f"takes more than {guards.OUTPUT} characters")
    except TemplateSyntaxError as problem:
        file = problem.filename or request["file"]
        raise Failure(problem.message or "syntax", problem.lineno, file) from None
    except (Slow, Exception) as problem:
        raise Failure(explained(problem), *place(problem, loader.made), unnamed(problem)) from None
    return {"text": "".join(pieces), "files": environment.files}


def explained(problem: BaseException) -> str:
    """What went wrong in a template, in words."""
    if isinstance(problem, Slow):
        return f"takes more than {guards.SECONDS} s of processor time"
    if isinstance(problem, MemoryError):
        return f"takes more than {guards.MEMORY >> 20} MB of memory"
    if isinstance(problem, RecursionError):
        return "nests too deeply, or calls itself without end"
    if isinstance(problem, TemplateNotFound):
        return f"includes {problem.name!r}, which is not in its folder"
    if isinstance(problem, UndefinedError | SecurityError | Refused):
        return str(problem)
    return f"{type(problem).__name__}: {problem}"


def unnamed(problem: BaseException) -> str:
    """The name that has no value, where that is the mistake."""
    text = str(problem)
    undefined = isinstance(problem, UndefinedError) and text.endswith(" is undefined") and "'" in text
    return text.split("'")[1] if undefined else ""


def place(problem: BaseException, templates: Mapping[str, Any]) -> tuple[int, str]:
    """(line, file) of the template that was being filled, from the frames of the code that Jinja2 made of it."""
    line, file, trace = 0, "", problem.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name in templates:
            line, file = templates[name].get_corresponding_lineno(trace.tb_lineno), name
        trace = trace.tb_next
    return line, file


# The process


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a request."""
    try:
        if request["engine"] == "jinja":
            return jinja(request)
        return {
            "text": (guards.percent if request["engine"] == "percent" else guards.dollar)(request),
            "files": [],
        }
    except Failure as problem:
        return failed(problem.message, problem.line, problem.file, problem.name)
    except (MemoryError, RecursionError) as problem:
        return failed(f"takes too much ({type(problem).__name__})")


def failed(message: str, line: int = 0, file: str = "", name: str = "") -> dict[str, Any]:
    return {"error": message, "line": line, "file": file, "name": name}


def limited(request: Mapping[str, Any]) -> dict[str, Any]:
    """`answer` under a clock: told to stop at SECONDS, ended by the system at LAST_SECONDS."""
    if not hasattr(signal, "setitimer"):
        return answer(request)

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Slow

    try:
        signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, guards.LAST_SECONDS)
        signal.setitimer(signal.ITIMER_PROF, guards.SECONDS, 0.02)
        try:
            return answer(request)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except Slow:  # while the reply was being made
        return failed(f"takes more than {guards.SECONDS} s of processor time")


def serve() -> None:
    """Answer requests until there are no more."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; this ends with its input
    if sys.platform != "win32":  # there the other side's clock is the only limit
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        memory = guards.MEMORY if most == resource.RLIM_INFINITY else min(guards.MEMORY, most)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while header := source.read(8):
        reply = json.dumps(limited(json.loads(source.read(int.from_bytes(header, "big"))))).encode()
        sink.write(len(reply).to_bytes(8, "big") + reply)
        sink.flush()


if __name__ == "__main__":
    serve()
