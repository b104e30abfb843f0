"""Who is asked, as the command line names them: adapters, programs that speak the protocol, functions."""

from __future__ import annotations

import re
import sys

import click

from conformance import participants
from conformance.arrays import MAKERS
from conformance.commands.common import NOT_STARTED, Failure, near, operations
from conformance.protocol import DEFAULT_MEMORY

arrays_option = click.option(
    "--arrays",
    type=click.Choice(list(MAKERS)),
    help="The array library that --call takes its inputs from.  [default: numpy]",
)
memory_option = click.option(
    "--memory",
    type=click.IntRange(min=0),
    default=DEFAULT_MEMORY,
    show_default=True,
    metavar="MIB",
    help="Memory limit of one process and its children; 0: none.",
)


def adapters(named: tuple[str, ...], everyone: bool) -> dict[str, list[str]]:
    """Return the command that serves each adapter: those named, or every one."""
    known = participants.adapters()
    for name in named:
        if name not in known:
            raise Failure(f"no adapter {name!r} is installed{near(name, known)}", NOT_STARTED)
    if everyone and not known:
        raise Failure("no adapter is installed; install secateurs again", NOT_STARTED)
    chosen = known if everyone else named
    return {name: participants.command(name, known[name]) for name in chosen}


def programs(commands: tuple[str, ...]) -> dict[str, list[str]]:
    """Return each program of ``--command`` as words."""
    found = {}
    for command in commands:
        try:
            found[command] = participants.split(command)
        except ValueError as error:
            raise Failure(f"--command {command!r}: {error}") from None
        if not found[command]:
            raise Failure("--command is empty; give a program and its arguments")
    return found


def calls(
    functions: tuple[str, ...], patterns: tuple[str, ...], arrays: str | None
) -> tuple[str, ...]:
    """Return each function with its operation and its arrays, in the words of ``conformance.calls``."""
    if not functions:
        if arrays:
            raise Failure("--arrays says what --call takes; give --call package.module:function")
        return ()
    found = operations(patterns) if patterns else []
    if len(found) != 1:
        raise Failure("--call needs one --operation, with the id of what the function does")
    for function in functions:
        if not re.fullmatch(r"[\w.]+:[\w.]+", function):
            raise Failure(f"--call {function!r}: give it as package.module:function")
    return tuple(f"{function} {found[0]} {arrays or 'numpy'}" for function in functions)


def served(calls: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the program that serves each function of :func:`calls`."""
    program = [sys.executable, "-P", "-m", "conformance.calls"]
    return {call: [*program, *call.split()] for call in calls}
