"""The `netspec` command: every command is a few lines over the library."""

from __future__ import annotations

import io
import os
import shutil
import sys
from typing import Annotated, Any

import typer

import netspec
from netspec.cli import (
    asking,
    exchanging,
    experimenting,
    looking,
    own_data,
    preparing,
    reviewing,
    running,
    serving,
    starting,
    writing,
)
from netspec.errors import NetspecError, one_line
from netspec.errors.kinds import code_of, with_code
from netspec.schema.regular import LARGE, SPECIAL

NARROW = 80
"""Columns below which help is plain text: tables would cut words off."""

app = typer.Typer(
    name="netspec",
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= NARROW else None,
    help="Networks and solvers as prototxt: compiled, trained, drawn and asked on PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    starting,
    running,
    experimenting,
    reviewing,
    looking,
    asking,
    own_data,
    serving,
    preparing,
    exchanging,
    writing,
):
    app.add_typer(group.app)


def print_version(asked: bool) -> None:
    """The answer to --version."""
    if asked:
        print(f"netspec {netspec.__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Networks and solvers as prototxt: compiled, trained, drawn and asked on PyTorch."""
    from netspec.layers import consent

    context.with_resource(consent.command())


def refuse_foreign(arguments: list[str]) -> None:
    """NetspecError that names what is meant by an option of another program, such as --lr."""
    from typer.main import get_command

    from netspec.cli.hints import hint
    from netspec.schema import descriptor

    group: Any = get_command(app)
    own = "debug allow-special allow-large help version install-completion show-completion"
    known = {"": {f"--{word}" for word in own.split()}}
    for name, command in group.commands.items():
        known[name] = {
            word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)
        }
    if text := hint(arguments, known, descriptor("SolverParameter").fields_by_name):
        raise NetspecError(text)


def main() -> None:
    """Entry point: errors that the user can mend are printed without a traceback, and exit with 2."""
    debug = "--debug" in sys.argv
    for flag, variable in {"--debug": "", "--allow-special": SPECIAL, "--allow-large": LARGE}.items():
        if flag in sys.argv:
            sys.argv.remove(flag)
            os.environ.update({variable: "1"} if variable else {})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 gets ? for what it cannot show
    try:
        if any(word.startswith("--") for word in sys.argv[1:]) and "caffe" not in sys.argv[1:2]:
            refuse_foreign(sys.argv[1:])
        app()
    except BrokenPipeError:  # the reader of our output is gone, as with `| head`
        sys.stderr.close()
        sys.exit(1)
    except (NetspecError, OSError) as error:
        if debug:
            raise
        if isinstance(error, NetspecError):
            reason = error.with_codes()
        else:
            reason = str(error)
            if error.strerror:
                reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            reason = with_code(reason, code_of(reason))
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:  # of a layer, whose place and bottoms stand in a note
        if debug or not getattr(error, "__notes__", None):
            raise
        print(f"error: {error.__notes__[0]}: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
