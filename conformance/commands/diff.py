"""``secateurs diff``: what changes for a user who moves from one implementation to another."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from conformance import participants, recorded
from conformance.commands.common import NOT_STARTED, Failure, debug_option, near, operations
from conformance.commands.matrix import FROM, given
from conformance.migration import Comparison, Difference, comparison
from conformance.recorded import Record
from conformance.report import Page


@click.command()
@click.argument("one", metavar="FROM")
@click.argument("other", metavar="TO")
@click.option(
    "--operation",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only operations that match, such as 'clip.*'. Repeatable.",
)
@FROM
@click.option(
    "--run", "running", is_flag=True, help="Ask both now instead of reading what is kept."
)
@debug_option
def diff(
    one: str, other: str, patterns: tuple[str, ...], files: tuple[Path, ...], running: bool
) -> int:
    """Show where two implementations differ, by how much, and how to get the other's behaviour.

    For somebody who ports code from FROM to TO. Both are adapters, or names in the files of --from. A size
    is the largest change of an element, relative to the largest number of FROM's tensor.

    Exit code: 0, whatever is found.
    """
    chosen = operations(patterns)
    a, b = _records((one, other), files, running)
    page = Page(Console(highlight=False, soft_wrap=True))
    found = comparison(a, b, chosen)
    page.line(f"{a.title} → {b.title}", "bold")
    page.line()
    said: dict[str, str] = {}
    for parting in found.parting:
        page.item(
            parting.operation,
            f"{parting.differing} of the {parting.both} cases that both can be asked differ",
            "bold",
        )
        for difference in parting.found:
            _print(difference, parting.operation, (a.name, b.name), page, said)
        page.line()
    _sum_up(found, (a, b), page)
    return 0


def _records(names: tuple[str, str], files: tuple[Path, ...], running: bool) -> list[Record]:
    every = ({} if running else recorded.shipped()) | given(files)
    adapters = participants.adapters()
    absent = [name for name in dict.fromkeys(names) if name not in every]
    for name in absent:
        if name not in adapters:
            known = sorted({*every, *adapters})
            raise Failure(f"neither a record nor an adapter is called {name!r}{near(name, known)}")
    if absent:
        click.echo(f"secateurs: asking {' and '.join(absent)} …", err=True)
    for run in recorded.ask(absent) if absent else []:
        record = recorded.of(run)
        if record is None:
            raise Failure(f"{run.participant}: {run.not_started}", NOT_STARTED)
        every[record.name] = record
    return [every[name] for name in names]


def _print(
    difference: Difference, operation: str, names: tuple[str, str], page: Page, said: dict[str, str]
) -> None:
    count = len(difference.cases)
    page.item("", difference.title, indent=2)
    size = f", {difference.size}" if difference.size else ""
    page.item("", f"{count} case{'s' if count != 1 else ''}{size}", indent=4)
    page.item("", f"{difference.example}: {difference.question}", indent=4)
    width = max(map(len, names))
    for name, answer in zip(names, difference.answers, strict=True):
        page.item(name.ljust(width), answer, "cyan", indent=6)
    for index, text in difference.advice:
        label = f"as {names[index]}, with {names[1 - index]}:"
        first = said.setdefault(text, operation)
        page.item(label, text if first == operation else f"see {first}", "magenta", indent=4)


def _sum_up(found: Comparison, records: tuple[Record, Record], page: Page) -> None:
    a, b = records
    lines = (
        ("differ:", [parting.operation for parting in found.parting]),
        ("alike in every case asked:", found.alike),
        (f"only {a.name} has:", found.only[0]),
        (f"only {b.name} has:", found.only[1]),
    )
    for label, names in lines:
        if names:
            page.item(f"{len(names):>3} {label}", ", ".join(names))
