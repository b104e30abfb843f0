"""What NumPy can do faster than the array API standard can say.

Every function here has a portable twin that says the same in the standard's own words; which of the
two runs is decided in :mod:`refimpl.arrays`, and ``tests/refimpl/test_fast_paths.py`` holds the pairs
together. Two facts about NumPy on a CPU shaped this module: a branch per element (``np.where`` with an
unpredictable condition) costs ten times a multiplication, and a large temporary array costs more in
page faults than the arithmetic that fills it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from . import numpy_threads
from .numpy_memory import empty
from .numpy_traces import traced

_RANGE = {
    4: (2.0**-126, float(np.finfo(np.float32).max)),
    8: (2.0**-1022, float(np.finfo(np.float64).max)),
}
BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}
"""The unsigned integers of a float's size, which times 0 or 1 leave its bits or clear them."""

BLOCK = 2**17
"""So many elements go through a chain of operations at once: a few arrays of them fit a core's cache."""

THREADED_FROM = 2**18
"""From so many elements on, more than one thread is worth waking."""

JOINED_UP_TO = 2**15
"""So many elements in all are joined, if they are those of several arrays, before anything is done."""

SQUARES_AT_ONCE = 2**20
"""The squares of so many elements are one thread's to add at a time."""

SUMMED = 2**13
"""Fewer squares than these are added in the array's own dtype; more in rows, and the rows' sums in float64."""

ROWS = 2**9
"""So many rows a part has, or more: for 500 products or fewer, of any length, NumPy keeps Python's lock."""

EVEN = 2**5
"""Rows of a multiple of so many squares leave no odd ones, which take as long as many."""

KEPT = 16
"""So many small arrays that depend on shapes alone are kept."""


def elementwise(function: Callable[..., Any], arrays: Sequence[Any]) -> Any:
    """Return :func:`refimpl.arrays.elementwise`, the operations taking turns on a block in the cache."""
    if not _divisible(arrays):
        return function(*arrays)
    size = arrays[0].size
    elements = [array.reshape(size)[:1] for array in arrays]
    trace = traced(function, elements)
    if trace is not None:
        results = [empty((size,), dtype) for dtype in trace.results]
        _in_blocks(lambda: trace.prepare(BLOCK), arrays, results)
    else:
        results = [empty((size,), made.dtype) for made in function(*elements)]

        def write(outs: Sequence[Any], *given: Any) -> None:
            for out, made in zip(outs, function(*given), strict=True):
                out[...] = made

        _in_blocks(lambda: write, arrays, results)
    return tuple(result.reshape(arrays[0].shape) for result in results)


def _divisible(arrays: Sequence[Any]) -> bool:
    return arrays[0].size >= 2 * BLOCK and all(array.flags.c_contiguous for array in arrays)


def _in_blocks(
    prepare: Callable[[], Callable[..., None]], arrays: Sequence[Any], results: Sequence[Any]
) -> None:
    """Write the results of one block of the arrays after the other, in several threads.

    ``prepare`` makes, for each thread, a function of the blocks of the results and of the arrays.
    """
    size = arrays[0].size
    flat = [array.reshape(size) for array in arrays]

    def begin() -> Callable[[range], None]:
        write = prepare()

        def work(starts: range) -> None:
            for start in starts:
                block = slice(start, start + BLOCK)
                write([result[block] for result in results], *[array[block] for array in flat])

        return work

    starts, at_once = range(0, size, BLOCK), THREADED_FROM // BLOCK
    parts = [starts[i : i + at_once] for i in range(0, len(starts), at_once)]
    numpy_threads.in_parallel(begin, parts)


def at_least_zero(array: Any) -> Any:
    """Return :func:`refimpl.arrays.at_least_zero`, written where it will stay."""
    zero = np.zeros((), array.dtype)
    if not _divisible([array]):
        return np.asarray(np.maximum(array, zero) + zero)

    def write(outs: Sequence[Any], given: Any) -> None:
        (out,) = outs
        np.maximum(given, zero, out=out)
        np.add(out, zero, out=out)

    result = empty((array.size,), array.dtype)
    _in_blocks(lambda: write, [array], [result])
    return result.reshape(array.shape)


