"""Going on with an interrupted run: what its file holds, and whether it may be relied on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance import __version__, fixtures, records
from conformance.cases import Case
from conformance.commands.common import Failure
from conformance.expected import Expectations
from conformance.judge import Answer, Verdict
from conformance.operation import map_tensors
from conformance.operations import load
from conformance.protocol import Implementation
from conformance.records import Journal, Report
from conformance.runner import Kept


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line."""

    adapters: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()

    def again(self, report: Report) -> Asked:
        """Return what the run in a report asked for, which is what this one may repeat or leave out."""
        before = report.header["asked"]
        then = Asked(**{name: tuple(before.get(name, ())) for name in asdict(self)})
        if self not in (Asked(), then):
            words = [*then.adapters, *(f"--command {command!r}" for command in then.commands)]
            words += [f"--call {call.split()[0]}" for call in then.calls]
            words += [f"--operation {pattern!r}" for pattern in then.operations]
            words += [f"--case {case}" for case in then.cases]
            said = " ".join(words) or "all adapters and operations"
            raise Failure(
                f"{report.file} is a run of {said}; give the same or nothing with --resume"
            )
        return then


def interrupted(path: Path) -> Report:
    """Return the run in a file of JSON lines; nothing is written."""
    try:
        report = records.read(path)
    except records.RecordError as error:
        raise Failure(str(error)) from None
    if not report.header:
        raise Failure(f"{path}: only a file of JSON lines (--jsonl) can be resumed")
    if report.suite != __version__:
        raise Failure(f"{path} is of suite {report.suite}, this is {__version__}; start anew")
    return report


def kept(report: Report, cases: list[Case]) -> dict[str, Kept]:
    """Return what can be kept of a run by participant."""
    now = records.digests(case.operation for case in cases)
    for name, digest in now.items():
        if report.header["fixtures"].get(name) != digest:
            raise Failure(f"{report.file}: the cases of {name} have changed since; start anew")
    known = {case.full_id: case for case in cases}
    found = {}
    for entry in report.participants:
        about = entry["implementation"]
        if about is None:
            continue
        try:
            verdicts = [records.verdict(v, known[v["case"]]) for v in entry["verdicts"]]
        except (LookupError, TypeError, ValueError) as error:
            raise Failure(f"{report.file}: damaged: {type(error).__name__}: {error}") from None
        _recall(verdicts, Implementation(**about))
        found[entry["name"]] = Kept(about, {v.case.full_id: v for v in verdicts})
    return found


def _recall(verdicts: Iterable[Verdict], implementation: Implementation) -> None:
    """Give back answers to the passing cases of failing operations: the diagnosis looks at both."""
    verdicts = list(verdicts)
    failing = {v.case.operation for v in verdicts if v.answer is not None}
    for verdict in verdicts:
        if verdict.status == "passed" and verdict.case.operation in failing:
            name = verdict.case.operation
            dialect = implementation.dialect.get(name, {})
            expected = fixtures.expectation(load(name), verdict.case, dialect)
            # It passed, so it was this up to rounding.
            outputs = map_tensors(lambda leaf: leaf.tensor, expected.outputs)
            verdict.answer = Answer(None if expected.rejects is not None else outputs)


@contextlib.contextmanager
def journal(
    path: Path | None,
    asked: Asked,
    cases: list[Case],
    expectations: Expectations,
    had: Mapping[str, Kept],
) -> Iterator[Journal | None]:
    """Open the file of JSON lines that begins with what is kept; it takes the place of an old one."""
    if path is None:
        yield None
        return
    # Until the kept verdicts are all in the new file, the old one stays as it is.
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    first = Journal(part, expectations)
    try:
        first.start(records.header(asdict(asked), cases))
        for name, what in had.items():
            implementation = Implementation(**what.implementation)
            for verdict in what.verdicts.values():
                first.verdict(name, implementation, verdict)
    finally:
        first.close()
    os.replace(part, path)
    lines = Journal(
        path, expectations, introduced=[name for name, what in had.items() if what.verdicts]
    )
    try:
        yield lines
    finally:
        lines.close()
