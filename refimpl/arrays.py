"""The one seam between the mathematics and the array library that runs it.

What shaped this module:

* the rest of ``refimpl`` is written against the array API standard, so the namespace is always taken
  from the arguments (:func:`namespace`), never imported;
* 16-bit floats have neither the range nor the precision to accumulate in, and float64 must not
  appear where the caller did not bring it (some devices have none): :func:`accumulation_dtype`;
* a host round trip per call would stall a GPU, so nothing here calls ``bool``, ``float`` or ``int``
  on an array;
* NumPy can do some things faster than the standard can say (:mod:`refimpl.numpy_forms`): whether it
  may is asked here only (:func:`is_numpy`), and the portable form stands beside it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, TypeAlias

import array_api_compat

from . import numpy_forms, numpy_products, numpy_selection

Array: TypeAlias = Any
"""Any array-API array. The standard has no common base class, hence ``Any``."""

Namespace: TypeAlias = Any
DType: TypeAlias = Any

FAST_FORMS = True
"""Whether :mod:`refimpl.numpy_forms` may be used; the tests that compare the two forms switch it."""

_namespaces: dict[tuple[type, ...], Namespace] = {}


def namespace(*arrays: Array | None) -> Namespace:
    """Return the array-API namespace of the arrays that are given (``None`` is ignored)."""
    # A small model spends more time asking for its namespace than computing, so the answer is kept.
    kinds = tuple(map(type, arrays))
    known = _namespaces.get(kinds)
    if known is not None:
        return known
    given = present(arrays)
    xp = array_api_compat.array_namespace(*given)
    if len({type(array) for array in given}) == 1:
        _namespaces[kinds] = xp
    return xp


def is_numpy(xp: Namespace) -> bool:
    """Say whether the fast forms for NumPy may stand in for the portable ones."""
    return FAST_FORMS and _is_numpy(xp)


@cache
def _is_numpy(xp: Namespace) -> bool:
    return array_api_compat.is_numpy_namespace(xp)


def accumulation_dtype(xp: Namespace, *arrays: Array | None) -> DType:
    """Return float64 if any array is float64 or complex128, else float32.

    This is the dtype of norms, penalty values and losses, and the dtype in which 16-bit inputs are
    computed before they are rounded back, once, at the end.
    """
    if len(arrays) == 1 and arrays[0] is not None:
        return _accumulation_dtype(xp, arrays[0].dtype)
    return _accumulation_dtype(xp, *[array.dtype for array in arrays if array is not None])


@cache
def _accumulation_dtype(xp: Namespace, *dtypes: DType) -> DType:
    double = (getattr(xp, "float64", None), getattr(xp, "complex128", None))
    return xp.float64 if any(dtype in double for dtype in dtypes) else xp.float32


def widen(xp: Namespace, array: Array) -> Array:
    """Return a float array in its own accumulation dtype: 16 bits become 32, wider stays as it is."""
    return astype(xp, array, accumulation_dtype(xp, array))


def astype(xp: Namespace, array: Array, dtype: DType) -> Array:
    """Return the array in another dtype; the array itself where the dtype is already right."""
    return array if array.dtype == dtype else xp.astype(array, dtype)


def scalar(xp: Namespace, value: float, like: Array, dtype: DType | None = None) -> Array:
    """Return a Python number as a 0-d array on the device of ``like`` (default: with its dtype)."""
    if is_numpy(xp):
        return numpy_forms.scalar(value, like.dtype if dtype is None else dtype)
    device = array_api_compat.device(like)
    return xp.asarray(value, dtype=like.dtype if dtype is None else dtype, device=device)


def counted(xp: Namespace, count: int, dtype: DType, like: Array) -> Array:
    """Return 0, 1, ... up to but not with ``count``, on the device of ``like``."""
    if is_numpy(xp):
        return numpy_forms.counted(count, dtype)
    return xp.arange(count, dtype=dtype, device=array_api_compat.device(like))


def through_float32(value: float) -> float:
    """Return the nearest float32 number, as libraries use a hyper-parameter that they store as one."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def present(arrays: Sequence[Array | None]) -> list[Array]:
    """Return the arrays of a list without its absent entries (``None``)."""
    return [array for array in arrays if array is not None]


