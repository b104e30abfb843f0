"""Convolutions, each with what follows it, for a few images after the other, in several threads.

What one layer gives of some images the next one takes while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain, product
from typing import Any, NamedTuple

import numpy as np

from ..numpy_forms import BITS
from ..numpy_memory import Scratch, empty
from ..numpy_products import Program, copy, execute
from ..numpy_threads import PARTS, dealt, in_parallel
from .conv2d_in_cache import Backward, Convolution, Forward
from .windows import Axis

THREADED_FROM = 2**23
"""From so many multiplications on, more than one thread is worth waking."""


class Step(NamedTuple):
    """A convolution, and whether ReLU and an average over windows that tile come after it."""

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


class _Stage:
    """A step and its arrays.

    ``y`` is what is handed on; ``passed`` is where ReLU let something through, if ``y`` does not tell.
    """

    def __init__(self, step: Step, x: Any) -> None:
        self.step, self.convolution = step, Convolution(x, *step[:4])
        self.y = empty((len(x), *step.outputs), x.dtype)
        self.passed = None
        if step.relu and step.pool is not None:
            self.passed = empty((len(x), *self.convolution.outputs), np.bool)

    def forward(self, n: int, scratch: Scratch) -> Callable[[slice], None]:
        """Return what makes ``y`` of a slice of ``n`` images, with one thread's memory."""
        convolve = Forward(self.convolution, n, self.step.relu, scratch)
        whole = scratch("whole", (n, *self.convolution.outputs))
        average = (
            None if self.step.pool is None else self._averaging(self.step.pool, whole, scratch)
        )

        def forward(block: slice) -> None:
            np.copyto(convolve.x, self.convolution.x[block])
            convolve(self.y[block] if average is None else whole)
            if average is not None:
                average(block)

        return forward

    def _averaging(
        self, window: tuple[int, int], whole: Any, scratch: Scratch
    ) -> Callable[[slice], None]:
        """Return what makes ``y`` of ``whole``, what the convolution (and ReLU) gives of some images."""
        height, width = window
        taps = [whole[:, i::height, j::width] for i, j in product(range(height), range(width))]
        tap, total = (scratch(name, taps[0].shape) for name in ("tap", "total"))
        program: Program = [(copy, total, taps[0])]
        for each in taps[1:]:
            program += [(copy, tap, each), (np.add, total, total, tap)]

        def average(block: slice) -> None:
            if self.passed is not None:
                np.not_equal(whole, 0, out=self.passed[block])
            execute(program)
            np.divide(total, len(taps), out=self.y[block])

        return average

    def backward(
        self, n: int, with_dx: bool, sums: tuple[Any, Any], scratch: Scratch
    ) -> tuple[Backward, Callable[[slice, Any], None]]:
        """Return one thread's memory, and what fills it and goes back from ``dy`` of ``n`` images."""
        convolve = Backward(self.convolution, n, with_dx, sums, scratch)
        rows, columns, outer = self.step.outputs
        height, width = self.step.pool or (1, 1)
        # As many axes as it takes to have those of a window apart.
        windows = convolve.dy.reshape((n, rows, height, columns, width, outer))
        bits = convolve.dy.view(BITS[self.y.itemsize])

        def backward(block: slice, dy: Any) -> None:
            share = dy if self.step.pool is None else dy / (height * width)
            np.copyto(windows, share[:, :, None, :, None])
            if self.step.relu:
                passed = self.y[block] != 0 if self.passed is None else self.passed[block]
                np.multiply(bits, passed, out=bits)
            np.copyto(convolve.x, self.convolution.x[block])
            execute(convolve.program)

        return convolve, backward


def run(
    steps: Sequence[Step], x: Any
) -> tuple[Any, Callable[[Any, bool], tuple[Any | None, list[Any]]]]:
    """Return what the steps make of ``x``, and the way back: ``dx``, or None, and all gradients.

    Arrays are float32 or float64. Each gradient has the shape of its weight or its bias.
    """
    stages: list[_Stage] = []
    for step in steps:
        stages.append(_Stage(step, stages[-1].y if stages else x))
    most = max(stage.convolution.multiplications for stage in stages)
    count = PARTS if most >= THREADED_FROM else 1
    fitting = min(stage.convolution.images for stage in stages)
    images = max(1, min(fitting, -(-len(x) // count)))
    blocks = [slice(i, min(i + images, len(x))) for i in range(0, len(x), images)]
    parts = [blocks[part] for part in dealt(len(blocks), count)]

    def prepare() -> Callable[[list[slice]], None]:
        scratch = Scratch(x.dtype)
        walks = cache(lambda n: [stage.forward(n, scratch) for stage in stages])

        def forward(blocks: list[slice]) -> None:
            for block in blocks:
                for walk in walks(block.stop - block.start):
                    walk(block)

        return forward

    in_parallel(prepare, parts)

    def backprop(dy: Any, with_dx: bool) -> tuple[Any | None, list[Any]]:
        dx = empty(x.shape, x.dtype) if with_dx else None

        def prepare() -> Callable[[list[slice]], list[Any]]:
            scratch = Scratch(x.dtype)
            sums = [stage.convolution.zeros() for stage in stages]

            @cache
            def walks(n: int) -> list[tuple[Backward, Callable[[slice, Any], None]]]:
                return [
                    stage.backward(n, with_dx or number > 0, sums[number], scratch)
                    for number, stage in enumerate(stages)
                ][::-1]

            totals = list(chain.from_iterable(sums))

            def backward(blocks: list[slice]) -> list[Any]:
                for total in totals:
                    total[...] = 0
                for block in blocks:
                    upstream = dy[block]
                    for memory, walk in walks(block.stop - block.start):
                        walk(block, upstream)
                        upstream = memory.dx
                    if dx is not None:
                        dx[block] = upstream
                return [total.copy() for total in totals]

            return backward

        found = in_parallel(prepare, parts) or [prepare()([])]
        totals = [sum(each[1:], each[0]) for each in zip(*found, strict=True)]
        shapes = [shape for step in steps for shape in (step.weight.shape, step.weight.shape[3:])]
        return dx, [each.reshape(shape) for each, shape in zip(totals, shapes, strict=True)]

    return stages[-1].y, backprop
