from __future__ import annotations

from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from refimpl import pruning, structured
from refimpl.masks import TIES

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")
NAN, INF = float("nan"), float("inf")


def bits(mask: Any) -> str:
    return "".join(str(int(bit)) for bit in np.asarray(mask).ravel())


# --- slices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("order", [1, 2, INF])
def test_slices_are_those_of_torch(axis: int, order: float) -> None:
    weights = np.random.default_rng(2).standard_normal((5, 4, 6))
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.tensor(weights))
    previous = None
    for amount in (0.4, 0.4):
        previous, pruned = structured.prune_structured(
            weights, axis=axis, amount=amount, ord=order, previous=previous
        )
        prune.ln_structured(module, "weight", amount, n=order, dim=axis)
        np.testing.assert_array_equal(previous, module.weight_mask.numpy() == 1)
        np.testing.assert_array_equal(pruned, module.weight.detach().numpy())


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.float32, 1e30), (np.float32, 1e-30), (np.float64, 1e250), (np.float64, 1e-250),
     (ml_dtypes.bfloat16, 1e30), (np.float32, 1.0)],
)  # fmt: skip
def test_squares_do_not_matter(dtype: Any, scale: float) -> None:
    rows = (np.array([[3.0, 3], [0, 4], [5, 1]]) * scale).astype(dtype)
    mask, _ = structured.prune_structured(rows, axis=0, count=1)
    assert bits(mask) == "110011"
    if scale != 1:
        naive, _ = structured.prune_structured(rows, axis=0, count=1, norm="naive")
        assert bits(naive) == "001111"  # all are infinite, or all are zero


def test_cubes_of_subnormal_numbers() -> None:
    rows = np.array([[3.0, 1], [2, 0], [4, 4]], dtype=np.float32) * np.float32(2.0**-149)
    mask, _ = structured.prune_structured(rows, axis=0, count=1, ord=3)
    assert bits(mask) == "110011"


def test_norms_rounded_to_16_bits_tie() -> None:
    rows = np.array([[2049, 0], [2048, 0], [4096, 8]], dtype=np.float32)
    wide, _ = structured.prune_structured(rows, axis=0, count=1)
    assert bits(wide) == "110011"
    narrow = np.array([[2048, 64], [2048, 0], [4096, 8]], dtype=np.float16)  # 2049 rounds to 2048
    mask, _ = structured.prune_structured(narrow, axis=0, count=1, norm_dtype="input_dtype")
    assert bits(mask) == "001111"


def test_only_what_is_left_counts_in_a_norm() -> None:
    rows = np.array([[NAN, 0.5], [4, -4], [3, 2]])
    previous = np.array([[False, True], [True, True], [True, True]])
    mask, pruned = structured.prune_structured(rows, axis=0, count=1, previous=previous)
    assert bits(mask) == "001111"
    assert pruned.tolist() == [[0.0, 0.0], [4.0, -4.0], [3.0, 2.0]]


# --- n of m -------------------------------------------------------------------------------------


def test_a_pattern_stays_whatever_the_scores_become() -> None:
    weights = np.random.default_rng(1).standard_normal((3, 8))
    first, pruned = structured.prune_n_m(weights, abs(weights), n=2, m=4, axis=1)
    assert first.reshape(3, 2, 4).sum(axis=2).tolist() == [[2, 2]] * 3
    again, _ = structured.prune_n_m(pruned, -abs(weights), n=2, m=4, axis=1, previous=first)
    np.testing.assert_array_equal(first, again)


def test_padding_never_takes_the_place_of_a_negative_score() -> None:
    scores = np.array([-4.0, -3, -2, -1, -6, -5])
    mask, _ = structured.prune_n_m(scores, scores, n=2, m=4, axis=0, remainder="pad")
    assert bits(mask) == "001111"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_group_lies_along_its_axis(axis: int) -> None:
    scores = np.random.default_rng(4).permutation(64).reshape(4, 4, 4) * 1.0
    mask, _ = structured.prune_n_m(scores, scores, n=1, m=2, axis=axis)
    pairs = np.moveaxis(scores, axis, 0).reshape(2, 2, 4, 4)
    kept = np.moveaxis(mask, axis, 0).reshape(2, 2, 4, 4)
    np.testing.assert_array_equal(kept, pairs == pairs.max(axis=1, keepdims=True))


