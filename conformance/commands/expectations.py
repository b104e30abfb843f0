"""``secateurs expectations``: the expected failures of an adapter, as a run asks for them."""

from __future__ import annotations

import difflib
from pathlib import Path

import click
from rich.console import Console

from conformance import expected, participants, recorded, records, renewal
from conformance.commands.common import (
    DIFFERENT,
    NOT_STARTED,
    Failure,
    debug_option,
    near,
    write_whole,
)  # fmt: skip
from conformance.report import Page
from conformance.runner import Run


@click.command()
@click.argument("adapter")
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A run that secateurs verify wrote with --jsonl or --json; without it the adapter is asked now.",
)
@click.option(
    "--write", "writing", is_flag=True, help="Write the file; without it nothing changes."
)
@debug_option
def expectations(adapter: str, file: Path | None, writing: bool) -> int:
    """Show how conformance/expectations/ADAPTER.toml must change after a run, and change it.

    What still fails keeps its reason, its link and its comments; what passes now is narrowed, closed at this
    version or removed; what is new is added with what was measured, and with a reason that is yours to write
    where the diagnosis has none.

    Exit code: 0 nothing is to be changed, or it was written; 1 something is.
    """
    run = _read(adapter, file) if file else _ask(adapter)
    path = expected.FOLDER / f"{adapter}.toml"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = renewal.renew(text, run)
    entries = expected.parse(found.text, path.name)
    if wrong := renewal.strict(entries, run):
        raise Failure(
            f"{path.name}: {wrong[0]} would not be judged as it came out; mend it by hand"
        )
    page = Page(Console(highlight=False, soft_wrap=True))
    for line in difflib.unified_diff(text.splitlines(), found.text.splitlines(), n=0, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            page.line(line, "green" if line.startswith("+") else "red")
    _sum_up(found, adapter, page)
    changed = found.text.strip() != text.strip()
    if changed and writing:
        write_whole(path, found.text)
        page.line(f"written: {path}")
    return DIFFERENT if changed and not writing else 0


def _read(adapter: str, file: Path) -> Run:
    try:
        report = records.read(file)
    except records.RecordError as error:
        raise Failure(str(error)) from None
    if not report.complete:
        raise Failure(f"{file}: cut off; go on with: secateurs verify --resume {file}")
    runs = {run.participant: run for run in recorded.runs(report)}
    if adapter not in runs or runs[adapter].implementation is None:
        raise Failure(f"{file} holds no run of {adapter!r}{near(adapter, runs)}")
    return runs[adapter]


def _ask(adapter: str) -> Run:
    known = participants.adapters()
    if adapter not in known:
        raise Failure(f"no adapter {adapter!r} is installed{near(adapter, known)}", NOT_STARTED)
    click.echo(f"secateurs: asking {adapter} every case …", err=True)
    (run,) = recorded.ask([adapter], expecting=False)
    if run.implementation is None:
        raise Failure(f"{adapter}: {run.not_started}", NOT_STARTED)
    return run


def _sum_up(found: renewal.Renewed, adapter: str, page: Page) -> None:
    page.item(f"{adapter}:", f"{found.kept} entries stay as they are")
    for words, cases, style in (
        ("narrowed", found.narrowed, "yellow"),
        ("closed at this version", found.closed, "yellow"),
        ("removed", found.removed, "red"),
        ("added", found.added, "green"),
    ):
        if cases:
            page.item(f"{len(cases)} {words}:", ", ".join(cases), style, indent=2)
    if found.unwritten:
        page.item(
            "", f"{found.unwritten} of them need a reason: look for {expected.UNWRITTEN!r}", "red", indent=2
        )  # fmt: skip
