"""``secateurs verify``: ask implementations every case and report the differences."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from conformance import expected, fixtures, participants, report, runner
from conformance.cases import Case
from conformance.commands import participating
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
from conformance.operations import names
from conformance.precision import PROBES, Probe
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
    "--case-file",
    "case_files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Only the cases of a fixture file, such as secateurs fuzz writes. Repeatable.",
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
@participating.arrays_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help=f"Time limit of one case.  [default: 20; for {', '.join(participants.LONGER)} 180]",
)
@participating.memory_option
@click.option(
    "--precision/--no-precision",
    "precise",
    default=None,
    help="Measure sums of a million numbers too.  [default: if every operation is asked]",
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
    case_files: tuple[Path, ...],
    commands: tuple[str, ...],
    functions: tuple[str, ...],
    arrays: str | None,
    timeout: float | None,
    memory: int,
    precise: bool | None,
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
    if case_files and (cases or resumed or files["jsonl"]):
        raise Failure("--case-file goes with neither --case nor --jsonl nor --resume")
    calls = participating.calls(functions, patterns, arrays)
    asked = Asked(adapters, commands, patterns, cases, calls)
    before = interrupted(resumed) if resumed else None
    if before:
        target(resumed)
        asked = asked.again(before)
    everyone = not asked.adapters and not asked.commands and not asked.calls
    known = participating.adapters(asked.adapters, everyone)
    programs = {
        **known,
        **participating.programs(asked.commands),
        **participating.served(asked.calls),
    }
    entries = expected.Expectations(known, asked.commands)
    chosen = _cases(asked.operations, asked.cases, case_files)
    had = kept(before, chosen) if before else {}
    lines = files.pop("jsonl") or resumed
    with (
        _progress() as progress,
        _terminable(lines),
        journal(lines, asked, chosen, entries, had) as record,
    ):
        runs = runner.run_all(
            programs, chosen, timeout, jobs or os.cpu_count() or 1, progress,
            record.verdict if record else None, had, memory, _probes(asked, chosen, precise),
        )  # fmt: skip
        for run in runs:
            expected.apply(run, entries.of(run.participant, run.implementation))
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


def _probes(asked: Asked, chosen: list[Case], precise: bool | None) -> list[Probe]:
    """Return the long sums that are measured: they take a second or two each."""
    if precise is False or (precise is None and (asked.operations or asked.cases)):
        return []
    present = {case.operation for case in chosen}
    return [probe for probe in PROBES if probe.operation in present]


def _exit_code(runs: list[Run], everyone: bool) -> int:
    absent = [run for run in runs if run.not_installed]
    broken = [run for run in runs if run.not_started is not None and not run.not_installed]
    if broken or len(absent) == len(runs) or (absent and not everyone):
        return NOT_STARTED
    return 0 if all(run.as_expected for run in runs if not run.not_installed) else DIFFERENT


def _cases(
    patterns: tuple[str, ...], wanted: tuple[str, ...], files: tuple[Path, ...] = ()
) -> list[Case]:
    chosen = operations(patterns)
    if files:
        found = [case for path in files for case in fixtures.read_file(path, names())]
        return [case for case in found if case.operation in chosen]
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
