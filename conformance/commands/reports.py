"""The files that ``secateurs verify`` writes when it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from conformance import junit, report
from conformance.commands.common import write_whole
from conformance.runner import Run


def _json(runs: Sequence[Run]) -> str:
    return json.dumps(report.as_json(runs), indent=1, allow_nan=False) + "\n"


def _page(runs: Sequence[Run]) -> str:
    # Jinja is loaded only by those who want the page: every start of the command would pay for it.
    from conformance.page import page

    return page(runs)


WRITERS: dict[str, tuple[str, Callable[[Sequence[Run]], str]]] = {
    "json": ("Write every verdict as JSON.", _json),
    "markdown": ("Write the tables as Markdown.", report.markdown),
    "junit": ("Write every verdict as JUnit XML.", junit.junit),
    "html": ("Write one page with everything, to be opened in a browser.", _page),
}
LINES = "Write every verdict as a line of JSON as soon as there is one; see --resume."


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each kind of report: ``--json FILE`` and so on."""
    helps = {name: text for name, (text, _) in WRITERS.items()} | {"jsonl": LINES}
    for name, text in reversed(helps.items()):
        path = click.Path(path_type=Path)
        command = click.option(f"--{name}", name, type=path, metavar="FILE", help=text)(command)
    return command


def write_reports(files: Mapping[str, Path | None], runs: Sequence[Run]) -> None:
    """Write the reports for which a file is named."""
    for name, path in files.items():
        if path:
            write_whole(path, WRITERS[name][1](runs))
