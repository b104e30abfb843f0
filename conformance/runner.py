"""The runner: asks an implementation every case and has the answers judged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np

from conformance import fixtures, precision
from conformance.cases import Case
from conformance.diagnosis import Diagnosis, diagnose
from conformance.formats import encode, name_of
from conformance.judge import Status, Verdict, check_dialect, judge, map_outputs
from conformance.operation import Operation, leaves, map_tensors
from conformance.operations import load
from conformance.participants import SECONDS, seconds
from conformance.precision import Measure, Probe
from conformance.protocol import (
    DEFAULT_MEMORY,
    AnsweredTwice,
    Crashed,
    Implementation,
    Interrupted,
    NotInstalled,
    NotStarted,
    Process,
    TimedOut,
)

Progress = Callable[[str, int, int], None]
"""Called with the participant's name, the cases done and the cases in all."""
Record = Callable[[str, Implementation, Verdict], None]
"""Called with the participant's name, what it says of itself and a verdict, as soon as there is one; again
where a later answer changes a verdict."""


DIFFERENT = frozenset({"failed", "errored", "crashed", "timed_out", "unexpected_pass"})
"""The statuses that make a run fail."""


@dataclass
class Run:
    """What one participant did."""

    participant: str
    implementation: Implementation | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    not_started: str | None = None
    not_installed: bool = False
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    probed: dict[str, Measure] = field(default_factory=dict)
    """How precise sums of a million numbers are, by operation, where that was asked."""
    diagnoses: dict[str, Diagnosis] = field(default_factory=dict)
    """Why operations failed, for those that did."""

    @property
    def as_expected(self) -> bool:
        """True if no verdict is a difference."""
        return self.not_started is None and not any(v.status in DIFFERENT for v in self.verdicts)

    @property
    def counts(self) -> dict[str, int]:
        """How many cases have each status, and how many are canonical (``canonical``)."""
        counts = dict.fromkeys(get_args(Status), 0)
        for verdict in self.verdicts:
            counts[verdict.status] += 1
        return counts | {"canonical": sum(v.canonical is True for v in self.verdicts)}

    @property
    def precision(self) -> dict[str, Measure]:
        """The precision class of each operation, see ``conformance.precision``."""
        found: dict[str, list[Measure]] = {name: [m] for name, m in self.probed.items()}
        for verdict in self.verdicts:
            name = verdict.case.operation
            # An expected failure is off for a reason that has nothing to do with rounding.
            judged = verdict.precision and verdict.status in ("passed", "failed")
            if judged and precision.counts(load(name), verdict.case):
                where = verdict.case.full_id
                found.setdefault(name, []).extend(
                    Measure(ulps, int(roundings), where) for roundings, ulps in verdict.precision
                )
        worst = {name: precision.worst(measures) for name, measures in found.items()}
        return {name: measure for name, measure in sorted(worst.items()) if measure is not None}

    def as_json(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        return {
            "name": self.participant,
            "implementation": asdict(self.implementation) if self.implementation else None,
            "not_started": self.not_started,
            "not_installed": self.not_installed,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
            "verdicts": [verdict.as_json() for verdict in self.verdicts],
            "precision": {name: measure.as_json() for name, measure in self.precision.items()},
            "diagnosis": {name: found.as_json() for name, found in self.diagnoses.items()},
            "summary": self.counts,
        }


@dataclass(frozen=True)
class Kept:
    """What an interrupted run had of a participant: who it was, and its verdicts by full case id."""

    implementation: Mapping[str, Any]
    verdicts: Mapping[str, Verdict]


class Changed(RuntimeError):
    """The participant is not the one whose verdicts were kept."""


def select(operations: Iterable[str], case_ids: Iterable[str] = ()) -> list[Case]:
    """Return the frozen cases of operations, or only those whose id or full id is named."""
    wanted = set(case_ids)
    cases = [case for name in operations for case in fixtures.read(load(name))]
    return [c for c in cases if not wanted or c.id in wanted or c.full_id in wanted]


def run(
    participant: str,
    command: list[str],
    cases: list[Case],
    timeout: float = SECONDS,
    progress: Progress | None = None,
    interrupt: threading.Event | None = None,
    record: Record | None = None,
    kept: Kept | None = None,
    memory: int = DEFAULT_MEMORY,
    probes: Sequence[Probe] = (),
) -> Run:
    """Ask one participant all cases but those of which there is a verdict; a crash costs one case.

    Raises:
        Interrupted: ``interrupt`` was set; the process is gone.
        Changed: verdicts were kept, but the participant says something else of itself now.
    """
    started = time.perf_counter()
    result = Run(participant)
    process = Process(command, timeout, interrupt=interrupt, memory=memory)
    try:
        result.implementation = process.start()
        if kept and kept.implementation != asdict(result.implementation):
            raise Changed(_changed(participant, kept.implementation, result.implementation))
        for done, case in enumerate(cases):
            if process.interrupt.is_set():
                raise Interrupted
            if progress:
                progress(participant, done, len(cases))
            if kept and case.full_id in kept.verdicts:
                result.verdicts.append(kept.verdicts[case.full_id])
                continue
            try:
                verdict = _ask(process, result.implementation, case)
            except AnsweredTwice as error:
                _blame(result, error, record)
                verdict = _ask(process, result.implementation, case)
            result.verdicts.append(verdict)
            if record:
                record(participant, result.implementation, verdict)
        for probe in probes:
            _probe(process, result, probe)
        if progress:
            progress(participant, len(cases), len(cases))
        if complaint := process.stop():
            result.notes.append(complaint)
    except AnsweredTwice as error:
        _blame(result, error, record)
    except NotStarted as error:
        result.not_started = str(error)
        result.not_installed = isinstance(error, NotInstalled)
    finally:
        process.close()
    result.seconds = time.perf_counter() - started
    return result


def _probe(process: Process, result: Run, probe: Probe) -> None:
    """Measure a long sum; an implementation that has no answer to it has just no measure."""
    about, case = result.implementation, probe.case()
    if about is None or lacks(about, case):
        return
    try:
        outputs = map_outputs(process.ask(request(case)).get("outputs") or {})
    except (Crashed, TimedOut, AnsweredTwice, ValueError, TypeError, AttributeError):
        return
    measure = probe.measure(case, outputs)
    if measure is not None:
        result.probed[probe.operation] = measure


def explain(run: Run) -> None:
    """Diagnose the operations that failed, into ``run.diagnoses``."""
    dialects = run.implementation.dialect if run.implementation else {}
    by_operation: dict[str, list[Verdict]] = {}
    for verdict in run.verdicts:
        by_operation.setdefault(verdict.case.operation, []).append(verdict)
    for name, verdicts in by_operation.items():
        found = diagnose(load(name), dialects.get(name, {}), verdicts)
        if found is not None:
            run.diagnoses[name] = found


def _changed(participant: str, before: Mapping[str, Any], now: Implementation) -> str:
    versions = f"{before.get('name')} {before.get('version')}", f"{now.name} {now.version}"
    if versions[0] == versions[1]:
        return f"{participant} declares other operations or dialects than when the run was begun"
    return f"{participant} is {versions[1]} now, and was {versions[0]} when the run was begun"


def _blame(result: Run, error: AnsweredTwice, record: Record | None) -> None:
    """Book a second answer on the case that it is for, not on the one that came to read it."""
    for verdict in result.verdicts:
        if verdict.case.full_id == error.case_id:
            verdict.status, verdict.canonical, verdict.message = "crashed", None, "answered twice"
            verdict.divergence, verdict.departs, verdict.difference = "", None, None
            verdict.answer = None
            if record and result.implementation:
                record(result.participant, result.implementation, verdict)


def run_all(
    participants: Mapping[str, list[str]],
    cases: list[Case],
    timeout: float | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
    record: Record | None = None,
    kept: Mapping[str, Kept] | None = None,
    memory: int = DEFAULT_MEMORY,
    probes: Sequence[Probe] = (),
) -> list[Run]:
    """Ask several participants, given by name and command, ``jobs`` processes at a time.

    With more jobs than participants, each participant's cases are dealt out to several processes. Without
    a ``timeout`` each has its own, see ``conformance.participants.seconds``.

    Raises:
        KeyboardInterrupt: the user's; every process is gone.
        Changed: a participant is not the one whose verdicts were kept.
    """
    interrupt = threading.Event()
    shards = max(1, min(jobs // max(1, len(participants)), len(cases)))
    done: dict[tuple[str, int], int] = {}

    def counting(shard: int) -> Progress:
        def report(name: str, count: int, _: int) -> None:
            done[name, shard] = count
            if progress:
                total = sum(n for (owner, _), n in list(done.items()) if owner == name)
                progress(name, total, len(cases))

        return report

    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        parts = {
            name: [
                pool.submit(
                    run,
                    name,
                    command,
                    cases[i::shards],
                    seconds(name) if timeout is None else timeout,
                    counting(i),
                    interrupt,
                    record,
                    (kept or {}).get(name),
                    memory,
                    probes if i == 0 else (),
                )
                for i in range(shards)
            ]
            for name, command in participants.items()
        }
        pending = {part for futures in parts.values() for part in futures}
        try:
            while pending:
                # A wait without a limit cannot be interrupted on every system.
                finished, pending = wait(pending, timeout=0.5)
                for part in finished:
                    part.result()
        except BaseException:
            interrupt.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [_joined([part.result() for part in futures]) for futures in parts.values()]


def _joined(parts: list[Run]) -> Run:
    whole = parts[0]
    if len(parts) == 1:
        return whole
    for part in parts:
        if part.not_started is not None:
            part.verdicts = []
            return part
    count = sum(len(part.verdicts) for part in parts)
    whole.verdicts = [parts[i % len(parts)].verdicts[i // len(parts)] for i in range(count)]
    whole.notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    whole.seconds = max(part.seconds for part in parts)
    return whole


def _ask(process: Process, implementation: Implementation, case: Case) -> Verdict:
    operation = load(case.operation)
    lacking = lacks(implementation, case)
    if lacking:
        return Verdict(case, "unsupported", message=lacking)
    started = time.perf_counter()
    verdict = _answer(process, implementation, operation, case)
    verdict.seconds = time.perf_counter() - started
    return verdict


def _answer(
    process: Process, implementation: Implementation, operation: Operation, case: Case
) -> Verdict:
    dialect = implementation.dialect.get(case.operation, {})
    try:
        answer = process.ask(request(case))
    except Crashed as error:
        return Verdict(case, "crashed", message=str(error))
    except TimedOut as error:
        return Verdict(case, "timed_out", message=str(error))
    try:
        check_dialect(operation, dialect)
        return judge(operation, case, dialect, answer)
    except (ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error, fixtures.FixtureError):
            raise
        return Verdict(case, "failed", False, f"the declared dialect cannot be judged: {error}")


def request(case: Case) -> dict[str, Any]:
    """Return the question that is sent for a case; it holds no expected value and no dial."""
    return {
        "cmd": "run",
        "id": case.full_id,
        "operation": case.operation,
        "inputs": map_tensors(encode, case.inputs),
        "params": fixtures.parameters(case.params),
    }


def lacks(implementation: Implementation, case: Case) -> str:
    """Return why an implementation cannot be asked a case, by its own word; empty if it can."""
    declared = implementation.operations.get(case.operation)
    if declared is None:
        return "the implementation does not list this operation"
    dtypes = declared.get("dtypes")
    if dtypes:
        used = {name_of(t.dtype) for _, t in leaves(case.inputs) if isinstance(t, np.ndarray)}
        lacking = sorted(used - set(dtypes) - {"bool", "int32", "int64"})
        if lacking:
            return f"the implementation does not list {', '.join(lacking)} for this operation"
    return ""
