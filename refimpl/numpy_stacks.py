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
from .numpy_forms import BITS
from .numpy_products import SMALL

RELU = {"operation": "layer.relu"}

_ZEROS = {np.dtype(name): np.zeros((), name) for name in ("float32", "float64")}
"""NumPy takes longer to make an array of a number than to add it."""


def run(
    model: Sequence[Mapping[str, Any]], params: Sequence[Any], x: Any
) -> tuple[Any, Callable[..., tuple[Any, list[Any]]]] | None:
    """Return the output and the way back, as :func:`refimpl.models.run`; None if this is not for it."""
    dtype, count = x.dtype, len(params)
    zero = _ZEROS.get(dtype)
    if zero is None or x.ndim != 2 or not count:
        return None
    taken = 0
    # Of each layer the input and the weight; of ReLU the output, which says as well what passed.
    kept: list[tuple[Any, Any]] = []
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
        if weight is not None:
            kept.append((x, weight))
            x = x.dot(weight)
            x += bias
            continue
        # What the layer before has made is nobody else's: it is written over.
        x = np.maximum(x, zero, out=x if kept else None)
        x += zero
        kept.append((x, None))
    if taken != count:
        return None
    # Whoever gets it may write to it.
    y = x.copy() if kept[-1][1] is None else x

    def backprop(dy: Any, with_dx: bool = True) -> tuple[Any, list[Any]]:
        check_upstream(dy, y)
        cut = cut_of(namespace(y), params)
        grads, unsigned = cut.part([np.empty(cut.sizes[0], dtype)]), BITS[dtype.itemsize]
        place = count
        for number in range(len(kept) - 1, -1, -1):
            given, weight = kept[number]
            if weight is None:
                # As integers, the bits of a positive number are positive; those of +0.0 are 0.
                passed = np.sign(given.view(unsigned))
                dy = np.multiply(dy.view(unsigned), passed, out=passed).view(dtype)
                continue
            place -= 2
            given.T.dot(dy, grads[place])
            np.add.reduce(dy, 0, None, grads[place + 1])
            dy = dy.dot(weight.T) if number or with_dx else None
        return dy, grads

    return y, backprop
