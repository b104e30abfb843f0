from __future__ import annotations

from fractions import Fraction
from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from refimpl import pruning, scores
from refimpl.arrays import euclidean_norm, ranks, smallest, stable_order
from refimpl.masks import ROUNDING, TIES

torch = pytest.importorskip("torch")
NAN, INF = float("nan"), float("inf")


def by_magnitude(weights: Any, **options: Any) -> list[str]:
    """Prune one or more lists of numbers by magnitude; masks as strings of 0 and 1."""
    arrays = [np.asarray(w, dtype=np.float64) for w in weights]
    masks, _ = pruning.prune_fraction(arrays, scores.magnitude(arrays), **options)
    return ["".join(str(int(kept)) for kept in np.asarray(mask).ravel()) for mask in masks]


# --- apply_mask ---------------------------------------------------------------------------------


def test_masked_is_plus_zero_and_kept_is_untouched() -> None:
    weights = np.array([[-1.0, NAN, INF], [-0.0, NAN, -2.5]])
    mask = np.array([[False, False, False], [True, True, True]])
    result = pruning.apply_mask(weights, mask)
    assert result.tobytes() == np.array([[0.0, 0.0, 0.0], [-0.0, NAN, -2.5]]).tobytes()


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_mask_keeps_the_dtype(dtype: Any) -> None:
    result = pruning.apply_mask(torch.tensor([-1.0, 2.0], dtype=dtype), torch.tensor([False, True]))
    assert result.dtype == dtype
    assert result.tolist() == [0.0, 2.0]
    assert not torch.signbit(result[0])


def test_a_mask_must_be_boolean_and_of_the_same_shape() -> None:
    with pytest.raises(ValueError, match="must be boolean"):
        pruning.apply_mask(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="same shape"):
        pruning.apply_mask(np.ones((2, 2)), np.array([True, False]))


# --- prune_threshold ----------------------------------------------------------------------------


@pytest.mark.parametrize(("compare", "kept"), [("le", [0, 0, 1, 1]), ("lt", [0, 1, 1, 1])])
def test_threshold_at_equality(compare: str, kept: list[int]) -> None:
    w = np.array([0.25, -0.5, 0.75, -1.0])
    masks, pruned = pruning.prune_threshold([w], scores.magnitude([w]), 0.5, compare=compare)
    np.testing.assert_array_equal(masks[0], np.array(kept, dtype=bool))
    np.testing.assert_array_equal(pruned[0], w * kept)
    assert not np.signbit(pruned[0][masks[0] == 0]).any()  # type: ignore[index]


@pytest.mark.parametrize(("nan_score", "kept"), [("highest", [1, 0, 1]), ("lowest", [0, 0, 1])])
def test_threshold_ranks_nan(nan_score: str, kept: list[int]) -> None:
    s = np.array([NAN, 1.0, INF])
    for threshold in (1.0, 5.0):
        masks, _ = pruning.prune_threshold([s], [s], threshold, nan_score=nan_score)
        np.testing.assert_array_equal(masks[0], np.array(kept, dtype=bool))


def test_threshold_keeps_what_previous_pruned() -> None:
    w = [np.array([3.0, -4.0, 0.5]), np.array([[1.0]])]
    previous = [np.array([False, True, True]), None]
    masks, pruned = pruning.prune_threshold(w, scores.magnitude(w), 1.0, previous=previous)
    np.testing.assert_array_equal(masks[0], [False, True, False])
    np.testing.assert_array_equal(pruned[0], [0.0, -4.0, 0.0])
    np.testing.assert_array_equal(masks[1], [[False]])


def test_threshold_is_rounded_to_float32_for_narrow_scores() -> None:
    w = np.array([0.1, 0.3], dtype=np.float32)  # float32(0.1) > 0.1
    masks, _ = pruning.prune_threshold([w], [w], 0.1)
    np.testing.assert_array_equal(masks[0], [False, True])
    wide = w.astype(np.float64)
    masks, _ = pruning.prune_threshold([wide], [wide], 0.1)
    np.testing.assert_array_equal(masks[0], [True, True])


