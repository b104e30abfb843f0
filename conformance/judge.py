"""The judge: does an answer meet its expectation, and is it the canonical one?

How numbers are compared is written in ``conformance.compare``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from conformance import fixtures
from conformance.cases import Case
from conformance.compare import Difference, compare
from conformance.flushing import as_flushed
from conformance.formats import FormatError, decode
from conformance.operation import Expectation, Operation, Setting, write

Status = Literal[
    "passed",
    "failed",
    "errored",
    "crashed",
    "timed_out",
    "unsupported",
    "expected_failure",
    "unexpected_pass",
]


@dataclass(frozen=True)
class Answer:
    """What was answered, decoded: the outputs, or ``None`` for a refusal."""

    outputs: dict[str, Any] | None
    written: tuple[str, ...] = ()
    """Inputs of the caller's that were written to."""


@dataclass
class Verdict:
    """What became of one case."""

    case: Case
    status: Status
    canonical: bool | None = None
    message: str = ""
    difference: Difference | None = None
    worst_ulp: float = 0.0
    numbers: int = 0
    divergence: str = ""
    effect: float = 0.0
    departs: Difference | None = None
    """The first difference from the canonical answer, where the answer is not that."""
    reason: str = ""
    """Why a failure was expected."""
    seconds: float = 0.0
    precision: list[list[float]] = field(default_factory=list)
    """``[roundings allowed, worst ULP]`` of the float64 and float32 outputs."""
    answer: Answer | None = field(default=None, repr=False)
    """What the diagnosis works on; no part of the report."""

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        finite_effect = self.effect if np.isfinite(self.effect) else repr(self.effect)
        finite_ulp = self.worst_ulp if np.isfinite(self.worst_ulp) else repr(self.worst_ulp)
        return {
            "case": self.case.full_id,
            "status": self.status,
            "canonical": self.canonical,
            "message": self.message,
            "difference": str(self.difference) if self.difference else None,
            "worst_ulp": finite_ulp,
            "numbers": self.numbers,
            "divergence": self.divergence,
            "effect": finite_effect,
            "departs": str(self.departs) if self.departs else None,
            "reason": self.reason,
            "seconds": round(self.seconds, 6),
            "precision": self.precision,
        }


def judge(
    operation: Operation,
    case: Case,
    dialect: Setting,
    answer: Mapping[str, Any],
    canonical: bool = True,
) -> Verdict:
    """Judge one answer of the protocol against the dialect that the implementation declares.

    ``canonical``: also say whether the answer is the canonical one, and by which dials it is not.
    """
    if "unsupported" in answer:
        return Verdict(case, "unsupported", message=_text(answer["unsupported"], "reason"))
    if "errored" in answer:
        return Verdict(case, "errored", message=_text(answer["errored"], "message"))
    declared = fixtures.expectation(operation, case, dialect)
    if "rejected" in answer:
        return _judge_rejection(operation, case, dialect, declared, answer, canonical)
    if not isinstance(answer.get("outputs"), Mapping):
        return Verdict(case, "crashed", message="the answer has neither outputs nor a status")
    written = answer.get("mutated") or []
    if not isinstance(written, list):
        return Verdict(case, "failed", False, "malformed: mutated must be a list of input names")
    try:
        outputs = map_outputs(answer["outputs"])
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        return Verdict(case, "failed", False, f"malformed output: {error}")
    verdict = Verdict(case, "failed", False, answer=Answer(outputs, tuple(map(str, written))))
    if written and dialect.get("in_place", "no") == "no":
        verdict.message = f"wrote to the caller's {', '.join(map(str, written))}"
    elif declared.rejects is not None:
        verdict.message = f"must be refused: {declared.rejects}"
    else:
        outputs = _judge_outputs(operation, case, dialect, outputs, declared, verdict)
        if canonical:
            _mark_canonical(operation, case, dialect, outputs, verdict)
    return verdict


