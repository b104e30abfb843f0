"""Batch normalisation, exactly, each number with a bound on what rounding may do to it.

The bounds are those of the least accurate of the usual orders: y is a·x + (shift - a·mean), and the
sums of the backward pass are Σ dy·x - mean·Σ dy, so that a mean far from 0 costs what it costs
implementations that fold the layer into one product and one sum. The variance may be off by as much as
Welford's updates make it, m·u·|mean|/deviation, and not by the square of that ratio.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.exact import ONE, ZERO, Real, Reject, ctx, each, exact, full, magnitude, real
from conformance.operation import Value
from conformance.oracle.layers import check_dtypes, check_shape
from conformance.oracle.optimizers import Tracked, constant, root

Tensors = dict[str, Any]
VECTORS = ("scale", "shift", "running_mean", "running_var")


def given(tensor: Any) -> Tracked:
    """Return the exact values of an input, which nobody rounded."""
    values = exact(tensor)
    return Tracked(values, full(values.shape))


def known(value: Real, shape: tuple[int, ...] = (1,)) -> Tracked:
    """Return a number that every format has."""
    return Tracked(full(shape, value), full(shape))


def summed(terms: Tracked) -> Tracked:
    """Return the sum over all axes but the last, in any order: a roundoff of Σ|terms| per addition."""
    axes, shape = tuple(range(terms.exact.ndim - 1)), terms.exact.shape[-1:]
    count = int(np.prod(terms.exact.shape[:-1]))
    sums, errors, sizes = (
        full(shape) + values.sum(axis=axes)
        for values in (terms.exact, terms.error, abs(terms.exact))
    )
    return Tracked(sums, errors + max(count - 1, 0) * sizes)


def value(x: Tracked, dtype: str) -> Value:
    """Return the result: the bound is the scale of the comparison."""
    return Value(x.exact, dtype, each(lambda e: e if ctx.isfinite(e) else ZERO, x.error))


@dataclass(frozen=True)
class Batch:
    """What the backward pass needs of the forward pass."""

    x: Tracked
    scale: Tracked
    mean: Tracked
    var: Tracked
    inverse: Tracked
    count: int
    training: bool


def check(inputs: Tensors, settings: Tensors) -> int:
    """Refuse what must be refused; return the number of values per channel."""
    check_dtypes(**inputs)
    x = inputs["x"]
    if x.ndim < 2:
        raise Reject(f"x must have shape (..., channels), got {x.shape}")
    for name in VECTORS:
        check_shape(name, inputs[name], (x.shape[-1],))
    check_shape("dy", inputs["dy"], x.shape)
    eps, momentum = float(settings["eps"]), float(settings["momentum"])
    if not 0 <= eps < float("inf"):
        raise Reject(f"eps must be finite and at least 0, got {eps}")
    if not 0 <= momentum <= 1:
        raise Reject(f"momentum must be in [0, 1], got {momentum}")
    count = int(np.prod(x.shape[:-1]))
    needed = 2 if settings["running_variance"] == "unbiased" else 1
    if settings["training"] and count < needed:
        raise Reject(f"training needs at least {needed} values per channel, got {count}")
    return count


def forward(inputs: Tensors, settings: Tensors) -> tuple[Tracked, Batch]:
    """Return y and what the backward pass needs."""
    count, training = check(inputs, settings), bool(settings["training"])
    x, scale, shift = (given(inputs[name]) for name in ("x", "scale", "shift"))
    mean, var = given(inputs["running_mean"]), given(inputs["running_var"])
    if training:
        mean = summed(x) / known(real(count))
        centred = x - mean
        var = summed(centred * centred) / known(real(count))
    inverse = known(ONE) / root(var + constant(real(float(settings["eps"]))))
    factor = scale * inverse
    batch = Batch(x, scale, mean, var, inverse, count, training)
    y = (x - mean) * factor + shift
    # Folding rounds a·x and a·mean, which are larger than their difference.
    folded = 3 * (abs(x.exact) + abs(mean.exact)) * abs(factor.exact)
    return Tracked(y.exact, y.error + folded), batch


def running(inputs: Tensors, settings: Tensors, batch: Batch) -> Tensors:
    """Return the new running values, or the old ones, bit for bit, where nothing is learned."""
    if not batch.training:
        return {name: inputs[name] for name in ("running_mean", "running_var")}
    var = batch.var
    if settings["running_variance"] == "unbiased":
        var = var * constant(ctx.mpf(batch.count) / (batch.count - 1))
    share = real(float(settings["momentum"]))
    results = {}
    for name, new in (("running_mean", batch.mean), ("running_var", var)):
        old = exact(inputs[name])
        passed = share * new.error + 4 * (magnitude(old) + magnitude(new.exact))
        blend = (ONE - share) * old + share * new.exact
        results[name] = value(Tracked(blend, passed), inputs["x"].dtype.name)
    return results


def backward(batch: Batch, dy: Tracked) -> tuple[Tracked, Tracked, Tracked]:
    """Return dx, dscale and dshift; mean and variance of the batch move with x."""
    dshift = summed(dy)
    along = summed(dy * batch.x) - batch.mean * dshift
    dscale = along * batch.inverse
    dx = dy * (batch.scale * batch.inverse)
    if not batch.training:
        return dx, dscale, dshift
    count = known(real(batch.count))
    cube = batch.inverse * batch.inverse * batch.inverse
    dvar = known(real(-0.5)) * batch.scale * cube * along
    centred = batch.x - batch.mean
    through_var = known(real(2)) * dvar / count
    dmean = known(real(-1)) * batch.scale * batch.inverse * dshift - through_var * summed(centred)
    return dx + through_var * centred + dmean / count, dscale, dshift


def results(inputs: Tensors, settings: Tensors, y: Tracked, batch: Batch) -> Tensors:
    """Return all outputs."""
    dtype = inputs["x"].dtype.name
    dx, dscale, dshift = backward(batch, given(inputs["dy"]))
    outputs = {"y": y, "dx": dx, "dscale": dscale, "dshift": dshift}
    return {n: value(v, dtype) for n, v in outputs.items()} | running(inputs, settings, batch)


def batch_norm(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = scale·(x - mean)/√(var + eps) + shift, its gradients and the new running values."""
    return results(inputs, settings, *forward(inputs, settings))


def blind(inputs: Tensors, settings: Tensors, to: str) -> Tensors:
    """The backward pass takes the mean, the variance or both for constants (a mistake)."""
    y, batch = forward(inputs, settings)
    right = results(inputs, settings, y, batch)
    if not batch.training:
        return right
    dtype, dy = inputs["x"].dtype.name, given(inputs["dy"])
    still = backward(replace(batch, training=False), dy)[0]
    if to == "both":
        return right | {"dx": value(still, dtype)}
    direct = batch.scale * batch.inverse * summed(dy) / known(real(batch.count))
    without_var = still - direct
    moved = backward(batch, dy)[0]
    return right | {"dx": value(without_var if to == "variance" else moved + direct, dtype)}
