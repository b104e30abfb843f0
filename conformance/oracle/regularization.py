"""Exact penalties, their (sub)gradients and their proximal maps: what several operations share."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np

from conformance.exact import NAN, ONE, ZERO, Exact, Real, Reject, each, exact, full, real, total
from conformance.formats import FLOATS, Tensor, round_all, round_exact
from conformance.operation import Dial, Param, Value, map_tensors, widest

Settings = dict[str, Any]

STRENGTH = Param("strength", "λ >= 0: the weight of the penalty", required=True)
STEP = Param("step", "the learning rate of the step that it belongs to", required=True)

SIGN_OF_ZERO = Dial(
    "sign_of_zero", "zero", "the subgradient of |w| at 0 is 0, or +1", ("plus_one",)
)
HALF = Dial("half", False, "true: λ/2 takes the place of λ, so that the gradient is λ·w", (True,))
ZERO_SIGN = Dial(
    "zero_sign",
    "positive",
    "of_weight: what the threshold reaches becomes zero with the sign of the weight, as in"
    " sign(w)·max(|w| - t, 0)",
    ("of_weight",),
)

HYPERPARAMETERS = Dial(
    "hyperparameters",
    "exact",
    "float32: the strength passes through float32, whatever the weights are",
    ("float32",),
)

INPUTS = {"weights": "list of float tensors of any shapes; null is an absent one"}
OUTPUTS = {
    "value": "0-d: the penalty, float64 if any weight is float64, else float32",
    "grads": "the list of its gradients, each with the shape and dtype of its weight",
}

PENALTY_WHY = (
    "The terms are not negative, so the sum of N of them has a relative error of N-1 roundoffs in any order;"
    " squaring, rounding λ and multiplying by it add 3. 16-bit weights are summed in float32. An element of"
    " the gradient: rounding λ, one product, and for 16 bits one more rounding."
)


def non_negative(settings: Settings, *names: str) -> None:
    """Refuse a parameter that is not finite and at least 0."""
    for name in names:
        value = float(settings[name])
        if not (value >= 0 and isfinite(value)):
            raise Reject(f"{name} must be finite and >= 0, got {value}")


def strength(settings: Settings) -> Real:
    """Return the strength as it is used: the dial may send it through float32."""
    value = real(float(settings["strength"]))
    narrow = settings["hyperparameters"] == "float32"
    return real(round_exact(value, "float32")) if narrow else value


def sign(x: Real) -> Real:
    """Return -1, 0 or 1; NaN of NaN."""
    return x if x != x else ONE if x > 0 else -ONE if x < 0 else ZERO


def real_floats(weights: list[Tensor | None]) -> None:
    """Refuse weights that are not real floats."""
    for index, weight in enumerate(weights):
        if weight is not None and weight.dtype.name not in FLOATS:
            raise Reject(f"weights[{index}] must be real floats, got {weight.dtype.name}")


def penalty(
    weights: list[Tensor | None],
    term: Callable[[Real], Real],
    slope: Callable[[Real], Real],
) -> dict[str, Any]:
    """Return the sum of ``term`` over all weights, and ``slope`` of each weight."""
    real_floats(weights)
    present = [w for w in weights if w is not None]
    value = total(term(x) for w in present for x in exact(w).ravel())
    return {
        "value": Value(full((), value), widest(present)),
        "grads": map_tensors(lambda w: Value(each(slope, exact(w)), w.dtype.name), weights),
    }


def penalty_tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed per output (see PENALTY_WHY)."""
    count = sum(w.size for w in inputs["weights"] if w is not None)
    return {"value": max(count - 1, 0) + 3, "grads": 3}


def soft(x: Real, t: Real) -> Real:
    """Return the soft threshold of a number."""
    if x != x:
        return NAN
    return ZERO if abs(x) <= t else x - t if x > 0 else x + t


SOFT_ULPS = 4
SOFT_WHY = (
    "Rounding strength and step and multiplying them is an error of 3 roundoffs of t; |w| - t adds one of the"
    " result: 4 of |w| + t. An element that t exceeds by more than that must be zero. Where t and all |w| - t"
    " are numbers of the format nothing is rounded, and the bits are compared, so that zero is +0."
)


def soft_threshold(weight: Tensor, settings: Settings) -> Value | Tensor:
    """Return sign(w)·max(|w| - t, 0), t = strength·step, as bits where no operation rounds."""
    t = real(float(settings["strength"])) * real(float(settings["step"]))
    weights, name = exact(weight), weight.dtype.name
    values = each(lambda x: soft(x, t), weights)
    bits = bits_if_exact(values, name, t)
    if bits is not None:
        return signed(bits, weight, settings)
    room = ONE - 2 * SOFT_ULPS * real(FLOATS[name].unit_roundoff)
    scale = each(lambda x: ZERO if x != x or abs(x) <= t * room else _finite(abs(x)) + t, weights)
    return Value(values, name, scale)


def bits_if_exact(values: Exact, name: str, *used: Real) -> Tensor | None:
    """Return the values as a tensor if they, and the numbers used on the way, are of the format."""
    rounded, way = round_all(values, name), np.array([*used], dtype=object)
    same = _same(exact(rounded), values) and _same(exact(round_all(way, name)), way)
    return rounded if same else None


def signed(values: Tensor, weight: Tensor, settings: Settings) -> Tensor:
    """Return the values with the zeros that the dial ``zero_sign`` asks for."""
    if settings["zero_sign"] == "positive":
        return values
    zeros = np.copysign(np.zeros(weight.shape), weight.astype(np.float64)).astype(weight.dtype)
    return np.where(values == 0, zeros, values)


def _finite(x: Real) -> Real:
    return x if isfinite(float(x)) else ZERO


def _same(a: Exact, b: Exact) -> bool:
    return all(x == y or (x != x and y != y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
