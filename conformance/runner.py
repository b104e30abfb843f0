"""The runner: asks an implementation every case and has the answers judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance import fixtures
from conformance.cases import Case
from conformance.formats import encode, name_of
from conformance.judge import Verdict, judge
from conformance.operation import Operation, leaves, map_tensors
from conformance.operations import load
from conformance.protocol import Crashed, Implementation, NotStarted, Process, TimedOut

Progress = Callable[[str, int, int], None]
"""Called with the participant's name, the cases done and the cases in all."""


@dataclass
class Run:
    """What one participant did."""

    participant: str
    implementation: Implementation | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    not_started: str | None = None
    seconds: float = 0.0

    @property
    def as_expected(self) -> bool:
        """True if no verdict is a difference."""
        bad = {"failed", "errored", "crashed", "timed_out", "unexpected_pass"}
        return self.not_started is None and not any(v.status in bad for v in self.verdicts)


def select(operations: Iterable[str], case_ids: Iterable[str] = ()) -> list[Case]:
    """Return the frozen cases of operations, or only those whose id or full id is named."""
    wanted = set(case_ids)
    cases = [case for name in operations for case in fixtures.read(load(name))]
    return [c for c in cases if not wanted or c.id in wanted or c.full_id in wanted]


def run(
    participant: str,
    command: list[str],
    cases: list[Case],
    timeout: float = 20.0,
    progress: Progress | None = None,
) -> Run:
    """Ask one participant all cases; a crash or a hang costs one case."""
    started = time.perf_counter()
    result = Run(participant)
    process = Process(command, timeout)
    try:
        result.implementation = process.start()
        for done, case in enumerate(cases):
            if progress:
                progress(participant, done, len(cases))
            result.verdicts.append(_ask(process, result.implementation, case))
        if progress:
            progress(participant, len(cases), len(cases))
        process.stop()
    except NotStarted as error:
        result.not_started = str(error)
    finally:
        process.close()
    result.seconds = time.perf_counter() - started
    return result


def _ask(process: Process, implementation: Implementation, case: Case) -> Verdict:
    operation = load(case.operation)
    lacking = _lacks(implementation, case)
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


def _lacks(implementation: Implementation, case: Case) -> str:
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
