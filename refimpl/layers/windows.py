"""Where sliding windows lie on an image, and the two directions of the trip: gather and scatter.

A *tap* is one position inside the window. All windows' values at one tap are a strided slice of the
padded image, so a window operation is a loop over a handful of taps and never over windows. Scatter
is the adjoint of gather: where windows overlap, their gradients add up.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import array_api_compat

from ..arrays import Array, Namespace, zeros
from .checks import Padding, Pair, check_padding, check_pair


class Axis(NamedTuple):
    """The windows along one axis of an image; positions count from the start of the padding."""

    size: int
    window: int
    stride: int
    before: int
    after: int
    dilation: int
    outputs: int

    @property
    def span(self) -> int:
        """From the first tap of the first window to the last tap of the last one, in pixels."""
        return (self.outputs - 1) * self.stride + (self.window - 1) * self.dilation + 1

    @property
    def overhang(self) -> int:
        """By how much the last window reaches beyond the padding (under ``ceil_mode`` only)."""
        return max(0, self.span - self.before - self.size - self.after)

    @property
    def tiles(self) -> bool:
        """Whether the windows cover each pixel of the image once, and nothing else."""
        return (
            self.window == self.stride
            and self.dilation == 1
            and self.before == self.after == 0
            and self.outputs * self.stride == self.size
        )

    def taps(self) -> list[slice]:
        """Return one slice of the padded axis per tap; each picks one element per window."""
        reach = (self.outputs - 1) * self.stride + 1
        starts = [tap * self.dilation for tap in range(self.window)]
        return [slice(start, start + reach, self.stride) for start in starts]

    def counts(self, padding: bool) -> list[int]:
        """Return how many taps of each window lie in the image (or ``padding``; never overhang)."""
        first, last = self.before, self.before + self.size
        inside = range(0, last + self.after) if padding else range(first, last)
        return [
            sum(index * self.stride + tap * self.dilation in inside for tap in range(self.window))
            for index in range(self.outputs)
        ]


NO_PADDING: Padding = ((0, 0), (0, 0))


def place(
    x: Array, window: Pair, stride: Pair, padding: Padding, dilation: Pair, ceil_mode: bool
) -> tuple[Axis, Axis]:
    """Check the geometry of windows on images (N, H, W, C); return where they lie along H and W."""
    if not isinstance(ceil_mode, bool):
        raise ValueError(f"ceil_mode must be true or false, got {ceil_mode!r}")
    windows, strides = check_pair("window", window), check_pair("stride", stride)
    pads, dilations = check_padding(padding), check_pair("dilation", dilation)
    rows, columns = (
        place_axis(x.shape[1 + i], windows[i], strides[i], pads[i], dilations[i], ceil_mode)
        for i in (0, 1)
    )
    return rows, columns


def place_axis(
    size: int, window: int, stride: int, padding: tuple[int, int], dilation: int, ceil_mode: bool
) -> Axis:
    """Place the windows along one axis; ValueError if not a single one fits.

    ``outputs = floor((before + size + after - dilation * (window - 1) - 1) / stride) + 1``.
    ``ceil_mode`` adds a window for the remainder, unless it would start in the padding after the
    image (it would then see nothing of the image).
    """
    before, after = padding
    reach = dilation * (window - 1) + 1
    steps, remainder = divmod(before + size + after - reach, stride)
    outputs = steps + 1
    if ceil_mode and remainder and outputs * stride < before + size:
        outputs += 1
    if outputs < 1:
        raise ValueError(f"a window that spans {reach} does not fit in {before + size + after}")
    return Axis(size, window, stride, before, after, dilation, outputs)


def gather(xp: Namespace, x: Array, rows: Axis, columns: Axis, fill: float | bool) -> list[Array]:
    """Return the taps of all windows of ``x`` (N, H, W, C), each (N, rows, columns, C), row-major.

    ``fill`` is what stands in the padding and in the overhang.
    """
    padded = x
    for index, axis in ((1, rows), (2, columns)):
        extents = axis.before, axis.after + axis.overhang
        if extents == (0, 0):
            continue
        before, after = (_border(xp, padded, index, extent, fill) for extent in extents)
        padded = xp.concat([before, padded, after], axis=index)
    return [padded[:, row, column, :] for row, column in product(rows.taps(), columns.taps())]


def scatter(xp: Namespace, taps: list[Array], rows: Axis, columns: Axis) -> Array:
    """Return the sum of all taps at the pixels (N, H, W, C) that they were gathered from."""
    height, width = (
        axis.before + axis.size + axis.after + axis.overhang for axis in (rows, columns)
    )
    shape = (taps[0].shape[0], height, width, taps[0].shape[3])
    padded = zeros(xp, shape, taps[0])
    for (row, column), tap in zip(product(rows.taps(), columns.taps()), taps, strict=True):
        padded = _added(padded, (slice(None), row, column, slice(None)), tap)
    top, left = rows.before, columns.before
    return padded[:, top : top + rows.size, left : left + columns.size, :]


def _added(padded: Array, index: tuple[slice, ...], tap: Array) -> Array:
    """Return an array of our own with a tap added in one place; JAX's arrays cannot be written to."""
    if 0 in tap.shape:
        return padded  # to a part without elements Dask assigns nothing
    if array_api_compat.is_jax_array(padded):
        return padded.at[index].add(tap)
    padded[index] += tap
    return padded


def spread(xp: Namespace, values: Array, rows: Axis, columns: Axis) -> Array:
    """Return :func:`scatter` of taps that are all ``values``, for windows that tile the image."""
    images, height, width, channels = values.shape
    shape = (images, height, rows.window, width, columns.window, channels)
    apart = xp.reshape(values, (images, height, 1, width, 1, channels))
    return xp.reshape(xp.broadcast_to(apart, shape), (images, rows.size, columns.size, channels))


def _border(xp: Namespace, x: Array, axis: int, extent: int, fill: float | bool) -> Array:
    shape = tuple(extent if index == axis else size for index, size in enumerate(x.shape))
    return xp.full(shape, fill, dtype=x.dtype, device=array_api_compat.device(x))
