"""Saliency scores: how much each weight matters. The lowest scores are pruned first.

Every function maps lists of arrays to a list of scores of the same shapes. An entry that is absent
(``None``) in any of its inputs is absent in the scores and does not count in a normalisation.

Scores have the dtype of the array they belong to. 16-bit inputs are computed in float32 and rounded
once at the end; where small products matter (the square of a float16 below 1.7e-4 rounds to zero),
pass float32 arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from . import checks
from .arrays import (
    Array,
    Namespace,
    absolute,
    accumulation_dtype,
    astype,
    each,
    euclidean_norm,
    namespace,
    present,
    scalar,
)

Arrays = Sequence[Array | None]


def magnitude(weights: Arrays) -> list[Array | None]:
    """Return ``|w|``, of the shapes and dtypes of ``weights``; exact in every dtype.

    Raises ValueError for weights that are not real floating-point numbers.
    Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks".
    """
    return _each(absolute, ("weights", weights))


def gradient(grads: Arrays) -> list[Array | None]:
    """Return ``|g|``, of the shapes and dtypes of ``grads``; exact in every dtype.

    Raises ValueError for gradients that are not real floating-point numbers.
    """
    return _each(absolute, ("grads", grads))


def taylor(weights: Arrays, grads: Arrays, *, form: str = "absolute") -> list[Array | None]:
    """Return ``|g * w|``, the first-order change of the loss when w is set to zero.

    Shapes and dtypes are those of ``weights``. Dial ``form``: "absolute", or "squared" for
    ``(g * w)**2``. Raises ValueError where lengths or shapes differ.
    Source: Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient
    Inference"; squared: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning".
    """
    checks.choice("form", form, ("absolute", "squared"))
    squared = form == "squared"
    return _each(
        lambda w, g: (g * w) * (g * w) if squared else abs(g * w),
        ("weights", weights),
        ("grads", grads),
    )


def snip(
    weights: Arrays, grads: Arrays, *, normalise: str = "sum", zero_over_zero: str = "zero"
) -> list[Array | None]:
    """Return ``|g * w| / sum(|g * w|)``, the sum running over all entries of all arrays.

    Shapes and dtypes are those of ``weights``; the sum is float64 if any input is float64, else
    float32. If every product is zero, so is every score. A non-finite sum is not hidden: the
    division by it gives NaN or zero. Raises ValueError where lengths or shapes differ.

    Dials: ``normalise`` "sum", "mean" (the mean over all entries in place of the sum) or "none";
    ``zero_over_zero`` "zero", or "undefined" (NaN), where every product is zero.
    Source: Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity".
    """
    checks.choice("normalise", normalise, ("sum", "mean", "none"))
    checks.choice("zero_over_zero", zero_over_zero, ("zero", "undefined"))
    _check(("weights", weights), ("grads", grads))
    pairs = [
        None if w is None or g is None else (w, g) for w, g in zip(weights, grads, strict=True)
    ]
    arrays = [array for pair in pairs if pair is not None for array in pair]
    if not arrays:
        return [None for _ in pairs]
    xp = namespace(*arrays)
    dtype = accumulation_dtype(xp, *arrays)
    products = [
        None if p is None else abs(astype(xp, p[1], dtype) * astype(xp, p[0], dtype)) for p in pairs
    ]
    divisor = scalar(xp, 1.0, arrays[0], dtype)
    if normalise != "none":
        products = _summable(xp, products)
        given = present(products)
        total = scalar(xp, 0.0, arrays[0], dtype)
        for product in given:
            total = total + xp.sum(product)
        if normalise == "mean":
            total = total / max(1, sum(math.prod(product.shape) for product in given))
        guard = zero_over_zero == "zero"
        divisor = xp.where(total == 0, xp.ones_like(total), total) if guard else total
    return [
        None if s is None or w is None else astype(xp, s / divisor, w.dtype)
        for s, w in zip(products, weights, strict=True)
    ]


def _summable(xp: Namespace, products: list[Array | None]) -> list[Array | None]:
    """Return products, or 2^-64 of each where their sum may overflow though none of them has.

    A power of two rounds nothing, and what vanishes by it has a share that would vanish too.
    """
    filled = [xp.max(product) for product in present(products) if 0 not in product.shape]
    if not filled:
        return products
    largest = xp.max(xp.stack(filled))
    huge = xp.isfinite(largest) & (largest > 2.0**64)
    factor = xp.where(huge, xp.full_like(largest, 2.0**-64), xp.ones_like(largest))
    return [None if product is None else product * factor for product in products]


def movement(weights: Arrays, grads: Arrays) -> list[Array | None]:
    """Return ``-g * w``: positive where descent moves the weight away from zero.

    Signed; shapes and dtypes are those of ``weights``. One step's contribution: the caller sums
    over steps. Raises ValueError where lengths or shapes differ.
    Source: Sanh et al. 2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning".
    """
    return _each(lambda w, g: -(g * w), ("weights", weights), ("grads", grads))


def fisher(grads: Arrays) -> list[Array | None]:
    """Return ``g**2``, the diagonal of the empirical Fisher information for one gradient.

    Shapes and dtypes are those of ``grads``. The caller averages over examples.
    Source: Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher pruning".
    """
    return _each(lambda g: g * g, ("grads", grads))


def obd(weights: Arrays, hessian: Arrays, *, half: bool = True) -> list[Array | None]:
    """Return ``0.5 * h * w**2`` for the diagonal ``h`` of the Hessian of the loss.

    ``hessian`` holds one array per weight, of the same shape. Shapes and dtypes of the scores are
    those of ``weights``. Right wherever the score is representable, for ``w**2`` alone is never
    formed. Dial ``half``: False for ``h * w**2``. Raises ValueError where lengths or shapes differ.
    Source: LeCun, Denker & Solla 1990, "Optimal Brain Damage".
    """
    factor = 0.5 if half else 1.0
    return _each(lambda w, h: (h * w) * (factor * w), ("weights", weights), ("hessian", hessian))


def wanda(
    weights: Arrays, activations: Arrays, *, activation_norm: str = "norm"
) -> list[Array | None]:
    """Return ``|w[j, k]| * norm2(x[:, j])`` for dense weights (in, out).

    ``activations`` holds one array (samples, in) per weight. Shapes and dtypes of the scores are
    those of ``weights``; norms are taken in float32 or wider. Raises ValueError where lengths or
    shapes do not fit.

    Dial ``activation_norm``: "norm"; "root_mean_square", the norm divided by the root of the number
    of samples; "squared_norm", which ranks differently.
    Source: Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models".
    """
    checks.choice("activation_norm", activation_norm, ("norm", "root_mean_square", "squared_norm"))
    checks.same_length("weights", weights, "activations", activations)
    scores: list[Array | None] = []
    for index, (w, x) in enumerate(zip(weights, activations, strict=True)):
        if w is None or x is None:
            scores.append(None)
            continue
        xp = namespace(w, x)
        checks.real_floating(xp, f"weights[{index}]", w)
        checks.real_floating(xp, f"activations[{index}]", x)
        if w.ndim != 2 or x.ndim != 2 or x.shape[1] != w.shape[0]:
            raise ValueError(
                f"weights[{index}] must be (in, out) and activations[{index}] (samples, in), "
                f"got {tuple(w.shape)} and {tuple(x.shape)}"
            )
        dtype = accumulation_dtype(xp, w, x)
        norms = xp.reshape(euclidean_norm(xp, astype(xp, x, dtype), axis=(0,)), (w.shape[0], 1))
        if activation_norm == "root_mean_square":
            norms = norms / scalar(xp, math.sqrt(x.shape[0]), x, dtype)
        score = abs(astype(xp, w, dtype)) * norms
        if activation_norm == "squared_norm":
            score = score * norms
        scores.append(astype(xp, score, w.dtype))
    return scores


def _check(*inputs: tuple[str, Arrays]) -> None:
    (first, arrays), *others = inputs
    for name, other in others:
        checks.same_length(first, arrays, name, other)
    for index, entries in enumerate(zip(*(values for _, values in inputs), strict=True)):
        named = [
            (f"{name}[{index}]", array)
            for (name, _), array in zip(inputs, entries, strict=True)
            if array is not None
        ]
        for name, array in named:
            checks.real_floating(namespace(array), name, array)
            checks.same_shape(*named[0], name, array)


def _each(formula: Callable[..., Array], *inputs: tuple[str, Arrays]) -> list[Array | None]:
    _check(*inputs)

    def score(*entries: Array | None) -> Array | None:
        if any(array is None for array in entries):
            return None
        arrays = present(entries)
        xp = namespace(*arrays)
        dtype = accumulation_dtype(xp, *arrays)
        return astype(xp, formula(*(astype(xp, a, dtype) for a in arrays)), arrays[0].dtype)

    lists = [arrays for _, arrays in inputs]
    given = present(lists[0])
    return each(namespace(given[0]), score, *lists) if given else [None for _ in lists[0]]
