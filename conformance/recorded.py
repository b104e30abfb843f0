"""Records: what an implementation did with every operation, small enough to be kept beside the suite.

A record is made from a run. ``conformance/data/runs/<name>.json`` holds one for each implementation, so that
implementations whose libraries never share an environment, or a language, can be laid side by side::

    python -m conformance.recorded torch            # ask, and write conformance/data/runs/torch.json
    python -m conformance.recorded --from run.jsonl # take what `secateurs verify --jsonl` wrote

Where the cases of a few operations changed, a run of these (``--operation``) renews their part of a record.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from conformance import (
    __version__,
    environments,
    expected,
    participants,
    records,
    report,
    runner,
)
from conformance.cases import Case
from conformance.commands.common import write_whole
from conformance.compare import show
from conformance.formats import name_of
from conformance.judge import Verdict
from conformance.operation import leaves
from conformance.operations import names
from conformance.protocol import Implementation
from conformance.runner import Run

SCHEMA = "secateurs-record-1"
FOLDER = Path(__file__).parent / "data" / "runs"
ELEMENTS, TENSORS = 8, 4
"""Elements of a tensor, and tensors, that are kept of a wrong answer."""
CRASHES = ("crashed", "timed_out")
FAILURES = ("failed", "errored", "unexpected_pass")


@dataclass
class Tally:
    """What one implementation did with one operation."""

    cases: int
    counts: dict[str, int]
    """Cases by status; those with none are left out."""
    canonical: int
    worst_ulp: float
    dtypes: list[str] = field(default_factory=list)
    dialect: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, list[Any]] = field(default_factory=dict)
    """For each dial that shows: in how many cases, and its largest effect in words."""
    diverging: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Cases that pass and are not canonical, by the dials that act: the effect, or what it is in words."""
    unsupported: dict[str, list[str]] = field(default_factory=dict)
    """Cases that were not asked, by reason; ``*`` stands for all of the operation."""
    failing: dict[str, dict[str, str]] = field(default_factory=dict)
    """Cases that failed, expected or not: ``status``, ``message``, ``reason``, ``got``."""
    diagnosis: str = ""

    @property
    def asked(self) -> int:
        """How many cases could be asked."""
        return self.cases - self.counts.get("unsupported", 0)

    @property
    def failed(self) -> int:
        """How many failed that are not expected to."""
        return sum(self.counts.get(status, 0) for status in (*FAILURES, *CRASHES))

    @property
    def state(self) -> str:
        """One of ``canonical``, ``dials``, ``known``, ``fails``, ``crashes``, ``lacks``."""
        if not self.asked:
            return "lacks"
        if any(self.counts.get(status) for status in CRASHES):
            return "crashes"
        if self.failed:
            return "fails"
        if self.counts.get("expected_failure"):
            return "known"
        return "canonical" if self.canonical == self.asked else "dials"

    def outcome(self, case_id: str) -> str | None:
        """Return ``""`` for a canonical answer, the dials that act, a status, or None if not asked."""
        if case_id in self.failing:
            return f"!{self.failing[case_id]['status']}"
        for divergence, cases in self.diverging.items():
            if case_id in cases:
                return divergence
        if any(case_id in cases or cases == ["*"] for cases in self.unsupported.values()):
            return None
        return ""


@dataclass
class Record:
    """What one implementation did with all operations."""

    name: str
    suite: str
    about: dict[str, str]
    """``name``, ``version``, ``language``, ``language_version``, ``homepage``."""
    operations: dict[str, Tally]

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.about['version']}".strip()

    def text(self) -> str:
        """Return the record as JSON, a line for each operation, so that differences can be read."""
        head = {
            "schema": SCHEMA,
            "suite": self.suite,
            "name": self.name,
            "implementation": self.about,
        }
        lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        tallies = [
            f"  {json.dumps(name)}: {json.dumps(_lean(tally), ensure_ascii=False, allow_nan=False)}"
            for name, tally in sorted(self.operations.items())
        ]
        body = ",\n".join(tallies)
        return "\n".join(["{", *lines, ' "operations": {', body, " }", "}"]) + "\n"


def _lean(tally: Tally) -> dict[str, Any]:
    # What is empty says nothing; most operations of most libraries have no failures.
    return {name: value for name, value in asdict(tally).items() if value not in ({}, [], "")}


