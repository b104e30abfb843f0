"""``secateurs train``: starts the canonical trainer, which is a program of its own."""

from __future__ import annotations

import click

from conformance.commands.common import program


@click.command(
    "train",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(arguments: tuple[str, ...]) -> None:
    """Train a model with the canonical trainer; ``secateurs train --help`` lists its options.

    The suite imports nothing of refimpl, so the trainer runs in a process of its own; its exit code
    is passed on: 0, 2 for wrong usage, 3 where the backend or its device is not there.
    """
    raise SystemExit(program("refimpl", "train", *arguments))
