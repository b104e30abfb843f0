"""A model of dense layers and ReLU, flattened first or not, with small NumPy arrays, in few operations.

Such a model takes less time to compute than to be asked about layer by layer: NumPy needs a
microsecond to begin, Python one for a handful of calls. Here the layers are one loop, and their
gradients are written where they will lie side by side, as a :class:`refimpl.bundles.Bundle`. It is
what :func:`refimpl.models.run` does with ``flatten``, ``dense`` and ``relu``, operation by operation,
and has the same bits: ``tests/refimpl/test_numpy_stacks.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from .arrays import namespace
from .bundles import Bundle, cut_of, intact
from .layers.checks import check_upstream
from .numpy_forms import BITS
from .numpy_products import SMALL

FLATTEN, RELU = {"operation": "layer.flatten"}, {"operation": "layer.relu"}

_ZEROS = {np.dtype(name): np.zeros((), name) for name in ("float32", "float64")}
"""NumPy takes longer to make an array of a number than to add it."""


def run(
    model: Sequence[Mapping[str, Any]], params: Sequence[Any], x: Any
) -> tuple[Any, Callable[..., tuple[Any, list[Any]]]] | None:
    """Return the output and the way back, as :func:`refimpl.models.run`; None if this is not for it."""
    known = intact(params)
    layers = _layers(model, params, x) if known is None else _layers_again(model, known, x)
    if layers is None:
        return None
    dtype, zero, shape = x.dtype, _ZEROS[x.dtype], x.shape
    flattened = model[0] == FLATTEN
    if flattened:
        x = x.reshape(_flat(shape))
    remaining = iter(params)
    # Of each layer the input and the weight; of ReLU the output, which says as well what passed.
    kept: list[tuple[Any, Any]] = []
    for is_dense in layers:
        if is_dense:
            weight = next(remaining)
            kept.append((x, weight))
            x = x.dot(weight)
            x += next(remaining)
            continue
        # What the layer before has made is nobody else's: it is written over.
        x = np.maximum(x, zero, out=x if kept else None)
        x += zero
        kept.append((x, None))
    # Whoever gets it may write to it.
    y = x if layers[-1] else x.copy()

    def backprop(dy: Any, with_dx: bool = True) -> tuple[Any, list[Any]]:
        check_upstream(dy, y)
        cut = cut_of(namespace(y), params)
        grads, unsigned = cut.part([np.empty(cut.sizes[0], dtype)]), BITS[dtype.itemsize]
        place = len(grads)
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
            dy = dy.dot(weight.T) if number or flattened or with_dx else None
        return dy.reshape(shape) if flattened else dy, grads

    return y, backprop


def _layers(model: Sequence[Mapping[str, Any]], params: Sequence[Any], x: Any) -> list[bool] | None:
    """Return of each layer but the flattening whether it is dense, and not ReLU.

    None if the model has another, if something does not fit, or if it is not small.
    """
    dtype, shape, remaining = x.dtype, x.shape, list(params)
    if dtype not in _ZEROS or not shape or not params or not model:
        return None
    flattened = model[0] == FLATTEN
    shape = _flat(shape) if flattened else shape
    layers = []
    for layer in model[flattened:]:
        layers.append(layer != RELU)
        if layer == RELU:
            continue
        if layer["operation"] != "layer.dense" or len(layer) > 2 or len(remaining) < 2:
            return None
        weight, bias, *remaining = remaining
        fits = weight.shape == (*shape[1:], *bias.shape) and bias.ndim == len(shape) - 1 == 1
        if not fits or not weight.dtype == bias.dtype == dtype or len(x) * weight.size >= SMALL:
            return None
        shape = (len(x), *bias.shape)
    return None if remaining else layers


def _flat(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _layers_again(model: Sequence[Mapping[str, Any]], params: Bundle, x: Any) -> list[bool] | None:
    """Return :func:`_layers`, which is asked only if it has not just been of such arrays."""
    dtypes = [whole.dtype for whole in params.wholes]
    asked = (model, dtypes, x.dtype, x.shape)
    last = params.cut.last_stack
    if last is None or last[0] != asked:
        # A copy: what the model is may be changed.
        last = params.cut.last_stack = deepcopy(asked), _layers(model, params, x)
    layers: list[bool] | None = last[1]
    return layers