def passed_above_zero(array: Any, upstream: Any) -> Any:
    """Return :func:`refimpl.arrays.passed_above_zero`, written where it will stay."""
    zero, unsigned = np.zeros((), array.dtype), BITS[upstream.dtype.itemsize]
    if not _divisible([array, upstream]):
        return where_or_zero(~(array <= zero), upstream)

    def write(outs: Sequence[Any], given: Any, dy: Any) -> None:
        np.multiply(dy.view(unsigned), ~(given <= zero), out=outs[0].view(unsigned))

    result = empty((array.size,), upstream.dtype)
    _in_blocks(lambda: write, [array, upstream], [result])
    return result.reshape(array.shape)


def by_rows(function: Callable[[Any], Any], array: Any) -> Any:
    """Return :func:`refimpl.arrays.by_rows`, in several threads if there is much to do."""
    if array.size < 2 * THREADED_FROM:
        return function(array)
    first, *parts = numpy_threads.dealt(len(array))
    begun = function(array[first])
    result = empty((len(array), *begun.shape[1:]), begun.dtype)
    result[first] = begun

    def work(rows: slice) -> None:
        result[rows] = function(array[rows])

    numpy_threads.in_parallel(lambda: work, parts)
    return result


def each(function: Callable[..., Any], *lists: Sequence[Any]) -> list[Any]:
    """Return :func:`refimpl.arrays.each`, in several threads if there is much to do.

    The last comes first: whoever has just read them all has it in a cache.
    """
    size = sum([0 if first is None else first.size for first in lists[0]])
    if size < 2 * THREADED_FROM and len(lists) == 1:
        return [function(entry) for entry in lists[0][::-1]][::-1]
    backwards = list(zip(*lists, strict=True))[::-1]
    return in_threads(lambda entries: function(*entries), backwards, size)[::-1]


def in_threads(function: Callable[[Any], Any], parts: Sequence[Any], size: int) -> list[Any]:
    """Return what the function gives for each part; in several threads if so many elements are worth it."""
    if size < 2 * THREADED_FROM:
        return [function(part) for part in parts]
    return numpy_threads.in_parallel(lambda: function, parts)


def are_small(arrays: Sequence[Any]) -> bool:
    """Say whether NumPy takes longer to begin with each of the arrays than to copy them all."""
    return sum([array.size for array in arrays]) <= JOINED_UP_TO


def join(arrays: Sequence[Any]) -> Any:
    """Return arrays of one dtype as one flat array, each in C order."""
    return np.concatenate(arrays, axis=None)


def cutter(shapes: Sequence[tuple[int, ...]]) -> Callable[[Any], list[Any]]:
    """Return :func:`refimpl.bundles.cutter`: the fields of a record are made faster than slices."""

    @cache
    def record(dtype: Any) -> Any:
        return np.dtype([(str(number), dtype, shape) for number, shape in enumerate(shapes)])

    def cut(whole: Any) -> list[Any]:
        fields = np.ndarray((), record(whole.dtype), whole)
        return [fields[name] for name in names]

    names = [str(number) for number in range(len(shapes))]
    return cut


def where_or_zero(kept: Any, array: Any) -> Any:
    """Return :func:`refimpl.arrays.where_or_zero` without a branch: the bits times 0 or 1."""
    unsigned = BITS.get(array.dtype.itemsize)
    if unsigned is None or array.dtype.kind == "c":
        return np.where(kept, array, np.zeros_like(array))
    out = _room(array, unsigned)
    return np.asarray(np.multiply(array.view(unsigned), kept, out=out)).view(array.dtype)


def absolute(array: Any) -> Any:
    """Return :func:`refimpl.arrays.absolute`, written where something else has been."""
    return np.absolute(array, out=_room(array, array.dtype))


def _room(array: Any, dtype: Any) -> Any:
    """Return memory for a result of an array's shape; None where NumPy had better say how it lies."""
    return empty(array.shape, dtype) if array.ndim and array.flags.c_contiguous else None


def scalar(value: float, dtype: Any) -> Any:
    """Return :func:`refimpl.arrays.scalar` without asking for a device."""
    return np.array(value, dtype)


def counted(count: int, dtype: Any) -> Any:
    """Return :func:`refimpl.arrays.counted` without asking for a device."""
    return np.arange(count, dtype=dtype)


def quiet() -> Any:
    """Return :func:`refimpl.arrays.quiet`."""
    return np.errstate(all="ignore")


def any_nan(array: Any) -> bool:
    """Return :func:`refimpl.arrays.any_nan` without an array of flags: a minimum hands NaN on."""
    return array.size > 0 and bool(np.isnan(np.min(array)))


def any_outside(indices: Any, stop: int) -> bool:
    """Return :func:`refimpl.arrays.any_outside`: without its sign a negative number is a large one."""
    unsigned = indices.view(BITS[indices.dtype.itemsize])
    return indices.size > 0 and int(np.maximum.reduce(unsigned)) >= stop


