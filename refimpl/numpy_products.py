"""Large matrix products in pieces so small that one thread computes each without copying it.

A BLAS packs the operands of a large product into an order of its own and shares the product among
threads, which then wait for each other. Here the threads are outside (:mod:`refimpl.numpy_threads`),
so each product has to be one thread's; and those that fit the cache as they are need no packing.
NumPy makes one call for each matrix of a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from .numpy_memory import Scratch, empty
from .numpy_threads import dealt, in_parallel

SMALL = 2**19
"""Multiplications from which on OpenBLAS uses a second thread."""

DEEP = 128
"""So many rows of a matrix, of as many columns as a product takes at once, stay in a core's first cache."""

EVEN = 16
"""Pieces of a multiple of so many rows leave no odd rows, which take as long as many."""

WORTHWHILE = 8
"""With fewer rows to a piece than this, a large product is the quicker one."""


Program = list[tuple[Any, ...]]
"""Functions of NumPy, each with what it writes to and what it takes: arrays that stay where they are."""

Calls = list[Callable[[], Any]]


def calls(program: Program) -> Calls:
    """Return a program as calls that need no more arguments.

    Between two calls of NumPy a thread holds Python's lock, and the others that come back from one wait.
    """
    return [
        partial(np.copyto, out, *given) if function is copy else partial(function, *given, out=out)
        for function, out, *given in program
    ]


def execute(calls: Calls) -> None:
    """Make one call after the other."""
    for call in calls:
        call()


def copy(given: Any, *, out: Any) -> None:
    """Write an array to another one.

    NumPy's arithmetic takes five times as long as its copies where the last axes of an array do not lie
    side by side: it copies their numbers to a buffer and back.
    """
    np.copyto(out, given)


def product(a: Any, b: Any) -> Any:
    """Return ``a @ b``, for matrices (rows, k) and (k, n), its pieces dealt out to the threads.

    The longest of the three axes is divided. OpenBLAS's own threads would wait for the next large
    product on a core that ours have use for.
    """
    (rows, k), n = a.shape, b.shape[1]
    if rows * k * n < SMALL:
        return np.matmul(a, b)
    longest = max(rows, k, n)
    at_once = (SMALL - 1) // (rows * k * n // longest)
    if at_once < WORTHWHILE:
        return np.matmul(a, b)
    if k == longest:
        whole, pieces = k - k % at_once, k // at_once
        left, right = _columns(a[:, :whole], pieces), b[:whole].reshape(pieces, at_once, n)
        sums = in_parallel(
            lambda: lambda part: np.matmul(left[part], right[part]).sum(0), dealt(pieces)
        )
        total = np.matmul(a[:, whole:], b[whole:])
        for each in sums:
            total += each
        return total
    out = empty((rows, n), a.dtype)
    if rows == longest:
        _by_rows(a, b, out, at_once)
    else:
        # The rows of the transposed product, which BLAS reads as they are if b is one itself.
        _by_rows(b.T, np.ascontiguousarray(a.T), out.T, at_once)
    return out


def _by_rows(a: Any, b: Any, out: Any, at_once: int) -> None:
    """Write ``a @ b`` to ``out``, so many rows at a time."""
    at_once -= at_once % EVEN if at_once > EVEN else 0
    rows = len(a)
    whole, pieces = rows - rows % at_once, rows // at_once
    left, target = (_columns(each[:whole].T, pieces).transpose(0, 2, 1) for each in (a, out))
    np.matmul(a[whole:], b, out=out[whole:])
    in_place = out.flags.c_contiguous

    def work(part: slice) -> None:
        if in_place:
            np.matmul(left[part], b, out=target[part])
        else:
            np.copyto(target[part], np.matmul(left[part], b))

    in_parallel(lambda: work, dealt(pieces))


def _columns(matrix: Any, pieces: int) -> Any:
    """Return a matrix as a stack of so many, each with its share of the columns: a view."""
    return matrix.reshape(len(matrix), pieces, -1).transpose(1, 0, 2)


def sum_of_products(factors: Iterable[tuple[Any, Any]], out: Any, spare: Any) -> Program:
    """Write the sum of ``a @ b`` over the pairs, stacks (n, rows, k) and matrices (k, m), to ``out``.

    ``out`` and ``spare``, which is written to, are (n, rows, m).
    """
    program: Program = []
    for a, b in factors:
        for part in _slices(*b.shape):
            target = spare if program else out
            multiplied = _multiply(a[..., part], b[part], target)
            program += [*multiplied, (np.add, out, out, spare)] if program else multiplied
    return program


def _multiply(a: Any, b: Any, out: Any) -> Program:
    (n, rows, k), m = a.shape, b.shape[1]
    whole, pieces = _pieces(rows, k * m)
    program: Program = []
    if whole:
        shape = n, pieces, whole // pieces
        target = out[:, :whole].reshape(*shape, m)
        program.append((np.matmul, target, a[:, :whole].reshape(*shape, k), b))
    if whole < rows:
        program.append((np.matmul, out[:, whole:], a[:, whole:], b))
    return program


def gram(a: Any, b: Any, total: Any, scratch: Scratch) -> Program:
    """Add the sum of ``a.T @ b`` over stacks (n, rows, k) and (n, rows, m) to ``total`` (k, m)."""
    program: Program = []
    n, rows, m = b.shape
    for part in _slices(*total.shape):
        target = total[part].reshape(-1)
        whole, pieces = _pieces(rows, target.size)
        for within, count in ((slice(0, whole), pieces), (slice(whole, rows), 1)):
            left, right = a[:, within, part], b[:, within]
            if 0 in left.shape:
                continue
            shape = n, count, left.shape[1] // count
            left = left.reshape(*shape, left.shape[2]).transpose(0, 1, 3, 2)
            products = scratch("products", (n, count, left.shape[2], m))
            flat, added = products.reshape(n * count, target.size), scratch("sum", target.shape)
            program.append((np.matmul, products, left, right.reshape(*shape, m)))
            if len(flat) > 1:
                # The sum of the products as one more product reads them once.
                program.append((np.matmul, added, np.ones(len(flat), a.dtype), flat))
            program.append((np.add, target, target, added if len(flat) > 1 else flat[0]))
    return program


def _slices(k: int, m: int) -> list[slice]:
    """Return the slices of at most DEEP that divide an axis, or one if pieces would have few rows."""
    deep = DEEP if EVEN * DEEP * m < SMALL else k
    return [slice(start, start + deep) for start in range(0, max(k, 1), max(deep, 1))]


def _pieces(rows: int, size: int) -> tuple[int, int]:
    """Return how many of the rows make pieces that one thread computes, and how many pieces."""
    at_once = min(rows, (SMALL - 1) // max(size, 1))
    if at_once < WORTHWHILE:
        return 0, 0
    even = next((size for size in range(at_once, at_once // 2, -1) if rows % size == 0), at_once)
    return rows - rows % even, rows // even
