"""``secateurs compress``: starts the measurement of what pruning buys, a program of its own."""

from __future__ import annotations

import click

from conformance.commands.common import program


@click.command(
    "compress",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def compress(arguments: tuple[str, ...]) -> int:
    """Remove what is pruned, write the model in several forms, and report bytes, time and accuracy."""
    return program("refimpl", "compress", *arguments)
