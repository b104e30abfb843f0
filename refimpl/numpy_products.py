"""Large matrix products in pieces so small that one thread computes each without copying it.

A BLAS packs the operands of a large product into an order of its own and shares the product among
threads, which then wait for each other. Here the threads are outside (:mod:`refimpl.numpy_threads`),
so each product has to be one thread's; and those that fit the cache as they are need no packing.
NumPy makes one call for each matrix of a stack.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .numpy_memory import empty
from .numpy_threads import dealt, in_parallel

SMALL = 2**19
"""Multiplications from which on OpenBLAS uses a second thread."""

WORTHWHILE = 8
"""With fewer rows to a piece than this, a large product is the quicker one."""


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
    count = longest // at_once
    whole, parts = count * at_once, dealt(count)
    if k == longest:
        left, right = _columns(a, whole, at_once), b[:whole].reshape(count, at_once, n)
        sums = in_parallel(lambda: lambda part: np.matmul(left[part], right[part]).sum(0), parts)
        return sum(sums, np.matmul(a[:, whole:], b[whole:]))
    out = empty((rows, n), a.dtype)
    if rows == longest:
        left, right = a[:whole].reshape(count, at_once, k), np.broadcast_to(b, (count, k, n))
        pieces = out[:whole].reshape(count, at_once, n)
        np.matmul(a[whole:], b, out=out[whole:])
    else:
        left, right = np.broadcast_to(a, (count, rows, k)), _columns(b, whole, at_once)
        pieces = _columns(out, whole, at_once)
        np.matmul(a, b[:, whole:], out=out[:, whole:])
    in_parallel(lambda: lambda part: np.matmul(left[part], right[part], out=pieces[part]), parts)
    return out


def _columns(matrix: Any, whole: int, at_once: int) -> Any:
    """Return the first ``whole`` columns as a stack of matrices of ``at_once`` columns, a view."""
    return matrix[:, :whole].reshape(len(matrix), -1, at_once).transpose(1, 0, 2)


def multiply(a: Any, b: Any, out: Any) -> None:
    """Write ``a @ b`` to ``out``, for matrices (rows, k), (k, n) and (rows, n)."""
    (rows, k), n = a.shape, b.shape[1]
    at_once = (SMALL - 1) // max(k * n, 1)
    whole = rows - rows % at_once if at_once >= WORTHWHILE else 0
    if whole:
        shape = (whole // at_once, at_once)
        np.matmul(a[:whole].reshape(*shape, k), b, out=out[:whole].reshape(*shape, n))
    if whole < rows:
        np.matmul(a[whole:], b, out=out[whole:])


def transposed_product(a: Any, b: Any, pieces: int) -> Any:
    """Return ``a.T @ b`` as (pieces, k / pieces, n), for matrices (rows, k) and (rows, n)."""
    (rows, k), n = a.shape, b.shape[1]
    k //= pieces
    at_once = (SMALL - 1) // max(k * n, 1)
    whole = rows - rows % at_once if at_once >= WORTHWHILE else 0
    rest = a[whole:].reshape(rows - whole, pieces, k).transpose(1, 2, 0)
    total = np.matmul(rest, b[whole:])
    if whole:
        split = a[:whole].reshape(whole // at_once, at_once, pieces, k).transpose(2, 0, 3, 1)
        total += np.matmul(split, b[:whole].reshape(whole // at_once, at_once, n)).sum(axis=1)
    return total
