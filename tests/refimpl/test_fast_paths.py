"""NumPy's fast forms beside the portable ones: the same bits, or within a derived tolerance."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from refimpl import (
    arrays,
    losses,
    models,
    numpy_forms,
    numpy_products,
    numpy_selection,
    numpy_threads,
    optimizers,
    trainer,
)
from refimpl.arrays import (
    absolute,
    all_but_smallest,
    any_nan,
    matmul,
    present,
    smallest,
    where_or_zero,
)
from refimpl.clipping import clip_global_norm, clip_norm, global_norm
from refimpl.layers import avg_pool2d, conv2d, conv2d_in_cache, in_cache, relu
from refimpl.layers.windows import Axis

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


def normal(seed: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def float32(*values: float) -> Any:
    return np.array(values, np.float32)


def portable(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(arrays, "FAST_FORMS", False)
        return function()


def same_bits(one: Any, other: Any) -> None:
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


# Selection: which entries are chosen is exact, so both forms choose the same.

KEYS = {
    "distinct": [normal(1, (301,))],
    "many equal": [np.round(normal(2, (301,)), 0)],
    "both zeros": [np.where(normal(3, (301,)) > 0, 0.0, -0.0)],
    "infinite": [np.where(abs(normal(4, (301,))) > 1, np.inf, -np.inf)],
    "float64": [normal(5, (301,), np.float64)],
    "classes": [np.sign(np.round(normal(6, (301,)))).astype(np.int8), np.round(normal(7, (301,)))],
    "three keys": [np.round(normal(8 + i, (301,)) / 2) for i in range(3)],
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("k", [0, 1, 2, 100, 150, 151, 299, 300, 301])
def test_smallest(name: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = smallest(np, KEYS[name], k)
    same_bits(fast, portable(monkeypatch, lambda: smallest(np, KEYS[name], k)))
    assert fast.sum() == k


def test_smallest_of_nothing_and_of_one() -> None:
    assert smallest(np, [np.zeros(0)], 0).shape == (0,)
    assert smallest(np, [np.zeros(1)], 1).tolist() == [True]


LARGE = {
    "distinct": lambda n: normal(10, (n,)),
    "sorted": lambda n: np.sort(normal(11, (n,))),
    "ten values": lambda n: np.round(normal(12, (n,)) * 2),
    "all equal": lambda n: np.ones(n, np.float32),
    # Every entry that a sample with an even stride sees is small, so its bracket misses.
    "periodic": lambda n: normal(13, (n,)) + np.arange(n, dtype=np.float32) % 2 * 100,
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("share", [0.0001, 0.5, 0.8, 0.9999])
def test_smallest_of_many(name: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_selection, "SAMPLED_FROM", 2000)
    monkeypatch.setattr(numpy_selection, "SAMPLE", 400)
    monkeypatch.setattr(numpy_selection, "AT_ONCE", 700)
    key, k = LARGE[name](10_000), int(10_000 * share)
    fast = smallest(np, [key, -key], k)
    same_bits(fast, portable(monkeypatch, lambda: smallest(np, [key, -key], k)))
    assert fast.sum() == k


def test_a_large_selection_looks_at_a_sample_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def partition(key: Any, kth: int) -> Any:
        sizes.append(key.size)
        return np.sort(key)

    monkeypatch.setattr(numpy_forms.np, "partition", partition)
    key = normal(14, (2**19,))
    assert smallest(np, [key], 2**18).sum() == 2**18
    assert sizes
    assert max(sizes) < 2**16


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.8, 0.9999, 1.0])
@pytest.mark.parametrize("sampled_from", [2000, 10**6])
def test_all_but_smallest(
    name: str, share: float, sampled_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_selection, "SAMPLED_FROM", sampled_from)
    monkeypatch.setattr(numpy_selection, "SAMPLE", 400)
    monkeypatch.setattr(numpy_selection, "AT_ONCE", 700)
    monkeypatch.setattr(numpy_forms, "THREADED_FROM", 0)
    monkeypatch.setattr(numpy_threads, "THREADS", 2)
    key, k = LARGE[name](10_000), int(10_000 * share)
    pieces = [key[:4000].reshape(40, 100).T, key[:0], key[4000:4001].reshape(()), key[4001:]]
    fast = all_but_smallest(np, pieces, k)
    slow = portable(monkeypatch, lambda: all_but_smallest(np, pieces, k))
    for one, other, piece in zip(fast, slow, pieces, strict=True):
        same_bits(one, other)
        assert one.shape == piece.shape
    assert sum(int(kept.sum()) for kept in fast) == 10_000 - k


@pytest.mark.parametrize("where", [None, 0, 77, 299])
def test_any_nan(where: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(15, (3, 100))
    x[0, :2] = [np.inf, -np.inf]
    if where is not None:
        x.reshape(-1)[where] = np.nan
    assert any_nan(np, x) is portable(monkeypatch, lambda: any_nan(np, x)) is (where is not None)
    assert not any_nan(np, x[:0])


DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64, np.int8]


LAYOUTS = ["C", "F", "strided", "0-d", "empty", "large"]


def laid_out(array: Any, layout: str) -> Any:
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "strided":
        return array[::2, 1::3]
    if layout == "0-d":
        return array[0, 2, ...]
    if layout == "empty":
        return array[:0]
    return np.tile(array, (2**13, 1)) if layout == "large" else array


def with_edges(dtype: Any) -> Any:
    values = normal(20, (6, 10)) * 50
    if dtype != np.int8:
        values[0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_or_zero(dtype: Any, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, kept = laid_out(with_edges(dtype), layout), laid_out(normal(21, (6, 10)) > 0, layout)
    fast = where_or_zero(np, kept, x)
    same_bits(fast, portable(monkeypatch, lambda: where_or_zero(np, kept, x)))
    assert not np.shares_memory(fast, where_or_zero(np, kept, x))


@pytest.mark.parametrize("dtype", DTYPES[:4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_absolute(dtype: Any, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = laid_out(with_edges(dtype), layout)
    fast = absolute(x)
    same_bits(fast, portable(monkeypatch, lambda: absolute(x)))
    assert not np.shares_memory(fast, absolute(x))


def test_large_results_take_memory_that_nobody_uses_any_more() -> None:
    x = normal(22, (2**8, 2**9))
    for function in (absolute, lambda array: where_or_zero(np, array > 0, array)):
        before = function(x).__array_interface__["data"]
        assert function(x).__array_interface__["data"] == before


def test_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array([1, -1, 0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324])
    dy = np.array([2, np.inf, 3, np.nan, 4, -5, np.nan, -0.0])

    def both() -> tuple[Any, Any]:
        y, backprop = relu(x)
        return y, backprop(dy)

    y, dx = both()
    for fast, slow in zip((y, dx), portable(monkeypatch, both), strict=True):
        same_bits(fast, slow)
    same_bits(y, np.array([1, 0, 0, 0, np.nan, np.inf, 0, 5e-324]))
    same_bits(dx, np.array([2, 0, 0, 0, 4, -5, 0, -0.0]))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("nan", ["propagate", "no_gradient", "zero"])
def test_relu_of_many_numbers_a_block_at_a_time(
    threads: int, nan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_threads, "THREADS", threads)
    x = normal(63, (5, 11, numpy_forms.BLOCK // 8 + 1))
    x[:, 3, ::97], x[2, :, 5] = np.nan, -0.0
    dy = normal(64, x.shape)

    def both() -> tuple[Any, Any]:
        y, backprop = relu(x, nan=nan)
        return y, backprop(dy)

    for fast, slow in zip(both(), portable(monkeypatch, both), strict=True):
        same_bits(fast, slow)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("images", [1, 2, 37])
@pytest.mark.parametrize("stride", [[2, 2], [1, 2]])
def test_avg_pool2d_of_many_images_a_few_at_a_time(
    threads: int, images: int, stride: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_threads, "THREADS", threads)
    monkeypatch.setattr(numpy_forms, "THREADED_FROM", 2**9)
    x = normal(65, (images, 8, 12, 16))

    def both() -> tuple[Any, Any]:
        y, backprop = avg_pool2d(x, window=[2, 2], stride=stride)
        return y, backprop(normal(66, y.shape))

    for fast, slow in zip(both(), portable(monkeypatch, both), strict=True):
        same_bits(fast, slow)


# Norms: the same squares, added in another order, and in float64 across rows of at most 2048.

GRADS = {
    "ordinary": [normal(40, (7, 11)), normal(41, (3,))],
    "long": [normal(42, (2, 2500)), normal(43, (8191,)), normal(59, (8192,)), normal(44, (0, 3))],
    "longer": [normal(60, (8193,)), normal(61, (3, 6007)), normal(62, (2, 17, 1999))],
    "one float64": [normal(45, (40,)), normal(46, (30,), np.float64)],
    "transposed and strided": [normal(47, (40, 30)).T, normal(48, (50, 8))[::3, 1::2]],
    "float16": [(normal(49, (600,)) * 9000).astype(np.float16)],
    "bfloat16": [normal(50, (600,)).astype(ml_dtypes.bfloat16)],
    "squares overflow": [normal(51, (90,)) * np.float32(1e30)],
    "squares overflow float64": [normal(57, (90,), np.float64) * 1e200],
    "squares vanish float64": [normal(58, (90,), np.float64) * 1e-200],
    "squares vanish": [normal(52, (90,)) * np.float32(1e-30)],
    "some squares vanish": [normal(53, (90,)) * np.float32(1e-19)],
    "subnormal": [normal(54, (90,)) * np.float32(1e-41)],
    "sum overflows": [np.full(4, 1.7e19, np.float32)],
    "zero": [np.zeros((2, 3), np.float32), float32(-0.0)],
    "infinite": [float32(1, -np.inf), float32(2)],
    "nan": [float32(1, np.nan), float32(np.inf)],
}


@pytest.mark.parametrize("name", GRADS)
def test_global_norm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grads = GRADS[name]
    fast = global_norm(grads)
    slow = portable(monkeypatch, lambda: global_norm(grads))
    assert fast.dtype == slow.dtype
    # Half of n·u for either sum of n squares (a root halves), and 4 roundings of scale and root.
    count = sum(g.size for g in grads)
    tolerance = (count + 8) * UNIT[str(fast.dtype)] * abs(slow)
    assert np.array_equal(fast, slow, equal_nan=True) or abs(fast - slow) <= tolerance


def test_global_norm_of_many_is_closer_than_a_sum_in_one_dtype() -> None:
    grads = [normal(55, (1000, 1000)), normal(56, (999,))]
    exact = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads))
    # 2048 squares in float32 in any order, then float64: 1024 u of the root, and its own rounding.
    assert abs(float(global_norm(grads)) - exact) <= 1026 * UNIT["float32"] * exact


@pytest.mark.parametrize("name", GRADS)
@pytest.mark.parametrize("max_norm", [0.0, 1e-30, 2.0, 1e30, np.inf])
@pytest.mark.parametrize("reuse", [False, True])
def test_clip_global_norm(
    name: str, max_norm: float, reuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    grads = GRADS[name]
    given = [g.copy() for g in grads]
    fast, norm = clip_global_norm(given, max_norm, reuse=reuse)
    slow, _ = portable(monkeypatch, lambda: clip_global_norm(grads, max_norm))
    for one, other, before in zip(present(fast), present(slow), grads, strict=True):
        assert one.dtype == other.dtype == before.dtype
        # As the norm, and the two products; one more place where 16 bits are rounded at the end.
        unit = {2: 2.0**-8, 4: UNIT["float32"], 8: UNIT["float64"]}[before.itemsize]
        wide, expected = one.astype(np.float64), other.astype(np.float64)
        relative = (sum(g.size for g in grads) + 16) * UNIT[str(norm.dtype)] + 2 * unit
        np.testing.assert_allclose(wide, expected, rtol=relative, atol=2.0**-149)
    if not reuse:
        for one, before in zip(given, grads, strict=True):
            same_bits(one, before)


HUGE = {
    "huge": [float32(3e38, -3e38, 1)],
    "huge 0-d": [np.array(3e38, np.float32)],
    "largest": [np.full(3, 1e308)],
}


@pytest.mark.parametrize("name", [*GRADS, *HUGE])
@pytest.mark.parametrize("max_norm", [0.0, 1e-30, 2.0, np.inf])
@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, np.inf])
@pytest.mark.parametrize("fast", [True, False])
def test_no_gradient_makes_a_clip_warn(
    name: str, max_norm: float, ord: float, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "FAST_FORMS", fast)
    grads = (GRADS | HUGE)[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clipped, norm = clip_global_norm(grads, max_norm, ord)
        clip_norm(grads, max_norm, ord)
    assert len(clipped) == len(grads)
    assert norm.shape == ()


def test_reuse_takes_the_memory_of_the_gradients_and_only_then() -> None:
    g = normal(60, (4, 5))
    (clipped,), _ = clip_global_norm([g], 0.5, reuse=True)
    assert clipped is g
    (clipped,), _ = clip_global_norm([g], 0.25)
    assert not np.shares_memory(clipped, g)


def test_reuse_scales_a_tied_gradient_once() -> None:
    g = float32(3, 4)
    [one, other], _ = clip_global_norm([g, g], 1.0, reuse=True)
    assert one is other
    np.testing.assert_allclose(present([one]), [[0.6, 0.8]], rtol=1e-6)


def test_reuse_leaves_alone_what_cannot_be_written_to() -> None:
    g = np.broadcast_to(np.float32(2), (4,))
    [clipped], _ = clip_global_norm([g], 1.0, reuse=True)
    np.testing.assert_array_equal(present([clipped]), [[0.5] * 4])
    assert g[0] == 2


# Convolution: the same products, added in another order.

GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": [2, 3]},
    "padding": {"padding": [[1, 2], [0, 3]]},
    "dilation": {"dilation": [2, 1]},
    "all": {"stride": [1, 2], "padding": [[2, 0], [1, 1]], "dilation": [1, 2]},
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("cache", [1, 2**10, 2**12, 2**20], ids="{} bytes".format)
@pytest.mark.parametrize("deep", [5, 17, 128])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conv2d(
    geometry: str, cache: int, deep: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 1 byte: one row at a time; 1 KiB: several rows; 4 KiB: one or more images; 1 MiB: all.
    monkeypatch.setattr(conv2d_in_cache, "CACHE", cache)
    # A kernel row has a depth of 6: by itself in two pieces, or in one, or all three rows together.
    monkeypatch.setattr(numpy_products, "DEEP", deep)
    monkeypatch.setattr(in_cache, "THREADED_FROM", 0)
    x, weight = normal(30, (5, 7, 8, 3), dtype), normal(31, (3, 2, 3, 4), dtype)
    bias = normal(32, (4,), dtype)
    y, _ = conv2d(x, weight, bias, **GEOMETRIES[geometry])
    dy = normal(33, y.shape, dtype)

    def everything(x: Any, weight: Any, bias: Any, dy: Any) -> tuple[Any, ...]:
        y, backprop = conv2d(x, weight, bias, **GEOMETRIES[geometry])
        return y, *backprop(dy)

    given = (x, weight, bias, dy)
    fast = everything(*given)
    slow = portable(monkeypatch, lambda: everything(*given))
    # A sum of n products in any order is within n·u of Σ|a·b|, the same sum over magnitudes.
    scales = portable(monkeypatch, lambda: everything(*[abs(a) for a in given]))
    counts = {
        "y": 3 * 2 * 3 + 1,
        "dx": 3 * 2 * 4,
        "dweight": dy[..., 0].size,
        "dbias": dy[..., 0].size,
    }
    for one, other, scale, count in zip(fast, slow, scales, counts.values(), strict=True):
        assert one.dtype == other.dtype == dtype
        assert (abs(one - other) <= 2 * count * UNIT[dtype] * scale).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_conv2d_of_16_bits_is_computed_in_32(dtype: Any) -> None:
    x, weight = normal(34, (2, 5, 6, 3)).astype(dtype), normal(35, (3, 2, 3, 4)).astype(dtype)
    y, backprop = conv2d(x, weight)
    wide, wide_backprop = conv2d(x.astype(np.float32), weight.astype(np.float32))
    dy = normal(36, y.shape).astype(dtype)
    same_bits(y, wide.astype(dtype))
    for narrow, full in zip(
        backprop(dy)[:2], wide_backprop(dy.astype(np.float32))[:2], strict=True
    ):
        same_bits(narrow, full.astype(dtype))
    assert backprop(dy)[2] is None


@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d_without_dx(groups: int) -> None:
    x, weight = normal(90, (2, 5, 6, 4)), normal(91, (3, 2, 4 // groups, 6))
    y, backprop = conv2d(x, weight, groups=groups)
    dy = normal(92, y.shape)
    given: Any = backprop
    (dx, dweight, _), expected = given(dy, with_dx=False), backprop(dy)
    assert dx is None
    same_bits(dweight, expected[1])


def test_a_model_spares_the_dx_that_nobody_needs() -> None:
    params = models.initial_params(MLP, (4,), 0)
    y, backprop = models.forward(MLP, params, normal(90, (6, 4)))
    dy = normal(92, y.shape)
    (dx, grads), (spared, same) = backprop(dy), backprop(dy, with_dx=False)
    assert dx.shape == (6, 4)
    assert spared is None
    for one, other in zip(grads, same, strict=True):
        same_bits(one, other)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("which", range(3), ids=["x", "weight", "dy"])
@pytest.mark.parametrize("geometry", ["plain", "padding"])
@pytest.mark.parametrize("deep", [9, 128])
def test_conv2d_beside_what_is_not_finite(
    which: int, value: float, geometry: str, deep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_products, "DEEP", deep)
    given = [normal(93, (2, 5, 6, 3)), normal(94, (3, 3, 3, 4))]
    given.append(normal(95, conv2d(given[0], given[1], **GEOMETRIES[geometry])[0].shape))
    given[which][1, 2, 2, 1] = value

    def everything() -> tuple[Any, ...]:
        y, backprop = conv2d(given[0], given[1], **GEOMETRIES[geometry])
        return y, *backprop(given[2])[:2]

    fast, slow = everything(), portable(monkeypatch, everything)
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(np.isfinite(one), np.isfinite(other))
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
    assert not np.isfinite(np.concatenate([one.ravel() for one in fast])).all()


def test_conv2d_of_an_empty_batch() -> None:
    y, backprop = conv2d(normal(37, (0, 5, 6, 3)), normal(38, (3, 2, 3, 4)), normal(39, (4,)))
    dx, dweight, dbias = backprop(y)
    assert (y.shape, dx.shape) == ((0, 3, 5, 4), (0, 5, 6, 3))
    assert not dweight.any()
    assert dbias is not None
    assert not dbias.any()


@pytest.mark.parametrize("window", [[2, 2], [3, 2], [1, 4], [1, 1], [6, 8]])
def test_an_average_over_tiles_is_spread_as_it_would_be_scattered(
    window: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, dy = normal(61, (2, 6, 8, 3)), normal(62, (2, 6 // window[0], 8 // window[1], 3))
    _, backprop = avg_pool2d(x, window=window)
    fast = backprop(dy)
    monkeypatch.setattr(Axis, "tiles", False)
    same_bits(fast, backprop(dy))


def test_what_tiles() -> None:
    plain = {"size": 6, "window": 2, "stride": 2, "before": 0, "after": 0}
    assert Axis(**plain, dilation=1, outputs=3).tiles
    for change in ({"stride": 1}, {"size": 7}, {"before": 1}, {"after": 1}, {"window": 1}):
        assert not Axis(**{**plain, **change}, dilation=1, outputs=3).tiles
    assert not Axis(**plain, dilation=2, outputs=3).tiles


# The trainer: it gives its own gradients up to the clip, and nobody else's.

MLP: list[dict[str, Any]] = [
    {"operation": "layer.dense", "units": 5},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 3},
]
PRUNE = {
    "score": "score.gradient",
    "schedule": {"operation": "schedule.constant", "final": 0.4, "end": 9},
    "parameters": [0, 2],
}


def plan(max_norm: float = 0.01, **parts: Any) -> trainer.Plan:
    clip = {"operation": "clip.global_norm", "max_norm": max_norm}
    return trainer.Plan({"operation": "optim.sgd", "lr": 0.5, "momentum": 0.9}, clip=clip, **parts)


# Clipped to 1e-44 the gradients are all but equal, and would choose another mask than before the clip.
@pytest.mark.parametrize(
    "parts", [{}, {"prune": PRUNE, "max_norm": 1e-44}], ids=["dense", "pruned by gradient"]
)
def test_training_in_reused_memory_gives_the_same_bits(parts: dict[str, Any]) -> None:
    steps = [[(normal(70 + i, (6, 4)), np.arange(6) % 3)] for i in range(4)]
    loss = {"operation": "loss.softmax_cross_entropy"}
    start = trainer.start(plan(**parts), models.initial_params(MLP, (4,), 0))
    trace = trainer.Trace()
    listened = trainer.train(MLP, loss, plan(**parts), start, steps, trace)
    alone = trainer.train(MLP, loss, plan(**parts), start, steps)
    for one, other in zip(alone.params, listened.params, strict=True):
        same_bits(one, other)
    assert all(float(norm) > 0.01 for norm in trace.of("penalty", "total_norm"))


@pytest.mark.parametrize("reuse", [False, True])
def test_a_step_writes_to_gradients_only_if_they_are_given_up(reuse: bool) -> None:
    given = plan()
    grads = [normal(80, (4, 2))]
    before = grads[0].copy()
    trainer.train_step(given, trainer.start(given, [normal(81, (4, 2))]), [grads], reuse=reuse)
    assert np.array_equal(grads[0], before) is not reuse


def test_a_norm_that_overflows_is_no_reason_to_skip_a_step() -> None:
    given = plan()
    grads: list[Any] = [np.full(8, 3e38, np.float32)]
    assert np.isinf(global_norm(grads))
    state = trainer.train_step(given, trainer.start(given, [float32(*range(8))]), [grads])
    assert state.optimizer["step"] == [1]


# Blocks and threads: every element by itself, so both forms give the same bits.

OPTIMIZERS: dict[str, Callable[..., optimizers.Optimizer]] = {
    "sgd": lambda **options: optimizers.sgd(momentum=0.9, nesterov=True, **options),
    "sgd without state": optimizers.sgd,
    "adam": lambda **options: optimizers.adam(amsgrad=True, **options),
    "rmsprop": lambda **options: optimizers.rmsprop(centered=True, momentum=0.5, **options),
    "adagrad": optimizers.adagrad,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("decay", ["coupled", "decoupled"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_optimizers_in_blocks(
    name: str, decay: str, dtype: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_forms, "BLOCK", 7)
    monkeypatch.setattr(numpy_forms, "THREADED_FROM", 21)
    monkeypatch.setattr(numpy_threads, "THREADS", 3)
    optimizer = OPTIMIZERS[name](lr=0.1, weight_decay=0.01, decay=decay)

    def steps() -> Any:
        params = [normal(96 + i, (11, 13), dtype) for i in range(2)]
        params = [np.asfortranarray(p) for p in params] if layout == "F" else params
        state = optimizer.init(params)
        for step in range(3):
            grads = [normal(98 + step, (11, 13), dtype), None if step == 1 else params[0]]
            before = [p.copy() for p in params]
            new, state = optimizer.update(params, grads, state)
            for given, kept in zip(params, before, strict=True):
                same_bits(given, kept)
            params = new
        return params, state

    (fast, fast_state), (slow, slow_state) = steps(), portable(monkeypatch, steps)
    assert fast_state.keys() == slow_state.keys()
    assert fast_state["step"] == slow_state["step"] == [3, 2]
    for slot in fast_state.keys() - {"step"}:
        for one, other in zip(fast_state[slot], slow_state[slot], strict=True):
            same_bits(one, other)
    for one, other in zip(fast, slow, strict=True):
        same_bits(one, other)


# Products: the terms of a sum are added in pieces, each sum off by at most its count of roundings.


@pytest.mark.parametrize(
    ("rows", "k", "n"),
    [(700, 5, 3), (5, 700, 3), (5, 3, 701), (64, 64, 64), (37, 41, 43), (0, 700, 3), (700, 0, 3)],
)
@pytest.mark.parametrize("turned", [False, True])
def test_products_in_pieces(
    rows: int, k: int, n: int, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_products, "SMALL", 1000)
    a, b = normal(99, (rows, k)), normal(100, (n, k) if turned else (k, n))
    b = b.T if turned else b
    exact, size = a.astype(np.float64) @ b, abs(a.astype(np.float64)) @ abs(b)
    answers = []
    for threads in (1, 3):
        monkeypatch.setattr(numpy_threads, "THREADS", threads)
        answers.append(matmul(np, a, b))
    same_bits(*answers)
    assert answers[0].dtype == np.float32
    assert (abs(answers[0] - exact) <= 2 * k * UNIT["float32"] * size).all()


# The loss by index.


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 1), (6, 4), (70, 9)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_softmax_cross_entropy(
    dtype: str, shape: tuple[int, int], order: Any, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.asarray(normal(5, shape, dtype) * 9, order=order)
    targets = np.random.default_rng(6).integers(0, shape[1], shape[0])
    if shape[0] > 5:
        logits[0], logits[1, 0], logits[2, 1], logits[3, 2] = -0.0, np.inf, -np.inf, np.nan
        targets[2] = 1

    def run() -> Any:
        options = {"empty_mean": "undefined"} if shape[0] == 0 else {}
        loss, backprop = losses.softmax_cross_entropy(logits, targets, reduction, **options)
        return loss, backprop(), backprop()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for one, other in zip(run(), portable(monkeypatch, run), strict=True):
            same_bits(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("target", [-1, 4, -(2**63), 2**63 - 1])
def test_a_target_outside_the_classes(target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        with pytest.raises(ValueError, match="less than the 4 classes"):
            losses.softmax_cross_entropy(normal(1, (2, 4)), np.array([3, target]))

    refused()
    portable(monkeypatch, refused)
