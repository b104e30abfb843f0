"""``secateurs sweep``: starts the search for thresholds, a program of its own."""

from __future__ import annotations

import click

from conformance.commands.common import program


@click.command(
    "sweep",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sweep(arguments: tuple[str, ...]) -> int:
    """Measure how accuracy depends on a threshold, choose one by cross-validation, and compare schedules."""
    return program("refimpl", "sweep", *arguments)
