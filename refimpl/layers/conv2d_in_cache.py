"""The sums of :mod:`refimpl.layers.conv2d` for NumPy: a few images at a time.

The windows of a whole batch, laid out for one matrix product, are kh * kw times the batch and go
through memory four times in a training step. Laid out for so few output rows that they stay in the
processor's cache they cost little, in memory too, and making them again in the backward pass is
cheaper than to have kept them. Groups are left to the portable form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .windows import Axis

CACHE = 2**21
"""Bytes of windows, and of what is computed from them, at once: about what a core has for itself."""


def correlate(
    x: Any, weight: Any, bias: Any | None, rows: Axis, columns: Axis
) -> tuple[Any, Callable[[Any], tuple[Any, Any, Any | None]]]:
    """Return what :func:`refimpl.layers.conv2d.conv2d` does for one group, already widened."""
    kh, kw, inner, outer = weight.shape
    pads = [(axis.before, axis.after) for axis in (rows, columns)]
    padded = np.pad(x, [(0, 0), *pads, (0, 0)]) if any(map(any, pads)) else x
    windows = _windows(padded, rows, columns)
    blocks = _blocks(windows.shape, (kh * kw * inner + outer) * x.itemsize)
    flat_weight = np.reshape(weight, (-1, outer))
    y = np.empty((*windows.shape[:3], outer), x.dtype)
    laid_out = _laid_out(windows, blocks)
    for block in blocks:
        part = _flat(y[block])
        np.matmul(laid_out(block), flat_weight, out=part)
        if bias is not None:
            part += bias

    def backprop(dy: Any) -> tuple[Any, Any, Any | None]:
        taps = list(product(range(kh), range(kw)))
        to_taps = np.reshape(weight, (kh * kw, inner, outer)).transpose(0, 2, 1)
        dpadded = np.zeros(padded.shape, x.dtype)
        # Each tap's own strided view, in which the rows of a block are where they are in y.
        dviews = [_windows(dpadded, rows, columns)[:, :, :, i, j] for i, j in taps]
        dweight, dbias = np.zeros_like(flat_weight), np.zeros(outer, x.dtype)
        laid_out = _laid_out(windows, blocks)
        dtaps = np.empty((kh * kw, _places(windows[blocks[0]]), inner), x.dtype)
        for block in blocks:
            part = _flat(dy[block])
            dweight += np.matmul(laid_out(block).T, part)
            dbias += np.matmul(np.ones(len(part), x.dtype), part)
            np.matmul(part, to_taps, out=dtaps[:, : len(part)])
            for dview, dtap in zip(dviews, dtaps[:, : len(part)], strict=True):
                dview[block] += np.reshape(dtap, dview[block].shape)
        top, left = rows.before, columns.before
        dx = dpadded[:, top : top + rows.size, left : left + columns.size]
        return dx, dweight.reshape(weight.shape), None if bias is None else dbias

    return y, backprop


def _windows(x: Any, rows: Axis, columns: Axis) -> Any:
    """Return all windows of x as a view (N, rows, columns, kh, kw, C): no element is copied."""
    n, down, right, deep = x.strides
    shape = (x.shape[0], rows.outputs, columns.outputs, rows.window, columns.window, x.shape[3])
    strides = (n, down * rows.stride, right * columns.stride)
    steps = (down * rows.dilation, right * columns.dilation, deep)
    return np.lib.stride_tricks.as_strided(x, shape, (*strides, *steps))


def _blocks(shape: tuple[int, ...], size: int) -> list[tuple[slice, slice]]:
    """Return slices of images and rows that are all windows; ``size`` is the bytes of one's place.

    Each takes about CACHE bytes, and none more than the first.
    """
    images, rows, columns = shape[:3]
    images = max(images, 1)  # of an empty batch, one empty block
    at_once = max(1, CACHE // max(size * columns, 1))
    if at_once >= rows:
        step = at_once // rows
        return [(slice(i, i + step), slice(0, rows)) for i in range(0, images, step)]
    starts = product(range(images), range(0, rows, at_once))
    return [(slice(i, i + 1), slice(row, row + at_once)) for i, row in starts]


def _laid_out(windows: Any, blocks: list[tuple[slice, slice]]) -> Callable[[Any], Any]:
    """Return the function that lays a block's windows out, one a row of a matrix, in one memory."""
    buffer = np.empty((_places(windows[blocks[0]]), *windows.shape[3:]), windows.dtype)

    def lay_out(block: tuple[slice, slice]) -> Any:
        part = windows[block]
        matrix = buffer[: _places(part)]
        np.copyto(matrix.reshape(part.shape), part)
        return _flat(matrix, 1)

    return lay_out


def _places(windows: Any) -> int:
    return math.prod(windows.shape[:3])


def _flat(array: Any, axes: int = 3) -> Any:
    """Return an array as a matrix, its first ``axes`` axes making the rows."""
    shape = array.shape
    return array.reshape(math.prod(shape[:axes]), math.prod(shape[axes:]))
