"""What pruning can save: units and filters taken out for real, the sizes of what is left, fewer bits.

A mask saves nothing: a zero takes the room and the time of any number. Where every weight into a unit,
or every weight out of it, is zero, the unit can go, and the arrays become smaller. Everything here is
about models of dense, conv2d, element-wise, pooling and flatten layers in a row (:mod:`refimpl.models`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from . import models
from .models import Model

Params = Sequence[np.ndarray[Any, Any]]
AFFINE = ("layer.dense", "layer.conv2d")
POSITIONAL = ("layer.avg_pool2d", "layer.max_pool2d", "layer.flatten")
ELEMENTWISE = ("layer.relu", "layer.leaky_relu", "layer.tanh", "layer.sigmoid")
ZERO_AT_ZERO = ("layer.relu", "layer.leaky_relu", "layer.tanh", *POSITIONAL)


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters, of those that are not zero, of bytes, of multiply-adds per example."""

    parameters: int
    nonzero: int
    bytes: int
    multiply_adds: int
    multiply_adds_nonzero: int


def remove_units(
    model: Model, params: Params, input_shape: Sequence[int]
) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the model and its parameters without the hidden units that do nothing.

    A unit (dense) or filter (conv2d) goes if nothing depends on it: its outgoing weights are all
    zero; or if it always gives zero: its incoming weights and its bias are all zero and every layer
    up to the next affine one keeps zero at zero. A unit without incoming weights whose bias is not
    zero stays: it gives a constant. Each layer keeps at least one unit. The removal of one unit may
    free another, so it is repeated until nothing goes.

    ``params`` are NumPy arrays; ``input_shape`` is that of one example. The outputs are those of the
    masked model to the rounding of sums in another order, for zeros are left out of them.
    Raises ValueError for a layer that it does not know, and for a convolution in groups.
    """
    layers, left = [dict(layer) for layer in model], [np.asarray(p) for p in params]
    places = _affine_places(layers)
    changed = True
    while changed:
        changed = False
        for position, (here, following) in enumerate(pairwise(places)):
            first, second = 2 * position, 2 * position + 2
            repeat = _positions(layers, left, input_shape, here, following)
            out = left[second]
            # after a flatten each channel has one row for each pixel, the channel counting fastest
            rows = out.reshape(*out.shape[:-2], repeat, -1, out.shape[-1])
            used = np.any(rows != 0, axis=tuple(i for i in range(rows.ndim) if i != rows.ndim - 2))
            alive = np.any(left[first] != 0, axis=tuple(range(left[first].ndim - 1)))
            silent = all(step["operation"] in ZERO_AT_ZERO for step in layers[here + 1 : following])
            kept = used & (alive | (left[first + 1] != 0)) if silent else used
            kept[0] |= not kept.any()
            if kept.all():
                continue
            left[first], left[first + 1] = left[first][..., kept], left[first + 1][kept]
            left[second] = rows[..., kept, :].reshape(*out.shape[:-2], -1, out.shape[-1])
            name = "units" if layers[here]["operation"] == "layer.dense" else "filters"
            layers[here][name] = int(kept.sum())
            changed = True
    return layers, left


def sizes(model: Model, params: Params, input_shape: Sequence[int]) -> Sizes:
    """Return the sizes of a model; a multiply-add counts as one, additions of biases as none.

    ``multiply_adds_nonzero`` leaves out what a zero weight multiplies: what a perfect sparse kernel
    would do, and no ordinary one does.
    """
    total = nonzero = 0
    shape, remaining = tuple(input_shape), list(params)
    for layer in model:
        count = models.parameter_count(layer)
        own, remaining = remaining[:count], remaining[count:]
        y, _ = models.forward([layer], own, np.zeros((1, *shape), _dtype(params)))
        shape = tuple(y.shape[1:])
        if layer["operation"] in AFFINE:
            places = math.prod(shape[:-1])
            total += places * own[0].size
            nonzero += places * int(np.count_nonzero(own[0]))
    return Sizes(
        sum(p.size for p in params),
        sum(int(np.count_nonzero(p)) for p in params),
        sum(p.nbytes for p in params),
        total,
        nonzero,
    )


def rounding_bound(model: Model, params: Params, x: Any) -> Any:
    """Return by how much two evaluations of a model may differ that only order their sums otherwise.

    Element by element of the output, in the format of the parameters: a sum of n products is off by at
    most γ = n·u/(1 - n·u) times the sum of their magnitudes (Higham 2002, "Accuracy and Stability of
    Numerical Algorithms", section 3.1), which both evaluations may be; what comes in apart goes on
    through the magnitudes of the weights. No activation here makes a difference larger. Leaving out
    terms that are zero is such another order.
    """
    u = float(np.finfo(_dtype(params)).eps) / 2
    value, apart, remaining = np.asarray(x, np.float64), np.zeros(np.shape(x)), list(params)
    for layer in model:
        count = models.parameter_count(layer)
        own, remaining = [p.astype(np.float64) for p in remaining[:count]], remaining[count:]
        name, size = layer["operation"], abs(value) + apart
        if name in AFFINE:
            terms = own[0].size // own[0].shape[-1] + 1
            sums, _ = models.forward([layer], [abs(p) for p in own], size)
            carried, _ = models.forward([layer], [abs(own[0]), 0 * own[1]], apart)
            apart = carried + 2 * _gamma(terms, u) * sums
        elif name in POSITIONAL:
            apart, _ = models.forward([layer], [], apart)
            if name == "layer.avg_pool2d":
                means, _ = models.forward([layer], [], size)
                apart = apart + 2 * _gamma(math.prod(layer["window"]) + 1, u) * means
        elif name != "layer.relu":
            apart = apart + 8 * u
        value, _ = models.forward([layer], own, value)
    return apart


def _gamma(terms: int, u: float) -> float:
    return terms * u / (1 - terms * u)


def to_csr(matrix: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the compressed sparse rows of a matrix: ``data``, ``indices``, ``indptr`` (int32).

    Row i has the values ``data[indptr[i]:indptr[i + 1]]`` in the columns ``indices[...]``. Every zero
    is left out, of either sign. Raises ValueError if it is no matrix, or too large for int32.
    """
    if matrix.ndim != 2:
        raise ValueError(f"compressed rows are of a matrix, got shape {matrix.shape}")
    if matrix.size >= 2**31:
        raise ValueError(f"a matrix of {matrix.size} entries is too large for 32-bit indices")
    rows, columns = np.nonzero(matrix)
    counts = np.bincount(rows, minlength=matrix.shape[0])
    return {
        "data": matrix[rows, columns],
        "indices": columns.astype(np.int32),
        "indptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
    }


def from_csr(csr: dict[str, Any], shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Return the dense matrix of :func:`to_csr`. ValueError for arrays that describe no matrix."""
    data, indices, indptr = csr["data"], csr["indices"], csr["indptr"]
    steps = np.diff(indptr)
    fits = (
        indptr.shape == (shape[0] + 1,)
        and indptr[0] == 0
        and indptr[-1] == len(data) == len(indices)
        and bool((steps >= 0).all())
        and (not len(indices) or (indices.min() >= 0 and indices.max() < shape[1]))
    )
    if not fits:
        raise ValueError(f"these compressed rows are not of a matrix of shape {shape}")
    matrix = np.zeros(shape, data.dtype)
    matrix[np.repeat(np.arange(shape[0]), steps), indices] = data
    return matrix


def quantize(weight: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return a weight as whole numbers of one byte: ``quantized`` (int8) and ``scale`` (float32).

    Each unit or filter j (the last axis) has the step ``s_j = max|w_j| / 127``, and a weight becomes
    ``q = round(w / s_j)``, to even at a tie, so that ``|w - q·s_j| ≤ s_j / 2``. Zero stays zero, which a mask
    needs; a unit of zeros has the step 1. The largest magnitude becomes ±127; -128 is not used.
    Raises ValueError for fewer than two axes or a weight that is not finite.

    Source: symmetric quantisation per channel, Krishnamoorthi 2018, "Quantizing deep convolutional
    networks for efficient inference"; after pruning, Han, Mao & Dally 2016, "Deep compression".
    """
    if weight.ndim < 2:
        raise ValueError(f"a weight of two axes or more is quantized, got shape {weight.shape}")
    if not np.isfinite(weight).all():
        raise ValueError("a weight that is not finite can't be quantized")
    largest = np.max(abs(weight), axis=tuple(range(weight.ndim - 1)), initial=0.0)
    scale = (largest / 127).astype(np.float32)
    # A step that vanishes in float32 would divide by zero, and means nothing anyway.
    scale[scale == 0] = 1
    quantized = np.clip(np.rint(weight / scale), -127, 127)
    return {"quantized": quantized.astype(np.int8), "scale": scale}


def dequantize(quantized: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return the float32 weight that :func:`quantize` stands for: q·s_j. ValueError if they do not fit."""
    whole, scale = quantized["quantized"], quantized["scale"]
    if whole.ndim < 2 or scale.shape != whole.shape[-1:]:
        raise ValueError(f"{scale.shape} steps do not fit weights of shape {whole.shape}")
    return np.asarray(whole.astype(np.float32) * scale)


def _affine_places(layers: Sequence[dict[str, Any]]) -> list[int]:
    for layer in layers:
        if layer["operation"] not in (*AFFINE, *POSITIONAL, *ELEMENTWISE):
            raise ValueError(f"units can't be removed from a model with {layer['operation']}")
        if layer.get("groups", 1) != 1:
            raise ValueError("filters can't be removed from a convolution in groups")
    return [i for i, layer in enumerate(layers) if layer["operation"] in AFFINE]


def _positions(
    layers: Sequence[dict[str, Any]],
    params: Params,
    input_shape: Sequence[int],
    here: int,
    following: int,
) -> int:
    """Return how many inputs of the following layer each unit of this one feeds (flattened pixels)."""
    if not any(layer["operation"] == "layer.flatten" for layer in layers[here:following]):
        return 1
    count = sum(models.parameter_count(layer) for layer in layers[: here + 1])
    y, _ = models.forward(
        layers[:following], params[:count], np.zeros((1, *input_shape), _dtype(params))
    )
    return int(y.shape[-1]) // int(params[count - 2].shape[-1])


def _dtype(params: Params) -> Any:
    return params[0].dtype
