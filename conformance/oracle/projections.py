"""Exact projections onto norm balls and onto sparse vectors."""

from __future__ import annotations

from math import inf, isnan
from typing import Any

import numpy as np

from conformance.exact import (
    INF,
    NAN,
    ZERO,
    Real,
    Reject,
    each,
    exact,
    full,
    magnitude,
    real,
    total,
)
from conformance.formats import FLOATS, Tensor, round_exact
from conformance.operation import Dial, Param, Value, widest
from conformance.oracle import groups
from conformance.oracle.pruning import MASKING, THRESHOLD_DTYPE, masked
from conformance.oracle.regularization import bits_if_exact, signed, soft

Settings = dict[str, Any]

MAX_NORM = Param(
    "max_norm", "the largest norm of a group that is left alone, in the units of the weights",
    required=True,
)  # fmt: skip
RADIUS = Param(
    "radius", "the largest 1-norm that is left alone, in the units of the weights", required=True
)
COUNT = Param("count", "how many entries of each tensor are kept, the largest magnitudes")
THRESHOLD = Param("threshold", "entries with larger magnitudes are kept, in place of count")

EPS = Dial(
    "eps", 0.0, "added to the norm where the limit is divided by it: c/(n + eps)", (1e-7, 1e-3)
)
MAX_NORM_DIALS = (
    EPS,
    Dial(
        "below_limit",
        "unchanged",
        "groups inside: the input itself, or w·n/(n + eps)",
        ("rescaled",),
        {"eps": 1e-3},
    ),
    Dial(
        "nonfinite",
        "all_nan",
        "a NaN or infinite norm: the whole group NaN, or whatever w·(c/n) gives; nan_below: that too, but"
        " a NaN norm does not exceed the limit, so that its group stays",
        ("multiply", "nan_below"),
    ),
    Dial(
        "norm",
        "exact",
        "naive: squares may overflow or vanish in the accumulation dtype",
        ("naive",),
    ),
    Dial(
        "infinite_limit",
        "identity",
        "max_norm = inf: the input, or what w·n/(n + eps) gives: NaN where the norm is infinite",
        ("multiply",),
    ),
    Dial("negative_limit", "reject", "max_norm < 0: a refusal, or as max_norm = 0", ("zeros",)),
    Dial("nan_limit", "reject", "max_norm = NaN: a refusal, or NaN everywhere", ("all_nan",)),
)
HARD_DIALS = (
    Dial("compare", "le", "drop where |w| <= threshold, or where |w| < threshold", ("lt",)),
    Dial(
        "ties",
        "lowest_index_first",
        "who is dropped first among equals",
        ("highest_index_first",),
    ),
    THRESHOLD_DTYPE,
    MASKING,
)


def limit_of(settings: Settings) -> float:
    """Return max_norm as the dials take it; refuse what has no meaning."""
    limit = float(settings["max_norm"])
    if isnan(limit) and settings["nan_limit"] == "reject":
        raise Reject("max_norm must be a number >= 0, got nan")
    if limit < 0 and settings["negative_limit"] == "reject":
        raise Reject(f"max_norm must be >= 0, got {limit}")
    return max(limit, 0.0) if not isnan(limit) else limit


def max_norm(weight: Tensor, settings: Settings) -> Value | Tensor:
    """Return w·min(1, c/‖w_group‖); the bits of the weight in a tensor where no group is scaled."""
    limit, n = limit_of(settings), groups.norms(weight, settings)
    if isnan(limit):
        return Value(full(weight.shape, NAN), weight.dtype.name)
    if limit == inf and settings["infinite_limit"] == "identity":
        return weight
    factors = each(lambda x: _factor(x, limit, settings), n)
    if all(f is None for f in factors.ravel()):
        return weight
    scaled = each(lambda x, f: x if f is None else x * f, exact(weight), factors)
    return Value(scaled, weight.dtype.name)


def _factor(n: Real, limit: float, settings: Settings) -> Real | None:
    """Return what a group is multiplied by; None for the group as it is."""
    if n != n:
        return None if settings["nonfinite"] == "nan_below" else NAN
    if n == INF:
        return NAN if settings["nonfinite"] == "all_nan" or limit == inf else ZERO
    c, eps = INF if limit == inf else real(limit), real(float(settings["eps"]))
    if n <= c:
        return None if settings["below_limit"] == "unchanged" or eps == 0 else n / (n + eps)
    return c / (n + eps)


