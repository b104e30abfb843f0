"""Report files that are read again: one JSON document, or JSON lines written while a run goes on.

JSON lines (``secateurs-lines-1``), one object a line, told apart by ``record``:

* ``header``: what is asked, by which version of the suite, of which fixture files;
* ``participant``: what an implementation says of itself, before its first verdict;
* ``verdict``: one case, as soon as it is judged; a later line about the same case replaces it;
* ``footer``: how many cases have which status. A file without it was cut off.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

from conformance import __version__, expected, fixtures
from conformance.cases import Case
from conformance.compare import Difference
from conformance.expected import Expectations
from conformance.formats import encode
from conformance.judge import Answer, Verdict, map_outputs
from conformance.operation import map_tensors, sizes
from conformance.protocol import Implementation
from conformance.runner import Run

LINES = "secateurs-lines-1"
REPORT = "secateurs-report-1"
LARGEST_ANSWER = 20_000
"""Elements up to which the answer to a failing case is written down."""
KINDS = ("header", "participant", "verdict", "footer")
Entry = dict[str, Any]


class RecordError(ValueError):
    """A report file that cannot be used; one line that names the file."""


@dataclass
class Report:
    """A report as read from a file: the JSON values of :meth:`conformance.runner.Run.as_json`."""

    file: str
    suite: str
    participants: list[Entry]
    header: Entry = field(default_factory=dict)
    """Of JSON lines: what was asked."""
    complete: bool = True
    """False if the footer is missing: the run was interrupted, or the file was cut off."""

    @property
    def count(self) -> int:
        """The number of verdicts."""
        return sum(len(entry["verdicts"]) for entry in self.participants)


def header(asked: Mapping[str, Any], cases: Iterable[Case]) -> Entry:
    """Return the first line of a run: ``asked`` is what makes the same run again."""
    return {
        "record": "header",
        "schema": LINES,
        "suite": __version__,
        "asked": dict(asked),
        "fixtures": digests(case.operation for case in cases),
    }


def digests(operations: Iterable[str]) -> dict[str, str]:
    """Return a checksum of the fixture file of each operation; it covers its large tensors too."""
    return {
        name: hashlib.sha256((fixtures.FOLDER / f"{name}.json").read_bytes()).hexdigest()[:16]
        for name in dict.fromkeys(operations)
    }


class Journal:
    """Writes the JSON lines of a run as it goes; safe to call from several threads."""

    def __init__(
        self,
        path: Path,
        expectations: Expectations,
        introduced: Iterable[str] = (),
    ) -> None:
        """Go on with a file.

        Args:
            path: the file; it is made if it is not there.
            expectations: the expected failures of the participants.
            introduced: the participants that the file knows already.
        """
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._expectations = expectations
        self._introduced = set(introduced)
        self._lock = threading.Lock()

    def start(self, head: Entry) -> None:
        """Write the header."""
        self._write(head)

    def verdict(self, participant: str, implementation: Implementation, verdict: Verdict) -> None:
        """Write one verdict, and before a participant's first one what it says of itself."""
        marked = replace(verdict)
        expected.mark(
            marked, implementation.version, self._expectations.of(participant, implementation)
        )
        entry = {"record": "verdict", "participant": participant} | marked.as_json()
        if marked.status != verdict.status:
            entry["judged"] = verdict.status
        if verdict.status == "failed" and verdict.answer is not None:
            entry |= _answer(verdict.answer)
        with self._lock:
            if participant not in self._introduced:
                self._introduced.add(participant)
                about = asdict(implementation)
                self._write({"record": "participant", "name": participant, "implementation": about})
            self._write(entry)

    def finish(self, runs: Iterable[Run], summary: Mapping[str, int]) -> None:
        """Write the footer: the run is whole."""
        ends = [{k: v for k, v in run.as_json().items() if k != "verdicts"} for run in runs]
        with self._lock:
            self._write({"record": "footer", "participants": ends, "summary": dict(summary)})

    def close(self) -> None:
        """Close the file; without :meth:`finish` it is one that can be resumed."""
        with self._lock:
            self._file.close()

    def _write(self, entry: Entry) -> None:
        self._file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
        # What was judged is on record even if the next case takes the machine down.
        self._file.flush()


def _answer(answer: Answer) -> Entry:
    """Return what a failing case answered: the evidence, and what a resumed run explains it by."""
    if answer.outputs is not None and sizes(answer.outputs) > LARGEST_ANSWER:
        return {}
    outputs = None if answer.outputs is None else map_tensors(encode, answer.outputs)
    return {"got": {"outputs": outputs, "written": list(answer.written)}}