# --- prune_fraction: how many -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "amount", "rounding", "expected"),
    [
        (5, 0.5, "half_even", 2),
        (3, 0.5, "half_even", 2),
        (7, 0.5, "half_even", 4),
        (1, 0.5, "half_even", 0),
        (10, 0.25, "half_even", 2),
        (10, 0.35, "half_even", 4),
        (100, 0.29, "half_even", 29),
        (4, 0.999, "half_even", 4),
        (4, 1, "half_even", 4),
        (4, 0.0, "half_even", 0),
        (5, 0.5, "floor", 2),
        (3, 0.5, "floor", 1),
        (100, 0.29, "floor", 28),  # 0.29 * 100 is 28.999999999999996
        (5, 0.5, "ceil", 3),
        (100, 0.07, "ceil", 8),  # 0.07 * 100 is 7.000000000000001
        (3, 0.5, "kept_half_even", 1),
        (5, 0.5, "kept_half_even", 3),
        (10, 0.25, "kept_half_even", 2),
        (7, 0.3, "kept_floor", 3),
        (5, 0.8, "kept_floor", 5),  # (1 - 0.8) * 5 is 0.9999999999999998
    ],
)
def test_pruned_count(n: int, amount: float, rounding: str, expected: int) -> None:
    (mask,) = by_magnitude([range(1, n + 1)], amount=amount, rounding=rounding)
    assert mask == "0" * expected + "1" * (n - expected)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 9, 10, 33])
def test_agrees_with_torch_l1_unstructured(n: int) -> None:
    from torch.nn.utils import prune

    weights = np.random.default_rng(n).permutation(np.arange(1.0, n + 1)) * (-1.0) ** np.arange(n)
    for amount in (0.0, 0.05, 0.15, 0.25, 0.5, 0.75, 0.9, 1.0):
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(torch.tensor(weights))
        prune.l1_unstructured(module, "weight", amount=amount)
        masks, pruned = pruning.prune_fraction(
            [weights], scores.magnitude([weights]), amount=amount
        )
        np.testing.assert_array_equal(masks[0], module.weight_mask.numpy() == 1)
        np.testing.assert_array_equal(pruned[0], module.weight.detach().numpy())


def test_agrees_with_torch_global_and_with_its_second_call() -> None:
    from torch.nn.utils import prune

    rng = np.random.default_rng(5)
    weights = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    modules = []
    for w in weights:
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(torch.tensor(w))
        modules.append((module, "weight"))
    previous = None
    for amount in (0.3, 0.5, 0.25):
        prune.global_unstructured(modules, pruning_method=prune.L1Unstructured, amount=amount)
        previous, _ = pruning.prune_fraction(
            weights, scores.magnitude(weights), amount=amount, scope="global", previous=previous
        )
        for mask, (module, _) in zip(previous, modules, strict=True):
            np.testing.assert_array_equal(mask, module.weight_mask.numpy() == 1)


def test_count_and_minimum_kept() -> None:
    assert by_magnitude([[3, 1, 2], [5, 4, 9, 6]], count=2) == ["100", "0011"]
    assert by_magnitude([[3, 1, 2], [5, 4, 9, 6]], count=2, scope="global") == ["100", "1111"]
    assert by_magnitude([[3, 1, 2]], count=3) == ["000"]
    assert by_magnitude([[3, 1, 2]], count=3, minimum_kept=1) == ["100"]
    assert by_magnitude([[3, 1, 2]], amount=1.0, minimum_kept=5) == ["111"]
    assert by_magnitude([[1, 2], [3]], amount=1.0, minimum_kept=1) == ["01", "1"]
    assert by_magnitude([[1, 2], [3]], amount=1.0, minimum_kept=1, scope="global") == ["00", "1"]


# --- prune_fraction: which ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "amount", "expected"),
    [
        (
            [1, -1, 1, -1, 2],
            0.4,
            {"lowest": "00111", "highest": "11001", "keep": "11111", "prune": "00001"},
        ),
        (
            [2, 1, 1, 1, 3],
            0.4,
            {"lowest": "10011", "highest": "11001", "keep": "11111", "prune": "10001"},
        ),
        # the boundary does not split a group: all agree
        ([1, 1, 2, 3], 0.5, dict.fromkeys(["lowest", "highest", "keep", "prune"], "0011")),
        ([1] * 4, 1.0, dict.fromkeys(["lowest", "highest", "keep", "prune"], "0000")),
        ([1] * 4, 0.0, dict.fromkeys(["lowest", "highest", "keep", "prune"], "1111")),
        (
            [0, -0.0, 0, 1],
            0.5,
            {"lowest": "0011", "highest": "1001", "keep": "1111", "prune": "0001"},
        ),
    ],
)
def test_ties(weights: list[float], amount: float, expected: dict[str, str]) -> None:
    names = {"lowest": "lowest_index_first", "highest": "highest_index_first"}
    names |= {"keep": "keep_all", "prune": "prune_all"}
    for short, mask in expected.items():
        assert by_magnitude([weights], amount=amount, ties=names[short]) == [mask]


