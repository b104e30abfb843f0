"""``secateurs verify``: ask implementations every case and report the differences."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from conformance import expected, participants, report, runner
from conformance.arrays import MAKERS
from conformance.cases import Case
from conformance.commands.common import (
    DIFFERENT,
    NOT_STARTED,
    Failure,
    debug_option,
    near,
    operations,
    target,
)
from conformance.commands.reports import report_options, write_reports
from conformance.commands.resume import Asked, interrupted, journal, kept
from conformance.runner import Run


@click.command()
@click.argument("adapters", nargs=-1, metavar="[ADAPTER]...")
@click.option(
    "--operation",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only operations that match, such as 'clip.*'. Repeatable.",
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    metavar="ID",
    help="Only this case, by its id or its full id. Repeatable.",
)
@click.option(
    "--command",
    "commands",
    multiple=True,
    metavar="COMMAND",
    help="A program that speaks the protocol, such as 'node harness.js'. Repeatable.",
)
@click.option(
    "--call",
    "functions",
    multiple=True,
    metavar="FUNCTION",
    help="A function, package.module:function, that does the one --operation. Repeatable.",
)
@click.option(
    "--arrays",
    type=click.Choice(list(MAKERS)),
    help="The array library that --call takes its inputs from.  [default: numpy]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit of one case.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes at a time; more than one participant has share its cases out."
    "  [default: one a participant, at most one a processor]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=40,
    show_default=True,
    metavar="N",
    help="Show at most N failing cases of a participant; 0 shows all.",
)
@click.option(
    "--resume",
    "resumed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Go on with the interrupted run that --jsonl wrote to FILE: ask only what is missing.",
)
@report_options
@debug_option
def verify(
    adapters: tuple[str, ...],
    patterns: tuple[str, ...],
    cases: tuple[str, ...],
    commands: tuple[str, ...],
    functions: tuple[str, ...],
    arrays: str | None,
    timeout: float,
    jobs: int | None,
    limit: int,
    resumed: Path | None,
    **files: Path | None,
) -> int:
    """Run the suite on the named adapters (on all installed ones if none is named).

    Exit code: 0 all as expected, 1 a difference was found, 2 wrong usage, 3 a named implementation could
    not be started.
    """
    for path in files.values():
        target(path)
    calls = _calls(functions, patterns, arrays)
    asked = Asked(adapters, commands, patterns, cases, calls)
    before = interrupted(resumed) if resumed else None
    if before:
        target(resumed)
        asked = asked.again(before)
    everyone = not asked.adapters and not asked.commands and not asked.calls
    known = _adapters(asked.adapters, everyone)
    programs = {**known, **_programs(asked.commands), **_served(asked.calls)}
    entries = {name: expected.read(name) for name in known}
    chosen = _cases(asked.operations, asked.cases)
    had = kept(before, chosen) if before else {}
    lines = files.pop("jsonl") or resumed
    with (
        _progress() as progress,
        _terminable(lines),
        journal(lines, asked, chosen, entries, had) as record,
    ):
        runs = runner.run_all(
            programs, chosen, timeout, jobs or os.cpu_count() or 1, progress,
            record.verdict if record else None, had,
        )  # fmt: skip
        for run in runs:
            expected.apply(run, entries.get(run.participant, []))
            runner.explain(run)
        if record:
            record.finish(runs, report.total(runs))
    write_reports(files, runs)
    report.print_runs(runs, Console(highlight=False, soft_wrap=True), limit)
    for run in runs:
        if run.participant in asked.calls and {v.status for v in run.verdicts} == {"unsupported"}:
            function = run.participant.split()[0]
            raise Failure(f"--call {function}: no case could be asked: {run.verdicts[0].message}")
    return _exit_code(runs, everyone)


def _exit_code(runs: list[Run], everyone: bool) -> int:
    absent = [run for run in runs if run.not_installed]
    broken = [run for run in runs if run.not_started is not None and not run.not_installed]
    if broken or len(absent) == len(runs) or (absent and not everyone):
        return NOT_STARTED
    return 0 if all(run.as_expected for run in runs if not run.not_installed) else DIFFERENT


def _adapters(named: tuple[str, ...], everyone: bool) -> dict[str, list[str]]:
    known = participants.adapters()
    for name in named:
        if name not in known:
            raise Failure(f"no adapter {name!r} is installed{near(name, known)}", NOT_STARTED)
    if everyone and not known:
        raise Failure("no adapter is installed; install secateurs again", NOT_STARTED)
    chosen = known if everyone else named
    return {name: participants.command(name, known[name]) for name in chosen}


def _programs(commands: tuple[str, ...]) -> dict[str, list[str]]:
    programs = {}
    for command in commands:
        try:
            programs[command] = participants.split(command)
        except ValueError as error:
            raise Failure(f"--command {command!r}: {error}") from None
        if not programs[command]:
            raise Failure("--command is empty; give a program and its arguments")
    return programs


def _calls(
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


def _served(calls: tuple[str, ...]) -> dict[str, list[str]]:
    program = [sys.executable, "-P", "-m", "conformance.calls"]
    return {call: [*program, *call.split()] for call in calls}


def _cases(patterns: tuple[str, ...], wanted: tuple[str, ...]) -> list[Case]:
    chosen = operations(patterns)
    if wanted and all("/" in case for case in wanted):
        # Only the files of these operations need be read.
        chosen = [name for name in chosen if any(c.startswith(f"{name}/") for c in wanted)]
    cases = runner.select(chosen)
    if not wanted:
        return cases
    known = {case.id for case in cases} | {case.full_id for case in cases}
    for case in wanted:
        if case not in known:
            close = near(case, sorted(known)) if known else ""
            raise Failure(f"no case {case!r} in the chosen operations{close}")
    return [case for case in cases if case.id in wanted or case.full_id in wanted]


@contextlib.contextmanager
def _progress() -> Iterator[runner.Progress | None]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}
        lock = threading.Lock()

        def report_progress(name: str, done: int, total: int) -> None:
            with lock:
                if name not in tasks:
                    tasks[name] = bars.add_task(name[:30], total=total)
            bars.update(tasks[name], completed=done)

        yield report_progress


@contextlib.contextmanager
def _terminable(lines: Path | None) -> Iterator[None]:
    """Make SIGTERM end the run as Ctrl-C does, so that no child outlives it, and say how to go on."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt) if _in_main_thread() else None
    try:
        yield
    except KeyboardInterrupt:
        go_on = f"; go on with: secateurs verify --resume {lines}" if lines else ""
        raise Failure(f"interrupted{go_on}", 130) from None
    except runner.Changed as error:
        raise Failure(f"{error}; start anew without --resume") from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread() and sys.platform != "win32"
