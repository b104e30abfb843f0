"""Expected failures: ``expectations/<adapter>.toml``, each with its reason and the versions it holds for.

::

    [[expected]]
    case = "clip.global_norm/ord-negative-*"
    reason = "a negative ord is accepted"
    link = "https://github.com/pytorch/pytorch/issues/…"   # or: observed = "what was measured, with what"
    versions = ">=2.6,<3"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from conformance.judge import Verdict
from conformance.protocol import Implementation
from conformance.runner import Run

FOLDER = Path(__file__).parent / "expectations"
FAILURES = frozenset({"failed", "errored", "crashed", "timed_out"})
UNWRITTEN = "TO BE WRITTEN"
"""How the reason begins of an entry that a machine added and that nobody has explained yet."""
NAME = re.compile(r"[A-Za-z0-9_-]+")
KEYS = ("case", "reason", "link", "observed", "versions")


class ExpectationsError(ValueError):
    """A file of expected failures that is not written as it must be; one line."""


@dataclass(frozen=True)
class Expected:
    """Cases that are known to fail; ``case`` is a shell pattern over full case ids."""

    case: str
    reason: str
    versions: SpecifierSet
    evidence: str
    """A link to a public report, or what was observed."""

    def covers(self, case_id: str, version: str) -> bool:
        """Say whether a case of a version is expected to fail."""
        return fnmatchcase(case_id, self.case) and self.holds_for(version)

    def holds_for(self, version: str) -> bool:
        """Say whether the entry is about a version."""
        try:
            return self.versions.contains(Version(version), prereleases=True)
        except InvalidVersion:
            # Only "every version" can hold for a version that does not say where it stands.
            return not str(self.versions)


def read(adapter: str, folder: Path | None = None) -> list[Expected]:
    """Return the expected failures of an adapter; none if it has no file.

    Raises:
        ExpectationsError: the file is malformed, or a reason is still to be written; one line with file, entry
            and key.
    """
    path = (folder or FOLDER) / f"{adapter}.toml"
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise ExpectationsError(f"{path.name}: not valid TOML: {error}") from None
    entries = parse(text, path.name)
    for number, entry in enumerate(entries, 1):
        if entry.reason.startswith(UNWRITTEN):
            raise ExpectationsError(
                f"{path.name}: entry {number}: the reason of {entry.case} is still to be written"
            )
    return entries


def parse(text: str, name: str) -> list[Expected]:
    """Return the entries of a file's text, reasons that are to be written included.

    Raises:
        ExpectationsError: the text is malformed; one line with name, entry and key.
    """
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise ExpectationsError(f"{name}: not valid TOML: {error}") from None
    entries = document.pop("expected", [])
    if document or not isinstance(entries, list):
        raise ExpectationsError(f"{name}: holds [[expected]] entries and nothing else")
    return [_entry(entry, f"{name}: entry {i}") for i, entry in enumerate(entries, 1)]


def _entry(entry: Any, where: str) -> Expected:
    if not isinstance(entry, dict) or any(not isinstance(value, str) for value in entry.values()):
        raise ExpectationsError(f"{where}: every value must be a string")
    if unknown := sorted(set(entry) - set(KEYS)):
        raise ExpectationsError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(KEYS)}")
    for key in ("case", "reason", "versions"):
        if not entry.get(key, "").strip():
            raise ExpectationsError(f"{where}: {key} is missing")
    evidence = entry.get("link") or entry.get("observed")
    if not evidence:
        raise ExpectationsError(f"{where}: needs a link, or observed: what was measured")
    text = entry["versions"].strip()
    try:
        versions = SpecifierSet("" if text == "*" else text)
    except InvalidSpecifier:
        raise ExpectationsError(
            f"{where}: versions {text!r} is no PEP 440 range such as '>=2.6,<3', nor '*'"
        ) from None
    return Expected(entry["case"], entry["reason"], versions, evidence)


class Expectations:
    """Whose expected failures are which: an adapter's by its name, a program's by what it calls itself."""

    def __init__(self, adapters: Iterable[str], programs: Iterable[str] = ()) -> None:
        """Read those of the adapters; a program says its name only when it has started.

        Raises:
            ExpectationsError: a file is malformed.
        """
        self._read = {name: read(name) for name in adapters}
        self._programs = frozenset(programs)

    def of(self, participant: str, implementation: Implementation | None) -> Sequence[Expected]:
        """Return the expected failures of a participant."""
        if participant not in self._programs:
            return self._read.get(participant, ())
        name = implementation.name if implementation else ""
        if not NAME.fullmatch(name):
            return ()
        if name not in self._read:
            self._read[name] = read(name)
        return self._read[name]


def apply(run: Run, entries: Sequence[Expected]) -> None:
    """Turn listed failures into ``expected_failure`` and listed passes into ``unexpected_pass``."""
    version = run.implementation.version if run.implementation else ""
    for verdict in run.verdicts:
        mark(verdict, version, entries)


def mark(verdict: Verdict, version: str, entries: Iterable[Expected]) -> None:
    """Turn one verdict into ``expected_failure`` or ``unexpected_pass`` if it is listed."""
    for entry in entries:
        if entry.covers(verdict.case.full_id, version):
            _mark(verdict, entry)
            break


def _mark(verdict: Verdict, entry: Expected) -> None:
    if verdict.status in FAILURES:
        verdict.status = "expected_failure"
        verdict.reason = f"{entry.reason} ({entry.evidence})"
    elif verdict.status == "passed":
        verdict.status = "unexpected_pass"
        verdict.reason = f"{entry.reason} ({entry.evidence})"
        verdict.message = f"passed, but is expected to fail: {entry.reason}"
