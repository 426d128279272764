"""`netspec ARGUMENTS` in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from netspec.cli import app


def call(*arguments: object) -> str:
    """What the command prints; its errors are raised, and it must succeed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
