"""Selection with NumPy in time O(n): the k smallest of many numbers, without an order of all of them.

Beside the portable forms in :mod:`refimpl.arrays`, which sort; ``tests/refimpl/test_fast_paths.py`` holds
the pairs together. A branch for each element costs more than everything else here, so entries are
compared a block at a time while they are in the cache, and only the few near the boundary one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .numpy_forms import in_threads
from .numpy_memory import empty

AT_ONCE = 2**17
"""So many entries are compared at once, twice, while they are in the processor's cache."""

SAMPLE = 2**14
SAMPLED_FROM = 2**18
"""From so many entries on, a selection looks at a sample first."""


def smallest(keys: Sequence[Any], k: int) -> Any:
    """Return :func:`refimpl.arrays.smallest` in time O(n), and with little memory beside the mask.

    Two values of the first key between which the k-th smallest lies divide the entries into those
    that are in, those that are out, and those between, of which as many are chosen as still miss. In
    a large array the two come from a sample (Floyd & Rivest 1975, "Expected time bounds for
    selection"), else both are the k-th smallest value itself, and between them are only its equals,
    which the next key (at last the index) tells apart.
    """
    key, *rest = keys
    size = key.shape[0]
    if k <= 0 or k >= size:
        return np.full(size, k > 0)
    if size >= SAMPLED_FROM:
        low, high = _bracket(key[:: size // SAMPLE], k / size)
        chosen, between, missing = _divide(key, low, high, k)
        if 0 <= missing <= between.size < size // 2:
            chosen[between[smallest([other[between] for other in keys], missing)]] = True
            return chosen
    kth = np.partition(key, k - 1)[k - 1]
    chosen, equal, missing = _divide(key, kth, kth, k)
    if missing < equal.size and rest:
        equal = equal[smallest([other[equal] for other in rest], missing)]
    chosen[equal[:missing]] = True
    return chosen


def _divide(key: Any, low: Any, high: Any, k: int) -> tuple[Any, Any, int]:
    """Return a mask of what is below, the indices from low to high, and how many of them make k."""
    below = np.empty(key.shape, np.bool)
    between = [np.zeros(0, np.intp)]
    for start in range(0, key.shape[0], AT_ONCE):
        part, under = (array[start : start + AT_ONCE] for array in (key, below))
        np.less(part, low, out=under)
        between.append(np.flatnonzero((part <= high) > under) + start)
    return below, np.concatenate(between), k - int(np.count_nonzero(below))


def _bracket(sample: Any, share: float) -> tuple[Any, Any]:
    """Return two entries between which that share ends, unless chance is against it."""
    sample = np.sort(sample)
    last = sample.shape[0] - 1
    # Four standard deviations of how many of the sample are among the k smallest.
    margin = 4 * (last * share * (1 - share)) ** 0.5 + 1
    middle = last * share
    return sample[max(0, int(middle - margin))], sample[min(last, int(middle + margin) + 1)]


def all_but_smallest(arrays: Sequence[Any], k: int) -> list[Any]:
    """Return :func:`refimpl.arrays.all_but_smallest` without joining the arrays, in several threads."""
    flat = [array.reshape(-1) for array in arrays]
    size = sum(array.size for array in flat)
    if size >= SAMPLED_FROM and 0 < k < size:
        sample = np.concatenate([array[:: size // SAMPLE] for array in flat])
        low, high = _bracket(sample, k / size)
        divided = in_threads(lambda array: _at_least(array, low, high), flat, size)
        values = np.concatenate([values for _, _, values, _ in divided])
        missing = k - (size - sum(count for *_, count in divided))
        if 0 <= missing <= values.size < size // 2:
            going, start = smallest([values], missing), 0
            for kept, between, _, _ in divided:
                kept[between[going[start : start + between.size]]] = False
                start += between.size
            pairs = zip(divided, arrays, strict=True)
            return [kept.reshape(array.shape) for (kept, *_), array in pairs]
    kept = ~smallest([np.concatenate(flat)], k)
    ends = np.cumsum([array.size for array in flat])[:-1]
    pieces = zip(np.split(kept, ends), arrays, strict=True)
    return [piece.reshape(array.shape) for piece, array in pieces]


def _at_least(array: Any, low: Any, high: Any) -> tuple[Any, Any, Any, int]:
    """Return a mask of what is not below, where and what lies from low to high, and the mask's count."""
    kept, between, count = empty(array.shape, np.bool), [np.zeros(0, np.intp)], 0
    for start in range(0, array.shape[0], AT_ONCE):
        part, above = (each[start : start + AT_ONCE] for each in (array, kept))
        np.greater_equal(part, low, out=above)
        count += int(np.count_nonzero(above))
        between.append(np.flatnonzero((part <= high) & above) + start)
    where = np.concatenate(between)
    return kept, where, array[where], count
