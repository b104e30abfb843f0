"""Threads and small products of the fast forms: the same results, however many threads there are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refimpl import numpy_products, numpy_threads
from refimpl.layers import conv2d
from refimpl.numpy_memory import Scratch
from refimpl.numpy_products import SMALL, calls, execute, gram, sum_of_products
from refimpl.numpy_threads import in_parallel


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(numpy_threads, "THREADS", request.param)
    return int(request.param)


def test_each_part_is_done_once_and_results_keep_their_order(threads: int) -> None:
    made: list[int] = []

    def prepare() -> Callable[[int], int]:
        made.append(threading.get_ident())
        return lambda part: part * part

    assert in_parallel(prepare, range(40)) == [part * part for part in range(40)]
    assert 1 <= len(made) <= threads
    assert threading.get_ident() in made
    assert in_parallel(prepare, []) == []


def test_two_threads_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_threads, "THREADS", 2)
    both = threading.Barrier(2, timeout=20)
    assert sorted(in_parallel(lambda: lambda part: both.wait(), [0, 1])) == [0, 1]


def test_a_failure_is_the_callers(threads: int) -> None:
    def fail(part: int) -> None:
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part"):
        in_parallel(lambda: fail, range(6))


def test_a_part_may_have_parts(threads: int) -> None:
    inner: Callable[[int], list[int]] = lambda n: in_parallel(lambda: lambda m: n * m, range(3))  # noqa: E731
    assert in_parallel(lambda: inner, range(4)) == [[0, n, 2 * n] for n in range(4)]


def test_errstate_reaches_every_thread(threads: int) -> None:
    zero = np.zeros(1, np.float32)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        in_parallel(lambda: lambda part: 1 / zero, range(6))
    with np.errstate(divide="ignore"):
        assert np.isinf(in_parallel(lambda: lambda part: 1 / zero, range(6))).all()


@pytest.mark.parametrize(
    ("setting", "expected"), [("3", 3), ("", None), ("0", None), ("4,2", None)]
)
def test_the_number_of_threads(
    setting: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    monkeypatch.setattr(numpy_threads.os, "sched_getaffinity", lambda _: {4, 7}, raising=False)
    assert numpy_threads._default() == (expected or 2)


def test_conv2d_has_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((37, 9, 8, 3), (3, 2, 3, 5)))
    results = []
    for number in (1, 3):
        monkeypatch.setattr(numpy_threads, "THREADS", number)
        y, backprop = conv2d(x, weight, x[0, 0, :5, 0])
        results.append([np.asarray(a).tobytes() for a in (y, *backprop(y - 1))])
    assert results[0] == results[1]


# Integers in float64, so that the order of a sum does not matter.
SHAPES = [(1000, 30, 40), (3, 300, 200), (437, 1, 1200), (5, 0, 4), (0, 3, 4), (61, 299, 64)]


@pytest.mark.parametrize(("rows", "k", "m"), SHAPES)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("deep", [7, 128])
def test_programs_of_products(
    n: int, rows: int, k: int, m: int, deep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    # Views, as the rows of a larger array are.
    a, c = (rng.integers(-9, 9, (n, rows + 2, s)).astype(np.float64)[:, 1:-1] for s in (k, m))
    b = rng.integers(-9, 9, (k, m)).astype(np.float64)
    sizes: list[int] = []
    matmul = np.matmul

    def watched(left: Any, right: Any, **options: Any) -> Any:
        sizes.append(left.shape[-2] * left.shape[-1] * right.shape[-1] if left.ndim > 1 else 0)
        return matmul(left, right, **options)

    monkeypatch.setattr(numpy_products, "DEEP", deep)
    monkeypatch.setattr(np, "matmul", watched)
    out, spare = np.full((2, n, rows + 1, m), np.nan)[:, :, :-1]
    total = np.ones((k, m))
    execute(calls(sum_of_products([(a, b), (-2 * a, b)], out, spare)))
    execute(calls(gram(a, c, total, Scratch(np.float64))))
    monkeypatch.undo()
    np.testing.assert_array_equal(out, -a @ b)
    np.testing.assert_array_equal(total, 1 + (a.transpose(0, 2, 1) @ c).sum(axis=0))
    assert max(sizes, default=0) < SMALL or 8 * min(k, deep) * m >= SMALL
