"""The diagnosis: which convention or which known mistake explains what an implementation answered?

Every setting of the dials and every known mistake is a function whose outputs the oracle can tell. One that
gives back all outputs of all answered cases is the explanation: first single dials are tried, then the known
mistakes, then what named libraries do, then pairs of dials. Where none is enough, dials are added one by one
as long as they explain more cases. What stays unexplained is shown by its smallest case.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from conformance import fixtures
from conformance.commands.snippet import snippet
from conformance.compare import compare, differs
from conformance.judge import Verdict, as_judged
from conformance.operation import Mistake, Operation, Setting, sizes
from conformance.wording import departure, describe, first_few

BUDGET = 5.0
"""Seconds of computing for one operation."""
LARGEST = 2000
"""Elements of a case up to which the oracle is asked; larger cases count where a fixture knows them."""
FAILURES = frozenset({"failed", "errored", "crashed", "timed_out"})
EPSILONS = (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""What libraries add to denominators; tried wherever a dial is a small number."""
SAMPLE = 12
ALTERNATIVES = 3
REASONS = 4
"""Of what an implementation should have refused, so many kinds are told."""


@dataclass(frozen=True)
class Hypothesis:
    """The operation under a setting of its dials, done rightly or with a known mistake."""

    setting: Setting
    mistake: Mistake | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What is known of why an implementation failed cases of an operation."""

    operation: str
    sentence: str
    failing: int
    explained: int
    setting: Setting = field(default_factory=dict)
    """The dials that differ from what was declared."""
    mistake: str = ""
    links: tuple[str, ...] = ()
    case: str = ""
    """The smallest failing case that stays unexplained, with its first wrong element."""
    difference: str = ""
    snippet: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values."""
        return {
            "sentence": self.sentence,
            "failing": self.failing,
            "explained": self.explained,
            "setting": fixtures.parameters(self.setting),
            "mistake": self.mistake or None,
            "links": list(self.links),
            "case": self.case or None,
            "difference": self.difference or None,
            "snippet": self.snippet or None,
        }

    def __str__(self) -> str:
        """Return the sentence, and a few lines that build the inputs of a case that it leaves open."""
        if not self.case:
            return self.sentence
        return f"{self.sentence}\n# {self.case}\n{self.snippet}"


def diagnose(
    operation: Operation, dialect: Setting, verdicts: Iterable[Verdict], budget: float = BUDGET
) -> Diagnosis | None:
    """Explain the failing verdicts of one operation; None if none fails.

    Args:
        operation: the operation that all verdicts are about.
        dialect: what the implementation declares; explanations are told as departures from it.
        verdicts: of all cases that were asked. An expected failure is neither explained nor evidence.
        budget: seconds of computing after which the search ends with the best that it has.
    """
    mine = sorted(verdicts, key=_simplicity)
    failing = [v for v in mine if v.status in FAILURES]
    if not failing:
        return None
    evidence = _Evidence(operation, dialect, mine, time.thread_time() + budget)
    found: list[Hypothesis] = []
    if any(v.answer is not None for v in failing):
        found = _search(evidence)
    return _tell(evidence, failing, found)


def _simplicity(verdict: Verdict) -> tuple[int, bool]:
    return sizes(verdict.case.inputs), not verdict.case.id.endswith("-f32")


class _Late(Exception):
    """The time is up."""


