"""The oracles of slices, blocks, N:M patterns and rounds against PyTorch, sorting and hand counts."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

from adapters._torch_arrays import to_numpy, to_torch
from conformance.cases import Case
from conformance.compare import compare
from conformance.judge import stand_in
from conformance.operation import Operation, map_tensors
from conformance.operations import load

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")

STRUCTURED, N_M, BLOCK = load("prune.structured"), load("prune.n_m"), load("prune.block")
ITERATIVE = load("prune.iterative")
NAN = float("nan")


def ask(operation: Operation, inputs: dict[str, Any], dials: Any = None, **params: Any) -> Any:
    return operation.expect(Case(operation.id, "x", (), (), inputs, params), dials or {})


def outputs(operation: Operation, inputs: dict[str, Any], dials: Any = None, **params: Any) -> Any:
    defaults = {p.name: p.default for p in operation.params}
    expected = ask(operation, inputs, dials, **{**defaults, **params})
    assert expected.rejects is None, expected.rejects
    return map_tensors(lambda leaf: leaf.tensor, expected.outputs)


def bits(mask: Any) -> str:
    return "".join(str(int(bit)) for bit in mask.ravel())


# --- slices -------------------------------------------------------------------------------------


def module_of(weights: Any, previous: Any) -> Any:
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(to_torch(weights.copy()))
    if previous is not None:
        prune.custom_from_mask(module, "weight", to_torch(previous))
    return module


@pytest.mark.parametrize("case", STRUCTURED.generate(), ids=lambda case: case.id)
def test_slices_are_those_of_ln_structured(case: Case) -> None:
    params, weights = {"amount": None, "count": None, **case.params}, case.inputs["weights"]
    if (params["amount"] is None) == (params["count"] is None) or not float(params["ord"]) > 0:
        pytest.skip("not a question that torch refuses or can be asked")
    dialect = STRUCTURED.dialects["torch"]
    expected = STRUCTURED.expect(case, dialect)
    quantity = params["count"] if params["amount"] is None else float(params["amount"])

    def run(module: Any) -> None:
        order = float(params["ord"])
        prune.ln_structured(module, "weight", quantity, n=order, dim=params["axis"])

    if expected.rejects is not None:
        with pytest.raises((ValueError, IndexError, OverflowError, AssertionError, RuntimeError)):
            run(module_of(weights, case.inputs.get("previous")))
        return
    if weights.ndim == 1:
        pytest.skip("torch refuses vectors")
    module = module_of(weights, case.inputs.get("previous"))
    run(module)
    given = {"mask": to_numpy(module.weight_mask) == 1, "weights": to_numpy(module.weight)}
    assert compare(stand_in(STRUCTURED, case, dialect, given), expected).difference is None


@pytest.mark.parametrize(
    ("order", "first"),
    [(0.5, 0), (1, 0), (2, 1), (3, 1), ("inf", 1)],
)
def test_norms_by_hand(order: Any, first: int) -> None:
    # 1-norms 4, 6, 5, 5; squares 16, 12, 13, 25; largest 4, 2, 3, 5; sums of roots 2, 4.2, 3.1, 2.2
    rows = np.array([[4.0, 0, 0], [-2, 2, 2], [3, -2, 0], [0, 0, 5]])
    mask = outputs(STRUCTURED, {"weights": rows}, axis=0, count=1, ord=order)["mask"]
    assert np.argwhere(~mask.any(axis=1)).ravel().tolist() == [first]


def test_what_is_pruned_already_is_not_counted() -> None:
    rows = np.array([[8.0, 0.5], [4, -4], [3, 2]])
    previous = np.array([[False, True], [True, True], [True, True]])
    inputs = {"weights": rows, "previous": previous}
    assert bits(outputs(STRUCTURED, inputs, axis=0, count=1)["mask"]) == "001111"
    assert bits(outputs(STRUCTURED, {"weights": rows}, axis=0, count=1)["mask"]) == "111100"
    gone = np.array([[False, False], [True, True], [True, True]])
    mask = outputs(STRUCTURED, inputs | {"previous": gone}, axis=0, amount=0.5)["mask"]
    assert bits(mask) == "001100"  # one of the two rows that are left


# --- n of m -------------------------------------------------------------------------------------


def kept_by_hand(scores: Any, n: int, m: int) -> str:
    """Sort each group by (score, index) with Python, and keep the last n."""
    kept = ["0"] * len(scores)
    for start in range(0, len(scores), m):
        group = sorted(range(start, start + m), key=lambda i: (scores[i], i))
        for i in group[m - n :]:
            kept[i] = "1"
    return "".join(kept)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4), (3, 4), (4, 8), (2, 3)])
def test_patterns_are_those_of_a_stable_sort(n: int, m: int) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        scores = rng.integers(0, 5, 2 * m).astype(np.float64)  # many ties
        inputs = {"weights": rng.standard_normal(2 * m), "scores": scores}
        assert bits(outputs(N_M, inputs, n=n, m=m, axis=0)["mask"]) == kept_by_hand(scores, n, m)


@pytest.mark.parametrize(
    ("scores", "dials", "previous", "kept"),
    [
        ([1, 2, 3, 4], {}, None, "0011"),
        ([1, 1, 1, 1], {}, None, "0011"),
        ([1, 1, 1, 1], {"ties": "highest_index_first"}, None, "1100"),
        ([1, 1, 1, 1], {"ties": "prune_all"}, None, "0000"),
        ([1, 1, 1, 1], {"ties": "keep_all"}, None, "1111"),
        ([1, 1, 2, 1], {"ties": "keep_all"}, None, "1111"),
        ([1, 1, 2, 1], {"ties": "prune_all"}, None, "0010"),
        ([NAN, 1, 2, 3], {"nan_score": "highest"}, None, "1001"),
        ([NAN, 1, 2, 3], {"nan_score": "lowest"}, None, "0011"),
        ([9, 8, 1, 2], {}, "0011", "0011"),
        ([9, 8, 1, 2], {}, "0111", "0101"),
        ([9, 8, 1, 2], {}, "0010", "0010"),
        ([1, 2, 3, 4, 5, 6], {"remainder": "pad"}, None, "001111"),
        ([1, 2, 3, 4, -5, -6], {"remainder": "pad"}, None, "001111"),
        ([1, 2], {"remainder": "pad"}, None, "11"),
    ],
)
def test_two_of_four_by_hand(scores: Any, dials: Any, previous: Any, kept: str) -> None:
    inputs: dict[str, Any] = {"weights": np.ones(len(scores)), "scores": np.array(scores, float)}
    if previous:
        inputs["previous"] = np.array([bit == "1" for bit in previous])
    assert bits(outputs(N_M, inputs, dials, n=2, m=4, axis=0)["mask"]) == kept


def test_axes_of_a_kernel() -> None:
    scores = np.random.default_rng(3).permutation(144).reshape(4, 4, 3, 3) * 1.0
    inputs = {"weights": scores, "scores": scores}
    for axis in (0, 1):
        mask = outputs(N_M, inputs, n=2, m=4, axis=axis)["mask"]
        order = np.argsort(np.argsort(scores, axis=axis), axis=axis)
        np.testing.assert_array_equal(mask, order >= 2)
    last = outputs(N_M, inputs, {"group_axis": "last"}, n=1, m=3, axis=0)["mask"]
    np.testing.assert_array_equal(last, scores == scores.max(axis=3, keepdims=True))
    before = outputs(N_M, inputs, {"group_axis": "inputs"}, n=1, m=3, axis=0)["mask"]
    np.testing.assert_array_equal(before, scores == scores.max(axis=2, keepdims=True))


# --- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize(("shape", "block"), [((4, 6), (2, 3)), ((5, 7), (2, 3)), ((7, 4), (3, 4))])
def test_blocks_by_fractions(pool: str, shape: tuple[int, int], block: tuple[int, int]) -> None:
    scores = np.random.default_rng(5).integers(0, 40, shape).astype(np.float64)
    ranked: list[Any] = []
    for i, j in product(range(0, shape[0], block[0]), range(0, shape[1], block[1])):
        members = scores[i : i + block[0], j : j + block[1]].ravel()
        whole = [Fraction(int(s)) for s in members]
        ranked.append((max(whole) if pool == "max" else sum(whole) / len(whole), len(ranked), i, j))
    wanted = np.ones(shape, bool)
    for _, _, i, j in sorted(ranked)[: round(0.4 * len(ranked))]:
        wanted[i : i + block[0], j : j + block[1]] = False
    inputs = {"weights": -scores, "scores": scores}
    mask = outputs(BLOCK, inputs, block=list(block), amount=0.4, pool=pool)["mask"]
    np.testing.assert_array_equal(mask, wanted)


@pytest.mark.parametrize(("n", "b"), [(4, 3), (7, 3), (5, 4), (9, 4), (9, 8)])
def test_mask_has_the_shape_of_the_weights(n: int, b: int) -> None:
    rows = np.arange(1.0, n + 1).reshape(n, 1)
    mask = outputs(BLOCK, {"weights": rows, "scores": rows}, block=[b, 1], amount=0.5)["mask"]
    pruned = round(-(-n // b) / 2) * b
    assert bits(mask) == "0" * pruned + "1" * (n - pruned)


# --- rounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "amounts", "left"),
    [
        (8, [0.5] * 5, [4, 2, 1, 1, 1]),  # round(0.5) is 0
        (6, [0.5] * 3, [3, 1, 1]),  # round(1.5) is 2
        (10, [0.3] * 4, [7, 5, 3, 2]),
        (10, [0.58, 0.58], [4, 2]),
        (4, [0.25, 1, 0.5], [3, 0, 0]),
    ],
)
def test_counts_of_rounds(n: int, amounts: list[float], left: list[int]) -> None:
    w = np.arange(1.0, n + 1)
    inputs = {"weights": [w], "scores": [[w]] * len(amounts)}
    rounds = outputs(ITERATIVE, inputs, amounts=amounts)["masks"]
    assert [bits(mask) for (mask,) in rounds] == ["0" * (n - k) + "1" * k for k in left]


def test_rounds_are_calls_of_torch_on_one_module() -> None:
    rng = np.random.default_rng(11)
    w, amounts = rng.standard_normal((5, 6)), [0.3, 0.45, 0.2, 0.5]
    scores = [np.abs(rng.standard_normal((5, 6))) for _ in amounts]
    module = module_of(w, None)
    rounds = outputs(ITERATIVE, {"weights": [w], "scores": [[s] for s in scores]}, amounts=amounts)[
        "masks"
    ]
    for (mask,), amount, s in zip(rounds, amounts, scores, strict=True):
        prune.l1_unstructured(module, "weight", amount, importance_scores=torch.tensor(s))
        np.testing.assert_array_equal(mask, to_numpy(module.weight_mask) == 1)


# --- a choice among equals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "accepted"),
    [("1100", True), ("0110", True), ("0011", True), ("1110", False), ("1000", False)],
)
def test_any_two_of_four_equals_may_stay(given: str, accepted: bool) -> None:
    inputs = {"weights": np.array([2.0, -2, 2, 2]), "scores": np.full(4, 2.0)}
    case = Case("prune.n_m", "x", (), (), inputs, {"n": 2, "m": 4, "axis": 0})
    mask = np.array([bit == "1" for bit in given])
    answer = {"mask": mask, "weights": np.where(mask, inputs["weights"], 0.0)}
    setting = {"ties": "unspecified"}
    difference = compare(stand_in(N_M, case, setting, answer), N_M.expect(case, setting)).difference
    assert (difference is None) == accepted
    unmasked = answer | {"weights": inputs["weights"]}
    assert compare(stand_in(N_M, case, setting, unmasked), N_M.expect(case, setting)).difference


def test_a_slice_goes_whole_even_among_equals() -> None:
    rows = np.array([[1.0, 1], [1, 1], [5, 5]])
    case = Case(
        "prune.structured", "x", (), (), {"weights": rows},
        {"axis": 0, "count": 1, "amount": None, "ord": 2},
    )  # fmt: skip
    setting = {"ties": "unspecified"}
    for given, accepted in (("110011", True), ("001111", True), ("011011", False)):
        mask = np.array([bit == "1" for bit in given]).reshape(3, 2)
        answer = {"mask": mask, "weights": np.where(mask, rows, 0.0)}
        shown = stand_in(STRUCTURED, case, setting, answer)
        difference = compare(shown, STRUCTURED.expect(case, setting)).difference
        assert (difference is None) == accepted


def test_rounds_may_differ_by_equals_in_every_round() -> None:
    w = np.ones(4)
    inputs = {"weights": [w], "scores": [[w], [np.array([1.0, 2, 3, 4])]]}
    case = Case("prune.iterative", "x", (), (), inputs, {"amounts": [0.5, 0.5], "scope": "tensor"})
    setting = {"ties": "unspecified"}
    # after 1010 has gone from the equals, the lower of the scores 2 and 4 goes, and not of 3 and 4
    for second, accepted in (("0001", True), ("0100", False), ("0010", False)):
        rounds = [[np.array([bit == "1" for bit in m])] for m in ("0101", second)]
        shown = stand_in(ITERATIVE, case, setting, {"masks": rounds})
        difference = compare(shown, ITERATIVE.expect(case, setting)).difference
        assert (difference is None) == accepted
