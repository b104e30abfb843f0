"""Findings: what current releases do with a gradient that contradicts their own documentation or loses it.

``findings/<implementation>.toml`` tells of each: what was expected, what happens, and a few lines that call the
library only. A finding stands as long as its case is not canonical in the record of a run, and its lines print
what they printed. ``FINDINGS.md`` is made from these files and the records::

    python -m conformance.findings          # write FINDINGS.md
    python -m conformance.findings --run    # run the lines of all libraries that are installed, and compare
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from conformance import environments, participants, recorded
from conformance.expected import ExpectationsError
from conformance.operations import load, names
from conformance.recorded import Record

FOLDER = Path(__file__).parent / "findings"
PAGE = Path(__file__).parent.parent / "FINDINGS.md"
LONGEST = 10
KINDS = (
    "loses the gradient: zero", "loses the gradient: NaN", "loses the gradient: sign",
    "loses the gradient: wrong norm", "contradicts its documentation", "contradicts itself",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One behaviour, told for somebody who has never seen this suite."""

    library: str
    title: str
    kind: str
    case: str
    """The smallest case of the suite in which it shows."""
    expected: str
    happens: str
    code: str
    prints: str
    documentation: str = ""
    link: str = ""
    language: str = "python"


def read(library: str, folder: Path | None = None) -> list[Finding]:
    """Return the findings about a library.

    Raises:
        ExpectationsError: the file is malformed; one line with file, entry and key.
    """
    path = (folder or FOLDER) / f"{library}.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExpectationsError(f"{path.name}: not valid TOML: {error}") from None
    found = []
    for number, entry in enumerate(document.get("finding", []), 1):
        where = f"{path.name}: finding {number}"
        known = {field.name for field in fields(Finding)} - {"library", "language"}
        if unknown := sorted(set(entry) - known):
            raise ExpectationsError(f"{where}: unknown key {unknown[0]!r}")
        for key in sorted(known - {"documentation", "link"}):
            if not str(entry.get(key, "")).strip():
                raise ExpectationsError(f"{where}: {key} is missing")
        words = {key: str(value).strip() for key, value in entry.items()}
        finding = Finding(library, **words, language=document.get("language", "python"))
        if finding.kind not in KINDS:
            raise ExpectationsError(f"{where}: kind must be one of {', '.join(KINDS)}")
        if finding.kind == "contradicts its documentation" and not finding.documentation:
            raise ExpectationsError(f"{where}: the documentation that it contradicts is missing")
        if finding.code.count("\n") >= LONGEST:
            raise ExpectationsError(f"{where}: code has more than {LONGEST} lines")
        found.append(finding)
    return found


def libraries(folder: Path | None = None) -> list[str]:
    """Return the libraries about which there are findings, sorted."""
    return sorted(path.stem for path in (folder or FOLDER).glob("*.toml"))


def holds(finding: Finding, record: Record) -> bool:
    """Say whether the case of a finding is not answered canonically in a record."""
    operation, _, case_id = finding.case.partition("/")
    tally = record.operations.get(operation)
    return bool(tally and tally.asked and tally.outcome(case_id))


def output(finding: Finding, command: Sequence[str], folder: Path | None = None) -> str:
    """Return what the lines of a finding print, run by a command that takes them as its last argument."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, finding.code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | quiet,
        cwd=folder,
    )
    return done.stdout.strip() if not done.returncode else done.stderr.strip()


def interpreter(library: str) -> tuple[list[str], Path | None]:
    """Return the command that runs lines for a library, and where; an empty command if it is not here."""
    module = participants.adapters().get(library)
    if module is None:
        return [], None
    packages = Path(__file__).parent.parent / Path(*module.split(".")) / "node_modules"
    if packages.is_dir() and (node := shutil.which("node")):
        return [node, "-e"], packages.parent
    if not participants.lacking(module):
        return [sys.executable, "-c"], None
    ready = environments.ready(library)
    return ([str(environments.python(library)), "-c"] if ready else []), None


# --- the page -------------------------------------------------------------------------------------

INTRODUCTION = """\
# Findings

What current releases do with a gradient that contradicts their own documentation, or loses it: a zero, a NaN,
a sign, a wrong norm. Each was seen with the version named; its lines call that library only and print what
stands below them. This page is made by `python -m conformance.findings` from records of runs
(`conformance/data/runs/`) and `conformance/findings/`; a finding whose case comes out right in a newer run has
to leave it.