# --- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "b"), [(4, 3), (7, 3), (5, 4), (9, 4), (9, 8)])
def test_a_block_that_is_cut_off(n: int, b: int) -> None:
    scores = np.arange(float(n), 0.0, -1.0)
    mask, _ = structured.prune_block(scores, scores, block=(b,), amount=0.5)
    whole = -(-n // b) - round(-(-n // b) / 2)
    assert bits(mask) == "1" * whole * b + "0" * (n - whole * b)


def test_mean_of_what_is_there() -> None:
    scores = np.array([[1.0, 2, 3], [4, 3, 2], [9, 1, 2.75]])
    mask, _ = structured.prune_block(scores, scores, block=(2, 2), amount=0.5)
    # means 2.5, 2.5 (of 3 and 2), 5, 2.75: the two first in C order go
    assert bits(mask) == "000000111"
    mask, _ = structured.prune_block(scores, scores, block=(2, 2), amount=0.5, pool="max")
    assert bits(mask) == "110110110"  # 4, 3, 9, 2.75


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mean_whose_sum_overflows(dtype: Any) -> None:
    top = float(np.finfo(dtype).max)
    scores = (np.array([0.9, 0.9, 0.8, 0.9, 0.7, 1.0]) * top).astype(dtype)
    mask, _ = structured.prune_block(scores, scores, block=(2,), amount=0.5, ties="keep_all")
    assert bits(mask) == "110000"


# --- rounds -------------------------------------------------------------------------------------


def test_rounds_are_calls_with_the_masks_before() -> None:
    rng = np.random.default_rng(9)
    weights = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    scores = [[abs(rng.standard_normal(w.shape)) for w in weights] for _ in range(3)]
    rounds = pruning.prune_iterative(weights, scores, [0.5, 0.3, 0.5], scope="global")
    before: Any = None
    for amount, ranked, masks in zip([0.5, 0.3, 0.5], scores, rounds, strict=True):
        before, _ = pruning.prune_fraction(
            weights, ranked, amount=amount, scope="global", previous=before
        )
        for mask, other in zip(masks, before, strict=True):
            np.testing.assert_array_equal(mask, other)
    # 17 weights: round(8.5) = 8, round(2.7) = 3, round(3.0) = 3 go
    assert [sum(bits(m).count("1") for m in masks) for masks in rounds] == [9, 6, 3]
    assert pruning.prune_iterative(weights, [], []) == []


# --- every library ------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("library", ["strict", "torch", "torch.bfloat16", "bfloat16"])
def test_libraries_agree(ties: str, library: str) -> None:
    weights = np.random.default_rng(6).integers(-4, 5, (5, 7)).astype(np.float64)
    previous = np.random.default_rng(7).uniform(size=(5, 7)) < 0.8

    def native(array: Any) -> Any:
        if library == "strict":
            return array_api_strict.asarray(array)
        if library == "bfloat16":
            return array if array.dtype == bool else array.astype(ml_dtypes.bfloat16)
        tensor = torch.tensor(array)
        return (
            tensor.to(torch.bfloat16) if tensor.is_floating_point() and "b" in library else tensor
        )

    def results(convert: Any) -> list[Any]:
        w, s, p = convert(weights), convert(np.abs(weights)), convert(previous)
        return [
            structured.prune_structured(w, axis=1, amount=0.4, previous=p, ties=ties),
            structured.prune_structured(w, axis=-2, count=2, ord=1, ties=ties),
            structured.prune_structured(w, axis=0, count=2, ord=INF, ties=ties),
            structured.prune_n_m(w, s, n=1, m=3, axis=1, previous=p, remainder="pad", ties=ties),
            structured.prune_n_m(w, s, n=2, m=5, axis=0, ties=ties),
            structured.prune_block(w, s, block=(2, 3), amount=0.4, previous=p, ties=ties),
            structured.prune_block(w, s, block=(2, 3), amount=0.4, pool="max", ties=ties),
        ]

    for (mask, pruned), (other, kept) in zip(results(lambda a: a), results(native), strict=True):
        assert bits(mask) == "".join(str(int(other[i, j])) for i in range(5) for j in range(7))
        assert kept.dtype == native(weights).dtype
        np.testing.assert_array_equal(
            pruned, np.array([[float(kept[i, j]) for j in range(7)] for i in range(5)])
        )


def test_inputs_are_not_written_to() -> None:
    weights, previous = np.array([[1.0, -2, 3], [0.5, 4, -1]]), np.ones((2, 3), dtype=bool)
    copies = weights.copy(), previous.copy()
    structured.prune_structured(weights, axis=0, count=1, previous=previous)
    structured.prune_n_m(weights, weights, n=1, m=3, axis=1, previous=previous)
    structured.prune_block(weights, weights, block=(2, 2), amount=0.5, previous=previous)
    np.testing.assert_array_equal(weights, copies[0])
    np.testing.assert_array_equal(previous, copies[1])


W = np.array([[1.0, -2, 3], [0.5, 4, -1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: structured.prune_structured(W, axis=2, count=1), "axis must be one of the 2 axes"),
        (lambda: structured.prune_structured(np.array(1.0), axis=0, count=1), "of the 0 axes"),
        (lambda: structured.prune_structured(W, axis=0, count=1, ord=0), "ord must be > 0"),
        (lambda: structured.prune_structured(W, axis=0, count=3), "count must be at most the 2"),
        (lambda: structured.prune_structured(W, axis=0), "exactly one of amount and count"),
        (lambda: structured.prune_structured(W * NAN, axis=0, count=1), "must not be NaN"),
        (lambda: structured.prune_structured(W, axis=0, count=1, norm="fast"), "norm must be one of"),
        (lambda: structured.prune_n_m(W, W, n=2, m=4, axis=1), "groups of 4 must divide axis 1"),
        (lambda: structured.prune_n_m(W, W, n=4, m=3, axis=1), "n must be at most m = 3"),
        (lambda: structured.prune_n_m(W, W, n=1, m=0, axis=1), "m must be at least 1"),
        (lambda: structured.prune_n_m(W, W.T, n=1, m=3, axis=1), "same shape"),
        (lambda: structured.prune_block(W, W, block=(2,), amount=0.5), "2 lengths, one per axis"),
        (lambda: structured.prune_block(W, W, block=(0, 1), amount=0.5), "at least 1"),
        (lambda: structured.prune_block(W, W, block=(1, 1), amount=1.5), "amount must be in"),
        (lambda: structured.prune_block(W, W, block=(1, 1), amount=1, pool="sum"), "pool must be"),
        (lambda: pruning.prune_iterative([W], [[W]], [0.5, 0.5]), "same length"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
