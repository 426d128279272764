"""The command that serves nets."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from netspec.cli.options import Device, Weights

app = typer.Typer()


@app.command()
def serve(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or a net's prototxt with --weights.")
    ],
    weights: Weights = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; by default this machine alone can ask.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.", min=0, max=65535)] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name that requests may call this server by; may be given again."),
    ] = None,
    waiting: Annotated[
        int, typer.Option(help="Requests that may wait for a net; the next gets 503.", min=1)
    ] = 128,
    body: Annotated[int, typer.Option("--body-mb", help="Largest request in MiB.", min=1, max=4096)] = 32,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: Device = None,
) -> None:
    """Serve nets: a page to play with, and the Open Inference Protocol v2 for programs. Ctrl-C stops it."""
    from netspec.serve import server

    listener = server.bind(host, port)
    subjects = server.subjects_of(runs, weights, device)

    def ready(url: str) -> None:
        print(
            f"serving {', '.join(subject.name for subject in subjects)} at {url} (Ctrl-C stops)", flush=True
        )
        if show:
            webbrowser.open(url)

    server.serve(subjects, listener, host, tuple(allow_host or ()), waiting, body * 2**20, ready)