def of(run: Run, suite: str = __version__) -> Record | None:
    """Return the record of a run; None if the implementation was not started."""
    about = run.implementation
    if about is None:
        return None
    kept = {k: v for k, v in asdict(about).items() if k not in ("dialect", "operations")}
    rows = {row.operation: row for row in report.rows(run)}
    by_operation: dict[str, list[Verdict]] = {name: [] for name in rows}
    for verdict in run.verdicts:
        by_operation[verdict.case.operation].append(verdict)
    tallies = {
        name: _tally(run, rows[name], verdicts, about) for name, verdicts in by_operation.items()
    }
    return Record(run.participant, suite, kept, tallies)


def _tally(run: Run, row: report.Row, verdicts: Sequence[Verdict], about: Implementation) -> Tally:
    name = row.operation
    counts: dict[str, int] = {}
    for verdict in verdicts:
        counts[verdict.status] = counts.get(verdict.status, 0) + 1
    declared = about.operations.get(name)
    tally = Tally(
        len(verdicts),
        dict(sorted(counts.items())),
        row.canonical,
        _short(row.worst_ulp),
        list((declared or {}).get("dtypes", [])),
        dict(about.dialect.get(name, {})),
        {
            each.name: [each.cases, each.size]
            for each in sorted(row.divergences.values(), key=lambda d: (-d.cases, d.name))
        },
    )
    for verdict in verdicts:
        case_id = verdict.case.id
        if verdict.status == "unsupported":
            tally.unsupported.setdefault(verdict.message, []).append(case_id)
        elif verdict.status != "passed":
            entry = {"status": verdict.status, "message": verdict.message, "reason": verdict.reason}
            entry["got"] = _got(verdict)
            tally.failing[case_id] = {key: value for key, value in entry.items() if value}
        elif verdict.divergence:
            effect = _short(verdict.effect)
            words = effect if math.isfinite(verdict.effect) else report.kind(verdict)
            tally.diverging.setdefault(verdict.divergence, {})[case_id] = words
    if len(tally.unsupported) == 1 and not tally.asked:
        tally.unsupported = {reason: ["*"] for reason in tally.unsupported}
    if name in run.diagnoses:
        tally.diagnosis = run.diagnoses[name].sentence
    return tally


def _short(number: float) -> float:
    return float(f"{number:.3g}") if math.isfinite(number) else number


def _got(verdict: Verdict) -> str:
    """Return what was answered, in decimals; nothing where no answer is known."""
    if verdict.answer is None:
        return ""
    if verdict.answer.outputs is None:
        return "refused"
    return written(verdict.answer.outputs)


def written(outputs: Mapping[str, Any]) -> str:
    """Return outputs as one line of decimals."""
    ordered = dict(sorted(outputs.items()))
    parts = [f"{path} {tensor_text(leaf)}" for path, leaf in leaves(ordered)]
    more = [f"… {len(parts)} tensors"] if len(parts) > TENSORS else []
    return "; ".join(parts[:TENSORS] + more)


def tensor_text(leaf: Any) -> str:
    """Return a tensor in decimals, with its dtype where that is not float32."""
    if leaf is None:
        return "absent"
    if not isinstance(leaf, np.ndarray):
        return str(leaf)
    dtype = name_of(leaf.dtype)
    kind = "" if dtype == "float32" else f" ({dtype})"
    if leaf.size > ELEMENTS:
        head = ", ".join(show(value) for value in leaf.ravel()[:ELEMENTS])
        return f"[{head}, … {leaf.size} elements]{kind}"
    return _nested(leaf) + kind


def _nested(tensor: Any) -> str:
    if tensor.ndim == 0:
        return show(tensor[()])
    return f"[{', '.join(_nested(row) for row in tensor)}]"


# --- reading -------------------------------------------------------------------------------------


