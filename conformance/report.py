"""Reports of runs: tables for the terminal and for Markdown, and everything as JSON."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from conformance import __version__
from conformance.diagnosis import Diagnosis
from conformance.judge import Verdict
from conformance.precision import CLASSES, Measure
from conformance.runner import DIFFERENT, Run

SCHEMA = "secateurs-report-1"
HEADINGS = ("operation", "cases", "passed", "failed", "unsup.", "canonical", "worst ULP")
UNLISTED = "the implementation does not list this operation"


@dataclass
class Divergence:
    """A dial by which an implementation leaves the canonical behaviour, and how far."""

    name: str
    cases: int = 0
    effect: float = 0.0
    kind: str = ""
    alone: bool = False

    def __str__(self) -> str:
        """Return ``dial=value ×cases up to effect``."""
        return f"{self.name} ×{self.cases} {self.size}"

    @property
    def size(self) -> str:
        """The largest effect, in words where there is no number for it."""
        return self.kind if math.isinf(self.effect) else f"up to {self.effect:.2g}"


@dataclass
class Row:
    """What one implementation did with one operation."""

    operation: str
    cases: int = 0
    passed: int = 0
    failed: int = 0
    expected: int = 0
    unsupported: int = 0
    canonical: int = 0
    worst_ulp: float = 0.0
    divergences: dict[str, Divergence] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, under :data:`HEADINGS`."""
        asked = self.cases - self.unsupported
        failed = f"{self.failed}+{self.expected}" if self.expected else str(self.failed)
        ulp = f"{self.worst_ulp:.2g}" if self.worst_ulp else "0"
        return (
            self.operation, str(self.cases), str(self.passed), failed, str(self.unsupported),
            f"{self.canonical}/{asked}" if asked else "-", ulp if self.passed else "-",
        )  # fmt: skip


def rows(run: Run) -> list[Row]:
    """Return one row for each operation, in the order of the cases."""
    table: dict[str, Row] = {}
    for verdict in run.verdicts:
        row = table.setdefault(verdict.case.operation, Row(verdict.case.operation))
        row.cases += 1
        row.passed += verdict.status == "passed"
        row.failed += verdict.status in DIFFERENT
        row.expected += verdict.status == "expected_failure"
        row.unsupported += verdict.status == "unsupported"
        row.canonical += verdict.canonical is True
        if verdict.status == "passed":
            row.worst_ulp = max(row.worst_ulp, verdict.worst_ulp)
        names = verdict.divergence.split()
        for name in names:
            _count(row.divergences.setdefault(name, Divergence(name)), verdict, len(names) == 1)
    return list(table.values())


def _count(divergence: Divergence, verdict: Verdict, alone: bool) -> None:
    divergence.cases += 1
    # A case in which several dials act together says little of each: it counts only for want of others.
    if alone > divergence.alone:
        divergence.effect, divergence.alone = 0.0, True
    if alone == divergence.alone and verdict.effect >= divergence.effect:
        divergence.effect = verdict.effect
        divergence.kind = kind(verdict)


def kind(verdict: Verdict) -> str:
    """Return what an effect without a number is, in words."""
    where = verdict.departs.where if verdict.departs else ""
    if verdict.departs is None:
        return "refused"
    return (
        f"another {where.rpartition(' ')[2]}" if where.endswith((" dtype", " shape")) else "NaN/inf"
    )


def title(run: Run) -> str:
    """Return the name and version of a run's implementation."""
    about = run.implementation
    return f"{about.name} {about.version}".strip() if about else run.participant


def summary(run: Run) -> str:
    """Return one line: how many cases have which status."""
    counts = run.counts
    canonical = counts.pop("canonical")
    words = [
        f"{count} {_plural(status, count)}"
        for status, count in counts.items()
        if count or status in ("passed", "failed")
    ]
    return f"{', '.join(words)}; {canonical} canonical"


def _plural(status: str, count: int) -> str:
    ending = {"expected_failure": "s", "unexpected_pass": "es"}.get(status, "")
    return status.replace("_", " ") + (ending if count != 1 else "")


