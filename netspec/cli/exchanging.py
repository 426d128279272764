"""Commands that exchange files with Caffe and others."""

from __future__ import annotations

import typer

app = typer.Typer()


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
def caffe(context: typer.Context) -> None:
    """Caffe's own command: train, test, time, device_query, with its flags and its log lines."""
    from netspec.caffe_command import main

    raise typer.Exit(main(context.args))
