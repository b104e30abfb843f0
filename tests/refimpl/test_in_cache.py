"""The convolutions that a model begins with, as one pass, beside the same layers one by one."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from refimpl import models, numpy_images, numpy_products, numpy_threads
from refimpl.layers import conv2d, conv2d_in_cache, in_cache

RELU = {"operation": "layer.relu"}


def conv(filters: int, kernel: list[int], **options: Any) -> dict[str, Any]:
    return {"operation": "layer.conv2d", "filters": filters, "kernel": kernel, **options}


def pool(height: int, width: int, **options: Any) -> dict[str, Any]:
    return {"operation": "layer.avg_pool2d", "window": [height, width], **options}


MODELS: dict[str, tuple[list[dict[str, Any]], int]] = {
    "all": ([conv(3, [3, 2]), RELU, conv(4, [2, 2]), RELU, pool(2, 2), conv(2, [2, 2]), RELU], 7),
    "no relu": ([conv(3, [2, 2]), conv(4, [1, 2]), pool(1, 2)], 3),
    "pool, then relu": ([conv(3, [2, 3]), pool(2, 1), RELU, conv(4, [2, 3]), RELU], 2),
    "geometry": (
        [
            conv(3, [3, 2], stride=[1, 2], padding=[[1, 2], [0, 3]]),
            RELU,
            conv(4, [2, 3], padding=[[0, 1], [2, 0]], dilation=[2, 1]),
            RELU,
        ],
        4,
    ),
    "equal steps": (2 * [conv(2, [3, 3], padding=[[1, 1], [1, 1]]), RELU], 4),
    "two pools": ([conv(3, [2, 1]), RELU, pool(2, 2), pool(2, 1), RELU], 3),
}
"""Models, and how many of their layers are one pass."""


def layer_by_layer(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(numpy_images, "run", lambda *_: None)
        return function()


def whole_numbers(seed: int, shape: tuple[int, ...], dtype: str) -> Any:
    """Return integers, whose sums and quarters are exact in any order."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def gradients(model: Any, params: Any, x: Any, with_dx: bool, seed: int = 3) -> list[Any]:
    y, backprop = models.forward(model, params, x)
    dx, grads = backprop(whole_numbers(seed, y.shape, x.dtype), with_dx=with_dx)
    return [y, dx, *grads]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("with_dx", [True, False])
