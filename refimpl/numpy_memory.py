"""Memory for NumPy's large results, taken again as soon as nobody uses it.

A large array that is freed goes back to the operating system, and the next one of its size comes
from there again, a page at a time, with every core told of both. A training step makes the arrays
of the step before once more; here they get the memory of those. A block is free when the list of
blocks is all that refers to it: every array in it, and every view of one, holds it as its ``base``.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

SMALLEST, LARGEST = 2**18, 2**27
"""Of so many bytes a block is worth keeping, and so many may be kept."""

KEPT = 2**28
"""So many bytes in all may wait for their next use."""

_blocks: dict[int, list[Any]] = defaultdict(list)
_lock = Lock()


def empty(shape: Sequence[int], dtype: Any) -> Any:
    """Return an array with any content, as ``numpy.empty`` does."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if not SMALLEST <= size <= LARGEST:
        return np.empty(shape, dtype)
    with _lock:
        for block in _blocks[size]:
            if sys.getrefcount(block) == _UNUSED:
                return np.ndarray(shape, dtype, block)
        _forget(size)
        block = np.empty(size, np.uint8)
        _blocks[size].append(block)
        return np.ndarray(shape, dtype, block)


def _forget(wanted: int) -> None:
    """Free unused blocks, the longest unused sizes first, until as many bytes more may be kept."""
    free = [
        (size, index)
        for size, blocks in _blocks.items()
        for index in range(len(blocks))
        if sys.getrefcount(blocks[index]) == _UNUSED - 1
    ]
    excess = sum(size for size, _ in free) + wanted - KEPT
    for size, index in reversed(free):
        if excess <= 0:
            return
        del _blocks[size][index]
        excess -= size


_UNUSED = 3
"""References to a block in a loop over its list: the list's, the loop's, and the question's."""