def smallest(xp: Namespace, keys: Sequence[Array], k: int) -> Array:
    """Return a boolean mask of exactly the ``k`` smallest entries of a 1-d array.

    ``keys`` are 1-d arrays of one length, compared in order (the first decides, the next breaks its
    ties); among equals, which -0.0 and +0.0 are, the lowest index is the smallest. Keys must not
    hold NaN: the standard does not say where a sort puts it.
    """
    return numpy_selection.smallest(keys, k) if is_numpy(xp) else ranks(xp, keys) < k


def all_but_smallest(xp: Namespace, arrays: Sequence[Array], k: int) -> list[Array]:
    """Return boolean masks of all entries of several arrays but the ``k`` smallest, as :func:`smallest` has it.

    The arrays, of any shapes and one dtype, count as one that holds them in turn, in C order.
    """
    if is_numpy(xp):
        return numpy_selection.all_but_smallest(arrays, k)
    joined = xp.concat([xp.reshape(array, (-1,)) for array in arrays])
    kept, masks, start = ~smallest(xp, [joined], k), [], 0
    for array in arrays:
        stop = start + math.prod(array.shape)
        masks.append(xp.reshape(kept[start:stop], array.shape))
        start = stop
    return masks


def ranks(xp: Namespace, keys: Sequence[Array]) -> Array:
    """Return the position (int64) that each entry takes in the order that :func:`smallest` uses."""
    return xp.argsort(stable_order(xp, keys), stable=True)


def stable_order(xp: Namespace, keys: Sequence[Array]) -> Array:
    """Return the indices that sort by the first key, then the next, then by index."""
    # A radix sort of the bits would tell -0.0 from +0.0; their sum with +0.0 is +0.0.
    *major, minor = [key + xp.zeros_like(key) for key in keys]
    order = xp.argsort(minor, stable=True)
    for key in reversed(major):
        order = xp.take(order, xp.argsort(xp.take(key, order, axis=0), stable=True), axis=0)
    return order


def where_or_zero(xp: Namespace, kept: Array, array: Array) -> Array:
    """Return the array where ``kept`` (boolean, of its shape) is true, bit for bit, else +0.0."""
    if is_numpy(xp):
        return numpy_forms.where_or_zero(kept, array)
    return xp.where(kept, array, xp.zeros_like(array))


def absolute(array: Array) -> Array:
    """Return the absolute value of a real array."""
    xp = namespace(array)
    return numpy_forms.absolute(array) if is_numpy(xp) else xp.abs(array)


def at_least_zero(xp: Namespace, array: Array) -> Array:
    """Return max(array, 0), NaN where it is NaN, and never -0.0."""
    if is_numpy(xp):
        return numpy_forms.at_least_zero(array)
    # The sum makes +0.0 of -0.0, of which a maximum may give either.
    zero = scalar(xp, 0.0, array)
    return xp.maximum(array, zero) + zero


def passed_above_zero(xp: Namespace, array: Array, upstream: Array) -> Array:
    """Return ``upstream``, bit for bit, but +0.0 where the array is at or below 0."""
    if is_numpy(xp):
        return numpy_forms.passed_above_zero(array, upstream)
    return where_or_zero(xp, ~(array <= 0), upstream)


def elementwise(xp: Namespace, function: Callable[..., Any], *arrays: Array) -> Any:
    """Return ``function(*arrays)``: a tuple of arrays, element by element from arrays of one shape.

    That each element is computed by itself is a promise: large arrays may go through a long function
    a block at a time.
    """
    return numpy_forms.elementwise(function, arrays) if is_numpy(xp) else function(*arrays)


def by_rows(xp: Namespace, function: Callable[[Array], Array], array: Array) -> Array:
    """Return ``function(array)``, of which each entry along the first axis comes from that one entry.

    That is a promise: of a large array some rows may go through the function at a time.
    """
    return numpy_forms.by_rows(function, array) if is_numpy(xp) else function(array)


def each(xp: Namespace, function: Callable[..., Any], *lists: Sequence[Array]) -> list[Any]:
    """Return what the function gives for each array, or each pair of several lists, in any order."""
    return numpy_forms.each(function, *lists) if is_numpy(xp) else list(map(function, *lists))


def matmul(xp: Namespace, a: Array, b: Array) -> Array:
    """Return the product of two matrices, whose terms may be added in any order."""
    return numpy_products.product(a, b) if is_numpy(xp) else xp.matmul(a, b)


def any_nan(xp: Namespace, array: Array) -> bool:
    """Say whether an element is NaN. Reads one value from the device."""
    return numpy_forms.any_nan(array) if is_numpy(xp) else bool(xp.any(xp.isnan(array)))


