"""The sums of :mod:`refimpl.layers.conv2d` for NumPy, a few images at a time.

The windows of a whole batch, laid out for one matrix product, are kh * kw times the batch and go
through memory four times in a training step. Laid out for so few images that they stay in the
processor's cache they cost little, in memory too, and making them again in the backward pass is
cheaper than to have kept them.

Only windows one kernel row high are laid out (Cho and Brand 2017, "MEC: memory-efficient convolution
for deep neural network"): a row of the image then stands there once, and not once for each kernel row
that passes over it. Each kernel row is a product of its own with the rows that it sees; its matrix is
small enough for the core's first cache, which makes the product half as quick again.

What is done in a thread's own memory is the same for every few images, so it is written down once, as
a program of NumPy calls: what Python does between them, it does while no other thread can.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from .. import numpy_products
from ..numpy_memory import Scratch, zeros
from ..numpy_products import Program, copy, execute, gram, sum_of_products
from .windows import Axis

SHORT = 8
"""To copy fewer elements than this at a time takes longer than to copy them one by one in a long row."""

CACHE = 2**21
"""Bytes of windows, and of what is computed from them, at once: what a core has for itself."""


class Convolution:
    """The convolution of one batch, with one group, and how it is divided.

    Attributes:
        x: the batch, which is read no sooner than its images are asked for.
        kernel: the weight as matrices (depth, outer), each for one kernel row, or one for ``together``
            of them.
        starts: how many rows of windows each matrix is below the first.
        outputs: what it gives of an image: rows, columns, outer.
        images: how many images fit the cache.
        height: how many rows of outputs fit the cache.
    """

    def __init__(self, x: Any, weight: Any, bias: Any | None, rows: Axis, columns: Axis) -> None:
        """Take the arrays, in the dtype to compute in, and where the windows are."""
        kh, kw, inner, outer = weight.shape
        self.x, self.inner, self.rows, self.columns = x, inner, rows, columns
        # With a stride a laid out row would serve few kernel rows; a flat matrix is no good product.
        self.together = kh if rows.stride > 1 or kh * kw * inner <= numpy_products.DEEP else 1
        self.kernel = weight.reshape(kh // self.together, self.together * kw * inner, outer)
        self.starts = [i * rows.dilation for i in range(0, kh, self.together)]
        self.outputs = rows.outputs, columns.outputs, outer
        self.multiplications = len(x) * rows.outputs * columns.outputs * weight.size
        self.row_bias = None if bias is None else np.tile(bias, columns.outputs)
        row_bytes = columns.outputs * (self.kernel.shape[1] + 2 * outer) * x.itemsize
        at_once = max(1, CACHE // max(row_bytes, 1))
        self.images = max(1, at_once // rows.outputs)
        self.height = min(rows.outputs, at_once)

    def zeros(self) -> tuple[Any, Any]:
        """Return what the gradients of the kernel and of the bias are added to."""
        return np.zeros_like(self.kernel), np.zeros(self.outputs[2], self.x.dtype)

    def bands(self) -> list[slice]:
        """Return the rows of outputs that are made at once, in order."""
        stop = self.rows.outputs
        starts = range(0, stop, self.height)
        return [slice(start, min(start + self.height, stop)) for start in starts]


class _Workspace:
    """One thread's memory for ``n`` images, and their windows in it."""

    def __init__(self, convolution: Convolution, n: int, scratch: Scratch) -> None:
        self.convolution, self.n, self.scratch = convolution, n, scratch
        self.margin = convolution.starts[-1]
        rows, columns = convolution.rows, convolution.columns
        sides = (axis.before + axis.size + axis.after for axis in (rows, columns))
        self.bordered = zeros((n, *sides, convolution.inner), scratch.dtype)
        self.x = self.inside(self.bordered)
        self.windows = self._windows()
        height = convolution.height + self.margin
        self.laid = scratch("laid", (n, height, *self.windows.shape[2:]))

    def inside(self, bordered: Any) -> Any:
        """Return the images without their padding."""
        rows, columns = self.convolution.rows, self.convolution.columns
        down, right = slice(rows.before, rows.before + rows.size), columns.before
        return bordered[:, down, right : right + columns.size]

    def _windows(self) -> Any:
        """Return the windows as a view (N, rows, columns, together, kw, C): no element is copied."""
        rows, columns = self.convolution.rows, self.convolution.columns
        n, down, right, deep = self.bordered.strides
        places = (rows.outputs + self.margin, columns.outputs)
        window = (self.convolution.together, columns.window, self.bordered.shape[3])
        strides = (n, down * rows.stride, right * columns.stride)
        steps = (down * rows.dilation, right * columns.dilation, deep)
        return np.lib.stride_tricks.as_strided(
            self.bordered, (self.n, *places, *window), (*strides, *steps)
        )

    def lay_out(self, band: slice) -> Program:
        """Lay the windows of a band out."""
        windows = self.windows[:, band.start : band.stop + self.margin]
        laid = self.laid[:, : windows.shape[1]]
        *_, together, across, inner = windows.shape
        if across * inner >= min(SHORT, windows.shape[2]):
            return [(copy, laid, windows)]
        # NumPy copies what lies side by side, which here is less than it takes to begin.
        taps = product(range(together), range(across), range(inner))
        return [(copy, laid[..., i, j, c], windows[..., i, j, c]) for i, j, c in taps]

    def seen(self, laid: Any, height: int) -> list[Any]:
        """Return the laid out rows that each matrix sees for so many outputs, as (n, places, depth)."""
        shape = self.n, height * self.convolution.outputs[1], self.convolution.kernel.shape[1]
        return [laid[:, start : start + height].reshape(shape) for start in self.convolution.starts]