@pytest.mark.parametrize("n", [16, 100, 1025])
@pytest.mark.parametrize("ties", ["lowest_index_first", "highest_index_first"])
def test_equal_scores_give_exactly_k_by_index(n: int, ties: str) -> None:
    (mask,) = by_magnitude([np.full(n, -3.0)], amount=0.5, ties=ties)
    k = round(n / 2)
    expected = "0" * k + "1" * (n - k)
    assert mask == (expected if ties == "lowest_index_first" else expected[::-1])


def test_signed_zero_scores_are_ties() -> None:
    s = np.array([0.0, -0.0, 0.0, -0.0])
    masks, _ = pruning.prune_fraction([s], [s], count=1)
    np.testing.assert_array_equal(masks[0], [False, True, True, True])


def test_a_sort_never_sees_a_negative_zero() -> None:
    # A sort by bits, as some accelerators have it, would tell the two kinds of zero apart.
    class Sorting:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def argsort(self, x: Any, *, stable: bool) -> Any:
            assert not np.signbit(x).any()
            return np.argsort(x, stable=stable)

    s = np.array([0.0, -0.0, 0.0, -0.0])
    np.testing.assert_array_equal(stable_order(Sorting(), [s]), [0, 1, 2, 3])
    np.testing.assert_array_equal(stable_order(Sorting(), [-s, s]), [0, 1, 2, 3])


def test_global_ties_go_by_tensor_then_by_flat_index() -> None:
    weights = [[[2, 1], [1, 3]], [1, 1, 5]]
    assert by_magnitude(weights, count=3, scope="global") == ["1001", "011"]
    last_first = {"count": 3, "scope": "global", "ties": "highest_index_first"}
    assert by_magnitude(weights, **last_first) == ["1101", "001"]


def test_global_scope_differs_from_tensor_scope() -> None:
    weights = [[1, 2, 3, 4], [10, 20, 30, 40]]
    assert by_magnitude(weights, amount=0.5) == ["0011", "0011"]
    assert by_magnitude(weights, amount=0.5, scope="global") == ["0000", "1111"]


def test_layer_l2_compares_scores_relative_to_their_tensor() -> None:
    weights = [[3, 4], [5, 12]]  # .6 .8 and .385 .923
    assert by_magnitude(weights, count=1, scope="global") == ["01", "11"]
    relative = {"count": 1, "scope": "global", "normalise": "layer_l2"}
    assert by_magnitude(weights, **relative) == ["11", "01"]
    # what is pruned already is no part of the norm: 4 / 4 is the largest of all then
    previous = [np.array([False, True]), None]
    relative["count"] = 2
    assert by_magnitude(weights, previous=previous, **relative) == ["01", "00"]
    assert by_magnitude([[0, 0], [0, 1]], **relative) == ["00", "11"]


def test_layer_l2_survives_squares_that_overflow() -> None:
    weights = [np.array([3e30, 4e30], dtype=np.float32), np.array([5.0, 12.0], dtype=np.float32)]
    masks, _ = pruning.prune_fraction(
        weights, weights, count=1, scope="global", normalise="layer_l2"
    )
    np.testing.assert_array_equal(masks[0], [True, True])
    np.testing.assert_array_equal(masks[1], [False, True])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_global_scope_compares_across_dtypes_exactly(dtype: Any) -> None:
    narrow = np.array([1.0, 3.0], dtype=dtype)
    wide = np.array([1.0 - 1e-9, 3.0 + 1e-9])
    masks, pruned = pruning.prune_fraction([narrow, wide], [narrow, wide], count=3, scope="global")
    np.testing.assert_array_equal(masks[0], [False, False])
    np.testing.assert_array_equal(masks[1], [False, True])
    assert pruned[0] is not None
    assert pruned[0].dtype == dtype


# --- prune_fraction: NaN ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nan_score", "values", "expected"),
    [
        ("highest", [NAN, 1, 2, 3], "1001"),
        ("highest", [NAN, INF, 1, NAN], "1001"),  # above infinity
        ("lowest", [3, NAN, -INF, NAN], "1010"),  # below minus infinity
    ],
)
def test_nan_is_ranked(nan_score: str, values: list[float], expected: str) -> None:
    s = np.array(values)
    masks, pruned = pruning.prune_fraction([s], [s], count=2, nan_score=nan_score)
    assert "".join(str(int(v)) for v in masks[0]) == expected  # type: ignore[union-attr]
    assert not np.isnan(pruned[0][~masks[0]]).any()  # type: ignore[index, operator]


