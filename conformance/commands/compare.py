"""``secateurs compare``: what changed between two reports."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from conformance.changes import HEADINGS, Changes, changes
from conformance.commands.common import DIFFERENT, Failure, debug_option
from conformance.records import RecordError, Report, read
from conformance.report import Page


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Show at most N cases of a kind; 0 shows all.",
)
@debug_option
def compare(old: Path, new: Path, limit: int) -> int:
    """Show what changed from the report OLD to the report NEW, written by --json or --jsonl.

    Exit code: 0 every case is as it was, whatever the versions; 1 a case changed; 2 a report cannot be
    used, because it was cut off or is damaged.
    """
    before, after = _report(old), _report(new)
    page = Page(Console(highlight=False, soft_wrap=True))
    if before.suite != after.suite:
        page.item("suite:", f"{before.suite} → {after.suite}", "yellow")
    found = changes(before, after)
    for participant in found:
        _print(participant, page, limit)
    return DIFFERENT if any(participant.found for participant in found) else 0


def _report(path: Path) -> Report:
    try:
        report = read(path)
    except RecordError as error:
        raise Failure(str(error)) from None
    if not report.complete:
        raise Failure(
            f"{path}: truncated: no footer after {report.count} verdicts;"
            f" go on with: secateurs verify --resume {path}"
        )
    return report


def _print(participant: Changes, page: Page, limit: int) -> None:
    old, new = participant.versions
    page.line(new if old == new else f"{old} → {new}", "bold")
    if not participant.found:
        page.item("", "every case is as it was", "green", indent=2)
    for kind in HEADINGS:
        cases = participant.of(kind)
        if cases:
            style = "red" if kind in ("new failures", "no longer canonical") else "cyan"
            page.item(f"{kind}:", str(len(cases)), style, indent=2)
        for change in cases[:limit] if limit else cases:
            page.item(change.case, change.text, indent=4)
        if limit and len(cases) > limit:
            page.line(f"    … and {len(cases) - limit} more; --limit 0 shows all")
    page.line()
