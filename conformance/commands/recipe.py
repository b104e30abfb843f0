"""``secateurs recipe``: the articles' systems, and the same through PyTorch and TensorFlow."""

from __future__ import annotations

import subprocess
import sys

import click


@click.command(
    "recipe",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def recipe(arguments: tuple[str, ...]) -> None:
    """Run a system that an article describes, A1 to A5; ``secateurs recipe --help`` lists the options.

    The suite imports nothing of refimpl, so a recipe runs in a process of its own.
    """
    command = [sys.executable, "-m", "refimpl", "recipe", *arguments]
    raise SystemExit(subprocess.run(command).returncode)
