"""``secateurs fuzz``: look for inputs on which an implementation is not what it declares to be."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from rich.console import Console

from conformance import expected, report
from conformance.commands import participating
from conformance.commands.common import (
    DIFFERENT,
    NOT_STARTED,
    Failure,
    debug_option,
    operations,
    target,
    write_whole,
)
from conformance.commands.snippet import snippet
from conformance.fuzz import NotInstalled, Result, document, fuzz
from conformance.operations import load
from conformance.protocol import Implementation, NotStarted, Process

EXAMPLES = 300


@click.command("fuzz")
@click.argument("adapter", required=False)
@click.argument("operation", required=False)
@click.option(
    "--command", metavar="COMMAND", help="A program that speaks the protocol, no adapter."
)
@click.option("--call", metavar="FUNCTION", help="A function, package.module:function, no adapter.")
@participating.arrays_option
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Cases to ask of each operation.  [default: {EXAMPLES}, or no limit with --seconds]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds to spend on each operation; those that make a finding small come on top.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Decides everything left to chance: with --examples the same seed finds the same.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what is found as fixture cases; a folder gets a file for each operation.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit of one case.",
)
@participating.memory_option
@debug_option
def fuzz_command(
    adapter: str | None,
    operation: str | None,
    command: str | None,
    call: str | None,
    arrays: str | None,
    examples: int | None,
    seconds: float | None,
    seed: int,
    output: Path | None,
    timeout: float,
    memory: int,
) -> int:
    """Change frozen cases of an OPERATION at random and ask ADAPTER for more than the fixtures do.

    With --command or --call, OPERATION stands alone. It may be a pattern such as 'clip.*'. What is found
    is made small, shown, and written as cases that `secateurs verify --case-file FILE` asks again.

    Exit code: 0 nothing found, 1 a difference was found, 2 wrong usage, 3 not installed or not started.
    """
    if command or call:
        if operation or not adapter:
            raise Failure("with --command or --call give an operation and no adapter")
        adapter, operation = None, adapter
    if not operation:
        raise Failure("give an adapter and an operation, such as: secateurs fuzz torch clip.norm")
    if (command is not None) + (call is not None) > 1:
        raise Failure("give one of --command and --call")
    if arrays and not call:
        raise Failure("--arrays says what --call takes; give --call package.module:function")
    names = operations([operation])
    into = output.is_dir() if output else False
    if output and not into:
        target(output)
        if len(names) > 1:
            raise Failure(f"--output {output} is for one operation; name a folder for several")
    if command:
        ((participant, words),) = participating.programs((command,)).items()
    elif call:
        calls = participating.calls((call,), (operation,), arrays)
        ((participant, words),) = participating.served(calls).items()
    else:
        ((participant, words),) = participating.adapters((str(adapter),), False).items()
    entries = expected.read(str(adapter)) if adapter else []
    if examples is None and seconds is None:
        examples = EXAMPLES
    process = Process(words, timeout, memory=memory)
    page = report.Page(Console(highlight=False, soft_wrap=True))
    results = []
    try:
        implementation = process.start()
        lacking = [name for name in names if name not in implementation.operations]
        if len(lacking) == len(names):
            raise Failure(f"{participant} does not list {', '.join(lacking)}")
        for name in names:
            if name in lacking:
                continue
            try:
                result = fuzz(
                    load(name), process, implementation, entries,
                    examples=examples, seconds=seconds, seed=seed,
                )  # fmt: skip
            except ValueError as error:
                if len(names) - len(lacking) == 1:
                    raise Failure(str(error)) from None
                page.item(f"{name}:", str(error), "yellow")
                continue
            results.append(result)
            _show(result, implementation, page)
            if output and result.findings:
                path = output / f"{name}.json" if into else output
                write_whole(path, document(result, implementation))
                again = shlex.join(["--command", command] if command else [str(adapter or "")])
                page.item("", f"asked again by: secateurs verify {again} --case-file {path}")
    except NotInstalled as error:
        raise Failure(str(error), NOT_STARTED) from None
    except NotStarted as error:
        raise Failure(f"{participant}: {error}", NOT_STARTED) from None
    finally:
        process.close()
    return DIFFERENT if any(result.findings for result in results) else 0


def _show(result: Result, implementation: Implementation, page: report.Page) -> None:
    words = [f"{result.examples} asked in {result.seconds:.1f} s, {len(result.findings)} found"]
    if result.left_out:
        words.append(f"{result.left_out} left out, of which the specification says nothing")
    if result.known:
        words.append(f"{result.known} differ as known")
    if result.failing:
        words.append(f"{result.failing} frozen cases fail already, see: secateurs verify")
    style = "red" if result.findings else "green"
    page.item(f"{result.operation.id} (seed {result.seed}):", "; ".join(words), style)
    for finding in result.findings:
        status = finding.verdict.status.replace("_", " ")
        page.item(f"{status:9}", f"{finding.case.id}, made from {finding.base}", "red")
        page.item("", finding.verdict.message, indent=9)
        page.line(snippet(finding.case))