def test_nan_among_the_equals_of_a_group() -> None:
    s = np.array([NAN, 1.0, NAN, 2.0])
    for ties, expected in (("keep_all", [1, 0, 1, 0]), ("prune_all", [0, 0, 0, 0])):
        masks, _ = pruning.prune_fraction([s], [s], count=3, nan_score="highest", ties=ties)
        np.testing.assert_array_equal(masks[0], np.array(expected, dtype=bool))


def test_nan_is_refused_unless_it_is_already_pruned() -> None:
    s = np.array([NAN, 1.0, 2.0])
    for call in (
        lambda **o: pruning.prune_fraction([s], [s], count=1, **o),
        lambda **o: pruning.prune_threshold([s], [s], 1.0, **o),
        lambda **o: (None, pruning.shrink([s], [s], 1.0, 1.0, **o)),
    ):
        with pytest.raises(ValueError, match="NaN"):
            call()
        _, pruned = call(previous=[np.array([False, True, True])])
        np.testing.assert_array_equal(pruned[0], [0.0, 0.0, 2.0])


@pytest.mark.parametrize("nan_score", ["highest", "lowest"])
def test_a_ranked_nan_competes_before_what_is_already_pruned(nan_score: str) -> None:
    s = np.array([-5.0, NAN, 1.0, 2.0])
    previous = [np.array([False, True, True, True])]
    masks, _ = pruning.prune_fraction([s], [s], count=3, previous=previous, nan_score=nan_score)
    np.testing.assert_array_equal(masks[0], [False, False, False, False])


# --- prune_fraction: previous -------------------------------------------------------------------


def test_previous_stays_pruned_and_does_not_compete() -> None:
    weights, previous = [[9, 1, 2, 3, 4]], [np.array([False, True, True, True, True])]
    assert by_magnitude(weights, amount=0.5, previous=previous) == ["00011"]
    total = {"previous": previous, "iterate": "total"}
    assert by_magnitude(weights, amount=0.6, **total) == ["00011"]
    assert by_magnitude(weights, amount=0.2, **total) == ["01111"]
    assert by_magnitude(weights, amount=0.0, **total) == ["01111"]
    assert by_magnitude(weights, count=3, **total) == ["00011"]
    assert by_magnitude(weights, count=3, previous=previous) == ["00001"]


def test_pruning_twice_at_one_total_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    w = [rng.standard_normal((4, 5)), rng.standard_normal(7)]
    for rounding in ROUNDING:
        options: dict[str, Any] = {"amount": 0.58, "iterate": "total", "rounding": rounding}
        once, pruned = pruning.prune_fraction(w, scores.magnitude(w), **options)
        twice, _ = pruning.prune_fraction(
            pruned, scores.magnitude(pruned), previous=once, **options
        )
        for one, two in zip(once, twice, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_everything_left_can_be_pruned(ties: str, scope: str) -> None:
    weights, previous = [[1, 1, 1], [1, 2]], [np.array([True, False, True]), None]
    masks = by_magnitude(weights, amount=1.0, previous=previous, ties=ties, scope=scope)
    assert masks == ["000", "00"]


def test_entries_without_a_score_take_no_part() -> None:
    w = [np.array([1.0, 2.0]), None, np.array([0.1, 0.2, 0.3]), np.array([5.0, 6.0])]
    s = [np.array([1.0, 2.0]), None, None, np.array([5.0, 6.0])]
    previous = [None, None, np.array([True, False, True]), None]
    masks, pruned = pruning.prune_fraction(w, s, amount=0.5, scope="global", previous=previous)
    np.testing.assert_array_equal(masks[0], [False, False])
    assert masks[1] is None
    assert pruned[1] is None
    np.testing.assert_array_equal(pruned[2], [0.1, 0.0, 0.3])
    np.testing.assert_array_equal(pruned[3], [5.0, 6.0])
    assert pruning.prune_fraction([], [], amount=0.5, scope="global") == ([], [])
    masks, _ = pruning.prune_threshold(w, s, 1.0)
    np.testing.assert_array_equal(masks[2], [True, True, True])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 1)])
