"""Renewing a file of expected failures from a run: what still fails keeps its words, the rest moves on.

* An entry whose cases all still fail stays as it is, comments and all.
* One that covers cases that pass now is narrowed to those that fail; where its range began with an earlier
  version, the entry as it was is closed at this one.
* One of which nothing fails any more is closed at this version, or removed if it never held for another.
* What fails and is not listed is added, with what was measured. A reason that only a person can give is left
  ``TO BE WRITTEN``, which :func:`conformance.expected.read` refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from conformance.cases import SUFFIX
from conformance.expected import UNWRITTEN, Expected, parse
from conformance.judge import Verdict
from conformance.runner import Run

FAILS = frozenset({"failed", "errored", "crashed", "timed_out", "expected_failure"})
PASSES = frozenset({"passed", "unexpected_pass"})
HEADER = "[[expected]]"


@dataclass
class Block:
    """One entry of a file as it is written, and as it is meant."""

    text: str
    entry: Expected


@dataclass
class Renewed:
    """A file of expected failures after a run."""

    text: str
    kept: int = 0
    closed: list[str] = field(default_factory=list)
    narrowed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    unwritten: int = 0
    """New entries whose reason only a person can give."""


def renew(text: str, run: Run) -> Renewed:
    """Return a file of expected failures as a run of the adapter asks for it.

    Args:
        text: the file as it is; may be empty.
        run: a run of all cases of the operations that the file is about; expectations applied or not.
    """
    version = run.implementation.version if run.implementation else ""
    head, blocks = split(text)
    by_id = {verdict.case.full_id: verdict for verdict in run.verdicts}
    fails = [name for name, verdict in by_id.items() if verdict.status in FAILS]
    passes = [name for name, verdict in by_id.items() if verdict.status in PASSES]
    operations = {verdict.case.operation for verdict in run.verdicts}
    result = Renewed("")
    written: list[str] = []
    listed: set[str] = set()
    for block in blocks:
        entry = block.entry
        mine = [name for name in fails if entry.covers(name, version) and name not in listed]
        passing = [name for name in passes if entry.covers(name, version)]
        asked = _about(entry.case, operations)
        listed |= set(mine)
        if not entry.holds_for(version) or not asked or (mine and not passing):
            # Of other versions, or of operations that the run was not about, it says nothing.
            result.kept += 1
            written.append(block.text)
            continue
        closed = _closed(block, version)
        written += [closed] if closed else []
        if mine:
            patterns = list(cover(mine, passes))
            result.narrowed.append(f"{entry.case} → {', '.join(patterns)}")
            written += [_changed(block, pattern, version) for pattern in patterns]
        else:
            (result.closed if closed else result.removed).append(entry.case)
    new = [by_id[name] for name in fails if name not in listed]
    for added in _additions(run, new, passes, version):
        result.added.append(added.case)
        result.unwritten += added.reason.startswith(UNWRITTEN)
        written.append(write(added))
    result.text = "\n\n".join([*([head.strip()] if head.strip() else []), *map(str.strip, written)])
    result.text += "\n" if result.text else ""
    return result


def split(text: str) -> tuple[str, list[Block]]:
    """Return what stands before the first entry, and the entries with the comments above them."""
    parts = re.split(rf"(?m)^(?={re.escape(HEADER)})", text)
    head, raw = parts[0], parts[1:]
    blocks: list[Block] = []
    above = ""
    for number, part in enumerate(raw):
        body, _, tail = (
            part.rstrip("\n").rpartition("\n\n") if number + 1 < len(raw) else ("", "", "")
        )
        # A comment between two entries is about the one below it.
        comment = tail if body and all(line.startswith("#") for line in tail.splitlines()) else ""
        own = above + (body if comment else part)
        (entry,) = parse(own, "entry")
        blocks.append(Block(own.strip(), entry))
        above = f"{comment}\n" if comment else ""
    return head, blocks


def write(entry: Expected) -> str:
    """Return an entry as text."""
    versions = str(entry.versions) or "*"
    lines = [
        HEADER, f"case = {_quoted(entry.case)}", f"reason = {_quoted(entry.reason)}",
        f"observed = {_quoted(entry.evidence)}", f"versions = {_quoted(versions)}",
    ]  # fmt: skip
    return "\n".join(lines)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    # Control characters have no place in a message of one line.
    return '"' + re.sub(r"[\x00-\x1f\x7f]", " ", escaped) + '"'


def _about(pattern: str, operations: Iterable[str]) -> bool:
    """Say whether all operations that a pattern names were asked for: else a pass says little."""
    from conformance.operations import names

    meant = {name for name in names() if fnmatchcase(f"{name}/", f"{pattern.partition('/')[0]}/")}
    return meant <= set(operations)


def _closed(block: Block, version: str) -> str:
    """Return an entry that ends before a version; nothing if it never held for an earlier one."""
    try:
        now = Version(version)
    except InvalidVersion:
        return ""
    starts = [
        Version(s.version) for s in block.entry.versions if s.operator in (">=", "==", "~=", ">")
    ]
    if starts and max(starts).release >= now.release[: len(max(starts).release)]:
        return ""
    kept = [str(s) for s in block.entry.versions if s.operator not in ("<", "<=")]
    return _with(block.text, "versions", ",".join([*kept, f"<{now.base_version}"]))


def _changed(block: Block, pattern: str, version: str) -> str:
    text = _with(block.text, "case", pattern)
    return _with(text, "versions", _since(version, block.entry.versions)) if version else text


def _since(version: str, before: SpecifierSet | None = None) -> str:
    """Return the range that starts with a version, and ends where an earlier one did."""
    try:
        number = Version(version)
    except InvalidVersion:
        return "*"
    ends = [str(s) for s in before or () if s.operator in ("<", "<=")]
    return ",".join([f">={number.major}.{number.minor}", *ends])


def _with(text: str, key: str, value: str) -> str:
    return re.sub(rf"(?m)^{key}\s*=.*$", lambda _: f"{key} = {_quoted(value)}", text, count=1)


def cover(cases: Sequence[str], passes: Sequence[str]) -> Iterator[str]:
    """Yield patterns that match all the cases, and none that passes: for all dtypes of a slug at once."""
    left = list(cases)
    while left:
        operation, _, case_id = left[0].partition("/")
        slug, _, suffix = case_id.rpartition("-")
        pattern = left[0]
        if suffix in SUFFIX.values() and slug:
            wide = f"{operation}/{slug}-*"
            if not any(fnmatchcase(name, wide) for name in passes):
                pattern = wide
        yield pattern
        left = [name for name in left if not fnmatchcase(name, pattern)]


def _additions(
    run: Run, verdicts: Sequence[Verdict], passes: Sequence[str], version: str
) -> Iterator[Expected]:
    by_id = {verdict.case.full_id: verdict for verdict in verdicts}
    for pattern in cover(list(by_id), passes):
        mine = [verdict for name, verdict in by_id.items() if fnmatchcase(name, pattern)]
        first = next((v for v in mine if v.case.id.endswith("-f32")), mine[0])
        message = " ".join((first.message or first.status).split())
        yield Expected(
            pattern,
            _reason(run, first),
            SpecifierSet(_since(version).replace("*", "")),
            f"{first.case.id}: {message}",
        )


def _reason(run: Run, verdict: Verdict) -> str:
    """Return why a case fails, where the run itself says it."""
    if verdict.message.startswith("must be refused: "):
        return f"it does not refuse: {verdict.message.removeprefix('must be refused: ')}"
    found = run.diagnoses.get(verdict.case.operation)
    if found and found.explained == found.failing:
        return found.sentence
    return f"{UNWRITTEN}: why it does this, in one sentence"


def strict(blocks: Iterable[Expected], run: Run) -> list[str]:
    """Return the cases that such entries would leave failed, or passing unexpectedly."""
    entries = list(blocks)
    version = run.implementation.version if run.implementation else ""
    wrong = []
    for verdict in run.verdicts:
        covered = any(entry.covers(verdict.case.full_id, version) for entry in entries)
        if covered != (verdict.status in FAILS) and verdict.status in FAILS | PASSES:
            wrong.append(verdict.case.full_id)
    return wrong