`secateurs show CASE` shows a case in full; `secateurs explain OPERATION` says what is canonical and why. That
a library has another convention is no finding: see `secateurs matrix` and `secateurs diff`.
"""


def page(records: dict[str, Record], folder: Path | None = None) -> str:
    """Return FINDINGS.md.

    Raises:
        ExpectationsError: a finding is about a library without a record, or does not hold in it.
    """
    parts = [INTRODUCTION]
    told: list[tuple[Record, list[Finding]]] = []
    for library in libraries(folder):
        if library not in records:
            raise ExpectationsError(f"{library}: findings, but no record of a run")
        found = read(library, folder)
        for finding in found:
            if not holds(finding, records[library]):
                raise ExpectationsError(
                    f"{library}: {finding.case} is no case, or canonical on record: {finding.title!r} is over"
                )
        told.append((records[library], found))
    parts.append(_contents(told))
    for record, found in told:
        parts.append(f"## {record.title}\n")
        parts += [_one(finding, record) for finding in found]
    parts.append(_known(records))
    return "\n".join(parts)


def _contents(told: Iterable[tuple[Record, list[Finding]]]) -> str:
    lines = ["| library | finding | kind | case |", "|---|---|---|---|"]
    for record, found in told:
        for finding in found:
            link = f"[{_escaped(finding.title)}](#{_anchor(finding)})"
            lines.append(f"| {record.title} | {link} | {finding.kind} | `{finding.case}` |")
    return "\n".join(lines) + "\n"


def _heading(finding: Finding) -> str:
    return f"{finding.library}: {finding.title}"


def _anchor(finding: Finding) -> str:
    kept = [c for c in _heading(finding).lower() if c.isalnum() or c in " -_"]
    return "".join(kept).replace(" ", "-")


def _one(finding: Finding, record: Record) -> str:
    lines = [
        f"### {_heading(finding)}",
        "",
        f"*{record.title}, {finding.kind}.* {finding.happens}",
        "",
    ]
    lines += [f"- Expected: {finding.expected}."]
    lines += [f"- Its documentation: “{finding.documentation}”"] if finding.documentation else []
    lines += [f"- The suite's rule: {rule}" for rule in _rules(finding)[:1]]
    link = f"<{finding.link}>" if finding.link else "none is known to us"
    lines += [f"- Public report: {link}.", f"- Case: `secateurs show {finding.case}`", ""]
    lines += [
        f"```{finding.language}",
        finding.code,
        "```",
        "",
        "prints",
        "",
        "```",
        finding.prints,
        "```",
    ]
    return "\n".join(lines) + "\n"


def _rules(finding: Finding) -> list[str]:
    """Return the constraints that the case of a finding tests, in the operation's own words."""
    from conformance.runner import select

    operation, _, case_id = finding.case.partition("/")
    (case,) = select([operation], [case_id])
    constraints = load(operation).constraints
    return [f"{label} of `{operation}`: {constraints[label]}" for label in case.constraints]


def _known(records: dict[str, Record]) -> str:
    """Return every failure that a run was expected to have, by library, operation and reason."""
    lines = [
        "## Every known failure", "",
        "All failures on record that have a written reason; most are limits or unchecked arguments.",
        "",
    ]  # fmt: skip
    for record in records.values():
        rows = list(_rows(record))
        if rows:
            lines += [
                f"### {record.title}: known failures",
                "",
                "| operation | cases | reason | for example |",
            ]
            lines += ["|---|--:|---|---|", *rows, ""]
    return "\n".join(lines)


def _rows(record: Record) -> Iterator[str]:
    for name in names():
        tally = record.operations.get(name)
        reasons: dict[str, list[str]] = {}
        for case_id, entry in (tally.failing if tally else {}).items():
            if entry["status"] == "expected_failure":
                reasons.setdefault(entry.get("reason", ""), []).append(case_id)
        for reason, ids in reasons.items():
            yield f"| `{name}` | {len(ids)} | {_escaped(reason)} | `{ids[0]}` |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[").replace("]", "\\]")


def check(wanted: Sequence[str] = ()) -> int:
    """Run the lines of findings where the library is installed; print what differs, return 1 if any does."""
    differs = 0
    for library in wanted or libraries():
        command, folder = interpreter(library)
        if not command:
            print(f"{library}: not installed here")
            continue
        for finding in read(library):
            got = output(finding, command, folder)
            differs += got != finding.prints
            print(f"{library}: {finding.case}: {'as written' if got == finding.prints else got}")
    return 1 if differs else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Write FINDINGS.md, or run what it shows."""
    parser = argparse.ArgumentParser(prog="python -m conformance.findings")
    parser.add_argument("libraries", nargs="*", help="with --run: only these")
    parser.add_argument("--run", action="store_true", help="run the lines of each finding instead")
    options = parser.parse_args(arguments)
    if options.run:
        return check(options.libraries)
    try:
        PAGE.write_text(page(recorded.shipped()), encoding="utf-8")
    except ExpectationsError as error:
        print(error, file=sys.stderr)
        return 1
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