def _judge_outputs(
    operation: Operation,
    case: Case,
    dialect: Setting,
    outputs: dict[str, Any],
    declared: Expectation,
    verdict: Verdict,
) -> dict[str, Any]:
    outputs = stand_in(operation, case, dialect, outputs)
    compared = compare(as_flushed(operation, case, dialect, outputs), declared)
    verdict.difference = compared.first(operation.locate)
    verdict.status = "failed" if verdict.difference else "passed"
    verdict.message = str(verdict.difference or "")
    verdict.worst_ulp, verdict.numbers = compared.worst_ulp, compared.numbers
    verdict.precision = [list(pair) for pair in sorted(compared.precision.items())]
    return outputs


def check_dialect(operation: Operation, dialect: Setting) -> None:
    """Raise a ValueError unless every dial exists and is set to something that it knows."""
    for name, value in dialect.items():
        dial = operation.dial(name)
        known = (dial.default, *dial.others, *dial.left_open)
        if value not in known and not (_is_number(value) and any(map(_is_number, known))):
            words = ", ".join(write(v) for v in known)
            raise ValueError(
                f"{operation.id} has no setting {name}={write(value)}; it knows {words}"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def map_outputs(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the tensors of an answer."""

    def decoded(tree: Any) -> Any:
        if isinstance(tree, list):
            return [decoded(branch) for branch in tree]
        if isinstance(tree, dict) and "dtype" in tree:
            return decode(tree)
        if tree is None:
            return None
        raise FormatError("an output is a tensor, null, or a list of these")

    return {str(name): decoded(tree) for name, tree in outputs.items()}


def stand_in(
    operation: Operation, case: Case, dialect: Setting, outputs: dict[str, Any]
) -> dict[str, Any]:
    """Replace outputs by their representative where the operation leaves a choice (ties)."""
    if operation.representative is None:
        return outputs
    try:
        return operation.representative(case, dialect, outputs)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
        # Outputs of the wrong structure or shape: the comparison says what is wrong with them.
        return outputs


def as_judged(
    operation: Operation, case: Case, setting: Setting, outputs: dict[str, Any]
) -> dict[str, Any]:
    """Return outputs as they are compared: choices by what stands for them, moved subnormals as flushed."""
    return as_flushed(operation, case, setting, stand_in(operation, case, setting, outputs))


def _judge_rejection(
    operation: Operation,
    case: Case,
    dialect: Setting,
    declared: Expectation,
    answer: Any,
    ask_canonical: bool,
) -> Verdict:
    canonical = ask_canonical and fixtures.expectation(operation, case, {}).rejects is not None
    reason = _text(answer["rejected"], "message")
    if declared.rejects is None:
        return Verdict(case, "failed", canonical, f"refused: {reason}", answer=Answer(None))
    verdict = Verdict(case, "passed", canonical, reason, answer=Answer(None))
    if ask_canonical and not canonical:
        verdict.divergence, verdict.effect = (
            fixtures.divergence(operation, case, dialect),
            float("inf"),
        )
    return verdict


def _mark_canonical(
    operation: Operation, case: Case, dialect: Setting, outputs: dict[str, Any], verdict: Verdict
) -> None:
    if operation.key(dialect) == "canonical":
        verdict.canonical = verdict.status == "passed"
        return
    canonical = fixtures.expectation(operation, case, {})
    if canonical.rejects is not None:
        verdict.canonical, verdict.effect = False, float("inf")
    else:
        compared = compare(stand_in(operation, case, {}, outputs), canonical)
        verdict.canonical, verdict.effect = compared.difference is None, compared.effect
        verdict.departs = compared.first(operation.locate)
    if verdict.status == "passed" and not verdict.canonical:
        verdict.divergence = fixtures.divergence(operation, case, dialect)


def _text(entry: Any, name: str) -> str:
    return str(entry.get(name, "")) if isinstance(entry, Mapping) else str(entry)