class _Evidence:
    """What was answered, and which hypotheses give the same."""

    def __init__(
        self, operation: Operation, dialect: Setting, verdicts: list[Verdict], deadline: float
    ) -> None:
        self.operation, self.dialect, self.deadline = operation, dialect, deadline
        answered = [v for v in verdicts if v.answer is not None]
        self.failing = [v for v in answered if v.status == "failed"]
        self.passing = [v for v in answered if v.status == "passed"]
        self._known: dict[tuple[str, str, str], bool | None] = {}
        self.strict = [v for v in self.failing if not self._unrefused(v)]
        self.unrefused = [v for v in self.failing if self._unrefused(v)]

    def _unrefused(self, verdict: Verdict) -> bool:
        refusal = verdict.answer is not None and verdict.answer.outputs is None
        return not refusal and self.expected(verdict, Hypothesis(self.dialect)).rejects is not None

    def expected(self, verdict: Verdict, hypothesis: Hypothesis) -> Any:
        if hypothesis.mistake is not None:
            oracle = hypothesis.mistake.oracle
            return self.operation.expect(verdict.case, hypothesis.setting, oracle)
        return fixtures.expectation(self.operation, verdict.case, hypothesis.setting)

    def agrees(self, verdict: Verdict, hypothesis: Hypothesis) -> bool | None:
        """Say whether a hypothesis gives what was answered; None if that takes too long to find out."""
        name = hypothesis.mistake.name if hypothesis.mistake else ""
        setting = self.operation.key(hypothesis.setting)
        key = (verdict.case.id, setting, name)
        if key not in self._known:
            frozen = not name and setting in verdict.case.frozen.get("expected", {})
            small = sizes(verdict.case.inputs) <= LARGEST or not self.operation.attributed
            self._known[key] = self._agrees(verdict, hypothesis) if small or frozen else None
        return self._known[key]

    def _agrees(self, verdict: Verdict, hypothesis: Hypothesis) -> bool:
        if time.thread_time() > self.deadline:
            raise _Late
        answer, in_place = verdict.answer, hypothesis.setting.get("in_place", "no") != "no"
        if answer is None or (answer.written and not in_place):
            return False
        try:
            expected = self.expected(verdict, hypothesis)
            if answer.outputs is None or expected.rejects is not None:
                return answer.outputs is None and expected.rejects is not None
            outputs = as_judged(self.operation, verdict.case, hypothesis.setting, answer.outputs)
            return compare(outputs, expected).difference is None
        except Exception:
            # A mistake need not have a meaning for every input: then it explains nothing.
            return False

    def count(self, verdicts: Iterable[Verdict], hypothesis: Hypothesis) -> int:
        return sum(self.agrees(verdict, hypothesis) is True for verdict in verdicts)

    def agrees_alike(self, one: Hypothesis, other: Hypothesis) -> bool:
        """Say whether one hypothesis gives what was answered wherever the other does."""
        answered = self.failing + self.passing
        return all(self.agrees(v, one) or not self.agrees(v, other) for v in answered)

    def supports(self, hypothesis: Hypothesis) -> bool:
        """Say whether a hypothesis gives all that was answered, refusals that are missing aside."""
        wrong = self.strict or self.unrefused
        given = all(self.agrees(v, hypothesis) is not False for v in wrong + self.passing)
        return given and self.count(wrong, hypothesis) > 0


def _diverse(verdicts: list[Verdict]) -> list[Verdict]:
    firsts = {v.case.flags: v for v in reversed(verdicts) if sizes(v.case.inputs) <= LARGEST}
    return sorted(firsts.values(), key=_simplicity)[:SAMPLE]


# --- the search -------------------------------------------------------------------------------


def _search(evidence: _Evidence) -> list[Hypothesis]:
    """Return the hypotheses that explain as much as any: several only if nothing tells them apart."""
    operation, dialect = evidence.operation, evidence.dialect
    mistakes = [Hypothesis(dialect, mistake) for mistake in operation.mistakes]
    tiers: tuple[Iterable[Hypothesis], ...] = (mistakes,)
    if operation.attributed:
        tiers = (
            (Hypothesis(setting) for setting in _singles(operation, dialect)),
            mistakes,
            (Hypothesis(setting) for setting in operation.dialects.values()),
            (Hypothesis(setting) for setting in _pairs(evidence)),
        )
    found: list[Hypothesis] = []
    try:
        for tier in tiers:
            for hypothesis in tier:
                if evidence.supports(hypothesis):
                    found.append(hypothesis)
            if found:
                return _completed(evidence, _best(evidence, found))
        return _assembled(evidence, mistakes) if operation.attributed else []
    except _Late:
        return _best(evidence, found)


