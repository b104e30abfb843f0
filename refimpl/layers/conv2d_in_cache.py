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
programs of NumPy calls: what Python does between them, it does while no other thread can. To write them
takes as long as some images do, so a workspace serves any batch of its geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from .. import numpy_products
from ..numpy_memory import Scratch, zeros
from ..numpy_products import Calls, Program, calls, copy, execute, gram, sum_of_products
from .windows import Axis

SHORT = 8
"""To copy fewer elements than this at a time takes longer than to copy them one by one in a long row."""

LONG = 2**14
"""The rows of so many elements share an operand, or one row: fewer cost calls, more leave the first cache."""

CACHE = 2**21
"""Bytes of windows, and of what is computed from them, at once: what a core has for itself."""


@dataclass(frozen=True)
class Geometry:
    """The shapes of a convolution with one group, and how it is divided.

    Attributes:
        rows, columns: where its windows lie.
        inner, outer: channels of an image, and of what it becomes.
        dtype: float32 or float64, to compute in.
        cache, deep: by which sizes it is divided.
    """

    rows: Axis
    columns: Axis
    inner: int
    outer: int
    dtype: Any
    cache: int
    deep: int

    @classmethod
    def of(cls, weight: Any, rows: Axis, columns: Axis) -> Geometry:
        """Return the geometry of a convolution with a weight (kh, kw, inner, outer)."""
        *_, inner, outer = weight.shape
        return cls(rows, columns, inner, outer, weight.dtype, CACHE, numpy_products.DEEP)

    @cached_property
    def together(self) -> int:
        """How many kernel rows make one matrix: a number that divides all of them."""
        kh, deep = self.rows.window, self.columns.window * self.inner
        # With a stride a laid out row would serve few kernel rows; a flat matrix is no good product.
        return kh if self.rows.stride > 1 or kh * deep <= self.deep else 1

    @cached_property
    def kernel(self) -> tuple[int, int, int]:
        """The shape of the weight as matrices (depth, outer), one for so many kernel rows each."""
        depth = self.together * self.columns.window * self.inner
        return self.rows.window // self.together, depth, self.outer

    @cached_property
    def starts(self) -> list[int]:
        """How many rows of windows each matrix is below the first."""
        return [i * self.rows.dilation for i in range(0, self.rows.window, self.together)]

    @cached_property
    def margin(self) -> int:
        """How many rows of windows more are laid out than there are outputs."""
        return self.starts[-1]

    @cached_property
    def outputs(self) -> tuple[int, int, int]:
        """What it gives of an image: rows, columns, outer."""
        return self.rows.outputs, self.columns.outputs, self.outer

    @cached_property
    def multiplications(self) -> int:
        """How many multiplications an image takes."""
        count, depth, outer = self.kernel
        return self.rows.outputs * self.columns.outputs * count * depth * outer

    @cached_property
    def bordered(self) -> tuple[int, int, int]:
        """The shape of an image with its padding."""
        height, width = (axis.before + axis.size + axis.after for axis in (self.rows, self.columns))
        return height, width, self.inner

    @cached_property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return self.bordered[:2] != (self.rows.size, self.columns.size)

    @cached_property
    def rows_at_once(self) -> int:
        """How many rows of outputs fit the cache."""
        row_bytes = self.columns.outputs * (self.kernel[1] + 2 * self.outer) * self.dtype.itemsize
        return max(1, self.cache // max(row_bytes, 1))

    @cached_property
    def images(self) -> int:
        """How many images fit the cache."""
        return max(1, self.rows_at_once // self.rows.outputs)

    @cached_property
    def bands(self) -> list[slice]:
        """The rows of outputs that are made at once, in order."""
        stop, height = self.rows.outputs, min(self.rows.outputs, self.rows_at_once)
        return [slice(i, min(i + height, stop)) for i in range(0, stop, height)]

    def windows(self, bordered: Any) -> Any:
        """Return the windows of images as a view (N, rows, columns, together, kw, C): no element is copied."""
        n, down, right, deep = bordered.strides
        rows, columns = self.rows, self.columns
        places = (len(bordered), rows.outputs + self.margin, columns.outputs)
        window = (self.together, columns.window, self.inner)
        strides = (n, down * rows.stride, right * columns.stride)
        steps = (down * rows.dilation, right * columns.dilation, deep)
        return np.lib.stride_tricks.as_strided(
            bordered, (*places, *window), (*strides, *steps), writeable=False
        )

    def inside(self, bordered: Any) -> Any:
        """Return images without their padding: a view."""
        down, right = (
            slice(axis.before, axis.before + axis.size) for axis in (self.rows, self.columns)
        )
        return bordered[:, down, right]


class _Workspace:
    """One thread's memory for ``n`` images, and their windows in it."""

    def __init__(self, geometry: Geometry, n: int, scratch: Scratch) -> None:
        self.geometry, self.n, self.scratch = geometry, n, scratch
        self.bordered = None
        if geometry.padded:
            self.bordered = zeros((n, *geometry.bordered), scratch.dtype)
            self.windows = geometry.windows(self.bordered)
        self.kernel = np.empty(geometry.kernel, scratch.dtype)
        most = geometry.bands[0].stop + geometry.margin
        window = geometry.together, geometry.columns.window, geometry.inner
        self.laid = scratch("laid", (n, most, geometry.columns.outputs, *window))
        self.taps: list[tuple[int, ...]] = []
        if window[1] * window[2] < min(SHORT, geometry.columns.outputs):
            # NumPy copies what lies side by side, which here is less than it takes to begin.
            self.taps = list(product(*map(range, window)))

    def load(self, weight: Any) -> None:
        """Take the weight for what comes."""
        np.copyto(self.kernel, weight.reshape(self.kernel.shape))

    def see(self, x: Any, windows: Any) -> Any:
        """Return the windows of images: ``windows``, or those of their copies with padding."""
        if self.bordered is None:
            return windows
        np.copyto(self.geometry.inside(self.bordered), x)
        return self.windows

    def lay_out(self, windows: Any, band: slice) -> None:
        """Lay the windows of a band out."""
        windows = windows[:, band.start : band.stop + self.geometry.margin]
        laid = self.laid[:, : windows.shape[1]]
        if not self.taps:
            np.copyto(laid, windows)
        for i, j, c in self.taps:
            np.copyto(laid[..., i, j, c], windows[..., i, j, c])

    def seen(self, laid: Any, height: int) -> list[Any]:
        """Return the laid out rows that each matrix sees for so many outputs, as (n, places, depth)."""
        shape = self.n, height * self.geometry.columns.outputs, self.geometry.kernel[1]
        return [laid[:, start : start + height].reshape(shape) for start in self.geometry.starts]


class Forward(_Workspace):
    """What a thread needs to convolve ``n`` images.

    Attributes:
        parts: for one band of rows after the other the band, the calls that compute it, and the
            last function with its arguments, which then writes to its place.
    """

    def __init__(
        self, geometry: Geometry, n: int, with_bias: bool, relu: bool, scratch: Scratch
    ) -> None:
        """Write the programs down; ``relu`` lets ReLU follow a convolution with a bias."""
        super().__init__(geometry, n, scratch)
        _, across, outer = geometry.outputs
        row = across * outer
        shared = max(1, LONG // max(row, 1))
        self.bias = np.empty((shared * across, outer), scratch.dtype) if with_bias else None
        self.relu, zero = relu, np.zeros(shared * row, scratch.dtype)
        self.parts: list[tuple[slice, Calls, tuple[Any, ...]]] = []
        for band in geometry.bands:
            height = band.stop - band.start
            shape = n, height * across, outer
            out, spare = scratch("out", shape), scratch("spare", shape)
            rows = next(i for i in range(shared, 0, -1) if height % i == 0)
            result, length = out.reshape(n, height // rows, rows * row), slice(rows * row)
            finish: Program = [(copy, result, result)]
            if self.bias is not None:
                finish = [(np.add, result, result, self.bias.reshape(-1)[length])]
            if relu:
                finish.append((np.maximum, result, result, zero[length]))
            function, _, *given = finish.pop()
            factors = zip(self.seen(self.laid, height), self.kernel, strict=True)
            program = sum_of_products(factors, out, spare) + finish
            self.parts.append((band, calls(program), (function, *given)))

    def load(self, weight: Any, bias: Any = None) -> None:
        """Take the weight and the bias for what comes."""
        super().load(weight)
        if self.bias is not None:
            # Only two -0.0 add up to -0.0, of which and +0.0 a maximum may give either.
            np.copyto(self.bias, bias + 0.0 if self.relu else bias)

    def __call__(self, x: Any, windows: Any, y: Any) -> None:
        """Write what images give to ``y``, (n, rows, columns, outer), in C order."""
        windows = self.see(x, windows)
        for band, begun, (last, *given) in self.parts:
            self.lay_out(windows, band)
            execute(begun)
            last(*given, out=y[:, band].reshape(given[0].shape))


class Backward(_Workspace):
    """What a thread needs to go back through the convolution of ``n`` images.

    Attributes:
        dy: (n, rows, columns, outer), to be filled with the upstream gradient.
        dx: the gradient of the images; None if it is not asked for.
        dkernel, dbias: to which the gradients of the weight and of the bias are added.
        parts: for one band of rows after the other the band, and the calls that go back.
    """

    def __init__(self, geometry: Geometry, n: int, with_dx: bool, scratch: Scratch) -> None:
        """Write the programs down."""
        super().__init__(geometry, n, scratch)
        self.dy = scratch("dy", (n, *geometry.outputs))
        self.dkernel = np.zeros_like(self.kernel)
        self.dbias = np.zeros(geometry.outer, scratch.dtype)
        self.dx = None
        if with_dx:
            self.dbordered = zeros((n, *geometry.bordered), scratch.dtype)
            self.dx = geometry.inside(self.dbordered)
            self.turned = np.empty(self.kernel.transpose(0, 2, 1).shape, scratch.dtype)
            self.alone: dict[int, Any] = {}
        self.parts: list[tuple[slice, Calls]] = []
        for band in geometry.bands:
            program = self._gradients(band) + (self._spread(band) if with_dx else [])
            self.parts.append((band, calls(program)))

    def load(self, weight: Any) -> None:
        """Take the weight for what comes."""
        super().load(weight)
        if self.dx is not None:
            np.copyto(self.turned, self.kernel.transpose(0, 2, 1))

    def __call__(self, x: Any, windows: Any) -> None:
        """Add what images and ``dy`` give to the gradients; write ``dx``."""
        windows = self.see(x, windows)
        for band, whole in self.parts:
            self.lay_out(windows, band)
            execute(whole)

    def _part(self, band: slice) -> Any:
        return self.dy[:, band].reshape(
            self.n, (band.stop - band.start) * self.geometry.outputs[1], self.geometry.outer
        )

    def _gradients(self, band: slice) -> Program:
        """Add what a band gives to the gradients of the weight and of the bias."""
        height, (_, across, outer) = band.stop - band.start, self.geometry.outputs
        part, program = self._part(band), []
        for seen, total in zip(self.seen(self.laid, height), self.dkernel, strict=True):
            program += gram(seen, part, total, self.scratch)
        # In rows, since NumPy keeps Python's lock while it computes 500 numbers or fewer, however long.
        of_rows, added = (
            self.scratch("of rows", (self.n * height, outer)),
            self.scratch("of all", (outer,)),
        )
        rows = part.reshape(self.n * height, across, outer)
        return [
            *program,
            (np.matmul, of_rows, np.ones(across, self.scratch.dtype), rows),
            (np.add.reduce, added, of_rows, 0),
            (np.add, self.dbias, self.dbias, added),
        ]

    def _spread(self, band: slice) -> Program:
        """Add what a band of dy gives to dx: through each kernel row to the rows that it saw."""
        part, height = self._part(band), band.stop - band.start
        dlaid = self.scratch("dlaid", self.laid.shape)[:, : height + self.geometry.margin]
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
        rows, columns = self.geometry.rows, self.geometry.columns
        reach = (dlaid.shape[1] - 1) * rows.stride + 1
        program: Program = []
        for i, (j, column) in product(range(self.geometry.together), enumerate(columns.taps())):
            top, tap = band.start * rows.stride + i * rows.dilation, dlaid[..., i, j, :]
            pixels = self.dbordered[:, top : top + reach : rows.stride]
            if band.start == i == j == 0:
                program += self._begun(pixels[:, :, column], tap)
            elif columns.stride > 1:
                program.append((np.add, pixels[:, :, column], pixels[:, :, column], tap))
            else:
                # In whole rows, of which the rest is 0, what is added lies side by side.
                alone = self._alone(j)[:, : dlaid.shape[1]]
                program += [(copy, alone[:, :, column], tap), (np.add, pixels, pixels, alone)]
        return program

    def _begun(self, target: Any, tap: Any) -> Program:
        """Write the first tap to its pixels, 0 to all others."""
        rest: Program = [(copy, self.dbordered, 0)]
        if self.geometry.rows.stride == self.geometry.columns.stride == 1:
            height, across = target.shape[1:3]
            below, beside = self.dbordered[:, height:], self.dbordered[:, :height, across:]
            rest = [(copy, part, 0) for part in (below, beside) if part.size]
        return [*rest, (copy, target, tap)]

    def _alone(self, column: int) -> Any:
        """Return rows of the image for one column of the window, 0 where that never comes."""
        if column not in self.alone:
            shape = (self.n, self.laid.shape[1], *self.geometry.bordered[1:])
            self.alone[column] = zeros(shape, self.scratch.dtype)
        return self.alone[column]