def cross_entropies(logits: Any, targets: Any) -> tuple[Any, Callable[[], Any]]:
    """Return the sums of :mod:`refimpl.losses`, with the targets' own terms taken and put by index."""
    examples, classes = logits.shape
    own = _every(classes, examples) + targets
    # Few classes: the maximum of whole columns takes half as long as that of each short row.
    largest = np.maximum.reduce(logits.T.copy(), 0)
    shifted = np.subtract(logits, largest[:, None], order="C")
    flat = shifted.reshape(-1)
    target = flat[own]
    powers = np.exp(shifted, out=shifted)
    flat[own] = 0.0
    rest = np.add.reduce(powers, 1)

    def gradient() -> Any:
        flat[own] = -rest
        return powers / (np.exp(target) + rest)[:, None]

    return np.add.reduce(np.log1p(np.expm1(target) + rest) - target), gradient


@lru_cache(KEPT)
def _every(step: int, count: int) -> Any:
    """Return the first so many multiples of a number, not to be written to."""
    return np.arange(0, step * count, step)


def usual_factor(norm: Any, limit: float) -> float | None:
    """Return min(1, limit/norm) for a norm that is 0-d; None if it needs more care than that."""
    tiny, largest = _RANGE.get(norm.dtype.itemsize, (0.0, 0.0))
    if norm.ndim:
        return None
    # NumPy compares two 0-d arrays ten times as slowly as Python their numbers.
    n, c = float(norm), float(norm.dtype.type(limit))
    if not 0 < n <= largest or not 0 < c <= largest:
        return None
    # Rounded to 24 bits the quotient in 53 is that in 24: Figueroa 1995, "When is double rounding innocuous?"
    factor = c / n if n > c else 1.0
    return factor if factor >= tiny else None


def binding(factors: Sequence[Any]) -> list[Any]:
    """Return :func:`refimpl.arrays.binding`: the factors that are not one 1 for all elements."""
    return [factor for factor in factors if factor.ndim or float(factor) != 1]


def times(array: Any, factors: Sequence[Any], dtype: Any, reuse: bool) -> Any:
    """Return :func:`refimpl.arrays.times` without a product where there is no factor."""
    if not factors:
        return array
    wide = array.astype(dtype, copy=False)
    # A widened copy is ours to write to; so is an array that was given up, if it can be written to.
    ours = wide is not array or (reuse and array.flags.writeable)
    # Not None, and no bare number: NumPy makes those of 0-d arrays.
    out = wide if ours and wide.ndim else np.empty_like(wide)
    for factor in factors:
        wide = np.multiply(wide, np.asarray(factor, dtype), out=out)
    return wide.astype(array.dtype, copy=False)


def sum_of_squares(arrays: Sequence[Any], dtype: Any) -> float | None:
    """Return the sum of squares over real arrays, read from memory once; None if it cannot be trusted.

    ``dtype`` (float32 or float64) is that of the squares. They may overflow, and where the sum is
    small, squares that vanish may be missing in it: then the caller has to scale first. What can
    vanish is less than the smallest normal number for each element, so a sum of more than 2^30
    times all of that has lost nothing that its last digit could show.
    """
    parts, count, total = [], 0, 0.0

    def squares(part: Any) -> float:
        part = part.astype(dtype, copy=False)
        length = max(EVEN, part.size // ROWS // EVEN * EVEN)
        whole = part.size - part.size % length
        rows, rest = part[:whole].reshape(-1, length), part[whole:]
        sums = np.add.reduce(np.vecdot(rows, rows), dtype=np.float64)
        return float(sums) + float(rest.dot(rest))

    for array in arrays:
        if array.dtype.kind == "c":
            return None
        flat = array.reshape(-1) if array.flags.c_contiguous else array.ravel(order="K")
        count += flat.size
        if flat.size < SUMMED:
            flat = flat.astype(dtype, copy=False)
            # This product does not warn of an overflow; what keeps dot quiet takes longer than dot.
            total += float(np.vdot(flat, flat))
        else:
            starts = range(0, flat.size, SQUARES_AT_ONCE)
            parts += [flat[start : start + SQUARES_AT_ONCE] for start in starts]
    if parts:
        with quiet():
            total += sum(in_threads(squares, parts, count))
    tiny, largest = _RANGE[np.dtype(dtype).itemsize]
    return total if count * tiny * 2.0**30 < total <= largest else None