def _best(evidence: _Evidence, found: list[Hypothesis]) -> list[Hypothesis]:
    def known(hypothesis: Hypothesis) -> int:
        try:
            return evidence.count(evidence.failing, hypothesis)
        except _Late:
            return 0

    if not found:
        return []
    counts = [known(hypothesis) for hypothesis in found]
    return [h for h, n in zip(found, counts, strict=True) if n == max(counts)][:ALTERNATIVES]


def _completed(evidence: _Evidence, found: list[Hypothesis]) -> list[Hypothesis]:
    """Let a hypothesis grow that leaves only missing refusals open: a dial may tell of them."""
    if len(found) > 1 or not evidence.unrefused:
        return found
    try:
        grown = _grown(evidence, found[0], _diverse(evidence.failing))
        return [grown] if evidence.supports(grown) else found
    except _Late:
        return found


def _moves(operation: Operation) -> Iterator[tuple[Setting, Setting]]:
    """Yield single dials with a value, and what must be set beside them for it to show."""
    for dial in operation.all_dials:
        for value in (dial.default, *dial.others):
            yield {dial.name: value}, dial.context if value != dial.default else {}


def _epsilons(operation: Operation) -> Iterator[tuple[Setting, Setting]]:
    """Yield the dials that are small numbers, with the numbers that are in use."""
    for dial in operation.dials:
        values = (dial.default, *dial.others)
        if dial.others and all(type(value) is float for value in values):
            for eps in EPSILONS:
                yield {dial.name: eps}, dial.context


def _apart(
    operation: Operation, dialect: Setting, settings: Iterable[Setting]
) -> Iterator[Setting]:
    """Yield each setting once, and none that is the dialect itself."""
    seen = {operation.key(dialect)}
    for setting in settings:
        key = operation.key(setting)
        if key not in seen:
            seen.add(key)
            yield setting


def _singles(operation: Operation, dialect: Setting) -> Iterator[Setting]:
    moves = (*_moves(operation), *_epsilons(operation))
    settings = ({**dialect, **context, **dial} for dial, context in moves)
    return _apart(operation, dialect, settings)


def _pairs(evidence: _Evidence) -> Iterator[Setting]:
    """Yield the pairs of dials of which one at least moves the smallest failing case."""
    operation, dialect = evidence.operation, evidence.dialect
    smallest = (evidence.strict or evidence.unrefused)[0]
    declared = evidence.expected(smallest, Hypothesis(dialect))
    moving = [
        (dial, context, differs(evidence.expected(smallest, Hypothesis(moved)), declared))
        for dial, context in _moves(operation)
        for moved in [{**dialect, **context, **dial}]
    ]
    settings = (
        {**dialect, **one_context, **other_context, **one, **other}
        for (one, one_context, a), (other, other_context, b) in combinations(moving, 2)
        if (a or b) and one.keys() != other.keys()
    )
    yield from _apart(operation, dialect, settings)


def _assembled(evidence: _Evidence, mistakes: list[Hypothesis]) -> list[Hypothesis]:
    """Return the hypothesis that grows, dial by dial, from the most promising starts."""
    declared = Hypothesis(evidence.dialect)
    named = [Hypothesis(setting) for setting in evidence.operation.dialects.values()]
    sample = _diverse(evidence.failing)
    best, score = declared, len(evidence.passing)
    try:
        starts = sorted([declared, *named, *mistakes], key=lambda h: -evidence.count(sample, h))
        for start in starts[:ALTERNATIVES]:
            grown = _grown(evidence, start, sample)
            reached = evidence.count(evidence.failing + evidence.passing, grown)
            if reached > score:
                best, score = grown, reached
    except _Late:
        pass
    gained = score - len(evidence.passing)
    # What it should have refused says nothing against what explains its answers.
    if not gained or 2 * gained < len(evidence.strict or evidence.failing):
        return []
    return [_simplified(evidence, best)]


