"""Convolutions, each with what follows it, for a few images after the other, in several threads.

What one layer gives of some images the next one takes while it is in the cache.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..numpy_forms import BITS
from ..numpy_memory import Scratch, empty
from ..numpy_products import Program, calls, copy, execute
from ..numpy_threads import PARTS, dealt, in_parallel
from .conv2d_in_cache import Backward, Forward, Geometry
from .windows import Axis

THREADED_FROM = 2**23
"""From so many multiplications on, more than one thread is worth waking."""

KEPT = 16
"""So many workspaces a thread keeps of each kind: to make one takes as long as an image or two."""

LARGEST = 2**24
"""A workspace for images of more bytes is not kept."""


class Step(NamedTuple):
    """A convolution, and whether ReLU (if it has a bias) and an average over windows that tile come after."""

    weight: Any
    bias: Any | None
    rows: Axis
    columns: Axis
    relu: bool = False
    pool: tuple[int, int] | None = None

    @property
    def outputs(self) -> tuple[int, int, int]:
        """The shape of what is handed on of an image."""
        height, width = self.pool or (1, 1)
        return self.rows.outputs // height, self.columns.outputs // width, self.weight.shape[3]


class _Kind(NamedTuple):
    """What a workspace depends on: all of a step but its numbers; and which step of a pass it is for."""

    place: int
    geometry: Geometry
    with_bias: bool
    relu: bool
    pool: tuple[int, int] | None

    @property
    def taps(self) -> list[tuple[slice, slice]]:
        """The places of a window to average over, in all windows at once."""
        height, width = self.pool or (1, 1)
        starts = product(range(height), range(width))
        return [(slice(i, None, height), slice(j, None, width)) for i, j in starts]


class _Forward:
    """A step, and one thread's memory to take it with ``n`` images."""

    def __init__(self, kind: _Kind, n: int, scratch: Scratch) -> None:
        self.kind = kind
        self.convolve = Forward(kind.geometry, n, kind.with_bias, kind.relu, scratch)
        if kind.pool is None:
            return
        self.whole = scratch("whole", (n, *kind.geometry.outputs))
        first, *others = [self.whole[:, rows, columns] for rows, columns in kind.taps]
        tap, self.total = (scratch(name, first.shape) for name in ("tap", "total"))
        program: Program = [(copy, self.total, first)]
        for each in others:
            program += [(copy, tap, each), (np.add, self.total, self.total, tap)]
        self.add_up = calls(program)

    def __call__(self, x: Any, windows: Any, y: Any, passed: Any) -> None:
        """Write what images give to ``y``, and to ``passed`` where ReLU let something through."""
        if self.kind.pool is None:
            self.convolve(x, windows, y)
            return
        self.convolve(x, windows, self.whole)
        if self.kind.relu:
            np.not_equal(self.whole, 0, out=passed)
        execute(self.add_up)
        np.divide(self.total, len(self.kind.taps), out=y)


