"""Layers and losses, forward and backward, for exact numbers and for float64 alike.

Only ``@``, slicing and element-wise operators, so that one text serves both kinds of arrays: object
arrays of exact numbers, and float64 arrays (a whole model is run again on perturbed copies, to see how
far rounding carries). ``…_forward`` returns ``(y, context)``; ``…_backward(context, dy)`` returns the
gradients. Images are NHWC, kernels HWIO. Arguments are taken to be checked.

Rounding errors of a sum are measured against the sum of its absolute terms: the same function, called
with absolute values, gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from conformance.exact import INF, ZERO, Exact, Reject, ctx, each, exact, full, magnitude
from conformance.formats import FLOATS
from conformance.operation import Dial, Value, widest
from conformance.oracle.windows import Axis, each_window

Array: TypeAlias = Any
"""An object array of exact numbers, or a float array."""
Context: TypeAlias = tuple[Any, ...]


def constant(shape: tuple[int, ...], value: float, like: Array) -> Array:
    """Return an array of one value (0 or an infinity), of the kind of another array."""
    if like.dtype != object:
        return np.full(shape, value, like.dtype)
    return full(shape, ZERO if value == 0 else INF if value > 0 else -INF)


def zeros(shape: tuple[int, ...], like: Array) -> Array:
    """Return zeros of the kind of another array."""
    return constant(shape, 0.0, like)


def absolute(array: Array | None) -> Array | None:
    """Return absolute values; an absent array stays absent."""
    if array is None:
        return None
    return magnitude(array) if array.dtype == object else np.abs(array)


def apply(exactly: Callable[[Any], Any], approximately: Any, array: Array) -> Array:
    """Apply an elementary function: one of ``ctx`` to exact numbers, one of NumPy to floats."""
    if array.dtype == object:
        return each(exactly, array)
    with np.errstate(all="ignore"):
        return approximately(array)


def check_shape(name: str, array: Array | None, expected: tuple[int | str, ...]) -> None:
    """Refuse an array that is not shaped as expected; a string stands for any extent."""
    if array is None:
        return
    fits = len(array.shape) == len(expected) and all(
        isinstance(want, str) or want == extent
        for want, extent in zip(expected, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(want) for want in expected)
        raise Reject(f"{name} must have shape ({wanted}), got {tuple(array.shape)}")


def check_dtypes(**arrays: Array | None) -> None:
    """Refuse arrays that are not real floats, all of one dtype; an absent one is ignored."""
    found = {name: array.dtype.name for name, array in arrays.items() if array is not None}
    if len(set(found.values())) > 1 or not set(found.values()) <= set(FLOATS):
        given = ", ".join(f"{name} {dtype}" for name, dtype in found.items())
        raise Reject(f"all inputs must be real floats of one dtype, got {given}")


LOSS_DTYPE = Dial(
    "loss_dtype",
    "float32_or_wider",
    "the dtype of the loss: at least float32, or that of x",
    ("input_dtype",),
)
"""The dial of every loss."""


def loss_dtype(inputs: dict[str, Any], settings: dict[str, Any]) -> str:
    """Return the dtype of a loss."""
    narrow = settings["loss_dtype"] == "input_dtype"
    return inputs["x"].dtype.name if narrow else widest(inputs)


def linear(
    forward: Callable[..., Any], backward: Callable[..., Any], inputs: dict[str, Any], *how: Any
) -> dict[str, Value | None]:
    """Return ``y``, ``dx``, ``dweight``, ``dbias`` of a layer that is linear in all its inputs.

    ``how`` goes to the forward function as it is. Scales come from the same functions of magnitudes.
    """
    names = ("x", "weight", "bias")
    arrays = [None if inputs[name] is None else exact(inputs[name]) for name in names]
    y, context = forward(*arrays, *how)
    check_shape("dy", inputs["dy"], y.shape)
    y_scale, scale_context = forward(*[absolute(array) for array in arrays], *how)
    dy = exact(inputs["dy"])
    results = (y, *backward(context, dy))
    scales = (y_scale, *backward(scale_context, absolute(dy)))
    dtype = inputs["x"].dtype.name
    return {
        name: None if result is None else Value(result, dtype, scale)
        for name, result, scale in zip(
            ("y", "dx", "dweight", "dbias"), results, scales, strict=True
        )
    }


def dense_forward(x: Array, weight: Array, bias: Array | None) -> tuple[Array, Context]:
    """Return y = x W + b."""
    y = zeros((x.shape[0], weight.shape[1]), x) + x @ weight
    return (y if bias is None else y + bias), (x, weight, bias)


def dense_backward(context: Context, dy: Array) -> tuple[Array, Array, Array | None]:
    """Return dx = dy Wᵀ, dW = xᵀ dy, db = Σ_n dy_n."""
    x, weight, bias = context
    dx = zeros(x.shape, x) + dy @ weight.T
    dweight = zeros(weight.shape, x) + x.T @ dy
    dbias = None if bias is None else zeros(bias.shape, x) + dy.sum(axis=0)
    return dx, dweight, dbias


def conv2d_forward(
    x: Array, weight: Array, bias: Array | None, rows: Axis, columns: Axis, groups: int = 1
) -> tuple[Array, Context]:
    """Return y[n,i,j,o] = b[o] + Σ x[n, pixel, c] w[tap, c, o], output by output and tap by tap."""
    y = zeros((x.shape[0], len(rows.windows), len(columns.windows), weight.shape[3]), x)
    for into, out in _blocks(weight, groups):
        for (i, j), taps in each_window(rows, columns):
            for (a, b), (r, c) in taps:
                y[:, i, j, out] += x[:, r, c, into] @ weight[a, b, :, out]
    return (y if bias is None else y + bias), (x, weight, bias, rows, columns, groups)


def conv2d_backward(context: Context, dy: Array) -> tuple[Array, Array, Array | None]:
    """Return dx, dW and db: each product of the forward pass, differentiated."""
    x, weight, bias, rows, columns, groups = context
    dx, dweight = zeros(x.shape, x), zeros(weight.shape, x)
    for into, out in _blocks(weight, groups):
        for (i, j), taps in each_window(rows, columns):
            for (a, b), (r, c) in taps:
                dx[:, r, c, into] += dy[:, i, j, out] @ weight[a, b, :, out].T
                dweight[a, b, :, out] += x[:, r, c, into].T @ dy[:, i, j, out]
    dbias = None if bias is None else zeros(bias.shape, x) + dy.sum(axis=(0, 1, 2))
    return dx, dweight, dbias


def _blocks(weight: Array, groups: int) -> list[tuple[slice, slice]]:
    """Return, for each group, its input channels and its output channels."""
    into, out = weight.shape[2], weight.shape[3] // groups
    return [(slice(g * into, (g + 1) * into), slice(g * out, (g + 1) * out)) for g in range(groups)]


def max_pool2d_forward(
    x: Array, rows: Axis, columns: Axis, ties: str = "first", nan: str = "propagate"
) -> tuple[Array, Context]:
    """Return the first largest element of each window in row-major order; -inf if there is none.

    It only compares and selects, so that it may be called with a tensor of any float dtype.
    """
    shape = x.shape[0], len(rows.windows), len(columns.windows), x.shape[3]
    y, winners = constant(shape, -np.inf, x), {}
    for (i, j), taps in each_window(rows, columns):
        best = y[:, i, j, :]
        values = [(pixel, x[:, pixel[0], pixel[1], :]) for _, pixel in taps]
        for _, value in values:
            with np.errstate(invalid="ignore"):  # some 16-bit types warn when they compare a NaN
                better = value > best
            if nan == "propagate":
                better = (better | (value != value)) & (best == best)
            best = np.where(better, value, best)
        y[:, i, j, :] = best
        won = [(pixel, (v == best) | ((v != v) & (best != best))) for pixel, v in values]
        winners[i, j] = first_winners(won) if ties == "first" else won
    return y, (x, winners, ties)


def max_pool2d_backward(context: Context, dy: Array) -> Array:
    """Return dx: each dy goes to the winner of its window, or to all, or split evenly among them."""
    x, winners, ties = context
    dx = zeros(x.shape, dy)
    for (i, j), won in winners.items():
        share = dy[:, i, j, :]
        if ties == "split" and won:
            share = share / np.maximum(sum(mask.astype(np.int64) for _, mask in won), 1)
        for (r, c), mask in won:
            dx[:, r, c, :] += np.where(mask, share, zeros(share.shape, dy))
    return dx


def first_winners(won: list[tuple[Any, Array]]) -> list[tuple[Any, Array]]:
    """Return, of the winners of one window, tap by tap, those that no other comes before."""
    firsts: list[tuple[Any, Array]] = []
    for pixel, mask in won:
        earlier = np.any([m for _, m in firsts], axis=0) if firsts else np.zeros_like(mask)
        firsts.append((pixel, mask & ~earlier))
    return firsts


def avg_pool2d_forward(
    x: Array, rows: Axis, columns: Axis, count_padding: bool | str = False
) -> tuple[Array, Context]:
    """Return the sum of each window over the number of its taps that count; 0 if none does."""
    y = zeros((x.shape[0], len(rows.windows), len(columns.windows), x.shape[3]), x)
    for (i, j), taps in each_window(rows, columns):
        for _, (r, c) in taps:
            y[:, i, j, :] += x[:, r, c, :]
        y[:, i, j, :] = y[:, i, j, :] / _divisor(rows, columns, i, j, count_padding)
    return y, (x, rows, columns, count_padding)


def avg_pool2d_backward(context: Context, dy: Array) -> Array:
    """Return dx: each element of a window gets dy over the divisor of that window."""
    x, rows, columns, count_padding = context
    dx = zeros(x.shape, x)
    for (i, j), taps in each_window(rows, columns):
        for _, (r, c) in taps:
            dx[:, r, c, :] += dy[:, i, j, :] / _divisor(rows, columns, i, j, count_padding)
    return dx


def _divisor(rows: Axis, columns: Axis, i: int, j: int, counting: bool | str) -> int:
    # The two strings are known mistakes, never parameters.
    if counting == "one":
        return 1
    if counting == "window":
        return len(rows.windows[i]) * len(columns.windows[j])
    return max(rows.count(i, bool(counting)) * columns.count(j, bool(counting)), 1)


def relu_forward(x: Array, nan: str = "propagate") -> tuple[Array, Context]:
    """Return x where it is positive, 0 elsewhere; NaN stays NaN. It selects, whatever the dtype."""
    with np.errstate(invalid="ignore"):  # some 16-bit types warn when they compare a NaN
        positive, undefined = x > 0, x != x
    kept = positive if nan == "zero" else positive | undefined
    passing = positive | undefined if nan == "propagate" else positive
    return np.where(kept, x, zeros(x.shape, x)), (passing,)


def relu_backward(context: Context, dy: Array) -> Array:
    """Return dy where x > 0 (or NaN), 0 elsewhere."""
    (passing,) = context
    return np.where(passing, dy, zeros(dy.shape, dy))


def flatten_forward(x: Array) -> tuple[Array, Context]:
    """Return (N, …) as (N, rest), the last axis running fastest."""
    return x.reshape(x.shape[0], int(np.prod(x.shape[1:]))), (x.shape,)


def flatten_backward(context: Context, dy: Array) -> Array:
    """Return dy in the shape that was flattened."""
    return dy.reshape(context[0])


def softmax_cross_entropy_forward(
    logits: Array, targets: Array, reduction: str = "mean"
) -> tuple[Any, Context]:
    """Return the mean or sum over n of log Σ_j exp(z_nj) - z_n[target]."""
    top, powers, total = _softmax_parts(logits)
    chosen = logits[np.arange(len(targets)), targets]
    losses = top[:, 0] + apply(ctx.log, np.log, total[:, 0]) - chosen
    examples = len(targets) if reduction == "mean" else 1
    return (zeros((), logits) + losses.sum()) / examples, (powers / total, targets, examples)


def softmax_cross_entropy_backward(context: Context) -> Array:
    """Return (softmax(z_n)_j - [j = target]) / N (N = 1 for a sum)."""
    probabilities, targets, examples = context
    hot = np.arange(probabilities.shape[1]) == np.asarray(targets)[:, None]
    return (probabilities - hot.astype(np.int64)) / examples


def softmax_cross_entropy_scale(
    logits: Exact, targets: Array, reduction: str = "mean"
) -> tuple[Exact, Exact]:
    """Return the magnitudes that errors of the loss and of the gradient are measured against.

    The loss is m + log s - z_t with s >= 1, whose error passes through the logarithm unscaled: 1 + |m|
    + log s + |z_t|. A probability exp(z_j - m - log s) has a relative error of u times the magnitude of
    its exponent's terms; subtracting 1 at the target adds an absolute error of u.
    """
    top, powers, total = _softmax_parts(logits)
    shared = 1 + _finite(top) + apply(ctx.log, np.log, total)
    chosen = _finite(logits[np.arange(len(targets)), targets])
    examples = len(targets) if reduction == "mean" else 1
    of_loss = (zeros((), logits) + (shared[:, 0] + chosen).sum()) / examples
    hot = np.arange(logits.shape[1]) == np.asarray(targets)[:, None]
    of_gradient = hot.astype(np.int64) + powers / total * (shared + _finite(logits))
    return of_loss, of_gradient / examples


def _softmax_parts(logits: Array) -> tuple[Array, Array, Array]:
    """Return max z, exp(z - max z) and its sum, by rows. The maximum need not see NaN: the sum does."""
    top = logits.max(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        powers = apply(ctx.exp, np.exp, logits - top)
    return top, powers, powers.sum(axis=1, keepdims=True)


def _finite(array: Exact) -> Exact:
    return each(lambda z: abs(z) if ctx.isfinite(z) else ZERO, array)


def mse_forward(x: Array, targets: Array, reduction: str = "mean") -> tuple[Any, Context]:
    """Return Σ (x - t)² / n (n = 1 for a sum)."""
    # Arithmetic turns a 0-d array of objects into its element.
    residual = np.asarray(x - targets, dtype=x.dtype)
    count = residual.size if reduction == "mean" else 1
    return (zeros((), x) + np.sum(residual * residual)) / count, (residual, count)


def mse_backward(context: Context) -> Array:
    """Return 2 (x - t) / n."""
    residual, count = context
    return np.asarray(2 * residual / count, dtype=residual.dtype)