class Forward(_Workspace):
    """What a thread needs to convolve ``n`` images.

    Attributes:
        x: (n, height, width, inner), to be filled with them.
        parts: for one band of rows after the other the band, the program that computes it, and the
            last function with its arguments, which then writes (n, height, columns * outer) to its place.
    """

    def __init__(self, convolution: Convolution, n: int, relu: bool, scratch: Scratch) -> None:
        """Write the programs down; ``relu`` lets ReLU follow."""
        super().__init__(convolution, n, scratch)
        _, across, outer = convolution.outputs
        zero = np.zeros((), scratch.dtype)
        self.parts: list[tuple[slice, Program, tuple[Any, ...]]] = []
        for band in convolution.bands():
            height = band.stop - band.start
            shape = (n, height * across, outer)
            out, spare = scratch("out", shape), scratch("spare", shape)
            factors = zip(self.seen(self.laid, height), convolution.kernel, strict=True)
            program = self.lay_out(band) + sum_of_products(factors, out, spare)
            result = out.reshape(n, height, across * outer)
            last: tuple[Any, ...] = (copy, result)
            if convolution.row_bias is not None:
                last = (np.add, result, convolution.row_bias)
            if relu:
                # The sum makes +0.0 of -0.0, of which a maximum may give either.
                program += [(last[0], result, *last[1:]), (np.maximum, result, result, zero)]
                last = (np.add, result, zero)
            self.parts.append((band, program, last))

    def __call__(self, y: Any) -> None:
        """Write what ``x`` gives to ``y``, (n, rows, columns, outer), of which a row is contiguous."""
        by_rows = y.reshape(*y.shape[:2], -1)
        for band, program, (last, *given) in self.parts:
            execute(program)
            last(*given, out=by_rows[:, band])


class Backward(_Workspace):
    """What a thread needs to go back through the convolution of ``n`` images.

    Attributes:
        x, dy: (n, height, width, inner) and (n, rows, columns, outer), to be filled with the images
            and the upstream gradient.
        dx: the gradient of the images; None if it is not asked for.
        program: what goes from the former to the latter and adds to the gradients.
    """

    def __init__(
        self,
        convolution: Convolution,
        n: int,
        with_dx: bool,
        sums: tuple[Any, Any],
        scratch: Scratch,
    ) -> None:
        """Write the program down; what it finds is added to the gradients of the kernel and the bias."""
        super().__init__(convolution, n, scratch)
        dkernel, dbias = sums
        _, across, outer = convolution.outputs
        self.dy = scratch("dy", (n, *convolution.outputs))
        ones = np.ones(convolution.height * across, scratch.dtype)
        of_images, added = scratch("of images", (n, outer)), scratch("of all", (outer,))
        self.dx = None
        self.program: Program = []
        if with_dx:
            self.dbordered = zeros(self.bordered.shape, scratch.dtype)
            self.dx = self.inside(self.dbordered)
            self.turned = [np.ascontiguousarray(matrix.T) for matrix in convolution.kernel]
            self.alone: dict[int, Any] = {}
            self.program.append((copy, self.dbordered, 0))
        for band in convolution.bands():
            height = band.stop - band.start
            part = self.dy[:, band].reshape(n, height * across, outer)
            self.program += self.lay_out(band)
            for seen, total in zip(self.seen(self.laid, height), dkernel, strict=True):
                self.program += gram(seen, part, total, scratch)
            self.program += [
                (np.matmul, of_images, ones[: part.shape[1]], part),
                (np.add.reduce, added, of_images, 0),
                (np.add, dbias, dbias, added),
            ]
            if with_dx:
                self.program += self._spread(band, part)

    def _spread(self, band: slice, part: Any) -> Program:
        """Add what a band of dy gives to dx: through each kernel row to the rows that it saw."""
        height = band.stop - band.start
        dlaid = self.scratch("dlaid", self.laid.shape)[:, : height + self.margin]
        first, *others = self.seen(dlaid, height)
        own, spare = (self.scratch(name, first.shape) for name in ("own", "spare"))
        program: Program = [(copy, dlaid[:, height:], 0)]
        program += sum_of_products([(part, self.turned[0])], first, spare)
        for seen, matrix in zip(others, self.turned[1:], strict=True):
            program += sum_of_products([(part, matrix)], own, spare)
            program.append((np.add, seen, seen, own))
        return program + self._scatter(dlaid, band)

    def _scatter(self, dlaid: Any, band: slice) -> Program:
        """Add the gradients of laid out windows to the pixels that they were gathered from."""
        rows, columns = self.convolution.rows, self.convolution.columns
        reach = (dlaid.shape[1] - 1) * rows.stride + 1
        program: Program = []
        for i in range(self.convolution.together):
            top = band.start * rows.stride + i * rows.dilation
            pixels = self.dbordered[:, top : top + reach : rows.stride]
            for j, column in enumerate(columns.taps()):
                tap = dlaid[..., i, j, :]
                if columns.stride > 1:
                    target = pixels[:, :, column]
                else:
                    # In whole rows, of which the rest is 0, what is added lies side by side.
                    target, alone = pixels, self._alone(j)[:, : dlaid.shape[1]]
                    program.append((copy, alone[:, :, column], tap))
                    tap = alone
                program.append((np.add, target, target, tap))
        return program

    def _alone(self, column: int) -> Any:
        """Return rows of the image for one column of the window, 0 where that never comes."""
        if column not in self.alone:
            shape = (self.n, self.laid.shape[1], *self.bordered.shape[2:])
            self.alone[column] = zeros(shape, self.scratch.dtype)
        return self.alone[column]
