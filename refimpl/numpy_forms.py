"""What NumPy can do faster than the array API standard can say.

Every function here has a portable twin that says the same in the standard's own words; which of the
two runs is decided in :mod:`refimpl.arrays`, and ``tests/refimpl/test_fast_paths.py`` holds the pairs
together. Two facts about NumPy on a CPU shaped this module: a branch per element (``np.where`` with an
unpredictable condition) costs ten times a multiplication, and a large temporary array costs more in
page faults than the arithmetic that fills it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}

SQUARES_AT_ONCE = 512
"""So many squares are added in the array's own dtype; their sums are added in float64."""


def smallest(keys: Sequence[Any], k: int) -> Any:
    """Return :func:`refimpl.arrays.smallest` by partition: O(n), and no index array for a single key.

    The k-th smallest value of the first key divides the entries into those that are in, those that
    are out, and its equals, of which the remaining keys (at last the index) choose as many as miss.
    """
    key, *rest = keys
    size = key.shape[0]
    if k <= 0 or k >= size:
        return np.full(size, k > 0)
    pivot = np.partition(key, k - 1)[k - 1]
    chosen = key < pivot
    missing = k - int(np.count_nonzero(chosen))
    equal = np.flatnonzero(key == pivot)
    if missing < equal.size and rest:
        equal = equal[smallest([other[equal] for other in rest], missing)]
    chosen[equal[:missing]] = True
    return chosen


def where_or_zero(kept: Any, array: Any) -> Any:
    """Return :func:`refimpl.arrays.where_or_zero` without a branch: the bits times 0 or 1."""
    unsigned = _BITS.get(array.dtype.itemsize)
    if unsigned is None or array.dtype.kind == "c":
        return np.where(kept, array, np.zeros_like(array))
    return np.asarray(np.multiply(array.view(unsigned), kept)).view(array.dtype)


def sum_of_squares(arrays: Sequence[Any], dtype: Any) -> float | None:
    """Return the sum of squares over all arrays, read from memory once; None if it cannot be trusted.

    ``dtype`` (float32 or float64) is that of the squares. They may overflow, and where the sum is
    small, squares that vanish may be missing in it: then the caller has to scale first. What can
    vanish is less than the smallest normal number for each element, so a sum of more than 2^30
    times all of that has lost nothing that its last digit could show.
    """
    total, count = 0.0, 0
    for array in arrays:
        flat = array.ravel(order="K")
        whole = flat.size - flat.size % SQUARES_AT_ONCE
        for part in flat[:whole].reshape(-1, SQUARES_AT_ONCE), flat[whole:]:
            wide = part.astype(dtype, copy=False)
            total += float(np.sum(np.vecdot(wide, wide), dtype=np.float64))
        count += flat.size
    least = count * float(np.finfo(dtype).tiny) * 2.0**30
    return total if least <= total <= float(np.finfo(dtype).max) else None
