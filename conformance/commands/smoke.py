"""``secateurs smoke``: does a harness speak the protocol, before the implementation behind it is judged."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.markup import escape

from conformance.commands import participating
from conformance.commands.common import DIFFERENT, NOT_STARTED, Failure, debug_option
from conformance.protocol import NotStarted
from conformance.smoke import Check, smoke


@click.command(name="smoke")
@click.argument("adapter", required=False)
@click.option(
    "--command",
    "program",
    metavar="COMMAND",
    help="A program that speaks the protocol, such as 'node harness.js'.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit of one answer.",
)
@debug_option
def smoke_command(adapter: str | None, program: str | None, timeout: float) -> int:
    """Check a harness itself: an ADAPTER, or a program that speaks the protocol.

    It starts, names itself, answers in order and at once, says what it lacks, survives what is malformed,
    gives tensors back bit by bit, computes, and stops. Each line that fails says how to mend it.

    Exit code: 0 all is well, 1 something is to be mended, 2 wrong usage, 3 it could not be started.
    """
    command = _command(adapter, program)
    console = Console(highlight=False, soft_wrap=True)
    failed = 0
    try:
        for check in smoke(command, timeout):
            _print(console, check)
            failed += check.passed is False
    except NotStarted as error:
        raise Failure(f"{adapter or program}: could not be started: {error}", NOT_STARTED) from None
    if failed:
        what = "check" if failed == 1 else "checks"
        console.print(f"\n{failed} {what} failed: mend the harness before `secateurs verify`")
        return DIFFERENT
    asked = f"--command {program!r}" if program else adapter
    console.print(f"\nThe harness is sound. Next: secateurs verify {asked}", markup=False)
    return 0


def _command(adapter: str | None, program: str | None) -> list[str]:
    if (adapter is None) == (program is None):
        raise Failure("give an ADAPTER or --command, one of the two")
    named = (
        participating.adapters((adapter,), False)
        if adapter is not None
        else participating.programs((str(program),))
    )
    (words,) = named.values()
    return words


def _print(console: Console, check: Check) -> None:
    word, style = {True: ("ok", "green"), False: ("FAILED", "bold red"), None: ("-", "dim")}[
        check.passed
    ]
    said = escape(check.said)
    console.print(f"[{style}]{word:<7}[/] {check.name:<18} {said}".rstrip())
    if check.passed is False and check.mend:
        console.print(f"{'':<7} {'':<18} → {escape(check.mend)}")
    if not console.is_terminal:
        sys.stdout.flush()