def read(path: Path) -> list[Record]:
    """Return the records in a file: a record, or a report that ``secateurs verify`` wrote.

    Raises:
        records.RecordError: it is neither, or damaged; one line that names the file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise records.RecordError(f"{path}: {error.strerror}") from None
    except ValueError:
        document = None
    if isinstance(document, dict) and document.get("schema") == SCHEMA:
        try:
            tallies = {name: Tally(**entry) for name, entry in document["operations"].items()}
            return [
                Record(document["name"], document["suite"], document["implementation"], tallies)
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise records.RecordError(f"{path}: damaged: {error}") from None
    whole = records.read(path)
    if not whole.complete:
        raise records.RecordError(f"{path}: cut off; go on with: secateurs verify --resume {path}")
    found = [of(run, whole.suite) for run in runs(whole)]
    return [record for record in found if record is not None]


def runs(whole: records.Report) -> list[Run]:
    """Return the runs in a report, as far as a report tells of them: cases without inputs."""
    found = []
    for entry in whole.participants:
        about = entry.get("implementation")
        run = Run(entry["name"], Implementation(**about) if about else None)
        run.not_started, run.not_installed = entry["not_started"], entry["not_installed"]
        for verdict in entry["verdicts"]:
            operation, _, case_id = verdict["case"].partition("/")
            case = Case(operation, case_id, (), (), {}, {})
            kept = records.verdict(verdict, case)
            kept.status, kept.reason = verdict["status"], verdict.get("reason", "")
            run.verdicts.append(kept)
        for name, told in (entry.get("diagnosis") or {}).items():
            run.diagnoses[name] = runner.Diagnosis(
                name, told["sentence"], told["failing"], told["explained"]
            )
        found.append(run)
    return found


def shipped(folder: Path | None = None) -> dict[str, Record]:
    """Return the records that come with the suite, by the implementation's name."""
    found = [record for path in sorted((folder or FOLDER).glob("*.json")) for record in read(path)]
    return {record.name: record for record in found}


# --- making --------------------------------------------------------------------------------------


def ask(adapters: Iterable[str], expecting: bool = True) -> Iterator[Run]:
    """Run the suite on one adapter after the other, and diagnose; ``expecting``: with expected failures marked.

    Raises:
        ExpectationsError: a list of expected failures cannot be read; before anybody is asked.
    """
    lists = {name: expected.read(name) if expecting else [] for name in adapters}
    known = participants.adapters()
    cases = runner.select(names())
    for name, entries in lists.items():
        command = {name: participants.command(name, known[name])}
        for run in runner.run_all(command, cases, jobs=os.cpu_count() or 1):
            expected.apply(run, entries)
            runner.explain(run)
            yield run


def keep(record: Record) -> Path:
    """Write a record into the suite's own folder; return the file.

    What was asked of some operations only takes their place in the record that is there.

    Raises:
        records.RecordError: that one is of another version.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{record.name}.json"
    if path.exists() and set(record.operations) < set(names()):
        (before,) = read(path)
        if (before.suite, before.about) != (record.suite, record.about):
            raise records.RecordError(
                f"{path}: is of {before.title}; ask {record.title} every case"
            )
        record.operations = before.operations | record.operations
    write_whole(path, record.text())
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Write records into the suite's own folder."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance.recorded", description="Keep what implementations did."
    )
    parser.add_argument("adapters", nargs="*", help="adapters to ask")
    parser.add_argument(
        "--from", dest="files", nargs="+", type=Path, default=[], help="reports to take instead"
    )
    options = parser.parse_args(arguments)
    known = participants.adapters()
    if unknown := [name for name in options.adapters if name not in known]:
        parser.error(f"no adapter {unknown[0]!r}; there are: {', '.join(known)}")
    if not (options.adapters or options.files):
        parser.error("name an adapter, or give reports with --from")
    # A run takes minutes: what is missing is said before the first of them.
    absent = [name for name in options.adapters if not _here(name, known[name])]
    for name in absent:
        print(f"{name}: {participants.place(name, known[name])}", file=sys.stderr)
    if absent:
        return 3
    try:
        found = [record for path in options.files for record in read(path)]
        runs = ask(options.adapters)
        for record in found:
            _say(record)
        for run in runs:
            made = of(run)
            if made is None:
                print(f"{run.participant}: {run.not_started}", file=sys.stderr)
                return 3
            _say(made)
    except (records.RecordError, expected.ExpectationsError) as error:
        parser.error(str(error))
    return 0


def _here(name: str, module: str) -> bool:
    missing = participants.lacking(module) or environments.absent(name)
    return not missing or environments.ready(name)


def _say(record: Record) -> None:
    asked = sum(tally.asked for tally in record.operations.values())
    print(f"{keep(record)}: {record.title}, {asked} cases asked")


if __name__ == "__main__":
    sys.exit(main())