class _Backward:
    """One thread's memory to go back through a step with ``n`` images."""

    def __init__(self, kind: _Kind, n: int, with_dx: bool, scratch: Scratch) -> None:
        self.kind = kind
        self.convolve = Backward(kind.geometry, n, with_dx, scratch)
        rows, columns, outer = kind.geometry.outputs
        height, width = kind.pool or (1, 1)
        # As many axes as it takes to have those of a window apart.
        apart = (n, rows // height, height, columns // width, width, outer)
        self.windows = self.convolve.dy.reshape(apart)
        self.bits = self.convolve.dy.view(BITS[scratch.dtype.itemsize])

    @property
    def sums(self) -> tuple[Any, Any]:
        """The gradients of the weight, as matrices, and of the bias."""
        return self.convolve.dkernel, self.convolve.dbias

    def __call__(self, x: Any, windows: Any, dy: Any, y: Any, passed: Any) -> Any:
        """Return the gradient of images, if it is asked for, which lasts until the next call."""
        share = dy if self.kind.pool is None else dy / len(self.kind.taps)
        np.copyto(self.windows, share[:, :, None, :, None])
        if self.kind.relu:
            np.multiply(self.bits, y != 0 if self.kind.pool is None else passed, out=self.bits)
        self.convolve(x, windows)
        return self.convolve.dx


class Kept(threading.local):
    """What a thread keeps for its next batch."""

    def __init__(self) -> None:
        """Keep nothing yet; a thread calls this when it first looks."""
        scratch = cache(Scratch)
        self.forward = lru_cache(KEPT)(
            lambda kind, n: _Forward(kind, n, scratch(kind.geometry.dtype))
        )
        self.backward = lru_cache(KEPT)(
            lambda kind, n, with_dx: _Backward(kind, n, with_dx, scratch(kind.geometry.dtype))
        )


kept = Kept()


class _Stage:
    """A step and the arrays of a batch.

    ``y`` is what is handed on; ``passed`` is where ReLU let something through, if ``y`` does not tell.
    """

    def __init__(self, place: int, step: Step, x: Any) -> None:
        self.step, self.x = step, x
        geometry = Geometry.of(step.weight, step.rows, step.columns)
        self.kind = _Kind(place, geometry, step.bias is not None, step.relu, step.pool)
        self.windows = None if geometry.padded else geometry.windows(x)
        self.y = empty((len(x), *step.outputs), x.dtype)
        self.passed = None
        if step.relu and step.pool is not None:
            self.passed = empty((len(x), *geometry.outputs), np.bool)

    def of(self, block: slice) -> tuple[Any, Any, Any, Any]:
        """Return a few images, their windows, what they gave and where ReLU let something through."""
        arrays = (self.x, self.windows, self.y, self.passed)
        x, windows, y, passed = (None if array is None else array[block] for array in arrays)
        return x, windows, y, passed

    def forward(self, n: int) -> _Forward:
        """Return the thread's memory for ``n`` images, with the numbers of the step."""
        known = kept.forward if self._is_kept(n) else Kept().forward
        walk: _Forward = known(self.kind, n)
        walk.convolve.load(self.step.weight, self.step.bias)
        return walk

    def backward(self, n: int, with_dx: bool) -> _Backward:
        """Return the thread's memory to go back with ``n`` images, with the numbers of the step."""
        known = kept.backward if self._is_kept(n) else Kept().backward
        walk: _Backward = known(self.kind, n, with_dx)
        walk.convolve.load(self.step.weight)
        return walk

    def _is_kept(self, n: int) -> bool:
        of_image = max(map(math.prod, (self.kind.geometry.bordered, self.kind.geometry.outputs)))
        return n * of_image * self.x.itemsize <= LARGEST


def run(
    steps: Sequence[Step], x: Any
) -> tuple[Any, Callable[[Any, bool], tuple[Any | None, list[Any]]]]:
    """Return what the steps make of ``x``, and the way back: ``dx``, or None, and all gradients.

    Arrays are float32 or float64. Each gradient has the shape of its weight or its bias.
    """
    stages: list[_Stage] = []
    for place, step in enumerate(steps):
        stages.append(_Stage(place, step, stages[-1].y if stages else x))
    geometries = [stage.kind.geometry for stage in stages]
    most = len(x) * max(geometry.multiplications for geometry in geometries)
    count = PARTS if most >= THREADED_FROM else 1
    fitting = min(geometry.images for geometry in geometries)
    images = max(1, min(fitting, -(-len(x) // count)))
    blocks = [slice(i, min(i + images, len(x))) for i in range(0, len(x), images)]
    parts = [blocks[part] for part in dealt(len(blocks), count)]

    def prepare() -> Callable[[list[slice]], None]:
        walks = cache(lambda n: [stage.forward(n) for stage in stages])

        def forward(blocks: list[slice]) -> None:
            for block in blocks:
                for stage, walk in zip(stages, walks(block.stop - block.start), strict=True):
                    walk(*stage.of(block))

        return forward

    in_parallel(prepare, parts)

    def backprop(dy: Any, with_dx: bool) -> tuple[Any | None, list[Any]]:
        dx = empty(x.shape, x.dtype) if with_dx else None

        def prepare() -> Callable[[list[slice]], list[Any]]:
            @cache
            def walks(n: int) -> list[_Backward]:
                return [stage.backward(n, with_dx or stage is not stages[0]) for stage in stages]

            def backward(blocks: list[slice]) -> list[Any]:
                sizes = sorted({block.stop - block.start for block in blocks})
                used = [total for n in sizes for walk in walks(n) for total in walk.sums]
                for total in used:
                    total[...] = 0
                for block in blocks:
                    upstream = dy[block]
                    memory = walks(block.stop - block.start)
                    for stage, walk in zip(stages[::-1], memory[::-1], strict=True):
                        seen, windows, y, passed = stage.of(block)
                        upstream = walk(seen, windows, upstream, y, passed)
                    if dx is not None:
                        dx[block] = upstream
                count = 2 * len(stages)
                return [_sum(used[i::count]) for i in range(count)]

            return backward

        found = in_parallel(prepare, parts)
        shapes = [shape for step in steps for shape in (step.weight.shape, step.weight.shape[3:])]
        if not found:
            return dx, [np.zeros(shape, x.dtype) for shape in shapes]
        totals = [_sum(each) for each in zip(*found, strict=True)]
        return dx, [each.reshape(shape) for each, shape in zip(totals, shapes, strict=True)]

    return stages[-1].y, backprop


def _sum(arrays: Sequence[Any]) -> Any:
    """Return the sum of arrays, in their order, in memory of its own."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total
