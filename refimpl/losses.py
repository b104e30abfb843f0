"""Losses: each returns ``(loss, backprop)``, and ``backprop()`` returns the gradient of its input.

The loss is 0-d, in float64 if the input is float64, else in float32 (also for 16-bit inputs, unless
``loss_dtype`` is ``input_dtype``); the gradient has the dtype of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from . import numpy_forms
from .arrays import (
    Array,
    DType,
    Namespace,
    any_outside,
    astype,
    counted,
    is_numpy,
    maximum_of,
    namespace,
    scalar,
    widen,
)
from .checks import choice
from .layers.checks import check_real, check_shape

REDUCTIONS = ("mean", "sum")


def softmax_cross_entropy(
    logits: Array,
    targets: Array,
    reduction: str = "mean",
    *,
    empty_mean: str = "reject",
    loss_dtype: str = "float32_or_wider",
) -> tuple[Array, Callable[[], Array]]:
    """Return the cross-entropy of softmax(logits) with class targets, and its backward pass.

    ``logits`` is (N, C), a real float array; ``targets`` is (N,) int64, each in [0, C).
    ``reduction`` is ``mean`` (over the N examples) or ``sum``. ``backprop()`` returns ``dlogits``
    (N, C). Raises ValueError if a shape, a dtype or a target does not fit, or on the mean of no
    example (unless ``empty_mean`` is ``undefined``: NaN). The check of the range of the targets
    reads one value back from the device.

    ``loss_n = log sum_j exp(z_nj) - z_nt`` and ``dlogits_nj = softmax(z_n)_j - [j = t]``
    (Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990).
    An infinite maximum gives NaN, a target of logit -inf beside finite ones gives an infinite loss.
    """
    xp = namespace(logits, targets)
    choice("reduction", reduction, REDUCTIONS)
    check_real(xp, logits=logits)
    check_shape("logits", logits, ("N", "C"))
    examples, classes = logits.shape
    check_shape("targets", targets, (examples,))
    if targets.dtype != xp.int64 and targets.dtype != _default_integer(xp):
        raise ValueError(f"targets must be int64 class indices, got {targets.dtype}")
    if classes == 0:
        raise ValueError(f"logits must have at least one class, got shape {logits.shape}")
    divisor = _divisor("example", examples, reduction, empty_mean)
    if any_outside(xp, targets, classes):
        raise ValueError(f"targets must be at least 0 and less than the {classes} classes")
    total, gradient = _cross_entropies(xp, widen(xp, logits), targets)
    loss = _in_dtype(xp, total / divisor, logits, loss_dtype)
    return loss, lambda: astype(xp, gradient() / divisor, logits.dtype)


def _cross_entropies(
    xp: Namespace, logits: Array, targets: Array
) -> tuple[Array, Callable[[], Array]]:
    """Return the sum over all examples, and the function that gives its gradient."""
    if is_numpy(xp):
        return numpy_forms.cross_entropies(logits, targets)
    index = counted(xp, logits.shape[1], targets.dtype, logits)
    is_target = targets[:, None] == index
    zero = scalar(xp, 0.0, logits)

    # Subtracting the maximum keeps exp from overflowing. The target's own term stands apart so that
    # a loss and a gradient near 0 keep their digits: 1 + rest would round them away.
    shifted = logits - maximum_of(xp, logits, 1, keepdims=True)
    target = xp.sum(xp.where(is_target, shifted, zero), axis=1, keepdims=True)
    powers = xp.exp(shifted)
    rest = xp.sum(xp.where(is_target, zero, powers), axis=1, keepdims=True)

    def gradient() -> Array:
        # p_t - 1 = -(the other probabilities), for the same reason.
        return xp.where(is_target, -rest, powers) / (xp.exp(target) + rest)

    return xp.sum(xp.log1p(xp.expm1(target) + rest) - target), gradient


def mse(
    outputs: Array,
    targets: Array,
    reduction: str = "mean",
    *,
    empty_mean: str = "reject",
    sum_of: str = "elements",
    loss_dtype: str = "float32_or_wider",
) -> tuple[Array, Callable[[], Array]]:
    """Return the squared error of outputs against targets, and its backward pass.

    ``outputs`` and ``targets`` are real float arrays of one shape and one dtype: nothing is
    broadcast. ``reduction`` is ``mean`` (over all elements) or ``sum``. ``backprop()`` returns
    ``doutputs``. Raises ValueError if a shape or a dtype does not fit, or on a mean of nothing
    (unless ``empty_mean`` is ``undefined``: NaN). With ``sum_of="row_means"`` a sum adds the means
    over the last axis, not the ``elements``.

    ``loss = sum (y - t)^2 / n`` and ``dy = 2 (y - t) / n``, with n = 1 for ``sum``.
    """
    xp = namespace(outputs, targets)
    choice("reduction", reduction, REDUCTIONS)
    check_real(xp, outputs=outputs, targets=targets)
    check_shape("targets", targets, tuple(outputs.shape))
    choice("sum_of", sum_of, ("elements", "row_means"))
    divisor = _divisor("element", math.prod(outputs.shape), reduction, empty_mean)
    if reduction == "sum" and sum_of == "row_means" and outputs.ndim:
        divisor = max(outputs.shape[-1], 1)
    residual = widen(xp, outputs) - widen(xp, targets)

    loss = _in_dtype(xp, xp.sum(residual * residual) / divisor, outputs, loss_dtype)

    def backprop() -> Array:
        return astype(xp, 2 * residual / divisor, outputs.dtype)

    return loss, backprop


def binary_cross_entropy(
    logits: Array,
    targets: Array,
    reduction: str = "mean",
    *,
    empty_mean: str = "reject",
    outside_targets: str = "reject",
    infinite_logit: str = "limit",
    loss_dtype: str = "float32_or_wider",
) -> tuple[Array, Callable[[], Array]]:
    """Return the cross-entropy of sigmoid(logits) with targets, and its backward pass.

    ``logits`` and ``targets`` are real float arrays of one shape and one dtype, the targets
    probabilities in [0, 1]. ``reduction`` is ``mean`` (over all elements) or ``sum``.
    ``backprop()`` returns ``dlogits``. Raises ValueError if a shape, a dtype or a target does not
    fit, or on a mean of nothing (unless ``empty_mean`` is ``undefined``: NaN). The check of the
    targets reads one value back from the device; ``outside_targets="extrapolate"`` omits it.

    ``loss = -t log s(z) - (1 - t) log(1 - s(z)) = log(1 + exp(-|z|)) + |z| ([z > 0] - t) sign(z)``
    and ``dz = s(z) - t`` (Bishop, "Pattern recognition and machine learning", 2006, 4.3.2). At an
    infinite logit the loss is the ``limit``, or what IEEE arithmetic makes of
    ``max(z, 0) - z t + log(1 + exp(-|z|))`` (``linear_form``) or of ``(1 - t) z - log s(z)``
    (``sigmoid_form``).
    """
    xp = namespace(logits, targets)
    choice("reduction", reduction, REDUCTIONS)
    choice("outside_targets", outside_targets, ("reject", "extrapolate"))
    choice("infinite_logit", infinite_logit, ("limit", "linear_form", "sigmoid_form"))
    check_real(xp, logits=logits, targets=targets)
    check_shape("targets", targets, tuple(logits.shape))
    divisor = _divisor("element", math.prod(logits.shape), reduction, empty_mean)
    z, t = widen(xp, logits), widen(xp, targets)
    if outside_targets == "reject" and not bool(xp.all((t >= 0) & (t <= 1))):
        raise ValueError("targets must be probabilities, in [0, 1]")

    # exp of -|z| cannot overflow, and |z| times what the target lacks does not cancel.
    e, size, positive = xp.exp(-xp.abs(z)), xp.abs(z), z > 0
    missing = xp.where(positive, 1 - t, t)
    linear = xp.where(missing == 0, xp.zeros_like(z), size * missing)
    if infinite_logit == "linear_form":
        linear = xp.where(positive, z, xp.zeros_like(z)) - z * t
    elif infinite_logit == "sigmoid_form":
        linear = (1 - t) * z + xp.where(positive, xp.zeros_like(z), -z)
    loss = _in_dtype(xp, xp.sum(linear + xp.log1p(e)) / divisor, logits, loss_dtype)

    def backprop() -> Array:
        probability = xp.where(positive, xp.ones_like(e), e) / (1 + e)
        return astype(xp, (probability - t) / divisor, logits.dtype)

    return loss, backprop


def _default_integer(xp: Namespace) -> DType:
    """Return the library's default integer: int64, but int32 on JAX without its 64-bit mode."""
    return xp.__array_namespace_info__().default_dtypes()["integral"]


def _in_dtype(xp: Namespace, loss: Array, given: Array, loss_dtype: str) -> Array:
    """Return the loss in its own dtype, or rounded to that of the input."""
    choice("loss_dtype", loss_dtype, ("float32_or_wider", "input_dtype"))
    return astype(xp, loss, given.dtype) if loss_dtype == "input_dtype" else loss


def _divisor(what: str, count: int, reduction: str, empty_mean: str) -> float:
    """Return what the sum is divided by; NaN for the mean of nothing, where that is allowed."""
    choice("empty_mean", empty_mean, ("reject", "undefined"))
    if reduction == "sum":
        return 1
    if count == 0 and empty_mean == "reject":
        raise ValueError(f"there must be at least one {what} to take the mean over")
    return count or math.nan