def read(path: Path) -> Report:
    """Return the report in a file of either format; a cut-off file of JSON lines is not ``complete``.

    Raises:
        RecordError: the file cannot be read, is no report, or is damaged.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecordError(f"{path}: not UTF-8") from None
    try:
        # Only a run cut off in the middle of a line leaves one without its end.
        first = json.loads(text.partition("\n")[0])
    except ValueError:
        first = None
    try:
        if isinstance(first, dict) and first.get("record") == "header":
            return _lines(path, text)
        return _document(path, text)
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: damaged: {type(error).__name__}: {error}") from None


def _document(path: Path, text: str) -> Report:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise RecordError(f"{path}: truncated or not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != REPORT:
        raise RecordError(f"{path}: no report of secateurs; expected schema {REPORT} or {LINES}")
    report = Report(str(path), str(document["suite"]), document["participants"])
    for participant in report.participants:
        for verdict in participant["verdicts"]:
            _check(path, verdict)
    return report


def _check(path: Path, verdict: Entry) -> None:
    if not isinstance(verdict.get("case"), str) or not isinstance(verdict.get("status"), str):
        raise RecordError(f"{path}: a verdict without case or status")


def _lines(path: Path, text: str) -> Report:
    *whole, rest = text.split("\n")
    if not whole:
        raise RecordError(f"{path}: truncated: not even the header is whole")
    entries: list[Entry] = []
    for number, written in enumerate(whole, 1):
        try:
            entry = json.loads(written)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or entry.get("record") not in KINDS:
            raise RecordError(f"{path}: line {number} is no record")
        entries.append(entry)
    head = entries[0]
    if head.get("schema") != LINES:
        raise RecordError(f"{path}: schema is {head.get('schema')!r}, expected {LINES!r}")
    participants: dict[str, Entry] = {}
    verdicts: dict[str, dict[str, Entry]] = {}
    footer: Entry | None = None
    for number, entry in enumerate(entries[1:], 2):
        if footer is not None:
            raise RecordError(f"{path}: line {number} comes after the footer")
        if entry["record"] == "participant":
            participants[entry["name"]] = _unfinished(entry)
            verdicts[entry["name"]] = {}
        elif entry["record"] == "verdict":
            _check(path, entry)
            found = {k: v for k, v in entry.items() if k not in ("record", "participant")}
            verdicts[entry["participant"]][entry["case"]] = found
        elif entry["record"] == "footer":
            footer = entry
    if footer is not None:
        participants = {end["name"]: dict(end) for end in footer["participants"]}
        _count(path, footer, verdicts)
    for name, participant in participants.items():
        participant["verdicts"] = list(verdicts.get(name, {}).values())
    complete = footer is not None and not rest
    return Report(str(path), str(head["suite"]), list(participants.values()), head, complete)


def _unfinished(entry: Entry) -> Entry:
    return {
        "name": entry["name"],
        "implementation": entry["implementation"],
        "not_started": None,
        "not_installed": False,
        "notes": [],
    }


def _count(path: Path, footer: Entry, verdicts: Mapping[str, Mapping[str, Entry]]) -> None:
    counted = sum(n for status, n in footer["summary"].items() if status != "canonical")
    found = sum(map(len, verdicts.values()))
    if counted != found:
        raise RecordError(
            f"{path}: damaged: the footer counts {counted} verdicts, there are {found}"
        )


NOT_PARSED = {"case", "answer"}
_DIFFERENCE = re.compile(
    r"(?P<where>.*?): got (?P<got>.*), expected (?P<expected>.*?)"
    r"(?: \((?P<ulps>\S+) ULP off, allowed (?P<allowed>the same bits|\d+ ULP)\))?",
    re.DOTALL,
)


def verdict(entry: Entry, case: Case) -> Verdict:
    """Return the verdict on a case that a line holds, as it was before expected failures were marked."""
    known = {f.name for f in fields(Verdict)} - NOT_PARSED
    values = {name: value for name, value in entry.items() if name in known}
    for name in ("worst_ulp", "effect"):
        values[name] = float(values.get(name, 0.0))
    for name in ("difference", "departs"):
        values[name] = difference(values[name]) if values.get(name) else None
    values["status"] = entry.get("judged", entry["status"])
    if values["status"] != entry["status"]:
        values["reason"] = ""
    if got := entry.get("got"):
        outputs = None if got["outputs"] is None else map_outputs(got["outputs"])
        values["answer"] = Answer(outputs, tuple(got["written"]))
    return Verdict(case, **values)


def difference(text: str) -> Difference:
    """Return the difference that a line describes."""
    match = _DIFFERENCE.fullmatch(text)
    if match is None:
        return Difference(text, "", "")
    where, got, expected, ulps, allowed = match.groups()
    if ulps is None:
        return Difference(where, got, expected)
    bits = 0 if allowed == "the same bits" else int(allowed.split()[0])
    return Difference(where, got, expected, float(ulps), bits)
