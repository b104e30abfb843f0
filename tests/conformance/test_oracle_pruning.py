"""The oracles of pruning against sources that know nothing of them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from adapters._torch_arrays import to_numpy, to_torch
from conformance.cases import Case, Stream
from conformance.compare import compare
from conformance.exact import ctx
from conformance.judge import stand_in
from conformance.operation import Operation, map_tensors
from conformance.operations import load
from conformance.oracle import pruning

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")

FRACTION, THRESHOLD = load("prune.fraction"), load("prune.threshold")
SHRINK, POLYNOMIAL = load("prune.shrink"), load("schedule.polynomial")
NAN, INF = float("nan"), float("inf")


def ask(operation: Operation, inputs: dict[str, Any], dials: Any = None, **params: Any) -> Any:
    return operation.expect(Case(operation.id, "x", (), (), inputs, params), dials or {})


def outputs(operation: Operation, inputs: dict[str, Any], dials: Any = None, **params: Any) -> Any:
    expected = ask(operation, inputs, dials, **params)
    assert expected.rejects is None, expected.rejects
    return map_tensors(lambda leaf: leaf.tensor, expected.outputs)


def masks(weights: Any, dials: Any = None, previous: Any = None, **params: Any) -> list[str]:
    arrays = [np.array(w, dtype=np.float64) for w in weights]
    inputs: dict[str, Any] = {"weights": arrays, "scores": [np.abs(w) for w in arrays]}
    if previous:
        inputs["previous"] = [np.array([bit == "1" for bit in p]) for p in previous]
    result = outputs(FRACTION, inputs, dials, **params)["masks"]
    return ["".join(str(int(bit)) for bit in mask.ravel()) for mask in result]


# --- prune.fraction against torch.nn.utils.prune ------------------------------------------------


def modules_of(weights: Any, previous: Any) -> Any:
    modules = []
    for w, before in zip(weights, previous, strict=True):
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(to_torch(w.copy()))
        if before is not None:
            prune.custom_from_mask(module, "weight", to_torch(before).to(module.weight.dtype))
        modules.append(module)
    return modules


def asked_of_torch(case: Case) -> bool:
    amounts = {case.params.get("amount"), case.params.get("count")}
    absent = not case.inputs["scores"] or any(s is None for s in case.inputs["scores"])
    kinds = {t.dtype for t in case.inputs["scores"] if t is not None}
    return (
        "mismatch" not in case.flags
        and not absent
        and len(amounts - {None}) == 1 == len(amounts & {None})
        and not (case.params["scope"] == "global" and len(kinds) > 1)
    )


TORCH_CASES = [case for case in FRACTION.generate() if asked_of_torch(case)]


@pytest.mark.parametrize("case", TORCH_CASES, ids=lambda case: case.id)
def test_fraction_is_what_torch_does_in_its_dialect(case: Case) -> None:
    dialect = FRACTION.dialects["torch"]
    expected = FRACTION.expect(case, dialect)
    weights, scores = case.inputs["weights"], case.inputs["scores"]
    modules = modules_of(weights, case.inputs.get("previous") or [None] * len(weights))
    amount: Any = case.params.get("count")
    if amount is None:
        amount = float(case.params["amount"])
    ranked = [to_torch(s.copy()) for s in scores]

    def run() -> None:
        if case.params["scope"] == "tensor":
            for module, score in zip(modules, ranked, strict=True):
                prune.l1_unstructured(module, "weight", amount, importance_scores=score)
            return
        names = [(module, "weight") for module in modules]
        by_name = dict(zip(names, ranked, strict=True))
        prune.global_unstructured(names, prune.L1Unstructured, by_name, amount=amount)

    if expected.rejects is not None:
        with pytest.raises((ValueError, OverflowError)):
            run()
        return
    run()
    given = {
        "masks": [to_numpy(module.weight_mask) == 1 for module in modules],
        "weights": [to_numpy(module.weight) for module in modules],
    }
    canonical = stand_in(FRACTION, case, dialect, given)
    assert compare(canonical, expected).difference is None


def test_most_cases_are_asked_of_torch() -> None:
    assert len(TORCH_CASES) > 250


@pytest.mark.parametrize("case", THRESHOLD.generate(), ids=lambda case: case.id)
def test_threshold_is_a_comparison_in_torch(case: Case) -> None:
    weights, scores = case.inputs["weights"], case.inputs["scores"]
    if "mismatch" in case.flags or any(s is None for s in scores):
        pytest.skip("not a question that torch can be asked")
    setting = {"masking": "multiply", "nan_score": "lowest", "threshold_dtype": "input_dtype"}
    expected = THRESHOLD.expect(case, setting)
    threshold = float(case.params["threshold"])
    if expected.rejects is not None:
        real = not any(a.dtype.name.startswith(("int", "bool")) for a in (*weights, *scores))
        assert math.isnan(threshold) or not real
        return
    modules = modules_of(weights, case.inputs.get("previous") or [None] * len(weights))
    for module, score in zip(modules, scores, strict=True):
        prune.custom_from_mask(module, "weight", to_torch(score.copy()) > threshold)
    given = {
        "masks": [to_numpy(module.weight_mask) == 1 for module in modules],
        "weights": [to_numpy(module.weight) for module in modules],
    }
    assert compare(given, expected).difference is None


# --- prune.fraction by hand, and against a stable sort ------------------------------------------


@pytest.mark.parametrize(
    ("n", "amount", "dials", "pruned"),
    [
        (3, 0.5, {}, 2),
        (5, 0.5, {}, 2),
        (7, 0.5, {}, 4),
        (1, 0.5, {}, 0),
        (10, 0.35, {}, 4),  # 0.35 is a little less than 35/100, yet 0.35 * 10 is 3.5 in float64
        (100, 0.57, {}, 57),
        (100, 0.575, {}, 57),
        (100, 0.575, {"amount_dtype": "float32"}, 58),
        (100, 0.575, {"amount_dtype": "float32", "rounding": "kept_half_even"}, 58),
        (100, 0.29, {"rounding": "floor"}, 28),
        (100, 0.07, {"rounding": "ceil"}, 8),
        (3, 0.5, {"rounding": "kept_half_even"}, 1),
        (5, 0.5, {"rounding": "kept_half_even"}, 3),
        (5, 0.8, {"rounding": "kept_floor"}, 5),
        (10, 0.8, {"rounding": "kept_floor"}, 9),
        (20, 0.9, {"rounding": "kept_floor"}, 19),
        (4, 1, {}, 4),
        (4, 1, {"minimum_kept": 1}, 3),
    ],
)
def test_pruned_count(n: int, amount: float, dials: Any, pruned: int) -> None:
    assert masks([range(1, n + 1)], dials, amount=amount) == ["0" * pruned + "1" * (n - pruned)]


@pytest.mark.parametrize(
    ("ties", "mask"),
    [
        ("lowest_index_first", "10011"),
        ("highest_index_first", "11001"),
        ("keep_all", "11111"),
        ("prune_all", "10001"),
        ("unspecified", "10011"),
    ],
)
def test_ties(ties: str, mask: str) -> None:
    assert masks([[2, 1, 1, 1, 3]], {"ties": ties}, amount=0.4) == [mask]


def test_tie_groups_that_the_boundary_does_not_split_are_left_alone() -> None:
    for ties in ("keep_all", "prune_all"):
        assert masks([[5, 1, 7, 1, 9, 3]], {"ties": ties}, amount=1 / 3) == ["101011"]
        assert masks([[5, 5]], {"ties": ties}, amount=0.0) == ["11"]
        assert masks([[5, 5]], {"ties": ties}, amount=1.0) == ["00"]


def test_global_scope_and_its_normalisation() -> None:
    scales = [[1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]]
    assert masks(scales, amount=0.5, scope="global") == ["1111", "0000"]
    halved = masks(scales, {"normalise": "layer_l2"}, amount=0.5, scope="global")
    assert halved == ["0011", "0011"]


def test_previous_with_both_meanings_of_an_amount() -> None:
    before = ["0111", "1110"]
    weights = [[9, 1, 2, 3], [4, 5, 6, 7]]
    assert masks(weights, previous=before, amount=1 / 3) == ["0011", "0110"]
    total = {"iterate": "total"}
    assert masks(weights, total, previous=before, amount=0.5) == ["0011", "0110"]
    assert masks(weights, total, previous=before, amount=0.25) == before
    assert masks(weights, total, previous=before, count=3, scope="global") == ["0011", "1110"]


def test_pruning_twice_to_the_same_total_is_pruning_once() -> None:
    weights = [Stream(5).permutation(10)]
    (once,) = masks(weights, amount=0.58)
    assert masks(weights, {"iterate": "total"}, previous=[once], amount=0.58) == [once]


def test_random_ties_follow_a_stable_sort() -> None:
    random = Stream(6)
    for n in (1, 2, 9, 40, 133):
        scores = random.integers(n, below=max(2, n // 3)).astype(np.float32)
        for count in {0, 1, n // 2, n}:
            expected = np.ones(n, dtype=bool)
            expected[np.argsort(scores, kind="stable")[:count]] = False
            result = outputs(
                FRACTION, {"weights": [scores - 2], "scores": [scores]}, scope="global", count=count
            )
            np.testing.assert_array_equal(result["masks"][0], expected)


@pytest.mark.parametrize(
    ("nan_score", "mask"), [("reject", None), ("highest", "1001"), ("lowest", "0011")]
)
def test_nan_scores(nan_score: str, mask: str | None) -> None:
    scores = np.array([NAN, 1.0, 2.0, 3.0])
    inputs = {"weights": [scores + 4], "scores": [scores]}
    expected = ask(FRACTION, inputs, {"nan_score": nan_score}, amount=0.5)
    assert (expected.rejects is not None) == (mask is None)
    if mask is not None:
        kept = expected.outputs["masks"][0].tensor
        assert "".join(str(int(bit)) for bit in kept) == mask


def test_value_of_pruned_weights() -> None:
    weights = np.array([-1.0, NAN, -INF, -0.0, NAN])
    mask = np.array([False, False, False, True, True])
    selected = pruning.masked(weights, mask, {})
    assert selected.tobytes() == np.array([0.0, 0.0, 0.0, -0.0, NAN]).tobytes()
    multiplied = pruning.masked(weights, mask, {"masking": "multiply"})
    assert np.signbit(multiplied[0])
    assert np.isnan(multiplied[[1, 2, 4]]).all()


# --- judging up to the choice among equals ------------------------------------------------------


def judged(mask: list[Any], dials: Any = None, **change: Any) -> bool:
    """Say whether a choice counts as the canonical one; weights are 2 1 1 1 3 and 1 5."""
    weights = [np.array([-2.0, -1.0, 1.0, -1.0, 3.0], np.float32), np.array([1.0, 5.0], np.float32)]
    case = Case("prune.fraction", "x", (), (), {"weights": weights, "scores": [abs(w) for w in weights]},
                {"scope": "tensor", "amount": 0.4} | change)  # fmt: skip
    given = [np.array(m, dtype=bool) for m in mask]
    kept = [np.where(m, w, np.float32(0)) for m, w in zip(given, weights, strict=True)]
    result = {"masks": given, "weights": kept}
    setting = {"ties": "unspecified"} if dials is None else dials
    answer = stand_in(FRACTION, case, setting, result)
    return compare(answer, FRACTION.expect(case, setting)).difference is None


def test_equals_may_be_exchanged() -> None:
    assert judged([[1, 0, 0, 1, 1], [0, 1]])
    assert judged([[1, 0, 1, 0, 1], [0, 1]])
    assert judged([[1, 1, 0, 0, 1], [0, 1]])
    assert not judged([[1, 0, 1, 0, 1], [0, 1]], {})  # not where the order is fixed


def test_nothing_but_equals_may_be_exchanged() -> None:
    assert not judged([[0, 0, 1, 1, 1], [0, 1]])  # 2 pruned in place of 1
    assert not judged([[1, 0, 0, 0, 1], [0, 1]])  # one too many
    assert not judged([[1, 0, 1, 1, 1], [0, 1]])  # one too few
    assert not judged([[1, 0, 0, 1, 1], [1, 0]])  # the other tensor's order


def test_equals_of_several_tensors_may_be_exchanged_only_in_global_scope() -> None:
    change = {"scope": "global", "amount": None, "count": 3}
    assert judged([[1, 0, 0, 0, 1], [1, 1]], **change)
    assert judged([[1, 0, 1, 0, 1], [0, 1]], **change)
    assert not judged([[1, 0, 1, 1, 1], [0, 1]], **change)


def test_weights_must_be_those_of_the_mask() -> None:
    weights = [np.array([-1.0, 1.0, -1.0], np.float32)]
    case = Case("prune.fraction", "x", (), (), {"weights": weights, "scores": [abs(weights[0])]},
                {"scope": "tensor", "count": 1})  # fmt: skip
    setting = {"ties": "unspecified"}
    expected = FRACTION.expect(case, setting)
    kept = np.array([True, False, True])
    for wrong in ([-1.0, -0.0, -1.0], [-1.0, 0.5, -1.0], [1.0, 0.0, -1.0], [0.0, 1.0, -1.0]):
        given = {"masks": [kept], "weights": [np.array(wrong, np.float32)]}
        assert compare(stand_in(FRACTION, case, setting, given), expected).difference is not None
    right = {"masks": [kept], "weights": [np.array([-1.0, 0.0, -1.0], np.float32)]}
    assert compare(stand_in(FRACTION, case, setting, right), expected).difference is None
    same = right["weights"]
    for broken in (
        {},
        {"masks": [kept]},
        {"masks": [kept[:2]], "weights": same},
        {"masks": [None], "weights": [None]},
        {"masks": [kept * 1.0], "weights": same},
    ):
        assert stand_in(FRACTION, case, setting, broken) is broken


def test_a_previously_pruned_weight_may_not_come_back_as_an_equal() -> None:
    weights = [np.array([1.0, 1.0, 1.0, 2.0])]
    inputs = {
        "weights": weights,
        "scores": weights,
        "previous": [np.array([False, True, True, True])],
    }
    case = Case("prune.fraction", "x", (), (), inputs, {"scope": "tensor", "count": 1})
    setting = {"ties": "unspecified"}

    def accepted(mask: list[int]) -> bool:
        kept = np.array(mask, dtype=bool)
        given = {"masks": [kept], "weights": [np.where(kept, weights[0], 0.0)]}
        answer = stand_in(FRACTION, case, setting, given)
        return compare(answer, FRACTION.expect(case, setting)).difference is None

    assert accepted([0, 0, 1, 1])
    assert accepted([0, 1, 0, 1])
    assert not accepted([1, 0, 0, 1])


# --- prune.shrink -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.7, 0.9999])
def test_both_ways_to_shrink_are_within_the_tolerance(dtype: Any, rate: float) -> None:
    w = Stream(7).spread(60).astype(dtype)
    expected = ask(SHRINK, {"weights": [w], "scores": [abs(w)]}, threshold=1.0, rate=rate)
    small, share = abs(w) <= 1, dtype(rate)
    for shrunk in (w * (dtype(1) - share), w - share * w, (w * (1 - rate)).astype(dtype)):
        result = np.where(small, shrunk, w)
        assert compare({"weights": [result]}, expected).difference is None
    wrong = np.where(small, w * (dtype(1) - share) * dtype(1 + 2.0**-6), w)
    if rate < 0.99:
        assert compare({"weights": [wrong]}, expected).difference is not None


def test_shrink_by_a_power_of_two_is_bit_for_bit() -> None:
    w = np.array([3.0, -1.0, 7.0], np.float32)
    expected = ask(SHRINK, {"weights": [w], "scores": [abs(w)]}, threshold=5.0, rate=0.75)
    leaf = expected.outputs["weights"][0]
    np.testing.assert_array_equal(leaf.tensor, [0.75, -0.25, 7.0])
    assert leaf.ulp == 0


# --- schedule.polynomial ------------------------------------------------------------------------


def schedule(dials: Any = None, **params: Any) -> tuple[Any, list[int]]:
    params = {"initial": 0.0, "begin": 0, "frequency": 1, "power": 3} | params
    result = outputs(POLYNOMIAL, {}, dials, **params)
    assert result["sparsity"].dtype == np.float64
    assert result["updates"].dtype == np.int32
    return result["sparsity"], [int(t) for t in np.flatnonzero(result["updates"])]


def test_zhu_gupta_by_hand() -> None:
    expected = [0, 0, 0, 0.2640625, 0.4625, 0.6046875, 0.7, 0.7578125, 0.7875, 0.7984375, 0.8, 0.8]
    sparsity, steps = schedule(steps=12, begin=2, end=10, final=0.8)
    np.testing.assert_allclose(sparsity, expected, rtol=1e-15)
    assert steps == list(range(2, 11))


def test_one_step_ahead_as_jaxpruner_is() -> None:
    ahead, _ = schedule({"first_step": "begin_plus_one"}, steps=2, end=10, final=0.8)
    np.testing.assert_allclose(ahead, [0.2168, 0.3904], rtol=1e-14)
    level, _ = schedule(steps=2, end=10, final=0.8)
    np.testing.assert_allclose(level, [0, 0.2168], rtol=1e-14)


@pytest.mark.parametrize(
    ("begin", "end", "frequency", "tfmot", "jaxpruner", "canonical"),
    [
        (3, 13, 5, [3, 8, 13], [5, 10], [3, 8, 13]),
        (1, 9, 3, [1, 4, 7], [3, 6, 9], [1, 4, 7, 9]),
        (0, 100, 30, [0, 30, 60, 90], [0, 30, 60, 90], [0, 30, 60, 90, 100]),
    ],
)
def test_update_steps(
    begin: int, end: int, frequency: int, tfmot: Any, jaxpruner: Any, canonical: Any
) -> None:
    asked = {"steps": 110, "begin": begin, "end": end, "frequency": frequency, "final": 0.8}
    assert schedule(**asked)[1] == canonical
    assert schedule({"at_end": "on_grid"}, **asked)[1] == tfmot
    assert schedule({"at_end": "on_grid", "grid": "from_zero"}, **asked)[1] == jaxpruner


@pytest.mark.parametrize("power", [1, 2, 3, 7])
def test_curve_against_fractions(power: int) -> None:
    initial, final, begin, end = 0.1, 2 / 3, 3, 14
    sparsity, _ = schedule(
        steps=18, begin=begin, end=end, initial=initial, final=final, power=power
    )
    for t, value in enumerate(sparsity):
        p = min(max(Fraction(t - begin, end - begin), Fraction(0)), Fraction(1))
        exact = Fraction(final) + (Fraction(initial) - Fraction(final)) * (1 - p) ** power
        assert value == float(exact)  # correctly rounded


@pytest.mark.parametrize("power", [0.1, 0.5, 1, 1.5, 2, 3, 7])
def test_usual_evaluations_are_within_the_tolerance(power: float) -> None:
    initial, final, begin, end, steps = 0.15, 0.95, 7, 1007, 1020
    params = {"initial": initial, "final": final, "begin": begin, "end": end, "steps": steps}
    expected = ask(POLYNOMIAL, {}, **params, power=power, frequency=1)
    t = np.arange(steps, dtype=np.float64)
    p = np.clip((t - begin) / (end - begin), 0, 1)
    rest = (end - np.clip(t, begin, end)) / (end - begin)
    updates = expected.outputs["updates"].tensor
    curves = (
        final + (initial - final) * (1 - p) ** power,
        final - (final - initial) * rest**power,
        (initial - final) * np.exp(power * np.log(np.maximum(rest, 1e-300))) * (rest > 0) + final,
    )
    for curve in curves:
        given = {"sparsity": curve, "updates": updates}
        assert compare(given, expected).difference is None
    late = {"sparsity": np.roll(curves[0], 1), "updates": updates}
    assert compare(late, expected).difference is not None


def test_begin_is_end_and_flat_schedules() -> None:
    jump, steps = schedule(steps=5, begin=2, end=2, initial=0.25, final=0.5, frequency=3)
    assert jump.tolist() == [0.25, 0.25, 0.5, 0.5, 0.5]
    assert steps == [2]
    flat, _ = schedule(steps=4, begin=1, end=2, initial=0.5, final=0.5)
    assert flat.tolist() == [0.5] * 4
    assert ask(POLYNOMIAL, {}, steps=4, begin=1, end=2, initial=0.6, final=0.5, frequency=1).rejects
    assert ctx.dps >= 50
