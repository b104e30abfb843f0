"""Looking for inputs on which an implementation is not what it declares to be.

Hypothesis decides how frozen cases are changed (``conformance.fuzz_edits``), the oracle answers under the
dialect that the implementation declares, and the implementation is asked over the protocol as ever. A
difference that no expected failure tells of already is made as small as it gets.

The same seed, number of examples and versions of secateurs and Hypothesis give the same cases.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from conformance import expected, fixtures
from conformance.cases import Case
from conformance.expected import Expected
from conformance.formats import encode
from conformance.fuzz_domain import Domain, domain
from conformance.fuzz_edits import LARGEST, edited, suffix
from conformance.fuzz_reduce import reduced, weight
from conformance.judge import Verdict, check_dialect, judge
from conformance.operation import Expectation, Flag, Operation, Setting, map_tensors, sizes
from conformance.protocol import AnsweredTwice, Crashed, Implementation, Process, TimedOut
from conformance.runner import lacks, request

FLAG = "fuzz"
SHRINKING = 20.0
"""Seconds that making one finding small may take beyond the time given."""
MOST = 20
FAILURES = frozenset({"failed", "errored", "crashed", "timed_out"})
Signature = tuple[str, ...]
"""What two differences share that are one: the status, the output, the kind of difference."""
Progress = Callable[[int, int], None]
"""Called with the examples asked and the findings so far."""


class NotInstalled(Exception):
    """Hypothesis is not there."""


@dataclass(frozen=True)
class Finding:
    """A case on which the implementation is not what it declares to be."""

    case: Case
    verdict: Verdict
    base: str
    """The frozen case that was changed."""


@dataclass
class Result:
    """What a search found."""

    operation: Operation
    dialect: Setting
    seed: int
    findings: list[Finding] = field(default_factory=list)
    examples: int = 0
    left_out: int = 0
    """Changed cases of which the specification says nothing, or that the implementation lacks."""
    known: int = 0
    """Differences of a kind that a finding or an expected failure tells of already."""
    failing: int = 0
    """Frozen cases that fail already; ``secateurs verify`` shows them."""
    seconds: float = 0.0


class _TimeUp(BaseException):
    """Ends a search from inside; no Exception, so that Hypothesis does not take it for a finding."""


class _Found(Exception):
    """A difference, as Hypothesis wants it told."""


def fuzz(
    operation: Operation,
    process: Process,
    implementation: Implementation,
    entries: Sequence[Expected] = (),
    *,
    examples: int | None = 1000,
    seconds: float | None = None,
    seed: int = 0,
    most: int = MOST,
    progress: Progress | None = None,
) -> Result:
    """Ask an implementation changed cases of an operation until the examples or the seconds are used up.

    Args:
        operation: what is asked.
        process: the started implementation; it is started again after a crash.
        implementation: what it said of itself.
        entries: expected failures, which are no findings.
        examples: how many changed cases are asked, those that shrink a finding aside; None: no limit.
        seconds: how long, the frozen cases aside; None: no limit.
        seed: decides everything that is left to chance.
        most: findings after which the search ends.
        progress: called now and then.

    Raises:
        NotInstalled: Hypothesis is not there.
        ValueError: no frozen case can be asked that could be changed, or the dialect is not known.
    """
    started = time.monotonic()
    search = _Search(operation, process, implementation, progress)
    search.look_at_frozen_cases(entries)
    search.deadline = time.monotonic() + seconds if seconds is not None else None
    result = search.result
    result.seed = seed
    for number in range(most):
        left = 10**9 if examples is None else examples - result.examples
        if left <= 0 or not search.go_on(seed + number * 1_000_003, left):
            break
    result.seconds = time.monotonic() - started
    return result


class _Search:
    def __init__(
        self,
        operation: Operation,
        process: Process,
        implementation: Implementation,
        progress: Progress | None,
    ) -> None:
        self.operation, self.process, self.implementation = operation, process, implementation
        self.progress = progress
        self.dialect = dict(implementation.dialect.get(operation.id, {}))
        check_dialect(operation, self.dialect)
        self.result = Result(operation, self.dialect, 0)
        self.deadline: float | None = None
        self.asked: dict[bytes, Verdict | None] = {}
        self.seen: set[Signature] = set()
        self.refusals: set[str] = set()
        self.defaults = {param.name: param.default for param in operation.params}
        self.hypothesis = _hypothesis()
        self.domain: Domain

    def look_at_frozen_cases(self, entries: Sequence[Expected]) -> None:
        """Learn from the frozen cases what may be asked, what passes, and what is known to fail."""
        frozen = fixtures.read(self.operation)
        seeds: list[Case] = []
        for case in frozen:
            declared = fixtures.expectation(self.operation, case, self.dialect)
            if declared.rejects is not None:
                self.refusals.add(_plain(declared.rejects))
            if sizes(case.inputs) > LARGEST and self.operation.attributed:
                continue
            if (verdict := self._answer(case)) is None:
                continue
            expected.mark(verdict, self.implementation.version, entries)
            self.result.failing += verdict.status in FAILURES
            if verdict.status != "expected_failure" and declared.rejects is None:
                seeds.append(case)
            elif verdict.status == "expected_failure":
                # A number that is off says too little of why to stand for others.
                signature = _signature(replace(verdict, status="failed"))
                if signature[-1] != "number":
                    self.seen.add(signature)
        if not seeds:
            raise ValueError(
                f"{self.operation.id}: no frozen case can be asked that could be changed"
            )
        self.domain = domain(self.operation, frozen, seeds)

    def go_on(self, seed: int, examples: int) -> bool:
        """Search for one more difference; False if the time is up or there is none."""
        hypothesis = self.hypothesis
        best: list[tuple[Case, Verdict, str]] = []
        found_at = 0.0

        def attempt(data: Any) -> None:
            nonlocal found_at
            limit = self.deadline
            if best:
                limit = max(limit or 0.0, found_at) + SHRINKING
            if limit is not None and time.monotonic() > limit:
                raise _TimeUp
            base, case = edited(_Drawn(data.draw, hypothesis.strategies), self.domain)
            verdict = self.ask(case)
            if verdict is None:
                self.result.left_out += not best
                hypothesis.reject()
            assert verdict is not None
            if not best:
                self.result.examples += 1
                if self.progress:
                    self.progress(self.result.examples, len(self.result.findings))
            if verdict.status not in FAILURES:
                return
            signature = _signature(verdict)
            if signature in self.seen or (best and signature != _signature(best[0][1])):
                self.result.known += not best
                return
            if not best:
                found_at = time.monotonic()
            best.append((case, verdict, base.id))
            raise _Found

        phases = (hypothesis.Phase.generate, hypothesis.Phase.shrink)
        settings = hypothesis.settings(
            max_examples=examples, deadline=None, database=None, derandomize=False, phases=phases,
            report_multiple_bugs=False, print_blob=False, suppress_health_check=list(hypothesis.HealthCheck),
            verbosity=hypothesis.Verbosity.quiet,
        )  # fmt: skip
        test = hypothesis.given(hypothesis.strategies.data())(attempt)
        in_time = True
        try:
            hypothesis.seed(seed)(settings(test))()
        except _TimeUp:
            in_time = False
        except (_Found, hypothesis.errors.Flaky):
            pass
        if best:
            self._keep(*min(best, key=lambda found: weight(found[0])))
        return bool(best) and in_time

    def _keep(self, case: Case, verdict: Verdict, base: str) -> None:
        """Make a difference smaller still, and write it down."""
        signature = _signature(verdict)
        until = time.monotonic() + SHRINKING

        def shows(candidate: Case) -> bool:
            late = time.monotonic() > until
            verdict = None if late else self.ask(candidate)
            return verdict is not None and _signature(verdict) == signature

        self.seen.add(signature)
        case = reduced(case, shows, self.defaults)
        verdict = self.ask(case) or verdict
        result = self.result
        name = f"{FLAG}-{result.seed}-{len(result.findings) + 1}{suffix(case)}"
        case = replace(case, id=name, flags=(FLAG,), frozen={})
        result.findings.append(Finding(case, replace(verdict, case=case), base))

    def ask(self, case: Case) -> Verdict | None:
        """Return the verdict on a changed case; None if there is nothing to be said of it."""
        self._fit(case)
        key = _digest(case)
        if key not in self.asked:
            self.asked[key] = self._judged(case)
        return self.asked[key]

    def _judged(self, case: Case) -> Verdict | None:
        if sizes(case.inputs) > LARGEST and self.operation.attributed:
            return None
        if not self.domain.covers(case):
            return None
        declared, canonical = self._expectation(case), self._expectation(case, canonical=True)
        if declared is None or canonical is None:
            return None
        if declared.rejects is not None and _plain(declared.rejects) not in self.refusals:
            return None
        return self._answer(case)

    def _expectation(self, case: Case, canonical: bool = False) -> Expectation | None:
        try:
            return self.operation.expect(case, {} if canonical else self.dialect)
        except Exception:
            # The oracle is written for what the specification knows: this is none of it.
            return None

    def _fit(self, case: Case) -> None:
        """Give an input the shape that follows from the others, such as that of an upstream gradient."""
        for _ in range(3):
            declared = self._expectation(case)
            why = declared.rejects or "" if declared is not None else ""
            match = re.fullmatch(r"(\w+) must have shape \(([\d, ]*)\), got .*", why)
            if match is None or match[1] not in case.inputs or case.inputs[match[1]] is None:
                return
            shape = tuple(int(extent) for extent in match[2].split(",") if extent.strip())
            case.inputs[match[1]] = np.resize(case.inputs[match[1]], shape)

    def _answer(self, case: Case) -> Verdict | None:
        if lacks(self.implementation, case):
            return None
        case = replace(case, frozen={})
        try:
            answer = self.process.ask(request(case))
        except AnsweredTwice:
            return Verdict(case, "crashed", message="answered twice")
        except Crashed as error:
            return Verdict(case, "crashed", message=str(error))
        except TimedOut as error:
            return Verdict(case, "timed_out", message=str(error))
        verdict = judge(self.operation, case, self.dialect, answer, canonical=False)
        return None if verdict.status == "unsupported" else verdict


class _Drawn:
    """Decisions that Hypothesis takes."""

    def __init__(self, draw: Callable[[Any], Any], strategies: Any) -> None:
        self.draw, self.strategies = draw, strategies

    def choose(self, options: Sequence[Any]) -> Any:
        return options[self.number(0, len(options) - 1)]

    def number(self, low: int, high: int) -> int:
        return int(self.draw(self.strategies.integers(low, high)))


def _hypothesis() -> Any:
    try:
        hypothesis = importlib.import_module("hypothesis")
    except ModuleNotFoundError:
        raise NotInstalled("fuzz needs Hypothesis: pip install 'secateurs[fuzz]'") from None
    # It keeps files in the user's folder otherwise.
    importlib.import_module("hypothesis.configuration").set_hypothesis_home_dir(
        tempfile.gettempdir()
    )
    return hypothesis


def _digest(case: Case) -> bytes:
    text = repr((map_tensors(encode, case.inputs), case.params))
    return hashlib.sha256(text.encode()).digest()


def _plain(text: str) -> str:
    """Return a message without its numbers."""
    return re.sub(r"-?\b(\d[\d.]*(e[+-]?\d+)?|inf|nan)\b", "#", text)[:120]


def _signature(verdict: Verdict) -> Signature:
    difference = verdict.difference
    if difference is None:
        return verdict.status, _plain(verdict.message)
    where = re.sub(r"\[[\d, ]*\]", "", difference.where)
    if difference.ulps is None:
        return verdict.status, where, _plain(f"{difference.got} for {difference.expected}")
    kinds = [_kind(text) for text in (difference.got, difference.expected)]
    special = [kind for kind in kinds if kind]
    return verdict.status, where, f"{kinds[0]} for {kinds[1]}" if special else "number"


def _kind(text: str) -> str:
    return text if re.fullmatch(r"-?(nan|inf)", text) else ""


def document(result: Result, implementation: Implementation) -> str:
    """Return the fixture file of what was found; it says where each case came from."""
    about = f"{implementation.name} {implementation.version}".strip()
    origins = "; ".join(
        f"{finding.case.id} from {finding.base}: {finding.verdict.message}"
        for finding in result.findings
    )
    words = f"Found by secateurs fuzz with seed {result.seed} in {about}: {origins}"
    flags = {FLAG: Flag("EDGE_CASE", words)}
    cases = [finding.case for finding in result.findings]
    return fixtures.document(result.operation, cases, flags, [result.dialect])
