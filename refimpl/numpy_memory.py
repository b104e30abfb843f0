"""Memory for NumPy's large results, taken again as soon as nobody uses it.

A large array that is freed goes back to the operating system, and the next one of its size comes
from there again, a page at a time, with every core told of both. A training step makes the arrays
of the step before once more; here they get the memory of those. A block is free when the list of
blocks is all that refers to it: every array in it, and every view of one, holds it as its ``base``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

SMALLEST, LARGEST = 2**18, 2**27
"""A block of fewer bytes is not worth keeping, and one of more is too much to keep."""

KEPT = 2**28
"""So many bytes in all may wait for their next use."""

_blocks: dict[int, list[Any]] = {}
_lock = Lock()


def empty(shape: Sequence[int], dtype: Any) -> Any:
    """Return an array with any content, as ``numpy.empty`` does."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if not SMALLEST <= size <= LARGEST:
        return np.empty(shape, dtype)
    with _lock:
        blocks = _blocks.setdefault(size, [])
        unused = _unused(blocks)
        if not unused:
            _forget(size)
            unused = [len(blocks)]
            blocks.append(np.empty(size, np.uint8))
        return np.ndarray(shape, dtype, blocks[unused[0]])


def zeros(shape: Sequence[int], dtype: Any) -> Any:
    """Return zeros in memory that has been used before, which the operating system need not find."""
    array = empty(shape, dtype)
    array[...] = 0
    return array


def release() -> None:
    """Give back to the system whatever waits for its next use."""
    with _lock:
        for blocks in _blocks.values():
            for index in reversed(_unused(blocks)):
                del blocks[index]


class Scratch:
    """Memory of one thread for what is soon written over: for each name the same, so it stays in the cache."""

    def __init__(self, dtype: Any) -> None:
        """Take the dtype of everything."""
        self.dtype = np.dtype(dtype)
        self._arrays: dict[str, Any] = {}

    def __call__(self, name: str, shape: Sequence[int]) -> Any:
        """Return an array with any content, which lasts until the next one of this name is written to."""
        size = math.prod(shape)
        known = self._arrays.get(name)
        if known is None or known.size < size:
            known = self._arrays[name] = empty((size,), self.dtype)
        return known[:size].reshape(shape)


def _unused(blocks: list[Any]) -> list[int]:
    return [index for index, count in enumerate(_references(blocks)) if count == _UNUSED]


def _references(blocks: list[Any]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


(_UNUSED,) = _references([np.empty(1, np.uint8)])
"""What is counted of a block that only its list refers to, which differs from one Python to the next."""


def _forget(wanted: int) -> None:
    """Free blocks that nobody uses, until so many bytes more may be kept."""
    waiting = {size: _unused(blocks) for size, blocks in _blocks.items()}
    excess = sum(size * len(unused) for size, unused in waiting.items()) + wanted - KEPT
    for size, unused in waiting.items():
        for index in reversed(unused):
            if excess > 0:
                del _blocks[size][index]
                excess -= size
