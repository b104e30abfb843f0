"""``secateurs matrix``: operations down, implementations across."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from conformance.commands.common import Failure, debug_option, near, target, write_whole
from conformance.recorded import Record, read, shipped
from conformance.records import RecordError
from conformance.report import Page

FROM = click.option(
    "--from",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also what a run wrote with --jsonl or --json; takes the place of the kept record. Repeatable.",
)


def given(files: tuple[Path, ...]) -> dict[str, Record]:
    """Return the records in files by the implementation's name; a later file takes the place of an earlier."""
    found: dict[str, Record] = {}
    for path in files:
        try:
            held = read(path)
        except RecordError as error:
            raise Failure(str(error)) from None
        if not held:
            raise Failure(f"{path}: nobody could be started in that run")
        found |= {record.name: record for record in held}
    return found


def gathered(named: tuple[str, ...], files: tuple[Path, ...]) -> list[Record]:
    """Return the records of the implementations named, or all that are kept or in the files."""
    every = dict(sorted((shipped() | given(files)).items()))
    for name in named:
        if name not in every:
            how = f"make one: secateurs verify {name} --jsonl run.jsonl, and give --from run.jsonl"
            raise Failure(f"no record of {name!r}: {how}{near(name, every)}")
    return [every[name] for name in named or every]


@click.command()
@click.argument("implementations", nargs=-1, metavar="[IMPLEMENTATION]...")
@FROM
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write one page.")
@click.option(
    "--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write a Markdown table."
)
@debug_option
def matrix(
    implementations: tuple[str, ...],
    files: tuple[Path, ...],
    html: Path | None,
    markdown: Path | None,
) -> int:
    """Lay implementations side by side: what each does with every operation.

    Nothing is run: records of earlier runs are read, those that come with the suite and those of --from.
    Without --html and --markdown a short table is printed.
    """
    from conformance import matrix as table

    target(html)
    target(markdown)
    records = gathered(implementations, files)
    if not records:
        raise Failure(
            "no record is kept; run secateurs verify --jsonl run.jsonl, then --from run.jsonl"
        )
    if html:
        write_whole(html, table.page(records))
    if markdown:
        write_whole(markdown, table.markdown(records))
    if not (html or markdown):
        _print(records)
    return 0


def _print(records: list[Record]) -> None:
    from conformance.matrix import STATES, cell, rows

    page = Page(Console(highlight=False, soft_wrap=True))
    names = rows(records)
    first = max(map(len, names))
    for number, record in enumerate(records, 1):
        page.line(f"{number:>2}  {record.title}", "bold")
    page.line()
    page.line(
        " " * first + "".join(f"{number:>4}" for number in range(1, len(records) + 1)), "bold"
    )
    for name in names:
        signs = "".join(f"{cell(r.operations.get(name))['sign']:>4}" for r in records)
        page.line(name.ljust(first) + signs)
    page.line()
    for sign, words in STATES.values():
        page.item(sign, words)
    page.line("--html FILE writes the page with what stands behind each sign.")
