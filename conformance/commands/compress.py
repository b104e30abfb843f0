"""``secateurs compress``: starts the measurement of what pruning buys, a program of its own."""

from __future__ import annotations

import subprocess
import sys

import click


@click.command(
    "compress",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def compress(arguments: tuple[str, ...]) -> int:
    """Remove what is pruned, write the model in several forms, and report bytes, time and accuracy."""
    command = [sys.executable, "-m", "refimpl", "compress", *arguments]
    return subprocess.run(command).returncode
