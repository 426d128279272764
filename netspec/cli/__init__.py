"""The `netspec` command: every command is a few lines over the library."""

from __future__ import annotations

import io
import shutil
import sys

import typer

from netspec.cli import asking, exchanging, experimenting, looking, preparing, running, serving
from netspec.errors import NetspecError

NARROW = 80
"""Columns below which help is plain text: tables would cut words off."""

app = typer.Typer(
    name="netspec",
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= NARROW else None,
    help="Networks and solvers as prototxt: compiled, trained, drawn and asked on PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (running, experimenting, looking, asking, serving, preparing, exchanging):
    app.add_typer(group.app)


def main() -> None:
    """Entry point: errors that the user can mend are printed without a traceback, and exit with 2."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 gets ? for what it cannot show
    try:
        app()
    except BrokenPipeError:  # the reader of our output is gone, as with `| head`
        sys.stderr.close()
        sys.exit(1)
    except (NetspecError, OSError) as error:
        if debug:
            raise
        reason = str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)