def any_outside(xp: Namespace, indices: Array, stop: int) -> bool:
    """Say whether an integer is below 0 or not below ``stop``. Reads one value from the device."""
    if is_numpy(xp):
        return numpy_forms.any_outside(indices, stop)
    return bool(xp.any((indices < 0) | (indices >= stop)))


def sum_of_squares(xp: Namespace, arrays: Sequence[Array], dtype: DType) -> float | None:
    """Return the sum of squares over arrays if it can be had, and trusted, in one pass; else None.

    A sum in which squares may have overflowed or vanished is not returned. Only NumPy offers it:
    the number has to be looked at to know, which on a device would be a round trip.
    """
    return numpy_forms.sum_of_squares(arrays, dtype) if is_numpy(xp) else None


def usual_factor(xp: Namespace, norm: Array, limit: float) -> float | None:
    """Return min(1, limit/norm) of a 0-d norm where it is at no edge, and can be told cheaply, else None."""
    return numpy_forms.usual_factor(norm, limit) if is_numpy(xp) else None


def binding(xp: Namespace, factors: Sequence[Array]) -> Sequence[Array]:
    """Return the factors without those that can cheaply be told to be 1."""
    return numpy_forms.binding(factors) if is_numpy(xp) else factors


def times(xp: Namespace, array: Array, factors: Sequence[Array], *, reuse: bool = False) -> Array:
    """Return a real array times 0-d or broadcast factors, in turn; 16 bits are rounded once.

    With ``reuse`` the result may be written over the array, which the caller has to own.
    """
    if is_numpy(xp):
        return numpy_forms.times(array, factors, accumulation_dtype(xp, array), reuse)
    wide = widen(xp, array)
    for factor in factors:
        wide = wide * astype(xp, factor, wide.dtype)
    return astype(xp, wide, array.dtype)


def zeros(xp: Namespace, shape: Sequence[int], like: Array, dtype: DType | None = None) -> Array:
    """Return zeros of a shape on the device of ``like`` (default: with its dtype)."""
    device = array_api_compat.device(like)
    return xp.zeros(tuple(shape), dtype=like.dtype if dtype is None else dtype, device=device)


def maximum_of(xp: Namespace, array: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    """Return the maximum, and of an array without elements 0, or no numbers where none are asked for.

    The standard leaves the maximum of nothing open, and that of each of no rows Dask does not know.
    """
    reduce = xp.sum if 0 in array.shape else xp.max
    return reduce(array, axis=axis, keepdims=keepdims)


def quiet(xp: Namespace) -> AbstractContextManager[Any]:
    """Return a context in which NumPy does not warn of infinity and NaN, as other libraries never do.

    For formulas that are evaluated everywhere and chosen from by ``where``: what one of them makes of
    a zero, an infinity or a NaN is either meant or not chosen.
    """
    return numpy_forms.quiet() if _is_numpy(xp) else nullcontext()


def euclidean_norm(xp: Namespace, array: Array, axis: tuple[int, ...] | None = None) -> Array:
    """Return the 2-norm over ``axis`` (default: all), which keeps its place with length 1.

    Right whenever the true norm is representable: scaling the largest magnitude to between 1 and 2
    keeps the squares from overflowing or vanishing, and a power of two rounds nothing, so that the
    norm of (3, 4, 12) is 13. Infinities give infinity, NaN gives NaN.
    """
    if 0 in array.shape:
        return xp.sqrt(xp.sum(array * array, axis=axis, keepdims=True))
    largest = xp.max(xp.abs(array), axis=axis, keepdims=True)
    unscaled = (largest == 0) | ~xp.isfinite(largest)
    scale = _power_of_two_below(xp, xp.where(unscaled, xp.ones_like(largest), largest))
    return scale * xp.sqrt(xp.sum((array / scale) ** 2, axis=axis, keepdims=True))


def _power_of_two_below(xp: Namespace, value: Array) -> Array:
    """Return the power of two at or next below positive numbers, within the normal numbers."""
    bound = xp.full_like(value, 126.0 if value.dtype == xp.float32 else 1022.0)
    # the logarithm of the largest number rounds up to an exponent that no number has
    exponent = xp.minimum(xp.maximum(xp.floor(xp.log2(value)), -bound), bound)
    return xp.pow(xp.full_like(value, 2.0), exponent)
