"""The judge: what an answer is worth, against the declared dialect and the canonical behaviour."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from conformance.cases import Case
from conformance.formats import FLOATS, encode
from conformance.judge import check_dialect, judge
from conformance.operations import load
from conformance.runner import select

OPERATION = load("clip.global_norm")
TORCH = OPERATION.dialects["torch"]


def case(case_id: str) -> Case:
    (found,) = select(["clip.global_norm"], [case_id])
    return found


def clipped(*grads: Any, total: Any, dtype: Any = np.float32) -> dict[str, Any]:
    tensors = [None if g is None else encode(np.array(g, dtype)) for g in grads]
    return {"outputs": {"grads": tensors, "total_norm": encode(np.array(total, np.float32))}}


# [3, 4] and [0.3, 0.4] with max_norm 1: the norm is sqrt(25.25) = 5.02493781.
NORM = 5.02493781
RIGHT = clipped([3 / NORM, 4 / NORM], [0.3 / NORM, 0.4 / NORM], total=NORM)
ONE = "one-above-one-below-f32"


def test_the_right_answer_is_canonical() -> None:
    verdict = judge(OPERATION, case(ONE), {}, RIGHT)
    assert (verdict.status, verdict.canonical, verdict.difference) == ("passed", True, None)
    assert verdict.worst_ulp <= 2
    assert verdict.numbers == 5


def test_the_first_element_that_differs_is_named() -> None:
    wrong = clipped([0.6, 0.8], [0.3, 0.4], total=NORM)
    verdict = judge(OPERATION, case(ONE), {}, wrong)
    assert (verdict.status, verdict.canonical) == ("failed", False)
    assert verdict.difference is not None
    assert (verdict.difference.where, verdict.difference.got) == ("grads[0][0]", "0.6")
    assert verdict.message.startswith("grads[0][0]: got 0.6, expected 0.59702")


def test_a_declared_divergence_passes_and_is_named() -> None:
    # micro-threshold: the norm is 5.001e-6, the limit 1e-6; torch divides by 6.001e-6.
    answer = clipped([3e-6 / 6.001, -4e-6 / 6.001], [[1e-7 / 6.001]], total=5.0009998e-06)
    verdict = judge(OPERATION, case("micro-threshold-f32"), TORCH, answer)
    assert (verdict.status, verdict.canonical) == ("passed", False)
    assert verdict.divergence == "eps_at=denominator,eps=1e-6"
    # 1 - 5.001/6.001 of the largest expected number.
    assert verdict.effect == pytest.approx(0.16664, rel=1e-3)
    assert verdict.departs is not None
    assert verdict.departs.where == "grads[0][0]"
    assert judge(OPERATION, case("micro-threshold-f32"), {}, answer).status == "failed"


def test_a_refusal_is_right_only_where_it_is_due() -> None:
    refusal = {"rejected": {"message": "max_norm must not be negative"}}
    due = judge(OPERATION, case("negative-limit-f32"), {}, refusal)
    assert (due.status, due.canonical) == ("passed", True)
    undue = judge(OPERATION, case(ONE), {}, refusal)
    assert (undue.status, undue.canonical) == ("failed", False)
    assert undue.message == "refused: max_norm must not be negative"
    missing = judge(OPERATION, case("negative-limit-f32"), {}, clipped([3, 4], total=5))
    assert (missing.status, missing.canonical) == ("failed", False)
    assert missing.message.startswith("must be refused: ")
    # torch documents nothing of a negative limit and flips the sign; a refusal would be canonical.
    better = judge(OPERATION, case("negative-limit-f32"), TORCH, refusal)
    assert (better.status, better.canonical) == ("failed", True)


def test_an_input_may_be_written_to_only_where_that_is_documented() -> None:
    answer = RIGHT | {"mutated": ["grads"]}
    verdict = judge(OPERATION, case(ONE), {}, answer)
    assert (verdict.status, verdict.message) == ("failed", "wrote to the caller's grads")
    documented = {"in_place": "documented"}
    assert judge(OPERATION, case(ONE), documented, answer).status == "passed"


def test_what_is_unsupported_or_errored_is_not_compared() -> None:
    lack = judge(OPERATION, case(ONE), {}, {"unsupported": {"reason": "no such thing"}})
    assert (lack.status, lack.canonical, lack.message) == ("unsupported", None, "no such thing")
    fault = judge(OPERATION, case(ONE), {}, {"errored": {"message": "IndexError: 3"}})
    assert (fault.status, fault.canonical, fault.message) == ("errored", None, "IndexError: 3")
    # An entry that is not written as the contract says is shown as it is.
    assert judge(OPERATION, case(ONE), {}, {"errored": "boom"}).message == "boom"


def test_a_representative_that_stumbles_over_a_wrong_shape_is_no_crash() -> None:
    def stumble(*_: Any) -> dict[str, Any]:
        raise IndexError("axis 1 is out of bounds")

    operation = dataclasses.replace(OPERATION, representative=stumble)
    verdict = judge(operation, case(ONE), {}, clipped([0.6], [0.3, 0.4], total=NORM))
    assert (verdict.status, verdict.message) == (
        "failed",
        "grads[0] shape: got [1], expected [2]",
    )


@pytest.mark.parametrize("setting", [{}, TORCH, {"eps": 1e-4, "eps_at": "max"}])
def test_a_dialect_of_known_settings_is_accepted(setting: dict[str, Any]) -> None:
    check_dialect(OPERATION, setting)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"colour": "red"}, "no dial 'colour'"),
        ({"eps_at": "nominator"}, "eps_at=nominator; it knows none, denominator, max"),
        ({"eps": "small"}, "eps=small"),
        ({"eps": True}, "eps=true"),
        ({"nonfinite": ["multiply"]}, "no setting nonfinite"),
    ],
)
def test_a_dialect_of_unknown_settings_is_one_line(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_dialect(OPERATION, setting)


def test_a_verdict_is_json_even_where_its_numbers_are_not_finite() -> None:
    verdict = judge(OPERATION, case(ONE), {}, clipped([np.nan, 1], [1, 1], total=np.inf))
    entry = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
    assert (entry["status"], entry["worst_ulp"]) == ("failed", "inf")


@pytest.mark.parametrize(("got", "status"), [(0.0, "passed"), (1e-45, "passed"), (1e-9, "failed")])
def test_beside_an_expected_zero_only_the_smallest_numbers_are_near(
    got: float, status: str
) -> None:
    # [0.6, 0, 0.8] · 10 with max_norm 1: the zero stays a zero, within 11 of the smallest subnormals.
    question = dataclasses.replace(case(ONE), inputs={"grads": [np.array([6, 0, 8], np.float32)]})
    question.frozen = {}
    assert judge(OPERATION, question, {}, clipped([0.6, got, 0.8], total=10)).status == status


def test_both_parts_of_a_complex_number_are_compared() -> None:
    asked = case("complex-imaginary-c64")
    right = [np.array([0.6j, -0.8j]), np.zeros(1)]

    def verdict(first: Any) -> Any:
        return judge(OPERATION, asked, {}, clipped(first, right[1], total=5, dtype=np.complex64))

    assert verdict(right[0]).canonical
    assert verdict(np.array([complex(np.nan, 0.6), -0.8j])).status == "failed"
    conjugate = verdict(right[0].conj())
    assert conjugate.status == "failed"
    assert str(conjugate.difference).startswith("grads[0][0]: got ")


@pytest.mark.parametrize(
    "name", ["clip.global_norm/mixed-16-32-64-f64", "clip.norm/mixed-dtypes-f64"]
)
def test_a_narrow_tensor_beside_wide_ones_is_held_to_its_own_precision(name: str) -> None:
    # A norm with a rounding to float16 in it is 2^42 ULP of float64 off: of a float16 gradient that is one.
    [case] = select([name.split("/")[0]], [name])
    operation = load(case.operation)
    rounded = {"norm": "naive", "norm_dtype": "input_dtype"}
    for dialect in ({}, rounded):
        for gradient in operation.expect(case, dialect).outputs["grads"]:
            precision = FLOATS[gradient.tensor.dtype.name].precision
            assert gradient.ulp <= (12 if precision < 24 or not dialect else 2 ** (precision - 9))
