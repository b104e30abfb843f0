"""The convolutions that a model begins with, each with its ReLU and its pooling, as one pass of NumPy.

It is what :func:`refimpl.models.run` does with ``conv2d``, ``relu`` and ``avg_pool2d`` layer by layer,
but for a few images after the other: ``tests/refimpl/test_in_cache.py`` holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .layers.checks import check_upstream
from .layers.conv2d import placed
from .layers.in_cache import Step
from .layers.in_cache import run as run_steps
from .layers.windows import NO_PADDING, place
from .numpy_stacks import RELU

GEOMETRY = {"stride", "padding", "dilation"}
CONVOLUTION = {"operation", "filters", "kernel", *GEOMETRY}
POOL = {"operation", "window"}
"""What the description of a layer may say; with anything else it runs by itself."""


def run(
    model: Sequence[Mapping[str, Any]], params: Sequence[Any], x: Any
) -> tuple[Any, Callable[..., Any], int, int] | None:
    """Return the output, the way back, and how many layers and parameters this is; None for none.

    The way back is that of all these layers: ``backprop(dy)`` returns ``dx`` and their gradients.
    """
    if x.ndim != 4 or x.dtype not in (np.float32, np.float64):
        return None
    steps: list[Step] = []
    seen, taken = x, 0
    for layer in model:
        step = _with(layer, steps[-1], seen) if steps else None
        if step is not None:
            steps[-1] = step
        else:
            step = _convolution(layer, params[2 * len(steps) :], seen)
            if step is None:
                break
            steps.append(step)
        taken += 1
        if seen.shape[1:] != step.outputs:
            seen = np.broadcast_to(np.zeros((), x.dtype), (len(x), *step.outputs))
    if taken < 2:
        return None
    y, backward = run_steps(steps, x)

    def backprop(dy: Any, with_dx: bool = True) -> tuple[Any, ...]:
        check_upstream(dy, y)
        dx, gradients = backward(dy, with_dx)
        return dx, *gradients

    return y, backprop, taken, 2 * len(steps)


def _convolution(layer: Mapping[str, Any], params: Sequence[Any], x: Any) -> Step | None:
    """Return the step that a layer is; None if it is none, or nothing for NumPy's fast form."""
    if layer["operation"] != "layer.conv2d" or len(params) < 2 or not layer.keys() <= CONVOLUTION:
        return None
    weight, bias = params[:2]
    options = {name: layer[name] for name in GEOMETRY & layer.keys()}
    return Step(weight, bias, *placed(x, weight, bias, **options))


def _with(layer: Mapping[str, Any], step: Step, y: Any) -> Step | None:
    """Return a step, which gives ``y``, with one layer more; None if the layer does not belong to it."""
    if step.pool is None and not step.relu and layer == RELU:
        return step._replace(relu=True)
    if step.pool is None and layer["operation"] == "layer.avg_pool2d" and layer.keys() == POOL:
        window = layer["window"]
        rows, columns = place(y, window, window, NO_PADDING, (1, 1), ceil_mode=False)
        if rows.tiles and columns.tiles:
            return step._replace(pool=(rows.window, columns.window))
    return None
