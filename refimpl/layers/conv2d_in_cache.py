"""The sums of :mod:`refimpl.layers.conv2d` for NumPy: a few images at a time, in several threads.

The windows of a whole batch, laid out for one matrix product, are kh * kw times the batch and go
through memory four times in a training step. Laid out for so few output rows that they stay in the
processor's cache they cost little, in memory too, and making them again in the backward pass is
cheaper than to have kept them. Groups are left to the portable form.

The gradient of x is not scattered tap by tap. Where the windows of a row are one pixel apart, the
dy that reach a pixel lie side by side, so one product sums over a kernel row, and only the kernel's
rows are left to scatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain, product
from typing import Any

import numpy as np

from ..numpy_memory import empty
from ..numpy_products import multiply, transposed_product
from ..numpy_threads import PARTS, dealt, in_parallel
from .windows import Axis

CACHE = 2**21
"""Bytes of windows, and of what is computed from them, at once: what a core has for itself."""

THREADED_FROM = 2**23
"""From so many multiplications on, more than one thread is worth waking."""

Block = tuple[slice, slice]
Spread = Callable[[Block, Any], None]


def correlate(
    x: Any, weight: Any, bias: Any | None, rows: Axis, columns: Axis
) -> tuple[Any, Callable[[Any, bool], tuple[Any | None, Any, Any | None]]]:
    """Return what :func:`refimpl.layers.conv2d.conv2d` does for one group, already widened."""
    kh, kw, inner, outer = weight.shape
    pads = [(axis.before, axis.after) for axis in (rows, columns)]
    padded = np.pad(x, [(0, 0), *pads, (0, 0)]) if any(map(any, pads)) else x
    windows = _windows(padded, rows, columns)
    blocks = _blocks(windows.shape, (kh * kw * inner + outer) * x.itemsize)
    worthwhile = windows.size * outer >= THREADED_FROM
    parts = _parts(blocks, PARTS if worthwhile else 1)
    flat_weight = np.reshape(weight, (-1, outer))
    y = empty((*windows.shape[:3], outer), x.dtype)
    row_bias = None if bias is None else np.tile(bias, columns.outputs)

    def prepare() -> Callable[[list[Block]], None]:
        lay_out = _laid_out(windows, parts[0][0])

        def forward(blocks: list[Block]) -> None:
            for block in blocks:
                multiply(lay_out(block), flat_weight, _flat(y[block]))
                if row_bias is not None:
                    y_rows = _flat(y[block], 2)
                    y_rows += row_bias

        return forward

    in_parallel(prepare, parts)

    def backprop(dy: Any, with_dx: bool) -> tuple[Any | None, Any, Any | None]:
        dpadded = empty(padded.shape, x.dtype) if with_dx else None
        # A zero beside the row stands for no dy, which an infinite weight would make NaN.
        in_rows = columns.stride == columns.dilation == 1 and bool(np.isfinite(weight).all())
        spreading = _spread_rows if in_rows else _spread_taps

        def prepare() -> Callable[[list[Block]], tuple[Any, Any]]:
            lay_out = _laid_out(windows, parts[0][0])
            ones = np.ones(_places(windows[parts[0][0]]), x.dtype)
            spread = spreading(weight, dpadded, rows, columns, parts[0][0]) if with_dx else None

            def backward(blocks: list[Block]) -> tuple[Any, Any]:
                dweight, dbias = (
                    np.zeros((kh, kw * inner, outer), x.dtype),
                    np.zeros(outer, x.dtype),
                )
                for block in blocks:
                    part = _flat(dy[block])
                    dweight += transposed_product(lay_out(block), part, kh)
                    dbias += np.matmul(ones[: len(part)], part)
                    if spread is not None:
                        spread(block, part)
                return dweight, dbias

            return backward

        sums = in_parallel(prepare, parts)
        dweight, dbias = (sum(each[1:], each[0]) for each in zip(*sums, strict=True))
        top, left = rows.before, columns.before
        dx = None
        if dpadded is not None:
            dx = dpadded[:, top : top + rows.size, left : left + columns.size]
        return dx, dweight.reshape(weight.shape), None if bias is None else dbias

    return y, backprop


def _spread_rows(weight: Any, dpadded: Any, rows: Axis, columns: Axis, largest: Block) -> Spread:
    """Return the function that adds what a block of dy gives to dx, a kernel row at a time.

    The rows of dy are written one after the other, kw - 1 zeros between them. Then at every pixel of
    a row the kw dy whose windows hold it, last first, are contiguous. Those of every kw-th pixel make
    the rows of a matrix without being copied.
    """
    kh, kw, inner, outer = weight.shape
    gap = kw - 1
    kernel = weight[:, ::-1].transpose(1, 3, 0, 2).reshape(kw * outer, kh * inner)
    pixels = _places(dpadded[:, rows.taps()[0]][largest])
    apart = np.zeros((gap + pixels, outer), dpadded.dtype)
    dtaps = np.empty((pixels, kh * inner), dpadded.dtype)
    dviews = [dpadded[:, taps] for taps in rows.taps()]

    def spread(block: Block, part: Any) -> None:
        _clear(dpadded, block)
        shape = dviews[0][block].shape
        count = _places(dviews[0][block])
        in_image = apart[gap : gap + count].reshape(*shape[:3], outer)[:, :, : columns.outputs]
        np.copyto(in_image, part.reshape(in_image.shape))
        for first in range(min(kw, count)):
            out = dtaps[first:count:kw]
            runs = apart[first : first + len(out) * kw].reshape(len(out), kw * outer)
            multiply(runs, kernel, out)
        by_row = dtaps[:count].reshape(*shape[:3], kh, inner)
        for row, dview in enumerate(dviews):
            dview[block] += by_row[:, :, :, row]

    return spread


def _spread_taps(weight: Any, dpadded: Any, rows: Axis, columns: Axis, largest: Block) -> Spread:
    """Return the function that adds what a block of dy gives to dx, tap by tap."""
    kh, kw, inner, outer = weight.shape
    kernel = np.reshape(weight, (kh * kw, inner, outer)).transpose(0, 2, 1)
    dwindows = _windows(dpadded, rows, columns)
    # Each tap's own strided view, in which the rows of a block are where they are in y.
    dviews = [dwindows[:, :, :, i, j] for i, j in product(range(kh), range(kw))]
    dtaps = np.empty((kh * kw, _places(dwindows[largest]), inner), dpadded.dtype)

    def spread(block: Block, part: Any) -> None:
        _clear(dpadded, block)
        np.matmul(part, kernel, out=dtaps[:, : len(part)])
        for dview, dtap in zip(dviews, dtaps[:, : len(part)], strict=True):
            dview[block] += np.reshape(dtap, dview[block].shape)

    return spread


def _clear(dpadded: Any, block: Block) -> None:
    """Set the images of a block to 0, which the first of their blocks does."""
    if block[1].start == 0:
        dpadded[block[0]] = 0


def _windows(x: Any, rows: Axis, columns: Axis) -> Any:
    """Return all windows of x as a view (N, rows, columns, kh, kw, C): no element is copied."""
    n, down, right, deep = x.strides
    shape = (x.shape[0], rows.outputs, columns.outputs, rows.window, columns.window, x.shape[3])
    strides = (n, down * rows.stride, right * columns.stride)
    steps = (down * rows.dilation, right * columns.dilation, deep)
    return np.lib.stride_tricks.as_strided(x, shape, (*strides, *steps))


def _blocks(shape: tuple[int, ...], size: int) -> list[list[Block]]:
    """Return slices of images and rows that are all windows; ``size`` is the bytes of one's place.

    Each takes about CACHE bytes, and none more than the first. Those of one image are together.
    """
    images, rows, columns = shape[:3]
    images = max(images, 1)  # of an empty batch, one empty block
    at_once = max(1, CACHE // max(size * columns, 1))
    if at_once >= rows:
        step = min(at_once // rows, -(-images // PARTS))
        return [[(slice(i, i + step), slice(0, rows))] for i in range(0, images, step)]
    starts = range(0, rows, at_once)
    return [[(slice(i, i + 1), slice(r, r + at_once)) for r in starts] for i in range(images)]


def _parts(blocks: list[list[Block]], count: int) -> list[list[Block]]:
    """Return the blocks in at most so many parts; threads never share an image."""
    return [list(chain(*blocks[part])) for part in dealt(len(blocks), count)]


def _laid_out(windows: Any, largest: Block) -> Callable[[Block], Any]:
    """Return the function that lays a block's windows out, one a row of a matrix, in one memory."""
    buffer = np.empty((_places(windows[largest]), *windows.shape[3:]), windows.dtype)

    def lay_out(block: Block) -> Any:
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