@pytest.mark.parametrize(
    ("images", "cache"), [(0, 2**20), (1, 1), (5, 1000), (37, 10**4), (37, 2**20)]
)
def test_a_pass_gives_what_its_layers_give(
    name: str, dtype: str, with_dx: bool, images: int, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv2d_in_cache, "CACHE", cache)
    monkeypatch.setattr(in_cache, "THREADED_FROM", 0)
    model, taken = MODELS[name]
    shapes = [p.shape for p in models.initial_params(model, (9, 8, 2), 0)]
    params = [whole_numbers(seed, shape, dtype) for seed, shape in enumerate(shapes)]
    x = whole_numbers(20, (images, 9, 8, 2), dtype)
    before = [array.copy() for array in (x, *params)]
    found: Any = numpy_images.run(model, params, x)
    assert found[2] == taken
    got = gradients(model, params, x, with_dx)
    known = layer_by_layer(monkeypatch, lambda: gradients(model, params, x, with_dx))
    for one, other in zip(got, known, strict=True):
        assert (one is None) is (other is None)
        if one is not None:
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            # Zeros by value: a sum of products that are all 0 may be -0.0 in one order only.
            np.testing.assert_array_equal(one, other)
    for array, copy in zip((x, *params), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_relu_makes_no_negative_zero() -> None:
    model = [conv(1, [1, 1]), RELU]
    params = [np.full((1, 1, 1, 1), -0.0, np.float32), np.full(1, -0.0, np.float32)]
    y, _ = models.forward(model, params, np.ones((1, 2, 2, 1), np.float32))
    assert not np.signbit(y).any()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("which", range(3), ids=["x", "weight", "dy"])
@pytest.mark.parametrize("name", ["all", "no relu"])
def test_a_pass_beside_what_is_not_finite(
    name: str, which: int, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, taken = MODELS[name]
    model = model[:taken]
    params = models.initial_params(model, (9, 8, 2), 5)
    given = [np.random.default_rng(6).standard_normal((3, 9, 8, 2)).astype("float32"), params[2]]
    y, _ = models.forward(model, params, given[0])
    given.append(np.ones_like(y))
    # Of dy an entry that ReLU lets pass.
    given[which].reshape(-1)[y.argmax() if which == 2 else 3] = value

    def everything() -> list[Any]:
        y, backprop = models.forward(model, params, given[0])
        dx, grads = backprop(given[2])
        return [y, dx, *grads]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        got, known = everything(), layer_by_layer(monkeypatch, everything)
    assert not all(np.isfinite(array).all() for array in got)
    for one, other in zip(got, known, strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        np.testing.assert_array_equal(np.isinf(one), np.isinf(other))


def test_a_pass_has_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_cache, "THREADED_FROM", 0)
    model, _ = MODELS["all"]
    params = models.initial_params(model, (9, 8, 2), 7)
    x = np.random.default_rng(8).standard_normal((37, 9, 8, 2)).astype("float32")
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(numpy_threads, "THREADS", threads)
        results.append([array.tobytes() for array in gradients(model, params, x, True)])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        ([RELU, conv(1, [1, 1])], "float32"),
        ([conv(1, [1, 1])], "float32"),
        ([conv(2, [1, 1], groups=2), RELU], "float32"),
        ([conv(1, [1, 1]), {**RELU, "nan": "zero"}], "float32"),
        ([conv(1, [1, 1]), pool(2, 2, stride=[1, 1])], "float32"),
        ([conv(1, [1, 1]), pool(2, 3)], "float32"),
        ([conv(1, [1, 1]), RELU], "float16"),
    ],
    ids=["relu-first", "nothing-to-join", "groups", "dial", "overlap", "rest", "16-bits"],
)
def test_what_is_no_pass(model: Any, dtype: str) -> None:
    params = models.initial_params(model, (4, 4, 2), 0, dtype)
    assert numpy_images.run(model, params, np.zeros((3, 4, 4, 2), dtype)) is None


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        ([conv(1, [2, 2], unknown=1), RELU], [(2, 2, 2, 1), (1,)]),
        ([conv(1, [2, 2]), RELU], [(2, 2, 3, 1), (1,)]),
        ([conv(1, [2, 2]), RELU], [(2, 2, 2, 1), (2,)]),
        ([conv(1, [5, 2]), RELU], [(5, 2, 2, 1), (1,)]),
        ([conv(1, [2, 2]), conv(1, [4, 4])], [(2, 2, 2, 1), (1,), (4, 4, 1, 1), (1,)]),
        ([conv(1, [2, 2]), pool(0, 1)], [(2, 2, 2, 1), (1,)]),
        ([conv(1, [2, 2]), RELU], [(2, 2, 2, 1)]),
    ],
    ids=["option", "channels", "bias", "kernel", "second", "window", "too-few"],
)
def test_a_pass_refuses_what_its_layers_refuse(
    model: Any, shapes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = [np.ones(shape, np.float32) for shape in shapes]

    def refusal() -> str:
        with pytest.raises((ValueError, TypeError)) as caught:
            models.forward(model, params, np.ones((3, 4, 4, 2), np.float32))
        return str(caught.value)

    assert refusal() == layer_by_layer(monkeypatch, refusal)


@pytest.mark.parametrize("channels", [(0, 3), (2, 0), (0, 0)], ids=["inner", "outer", "both"])
@pytest.mark.parametrize("relu", [False, True])
def test_no_channels(channels: tuple[int, int], relu: bool) -> None:
    inner, outer = channels
    model = [conv(outer, [2, 2]), *([RELU] if relu else [conv(1, [1, 1])])]
    params = [np.ones((2, 2, inner, outer), np.float32), np.full(outer, 3, np.float32)]
    params += [] if relu else [np.ones((1, 1, outer, 1), np.float32), np.ones(1, np.float32)]
    y, backprop = models.forward(model, params, np.ones((3, 4, 4, inner), np.float32))
    dx, grads = backprop(np.ones_like(y))
    assert y.shape == (3, 3, 3, outer if relu else 1)
    assert (y == (3 if relu else 3 * outer + 1)).all()
    assert (dx.shape, dx.sum() == 0) == ((3, 4, 4, inner), 0 in channels)
    np.testing.assert_array_equal(grads[1], 27)


def test_dy_must_fit_what_a_pass_gave() -> None:
    model, _ = MODELS["no relu"]
    params = models.initial_params(model, (9, 8, 2), 0)
    y, backprop = models.forward(model, params, np.ones((3, 9, 8, 2), np.float32))
    with pytest.raises(ValueError, match="dy must have shape"):
        backprop(y[:2])


@pytest.mark.parametrize("deep", [16, 128])
def test_memory_does_not_grow_with_the_image(deep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv2d_in_cache, "CACHE", 2**16)
    monkeypatch.setattr(numpy_products, "DEEP", deep)
    rng = np.random.default_rng(9)
    weight = rng.standard_normal((3, 3, 4, 4)).astype(np.float32)
    peaks = []
    for height in (400, 800):
        x = rng.standard_normal((1, height, 30, 4)).astype(np.float32)
        y, backprop = conv2d(x, weight)
        tracemalloc.start()
        backprop(y)
        peaks.append((tracemalloc.get_traced_memory()[1], x.nbytes))
        tracemalloc.stop()
    (small, x_small), (large, x_large) = peaks
    # Beside arrays as large as x and y (dx, and where x, dx and dy stand) there is what the cache holds.
    assert large - small < 5 * (x_large - x_small)
    assert large < 5 * x_large + 8 * 2**16


def steps(model: Any, seed: int, images: int = 11) -> list[bytes]:
    """Return the bits of what a pass gives forward and back."""
    params = models.initial_params(model, (9, 8, 2), seed)
    x = np.random.default_rng(seed).standard_normal((images, 9, 8, 2)).astype("float32")
    return [array.tobytes() for array in gradients(model, params, x, True, seed)]


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_cache, "kept", in_cache.Kept())


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("name", MODELS)
def test_a_kept_workspace_forgets_what_it_computed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv2d_in_cache, "CACHE", 10**4)
    model, _ = MODELS[name]
    first = steps(model, 3)
    params = [np.full_like(p, np.nan) for p in models.initial_params(model, (9, 8, 2), 4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gradients(model, params, np.full((11, 9, 8, 2), np.inf, np.float32), True)
    other = steps(model, 5, images=13)
    assert steps(model, 3) == first
    monkeypatch.setattr(in_cache, "kept", in_cache.Kept())
    assert steps(model, 5, images=13) == other


@pytest.mark.usefixtures("nothing_kept")
def test_workspaces_are_kept_but_not_too_many_and_not_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def made(filters: int, kernel: list[int]) -> int:
        """Return how many workspaces have been made when this convolution is done."""
        params = [np.ones((*kernel, 2, filters), np.float32), np.ones(filters, np.float32)]
        models.forward([conv(filters, kernel), RELU], params, np.ones((11, 9, 8, 2), np.float32))
        info = in_cache.kept.forward.cache_info()
        assert info.currsize <= in_cache.KEPT
        return info.misses

    assert [made(3, [3, 2]) for _ in range(3)] == [1, 1, 1]
    others = [made(filters, [2, 2]) for filters in range(1, in_cache.KEPT)]
    assert others == list(range(2, in_cache.KEPT + 1))
    assert made(3, [3, 2]) == in_cache.KEPT
    assert made(1, [1, 1]) == in_cache.KEPT + 1
    assert made(1, [2, 2]) == in_cache.KEPT + 2  # the one that had waited longest had gone
    monkeypatch.setattr(in_cache, "LARGEST", 11 * 9 * 8 * 5 * 4 - 1)
    assert made(5, [1, 1]) == in_cache.KEPT + 2
    monkeypatch.setattr(in_cache, "LARGEST", 11 * 9 * 8 * 5 * 4)
    assert made(5, [1, 1]) == in_cache.KEPT + 3


def test_threads_have_workspaces_of_their_own() -> None:
    model, _ = MODELS["all"]
    known = [steps(model, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(lambda seed: steps(model, seed), range(4))) == known
