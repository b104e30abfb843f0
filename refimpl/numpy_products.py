"""Large matrix products in pieces so small that one thread computes each without copying it.

A BLAS packs the operands of a large product into an order of its own and shares the product among
threads, which then wait for each other. Here the threads are outside (:mod:`refimpl.numpy_threads`),
so each product has to be one thread's; and those that fit the cache as they are need no packing.
NumPy makes one call for each matrix of a stack.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .numpy_threads import in_parallel

SMALL = 2**19
"""Multiplications from which on OpenBLAS uses a second thread."""

WORTHWHILE = 8
"""With fewer rows to a piece than this, a large product is the quicker one."""

PARTS = 16
"""Into so many parts the pieces are divided for threads, however many there are."""


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
    whole = longest - longest % at_once
    if k == longest:
        left = a[:, :whole].reshape(rows, -1, at_once).transpose(1, 0, 2)
        right = b[:whole].reshape(-1, at_once, n)
        parts = _parts(len(left))
        sums = in_parallel(lambda: lambda part: np.matmul(left[part], right[part]).sum(0), parts)
        return sum(sums, np.matmul(a[:, whole:], b[whole:]))
    out = np.empty((rows, n), a.dtype)
    if rows == longest:
        pieces, rest = out[:whole].reshape(-1, at_once, n), out[whole:]
        left = a[:whole].reshape(-1, at_once, k)
        in_parallel(
            lambda: lambda part: np.matmul(left[part], b, out=pieces[part]), _parts(len(left))
        )
        np.matmul(a[whole:], b, out=rest)
    else:
        pieces, rest = _columns(out, whole, at_once), out[:, whole:]
        right = _columns(b, whole, at_once)
        in_parallel(
            lambda: lambda part: np.matmul(a, right[part], out=pieces[part]), _parts(len(right))
        )
        np.matmul(a, b[:, whole:], out=rest)
    return out


def _columns(matrix: Any, whole: int, at_once: int) -> Any:
    """Return the first ``whole`` columns as a stack of matrices of ``at_once`` columns, a view."""
    return matrix[:, :whole].reshape(len(matrix), -1, at_once).transpose(1, 0, 2)


def _parts(pieces: int) -> list[slice]:
    step = -(-pieces // PARTS)
    return [slice(start, start + step) for start in range(0, pieces, step)]


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
