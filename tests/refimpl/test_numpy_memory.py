"""Memory that is lent again: never while an array or a view of it lives, and never too much of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from refimpl import numpy_memory
from refimpl.numpy_memory import Scratch, empty, zeros

SHAPE = (300, 400)
SIZE = 300 * 400 * 4


@pytest.fixture(autouse=True)
def no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_memory, "_blocks", {})
    return


def kept() -> int:
    return sum(size * len(blocks) for size, blocks in numpy_memory._blocks.items())


def address(array: Any) -> int:
    where: int = array.__array_interface__["data"][0]
    return where


def test_what_nobody_uses_is_taken_again() -> None:
    first = empty(SHAPE, np.float32)
    where = address(first)
    del first
    again = empty((SIZE // 8,), np.float64)
    assert address(again) == where
    assert (again.shape, again.dtype) == ((SIZE // 8,), np.float64)
    assert kept() == SIZE


@pytest.mark.parametrize(
    "view", [lambda a: a[3:], lambda a: a.reshape(-1)[::2].T, lambda a: a.view(np.uint32)[0]]
)
def test_a_view_keeps_its_memory(view: Any) -> None:
    first = empty(SHAPE, np.float32)
    first[...] = 1
    seen = view(first)
    before = seen.copy()
    del first
    empty(SHAPE, np.float32)[...] = 2
    assert np.array_equal(seen, before)


def test_arrays_that_live_share_nothing() -> None:
    arrays = [empty(SHAPE, np.float32) for _ in range(4)]
    for number, array in enumerate(arrays):
        array[...] = number
    assert [float(array.max()) for array in arrays] == [0, 1, 2, 3]


def test_small_and_very_large_arrays_are_not_kept() -> None:
    empty((10,), np.float32)
    empty((numpy_memory.LARGEST + 1,), np.uint8)
    empty((0, 5), np.float32)
    assert kept() == 0


def test_no_more_than_so_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_memory, "KEPT", 3 * SIZE)
    held = [empty((300, 400 + extra), np.float32) for extra in range(5)]
    assert kept() > 5 * SIZE  # what is in use is not limited
    held.clear()
    empty((400, 400), np.float32)
    assert kept() <= 3 * SIZE


def test_what_waits_can_be_given_back_and_nothing_else() -> None:
    held, waiting = empty(SHAPE, np.float32), empty((300, 401), np.float32)
    held[...] = 3
    del waiting
    numpy_memory.release()
    assert kept() == SIZE
    empty(SHAPE, np.float32)[...] = 4
    assert (held == 3).all()


def test_threads_get_memory_of_their_own() -> None:
    def work(number: int) -> bool:
        good = True
        for _ in range(50):
            array = empty(SHAPE, np.float32)
            array[...] = number
            good = good and bool((array == number).all())
        return good

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_zeros_in_memory_that_was_used() -> None:
    used = empty(SHAPE, np.float32)
    used[...] = np.nan
    where = address(used)
    del used
    again = zeros(SHAPE, np.float32)
    assert address(again) == where
    assert not again.any()


def test_scratch_is_one_memory_for_a_name() -> None:
    scratch = Scratch(np.float32)
    one, other = scratch("one", (3, 4)), scratch("other", (3, 4))
    assert not np.shares_memory(one, other)
    smaller = scratch("one", (5, 2))
    assert (smaller.shape, smaller.dtype) == ((5, 2), np.float32)
    assert address(smaller) == address(one)
    larger = scratch("one", (13,))
    assert not np.shares_memory(larger, one)
    assert address(scratch("one", (3, 4))) == address(larger)