def l1_ball(weight: Tensor, settings: Settings) -> Value | Tensor:
    """Return the nearest point of the ball: the bits of the weight inside, a soft threshold outside."""
    radius = float(settings["radius"])
    if not radius >= 0:
        raise Reject(f"radius must be >= 0, got {radius}")
    values, name = exact(weight), weight.dtype.name
    sizes = magnitude(values).ravel()
    norm = total(sizes)
    if radius == inf or norm <= radius:
        return weight
    if not all(x < INF for x in sizes):
        return Value(full(weight.shape, NAN), name)
    r = real(radius)
    theta, rho, kept = threshold_of(sizes, r)
    projected = each(lambda x: soft(x, theta), values)
    bits = bits_if_exact(projected, name, r, theta, kept, norm)
    if bits is not None and rho & (rho - 1) == 0:
        return signed(bits, weight, settings)
    error = (kept + r) / rho
    room = l1_ulps(weight) * 2 * real(FLOATS[name].unit_roundoff)
    scale = each(
        lambda x: ZERO if abs(x) <= theta - room * (abs(x) + error) else abs(x) + error, values
    )
    return Value(projected, name, scale)


def threshold_of(sizes: Any, radius: Real) -> tuple[Real, int, Real]:
    """Return theta, how many magnitudes exceed it, and their sum (Duchi et al. 2008, figure 1)."""
    summed, theta, rho, kept = ZERO, max(sizes), 0, ZERO
    for j, u in enumerate(sorted(sizes, reverse=True), 1):
        summed += u
        if u > (summed - radius) / j:
            theta, rho, kept = (summed - radius) / j, j, summed
    return theta, max(rho, 1), kept


def l1_ulps(weight: Tensor) -> int:
    """Return the allowed error (see L1_WHY)."""
    return weight.size + 4 if FLOATS[weight.dtype.name].precision >= 24 else 3


L1_WHY = (
    "theta is a sum of up to N magnitudes less the radius, divided by their count: N-1 additions, rounding"
    " the radius, a subtraction and a division, N+2 roundoffs of (the sum + radius)/count; |w| - theta adds"
    " one of its own, and 16 bits one more. 16-bit weights are computed in float32, where the sum's part is"
    " far below one. What theta exceeds by more than that must be zero. Where no operation rounds the bits"
    " are compared."
)


def dropped(weight: Tensor, settings: Settings) -> Any:
    """Return a mask of the entries that hard thresholding makes zero."""
    sizes = magnitude(exact(weight))
    if settings["count"] is None:
        t = float(settings["threshold"])
        name = weight.dtype.name if settings["threshold_dtype"] == "input_dtype" else widest(weight)
        limit = INF if t == inf else real(float(round_exact(real(t), name)))
        reached = (lambda x: x <= limit) if settings["compare"] == "le" else (lambda x: x < limit)
        return each(reached, sizes).astype(bool)
    last = 1 if settings["ties"] == "lowest_index_first" else -1
    flat = [(x != x, ZERO if x != x else x, last * i) for i, x in enumerate(sizes.ravel())]
    order = sorted(range(len(flat)), key=flat.__getitem__)
    mask = np.zeros(weight.size, bool)
    mask[order[: max(weight.size - settings["count"], 0)]] = True
    return mask.reshape(weight.shape)


def check_hard(settings: Settings) -> None:
    """Refuse none or both of count and threshold, and values without meaning."""
    count, threshold = settings["count"], settings["threshold"]
    if (count is None) == (threshold is None):
        raise Reject("exactly one of count and threshold must be given")
    if count is not None and count < 0:
        raise Reject(f"count must be >= 0, got {count}")
    if threshold is not None and not float(threshold) >= 0:
        raise Reject(f"threshold must be a number >= 0, got {threshold}")


def hard(weight: Tensor, settings: Settings) -> Tensor:
    """Return what is kept bit for bit, and +0.0 elsewhere."""
    return masked(weight, ~dropped(weight, settings), settings)
