"""The sums of :mod:`refimpl.layers.conv2d` for NumPy: a few images at a time.

The windows of a whole batch, laid out for one matrix product, are kh * kw times the batch and go
through memory four times in a training step. Laid out for so few output rows that they stay in the
processor's cache they cost little, in memory too, and making them again in the backward pass is
cheaper than to have kept them. Groups are left to the portable form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from .windows import Axis

CACHE = 2**20
"""Bytes of windows that are laid out at once: half the cache that a current core has to itself."""


def correlate(
    x: Any, weight: Any, bias: Any | None, rows: Axis, columns: Axis
) -> tuple[Any, Callable[[Any], tuple[Any, Any, Any | None]]]:
    """Return what :func:`refimpl.layers.conv2d.conv2d` does for one group, already widened."""
    kh, kw, inner, outer = weight.shape
    pads = [(axis.before, axis.after) for axis in (rows, columns)]
    padded = np.pad(x, [(0, 0), *pads, (0, 0)]) if any(map(any, pads)) else x
    windows = _windows(padded, rows, columns)
    flat_weight = np.reshape(weight, (-1, outer))
    y = np.empty((*windows.shape[:3], outer), x.dtype)
    for block in _blocks(windows):
        part = np.matmul(_laid_out(windows[block]), flat_weight)
        y[block] = (part if bias is None else part + bias).reshape(y[block].shape)

    def backprop(dy: Any) -> tuple[Any, Any, Any | None]:
        taps = list(product(range(kh), range(kw)))
        to_taps = np.reshape(weight, (kh * kw, inner, outer)).transpose(0, 2, 1)
        dpadded = np.zeros(padded.shape, x.dtype)
        # Each tap's own strided view, in which the rows of a block are where they are in y.
        dviews = [_windows(dpadded, rows, columns)[:, :, :, i, j] for i, j in taps]
        dweight, dbias = np.zeros_like(flat_weight), np.zeros(outer, x.dtype)
        for block in _blocks(windows):
            part = np.reshape(dy[block], (-1, outer))
            dweight += np.matmul(_laid_out(windows[block]).T, part)
            dbias += np.matmul(np.ones(len(part), x.dtype), part)
            for dview, dtap in zip(dviews, np.matmul(part, to_taps), strict=True):
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


def _blocks(windows: Any) -> Iterator[tuple[slice, slice]]:
    """Yield slices of images and rows that together are all windows, each of about CACHE bytes."""
    images, rows, *rest = windows.shape
    at_once = max(1, CACHE // (windows.itemsize * int(np.prod(rest))))
    if at_once >= rows:
        step = at_once // rows
        yield from ((slice(i, i + step), slice(0, rows)) for i in range(0, images, step))
    else:
        starts = product(range(images), range(0, rows, at_once))
        yield from ((slice(i, i + 1), slice(row, row + at_once)) for i, row in starts)


def _laid_out(windows: Any) -> Any:
    """Return windows as the rows of a matrix (places, kh * kw * C)."""
    size = int(np.prod(windows.shape[3:]))
    return np.ascontiguousarray(windows).reshape(-1, size)
