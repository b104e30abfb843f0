"""What changed between two reports: two versions of a framework, or of an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from conformance.records import Entry, Report
from conformance.runner import DIFFERENT

HEADINGS = (
    "new failures", "fixed", "fails otherwise", "other status", "no longer canonical",
    "now canonical", "another divergence", "cases gone", "new cases",
)  # fmt: skip
"""The kinds of change, those that matter most first."""


@dataclass(frozen=True)
class Change:
    """One case that is not as it was."""

    kind: str
    case: str
    text: str


@dataclass
class Changes:
    """What changed for one participant."""

    name: str
    versions: tuple[str, str]
    found: list[Change] = field(default_factory=list)

    def of(self, kind: str) -> list[Change]:
        """Return the changes of a kind, in the order of the report."""
        return [change for change in self.found if change.kind == kind]


def changes(old: Report, new: Report) -> list[Changes]:
    """Return what changed for each participant of two reports.

    Participants are matched by name; if each report has one only, these are matched whatever their names.
    """
    before = {entry["name"]: entry for entry in old.participants}
    after = {entry["name"]: entry for entry in new.participants}
    if len(before) == len(after) == 1:
        (one,), (other,) = before.values(), after.values()
        return [_participant(other["name"], one, other)]
    names = list(dict.fromkeys([*before, *after]))
    return [_participant(name, before.get(name), after.get(name)) for name in names]


def _participant(name: str, old: Entry | None, new: Entry | None) -> Changes:
    result = Changes(name, (_version(old), _version(new)))
    was = {v["case"]: v for v in old["verdicts"]} if old else {}
    now = {v["case"]: v for v in new["verdicts"]} if new else {}
    for case in dict.fromkeys([*was, *now]):
        result.found += _case(case, was.get(case), now.get(case))
    return result


def _version(entry: Entry | None) -> str:
    if entry is None:
        return "not in the report"
    about = entry.get("implementation")
    if not about:
        return "not installed" if entry.get("not_installed") else "not started"
    return f"{about['name']} {about['version']}".strip()


def _case(case: str, was: Entry | None, now: Entry | None) -> Iterator[Change]:
    if was is None or now is None:
        known: Any = was or now
        yield Change("cases gone" if now is None else "new cases", case, known["status"])
        return
    if was["status"] != now["status"]:
        yield Change(_status(was["status"], now["status"]), case, _words(was, now))
    if was.get("canonical") != now.get("canonical"):
        if now.get("canonical"):
            yield Change("now canonical", case, was.get("divergence") or "")
        elif was.get("canonical"):
            yield Change("no longer canonical", case, now.get("divergence") or "")
    elif was.get("divergence", "") != now.get("divergence", ""):
        text = f"{was.get('divergence') or 'none'} → {now.get('divergence') or 'none'}"
        yield Change("another divergence", case, text)


def _status(was: str, now: str) -> str:
    if now in DIFFERENT:
        return "fails otherwise" if was in DIFFERENT else "new failures"
    fixed = now == "passed" and (was in DIFFERENT or was == "expected_failure")
    return "fixed" if fixed else "other status"


def _words(was: Entry, now: Entry) -> str:
    reason = now.get("message") or now.get("reason") or ""
    steps = f"{was['status']} → {now['status']}".replace("_", " ")
    return f"{steps}: {reason}" if reason else steps