def unsupported(run: Run) -> list[str]:
    """Return why cases are unsupported, one line a reason, the commonest first."""
    lacks = [v for v in run.verdicts if v.status == "unsupported"]
    absent = sorted({v.case.operation for v in lacks if v.message == UNLISTED})
    reasons = Counter(v.message for v in lacks if v.message != UNLISTED)
    lines = [f"{count} × {reason or 'no reason given'}" for reason, count in reasons.most_common()]
    return lines + ([f"not listed at all: {', '.join(absent)}"] if absent else [])


def expected_failures(run: Run) -> list[str]:
    """Return the expected failures, one line a reason."""
    reasons: dict[str, list[str]] = {}
    for verdict in run.verdicts:
        if verdict.status == "expected_failure":
            reasons.setdefault(verdict.reason, []).append(verdict.case.full_id)
    return [
        f"{len(ids)} × {reason}: {ids[0]}{', …' if len(ids) > 1 else ''}"
        for reason, ids in reasons.items()
    ]


def precisions(run: Run) -> list[tuple[str, str]]:
    """Return ``(class, operations)``, the best class first, and what each long sum was off by."""
    lines = []
    for name in CLASSES:
        members = [f"{op} {_ulps(m)}" for op, m in run.precision.items() if m.name == name]
        if members:
            lines.append((name, ", ".join(members)))
    return lines + [(m.where, f"{_ulps(m)} ULP, {m.name}") for m in run.probed.values()]


def _ulps(measure: Measure) -> str:
    return (
        "0"
        if not measure.ulps
        else f"{measure.ulps:.2g}"
        if measure.ulps < 10
        else f"{measure.ulps:.0f}"
    )


def as_json(runs: Iterable[Run]) -> dict[str, Any]:
    """Return the whole report as JSON values."""
    runs = list(runs)
    return {
        "schema": SCHEMA,
        "suite": __version__,
        "participants": [run.as_json() for run in runs],
        "summary": total(runs),
    }


def total(runs: Iterable[Run]) -> dict[str, int]:
    """Return how many cases of all runs have each status, and how many are canonical."""
    count: Counter[str] = Counter()
    for run in runs:
        count.update(run.counts)
    return dict(count)


def print_runs(runs: Sequence[Run], console: Console, limit: int = 0) -> None:
    """Print every run; at most ``limit`` failing cases of each (0: all)."""
    for run in runs:
        _print_run(run, Page(console), limit)
    asked = [run for run in runs if run.implementation]
    if len(asked) > 1:
        page = Page(console)
        width = max(len(title(run)) for run in asked)
        for run in asked:
            style = "green" if run.as_expected else "red"
            page.item(title(run).ljust(width), summary(run), style)


class Page:
    """Writes lines that fit the terminal, or 80 columns where there is none."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = max(60, min(console.width, 100)) if console.is_terminal else 80

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line as it is."""
        self.console.print(Text(text.rstrip(), style=style))

    def item(self, label: str, text: str, style: str = "", indent: int = 0) -> None:
        """Write a label and beside it a text, wrapped under itself."""
        first = " " * indent + label + ("  " if label else "")
        hang = len(first) if len(first) <= self.width // 2 else indent + 4
        room = max(self.width - hang, 20)
        parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        if hang != len(first):
            parts.insert(0, "")
        self.console.print(Text(first, style=style) + Text(parts[0], style="default"), end="\n")
        for part in parts[1:]:
            self.line(" " * hang + part)


