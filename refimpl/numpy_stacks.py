"""A model of nothing but dense layers and ReLU, with small NumPy arrays, in few operations.

Such a model takes less time to compute than to be asked about layer by layer: NumPy needs a
microsecond to begin, Python one for a handful of calls. Here the layers are one loop, and their
gradients are written where they will lie side by side, as a :class:`refimpl.bundles.Bundle`. It is
what :func:`refimpl.models.run` does with ``dense`` and ``relu``, operation by operation, and has
the same bits: ``tests/refimpl/test_fast_paths.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .arrays import namespace
from .bundles import cut_of
from .layers.checks import check_upstream
from .numpy_forms import at_least_zero, passed_above_zero
from .numpy_products import SMALL

RELU = {"operation": "layer.relu"}


def run(
    model: Sequence[Mapping[str, Any]], params: Sequence[Any], x: Any
) -> tuple[Any, Callable[..., tuple[Any, list[Any]]]] | None:
    """Return the output and the way back, as :func:`refimpl.models.run`; None if this is not for it."""
    dtype, count = x.dtype, len(params)
    if dtype.kind != "f" or dtype.itemsize < 4 or x.ndim != 2 or not count:
        return None
    taken = 0
    inputs: list[tuple[Any, Any]] = []
    for layer in model:
        weight = None
        if layer != RELU:
            if layer["operation"] != "layer.dense" or len(layer) > 2 or taken + 2 > count:
                return None
            weight, bias = params[taken : taken + 2]
            taken += 2
            fits = (
                weight.ndim == 2
                and x.shape[1:] == weight.shape[:1]
                and bias.shape == weight.shape[1:]
            )
            if not fits or not weight.dtype == bias.dtype == dtype or len(x) * weight.size >= SMALL:
                return None
        inputs.append((x, weight))
        if weight is None:
            x = at_least_zero(x)
        else:
            x = np.matmul(x, weight)
            x += bias
    if taken != count:
        return None
    y = x

    def backprop(dy: Any, with_dx: bool = True) -> tuple[Any, list[Any]]:
        check_upstream(dy, y)
        cut = cut_of(namespace(y), params)
        grads = cut.part([np.empty(cut.sizes[0], dtype)])
        place = count
        for number in range(len(inputs) - 1, -1, -1):
            given, weight = inputs[number]
            if weight is None:
                dy = passed_above_zero(given, dy)
                continue
            place -= 2
            np.matmul(given.T, dy, out=grads[place])
            np.add.reduce(dy, axis=0, out=grads[place + 1])
            dy = np.matmul(dy, weight.T) if number or with_dx else None
        return dy, grads

    return y, backprop