def _simplified(evidence: _Evidence, hypothesis: Hypothesis) -> Hypothesis:
    """Set the dials back, one by one, that explain nothing here."""
    evidence.deadline += BUDGET / 5
    try:
        for name in departure(evidence.operation, evidence.dialect, hypothesis.setting):
            back = evidence.dialect.get(name, evidence.operation.dial(name).default)
            plainer = Hypothesis({**hypothesis.setting, name: back}, hypothesis.mistake)
            if evidence.agrees_alike(plainer, hypothesis):
                hypothesis = plainer
    except _Late:
        pass
    return hypothesis


def _grown(evidence: _Evidence, start: Hypothesis, sample: list[Verdict]) -> Hypothesis:
    """Add the dial that explains most of a sample, less what it breaks, until none helps."""
    best, passing = start, _diverse(evidence.passing)
    while True:
        right = [v for v in sample + passing if evidence.agrees(v, best)]
        wrong = [v for v in sample + passing if v not in right]
        gains = [
            (evidence.count(wrong, hypothesis), hypothesis)
            for setting in _singles(evidence.operation, best.setting)
            for hypothesis in [Hypothesis(setting, start.mistake)]
        ]
        most, following = 0, best
        for gain, hypothesis in sorted(gains, key=lambda pair: -pair[0]):
            # What is right is looked at only for a hypothesis that could still be the best.
            if gain <= most:
                break
            net = gain - len(right) + evidence.count(right, hypothesis)
            if net > most:
                most, following = net, hypothesis
        if following is best:
            return best
        best = following


# --- the words --------------------------------------------------------------------------------


def _tell(evidence: _Evidence, failing: list[Verdict], found: list[Hypothesis]) -> Diagnosis:
    operation, dialect = evidence.operation, evidence.dialect
    left = list(failing)
    sentence, setting, mistake = "", {}, None
    if found:
        first = found[0]
        left = [v for v in failing if _unexplained(evidence, v, first)]
        words = [describe(operation, dialect, h.setting, h.mistake) for h in found]
        sentence = "behaves like " + ", or like ".join(words)
        setting, mistake = departure(operation, dialect, first.setting), first.mistake
    unrefused = [v for v in left if v in evidence.unrefused]
    others = [v for v in left if v not in unrefused]
    explained = len(failing) - len(left)
    if others and found:
        sentence += f" in {explained} of {len(failing)} failing cases"
    if unrefused:
        reasons = [v.message.removeprefix("must be refused: ") for v in unrefused]
        why = "; ".join(first_few(reasons, REASONS))
        lacking = f"does not refuse what must be refused ({_cases(unrefused)}): {why}"
        sentence = f"{sentence}; it {lacking}" if sentence else lacking
    if others and not found:
        unknown = f"no known convention or mistake explains {_cases(others)}"
        sentence = f"{sentence}; {unknown}" if sentence else unknown
    smallest = others[0] if others else None
    note = (smallest.message or smallest.status) if smallest else ""
    return Diagnosis(
        operation.id,
        sentence,
        failing=len(failing),
        explained=explained,
        setting=setting,
        mistake=mistake.name if mistake else "",
        links=mistake.links if mistake else (),
        case=smallest.case.full_id if smallest else "",
        difference=note,
        snippet=snippet(smallest.case, note) if smallest else "",
    )


def _cases(verdicts: Sequence[Verdict]) -> str:
    return "1 case" if len(verdicts) == 1 else f"{len(verdicts)} cases"


def _unexplained(evidence: _Evidence, verdict: Verdict, hypothesis: Hypothesis) -> bool:
    if verdict.answer is None:
        return True
    try:
        return evidence.agrees(verdict, hypothesis) is False
    except _Late:
        return True