def _print_run(run: Run, page: Page, limit: int) -> None:
    about = run.implementation
    if about is None:
        given = run.not_started or ""
        reason = given.removeprefix("not installed: ").removeprefix(f"{run.participant}: ")
        words = "could not be started"
        if run.not_installed:
            # What is installed may lack something else: a device, say.
            words = "not installed" if given.startswith("not installed: ") else "cannot run here"
        page.item(f"{run.participant}: {words}", reason, "yellow" if run.not_installed else "red")
        page.line()
        return
    spoken = f"{about.language} {about.language_version}".strip()
    page.line(
        f"{title(run)}  ({', '.join(filter(None, (spoken, f'{run.seconds:.1f} s')))})", "bold"
    )
    page.line()
    _print_table(rows(run), page)
    _print_failures(run, page, limit)
    for heading, lines in (
        ("expected failures", expected_failures(run)),
        ("unsupported", unsupported(run)),
        ("notes", run.notes),
    ):
        if lines:
            page.line(heading, "bold")
        for line in lines:
            page.item("", line, indent=2)
        if lines:
            page.line()
    if found := precisions(run):
        page.line("precision, in ULP of the exact numbers", "bold")
        for name, text in found:
            page.item(f"{name:17}", text, "red" if name == "worse" else "cyan", indent=2)
        page.line()
    style = "green" if run.as_expected else "red"
    page.item(f"{title(run)}:", summary(run), style)
    page.line()


def _print_table(table: list[Row], page: Page) -> None:
    shown = [row for row in table if row.cases > row.unsupported]
    if not shown:
        page.line("No case could be asked.", "yellow")
        return
    cells = [HEADINGS, *(row.cells for row in shown)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]

    def aligned(line: Sequence[str]) -> str:
        return "  ".join(
            [
                line[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )

    page.line(aligned(HEADINGS), "bold")
    longest = max((len(d.name) for row in shown for d in row.divergences.values()), default=0)
    for row in shown:
        page.line(aligned(row.cells), "red" if row.failed else "")
        for divergence in sorted(row.divergences.values(), key=lambda d: -d.cases):
            label = f"{divergence.name.ljust(min(longest, 40))} {f'×{divergence.cases}':>5}"
            page.item(label, divergence.size, "cyan", indent=4)
    page.line()


def _print_failures(run: Run, page: Page, limit: int) -> None:
    bad = [verdict for verdict in run.verdicts if verdict.status in DIFFERENT]
    shown = bad[:limit] if limit else bad
    for name in dict.fromkeys(verdict.case.operation for verdict in bad):
        for verdict in shown:
            if verdict.case.operation == name:
                label = verdict.status.replace("_", " ")
                page.item(f"{label:9}", verdict.case.full_id, "red")
                page.item("", verdict.message, indent=9)
        if name in run.diagnoses:
            _print_diagnosis(run.diagnoses[name], page)
    if len(bad) > len(shown):
        page.line(f"… and {len(bad) - len(shown)} more; --limit 0 shows all, --json writes all")
    if bad:
        page.line()


def _print_diagnosis(found: Diagnosis, page: Page) -> None:
    page.item("diagnosis", found.operation, "magenta")
    page.item("", found.sentence, indent=9)
    if found.case:
        page.item("", f"The smallest is {found.case}:", indent=9)
        # Lines that are meant to be copied are not wrapped.
        page.line(found.snippet)


def markdown(runs: Iterable[Run]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for run in runs:
        if run.implementation is None:
            parts.append(f"## {run.participant}\n\nNot started: {run.not_started}\n")
            continue
        lines = [f"## {title(run)}", "", _row((*HEADINGS, "divergences"))]
        lines.append(_row(["---", *["---:"] * (len(HEADINGS) - 1), "---"]))
        for row in rows(run):
            divergences = sorted(row.divergences.values(), key=lambda d: -d.cases)
            lines.append(_row((*row.cells, "; ".join(str(d) for d in divergences))))
        bad = [verdict for verdict in run.verdicts if verdict.status in DIFFERENT]
        lines += ["", summary(run), ""]
        lines += [f"- `{v.case.full_id}` {v.status}: {_escaped(v.message)}" for v in bad]
        lines += [f"- diagnosis of {n}: {_escaped(d.sentence)}" for n, d in run.diagnoses.items()]
        lines += [f"- precision: {name}: {_escaped(text)}" for name, text in precisions(run)]
        lines += [f"- expected failure: {_escaped(line)}" for line in expected_failures(run)]
        lines += [f"- unsupported: {_escaped(line)}" for line in unsupported(run)]
        parts.append("\n".join(lines).rstrip() + "\n")
    return "\n".join(parts)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