def test_small_shapes(shape: tuple[int, ...]) -> None:
    w = np.full(shape, -2.0)
    masks, pruned = pruning.prune_fraction([w], scores.magnitude([w]), amount=1.0)
    assert masks[0] is not None
    assert masks[0].shape == shape
    assert not masks[0].any()
    assert pruned[0] is not None
    assert pruned[0].shape == shape
    assert not pruned[0].any()


# --- shrink and clipped_gradient ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("compare", "expected"), [("le", [0.75, -1.5, 4.0]), ("lt", [0.75, -2.0, 4.0])]
)
def test_shrink(compare: str, expected: list[float]) -> None:
    w = np.array([1.0, -2.0, 4.0])
    (result,) = pruning.shrink([w], scores.magnitude([w]), 2.0, 0.25, compare=compare)
    np.testing.assert_array_equal(result, expected)


def test_shrink_leaves_the_rest_bit_for_bit_and_previous_at_zero() -> None:
    w = np.array([0.1, -0.0, NAN, -8.0], dtype=np.float16)
    s = np.array([1.0, 9.0, 9.0, 9.0])
    previous = [np.array([True, True, True, False])]
    (result,) = pruning.shrink([w], [s], 1.0, 0.5, previous=previous)
    expected = np.array([np.float16(0.1) / 2, -0.0, NAN, 0.0], dtype=np.float16)
    assert result is not None
    assert result.tobytes() == expected.tobytes()
    (nothing,) = pruning.shrink([w], [s], 1.0, 0.0)
    assert nothing is not None
    assert nothing.tobytes() == w.tobytes()
    assert pruning.shrink([None, w], [None, None], 1.0, 0.5)[1] is w


@pytest.mark.parametrize(("compare", "third"), [("le", 0.0), ("lt", -0.5)])
def test_clipped_gradient(compare: str, third: float) -> None:
    g = np.array([3.0, -7.0, -0.5, 0.25, 0.75, NAN, -INF])
    result, absent = pruning.clipped_gradient([g, None], 2.0, 0.5, compare=compare)
    np.testing.assert_array_equal(result, [2.0, -2.0, third, 0.0, 0.75, NAN, -2.0])
    assert absent is None
    (unclipped,) = pruning.clipped_gradient([g], INF, 0.0)
    assert unclipped is not None
    assert unclipped.tobytes() == g.tobytes()


def test_clipped_gradient_zeroes_everything_when_the_limit_is_small() -> None:
    (result,) = pruning.clipped_gradient([np.array([-3.0, 0.1], dtype=np.float16)], 0.5, 0.5)
    assert result is not None
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, [0.0, 0.0])
    assert not np.signbit(result).any()


# --- libraries, ownership, refusals -------------------------------------------------------------


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("nan_score", ["reject", "highest", "lowest"])
@pytest.mark.parametrize("library", ["strict", "torch"])
def test_libraries_agree(ties: str, nan_score: str, library: str) -> None:
    values = [[[1.0, -2.0, 2.0], [NAN, 0.5, -2.0]], [2.0, -0.5]]
    if nan_score == "reject":
        values[0][1][0] = 7.0  # type: ignore[index]
    before = [[[True, False, True], [True, True, True]], None]

    def run(make: Any) -> Any:
        w = [make(v) for v in values]
        options: dict[str, Any] = {
            "count": 3,
            "previous": [None if m is None else make(m) for m in before],
            "ties": ties,
            "nan_score": nan_score,
            "scope": "global",
            "normalise": "layer_l2",
        }
        masks, pruned = pruning.prune_fraction(w, scores.magnitude(w), **options)
        others = pruning.prune_threshold(w, scores.magnitude(w), 1.0, nan_score=nan_score)
        shrunk = pruning.shrink(w, scores.magnitude(w), 1.0, 0.5, nan_score=nan_score)
        return *masks, *pruned, *others[0], *others[1], *shrunk

    make = array_api_strict.asarray if library == "strict" else torch.asarray
    for mine, reference in zip(run(make), run(np.asarray), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), reference)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_narrow_torch_dtypes(dtype: Any) -> None:
    w = [torch.tensor([[-3.0, 1.0], [2.0, 0.5]], dtype=dtype)]
    masks, pruned = pruning.prune_fraction(w, scores.magnitude(w), amount=0.5)
    assert masks[0].tolist() == [[True, False], [True, False]]  # type: ignore[union-attr]
    assert pruned[0].dtype == dtype  # type: ignore[union-attr]


def test_inputs_are_not_written_to() -> None:
    w, s, m = np.array([1.0, -2.0, 3.0]), np.array([2.0, 1.0, 0.5]), np.array([True, True, False])
    for array in (w, s, m):
        array.flags.writeable = False
    kept = [array.copy() for array in (w, s, m)]
    pruning.prune_fraction([w], [s], amount=0.5, previous=[m], normalise="layer_l2")
    pruning.prune_threshold([w], [s], 1.0, previous=[m])
    pruning.shrink([w], [s], 1.0, 0.5, previous=[m])
    pruning.clipped_gradient([w], 1.0, 0.5)
    for array, copy in zip((w, s, m), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_torch_results_do_not_alias_the_weights() -> None:
    w = torch.tensor([1.0, -2.0, 3.0])
    _, pruned = pruning.prune_fraction([w], [abs(w)], amount=0.0)
    pruned[0][0] = 99.0  # type: ignore[index]
    assert w[0] == 1.0


W3 = [np.array([1.0, 2.0, 3.0])]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"amount": 0.5, "count": 1},
        {"amount": -0.1},
        {"amount": 1.1},
        {"amount": NAN},
        {"count": 4},
        {"count": -1},
        {"amount": 0.5, "scope": "layer"},
        {"amount": 0.5, "rounding": "up"},
        {"amount": 0.5, "ties": "random"},
        {"amount": 0.5, "nan_score": "ignore"},
        {"amount": 0.5, "normalise": "l1"},
        {"amount": 0.5, "iterate": "all"},
        {"amount": 0.5, "minimum_kept": -1},
        {"amount": 0.5, "previous": [np.ones(3)]},
        {"amount": 0.5, "previous": [np.array([True])]},
        {"amount": 0.5, "previous": []},
        {"count": 3, "previous": [np.array([True, True, False])]},
    ],
    ids=str,
)
def test_bad_fractions_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        pruning.prune_fraction(W3, W3, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pruning.prune_threshold(W3, W3, NAN),
        lambda: pruning.prune_threshold(W3, W3, 1.0, compare="ge"),
        lambda: pruning.prune_threshold(W3, [], 1.0),
        lambda: pruning.prune_threshold(W3, [np.ones(2)], 1.0),
        lambda: pruning.prune_threshold([None], W3, 1.0),
        lambda: pruning.prune_threshold([np.array([1, 2, 3])], W3, 1.0),
        lambda: pruning.shrink(W3, W3, 1.0, 1.5),
        lambda: pruning.shrink(W3, W3, 1.0, -0.5),
        lambda: pruning.clipped_gradient(W3, -1.0, 0.5),
        lambda: pruning.clipped_gradient(W3, 1.0, -0.5),
        lambda: pruning.clipped_gradient(W3, NAN, 0.5),
    ],
)
def test_bad_arguments_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"amount": "0.5"}, {"amount": True}, {"count": 1.5}], ids=str)
def test_wrong_types_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        pruning.prune_fraction(W3, W3, **options)


# --- the selection seam -------------------------------------------------------------------------


def test_smallest_and_ranks_match_python_sorting() -> None:
    rng = np.random.default_rng(11)
    for n in (1, 2, 17, 300):
        major, minor = rng.integers(0, 3, n), rng.integers(0, 5, n).astype(np.float32)
        order = sorted(range(n), key=lambda i: (major[i], minor[i], i))
        position = ranks(np, [major, minor])
        assert [int(position[i]) for i in order] == list(range(n))
        for k in (0, 1, n // 2, n):
            mask = smallest(np, [major, minor], k)
            assert sorted(np.flatnonzero(mask)) == sorted(order[:k])


def test_euclidean_norm_is_right_at_both_ends_of_the_range() -> None:
    for scale in (1e30, 1.0, 1e-30):
        x = np.array([[3.0, 0.0], [4.0, 0.0]], dtype=np.float32) * np.float32(scale)
        norms = euclidean_norm(np, x, axis=(0,))
        np.testing.assert_allclose(norms, [[5 * scale, 0.0]], rtol=1e-6)
    exact = Fraction(3) ** 2 + Fraction(4) ** 2 + Fraction(12) ** 2
    assert euclidean_norm(np, np.array([3.0, 4.0, 12.0]))[0] ** 2 == pytest.approx(float(exact))
    assert euclidean_norm(np, np.array([INF, 1.0]))[0] == INF
    assert np.isnan(euclidean_norm(np, np.array([NAN, INF]))[0])
    assert euclidean_norm(np, np.zeros((2, 0)), axis=(1,)).tolist() == [[0.0], [0.0]]
