"""What the norm clips share: the norm, the coefficient, their dials, parameters and tolerance."""

from __future__ import annotations

from math import ceil, inf, isinf, isnan
from typing import Any

import numpy as np

from conformance.exact import (
    FLUSHED,
    INF,
    NAN,
    ONE,
    ZERO,
    Real,
    Reject,
    each,
    exact,
    full,
    magnitude,
    power,
    real,
    total,
)
from conformance.formats import FLOATS, Tensor, parts, real_name, round_exact
from conformance.operation import Dial, Param, Value, narrowest, sizes, widest

Settings = dict[str, Any]

PARAMS = (
    Param(
        "max_norm",
        "the largest norm that is left alone, in the units of the gradient",
        required=True,
    ),
    Param("ord", "p of the p-norm: a number > 0, or inf for the largest magnitude", default=2),
)

DIALS = (
    Dial("eps_at", "none", "where eps enters: c/(n + eps), or c/max(n, eps)", ("denominator", "max"),
         {"eps": 1e-6}, words={"denominator": "eps = {eps} added to the norm",
                               "max": "the larger of the norm and eps = {eps} as divisor"}),
    Dial("eps", 0.0, "the number that keeps the division from 0/0", (1e-6, 1e-8),
         {"eps_at": "denominator"}),
    Dial("nonfinite", "all_nan",
         "a NaN or infinite norm: every output NaN, or whatever g·c/n gives, or a refusal",
         ("multiply", "reject"),
         words={"multiply": "a NaN or infinite norm that multiplies like any other",
                "reject": "a refusal of a NaN or infinite norm"}),
    Dial("norm", "exact", "naive: powers may overflow or flush to zero in the accumulation dtype",
         ("naive",), words={"naive": "powers that overflow or flush to zero"}),
    Dial("accumulate", "float32_or_wider", "the dtype in which powers are summed", ("input_dtype",),
         {"norm": "naive"}, words={"input_dtype": "powers summed in the dtype of the gradients"}),
    Dial("norm_dtype", "float32_or_wider",
         "input_dtype: each tensor's norm is rounded to its dtype before it is used", ("input_dtype",),
         words={"input_dtype": "norms rounded to the dtype of the gradients"}),
    Dial("at_equal", "unchanged",
         "norm = max_norm: min(1, c/n), or g·c/n whenever n >= c (with eps the two part)",
         ("rescaled",), {"eps_at": "denominator", "eps": 1e-6},
         words={"rescaled": "a multiplication also where norm = max_norm"}),
    Dial("below_limit", "unchanged",
         "norm < max_norm: the input itself, or g·(c·(1/c)), which may round", ("rescaled",),
         words={"rescaled": "a multiplication by c·(1/c) also below the threshold"}),
    Dial("zero_over_zero", "zero", "max_norm = 0 and norm = 0", ("nan",),
         words={"nan": "NaN where norm and max_norm are 0"}),
    Dial("zero_limit", "zeros", "max_norm = 0: zeros, or clipping is switched off", ("disabled",),
         words={"disabled": "max_norm = 0 taken for no clipping"}),
    Dial("infinite_limit", "identity",
         "max_norm = inf: the input, NaN, or what min(1, c/n) gives (NaN where the norm is infinite too)",
         ("nan", "multiply"), words={"nan": "NaN at max_norm = inf",
                                     "multiply": "NaN where norm and max_norm are infinite"}),
    Dial("nan_limit", "reject", "max_norm = NaN", ("nan", "ignore"),
         words={"nan": "NaN at max_norm = NaN", "ignore": "max_norm = NaN taken for no clipping"}),
    Dial("negative_limit", "reject", "max_norm < 0", ("flip_sign", "ignore", "zeros"),
         words={"flip_sign": "signs that flip at max_norm < 0",
                "ignore": "max_norm < 0 taken for no clipping", "zeros": "zeros at max_norm < 0"}),
)  # fmt: skip

DUPLICATES = Dial(
    "duplicates",
    "once",
    "the very same tensor listed twice: counts once or twice, or counts twice and is scaled twice",
    ("twice", "twice_in_place"),
)


def counted(present: list[Tensor], settings: Settings) -> list[Tensor]:
    """Return the tensors that the norm counts: each object once, unless duplicates count twice."""
    if settings["duplicates"] != "once":
        return present
    return [t for i, t in enumerate(present) if not any(t is other for other in present[:i])]


def times(tensor: Tensor, present: list[Tensor], settings: Settings) -> int:
    """Return how often a tensor is scaled: once, or in place as often as it is listed."""
    in_place = settings["duplicates"] == "twice_in_place"
    return sum(other is tensor for other in present) if in_place else 1


TOLERANCE_WHY = (
    "N powers and N-1 additions, each with relative error u, give the sum an error of N·u in any order;"
    " the p-th root divides it by p. pow, the root and one norm of norms add 4. The gradient multiplies by"
    " c/n: rounding c, dividing (two factors against underflow) and multiplying add 4 to the error of n."
    " A modulus is the root of two squares: they count as two, and the root adds 2."
    " Sums of 16-bit gradients run in float32, where N·u is 2^13 (float16) or 2^16 (bfloat16) times smaller."
    " Where a list mixes dtypes the norm is one number: its error is fewer ULP of a narrower gradient."
)


def check(settings: Settings) -> None:
    """Refuse an order or a threshold that has no meaning under the dials."""
    order, limit = number(settings["ord"]), number(settings["max_norm"])
    if isnan(order) or order <= 0:
        raise Reject(f"ord must be > 0 or inf, got {order}")
    if isnan(limit) and settings["nan_limit"] == "reject":
        raise Reject("max_norm must be a number >= 0, got nan")
    if limit < 0 and settings["negative_limit"] == "reject":
        raise Reject(f"max_norm must be >= 0, got {limit}")


def number(value: Any) -> float:
    """Return a parameter as a float: JSON writes the non-finite ones as strings."""
    return float(value)


def norm(tensors: list[Tensor], settings: Settings) -> Value:
    """Return the p-norm over all elements of the tensors, in the dtype the dials ask for."""
    order = number(settings["ord"])
    parts = [_powers(t, order, settings) for t in tensors]
    if isinf(order):
        largest = [x for part in parts for x in part]
        result = NAN if any(x != x for x in largest) else max(largest, default=ZERO)
    else:
        result = _root(
            _overflow(total(x for part in parts for x in part), parts, tensors, settings), order
        )
    dtype = norm_dtype(tensors, settings)
    if abs(result) != INF and result == result and abs(round_exact(result, dtype)) == inf:
        result = INF
    return Value(full((), result), dtype)


def norm_dtype(tensors: list[Tensor], settings: Settings) -> str:
    """Return the dtype of the norm: float64 or float32, or the promoted dtype of the gradients."""
    names = {real_name(t.dtype.name) for t in tensors}
    if settings["norm_dtype"] == "input_dtype" and len(names) == 1:
        return names.pop()
    return widest(tensors)


def _accumulation(tensor: Tensor, tensors: list[Tensor], settings: Settings) -> str:
    if settings["accumulate"] == "input_dtype":
        return real_name(tensor.dtype.name)
    return widest(tensors)


def _powers(tensor: Tensor, order: float, settings: Settings) -> list[Real]:
    values = list(magnitude(exact(tensor)).ravel())
    if isinf(order):
        return values
    p = real(order)
    powers = [x if x != x or x == INF else power(x, p) for x in values]
    if settings["norm"] == "exact":
        return powers
    dtype = _accumulation(tensor, [tensor], settings)
    lowest = FLOATS[dtype].tiny if dtype in FLUSHED[settings["subnormals"]] else 0.0
    return [
        INF if rounded == inf else (ZERO if rounded <= 0 or rounded < lowest else x)
        for x in powers
        for rounded in [float(round_exact(x, dtype)) if x == x else float("nan")]
    ]


def _overflow(value: Real, parts: list[Any], tensors: list[Tensor], settings: Settings) -> Real:
    if settings["norm"] == "exact" or value != value:
        return value
    names = [_accumulation(t, tensors, settings) for t in tensors] or ["float32"]
    dtype = max(names, key=lambda name: FLOATS[name].emax)
    return INF if float(round_exact(value, dtype)) == inf else value


def _root(value: Real, order: float) -> Real:
    return value if value != value or value == INF else value ** (ONE / real(order))


def apply(
    tensor: Tensor,
    norm_value: Real,
    settings: Settings,
    exact_limit: Real | None = None,
    times: int = 1,
) -> Value | Tensor:
    """Return a gradient times min(1, c/n), as the dials say it; the tensor itself where nothing binds.

    c is ``max_norm``, or ``exact_limit``; the factor is applied so many ``times``.
    """
    limit, n = number(settings["max_norm"]), norm_value
    if exact_limit is not None:
        limit = exact_limit
    if limit != limit:
        return tensor if settings["nan_limit"] == "ignore" else _filled(tensor, NAN)
    if limit == inf:
        undefined = settings["infinite_limit"] == "nan" or (
            settings["infinite_limit"] == "multiply" and not n < INF
        )
        return _filled(tensor, NAN) if undefined else tensor
    if limit < 0 and settings["negative_limit"] in ("ignore", "zeros"):
        return tensor if settings["negative_limit"] == "ignore" else _filled(tensor, ZERO)
    if limit == 0 and settings["zero_limit"] == "disabled":
        return tensor
    if n != n or n == INF:
        return _nonfinite(tensor, n, settings)
    c = real(limit) if exact_limit is None else exact_limit
    if limit == 0 and n == 0:
        return _filled(tensor, ZERO if settings["zero_over_zero"] == "zero" else NAN)
    coefficient = _coefficient(c, n, settings)
    if coefficient is None:
        if settings["below_limit"] == "unchanged":
            return tensor
        coefficient = ONE
    return _scaled(tensor, coefficient**times)


def _coefficient(c: Real, n: Real, settings: Settings) -> Real | None:
    eps = real(settings["eps"])
    bottom = n + eps if settings["eps_at"] == "denominator" else n
    if settings["eps_at"] == "max":
        bottom = max(n, eps)
    if settings["at_equal"] == "rescaled":
        return None if n < c else c / bottom
    return None if bottom <= c else c / bottom


def _nonfinite(tensor: Tensor, n: Real, settings: Settings) -> Value:
    if settings["nonfinite"] == "reject":
        raise Reject(f"the norm is {n}")
    if settings["nonfinite"] == "all_nan" or n != n:
        return _filled(tensor, NAN)
    return _scaled(tensor, ZERO)


def _scaled(tensor: Tensor, coefficient: Real) -> Value:
    return Value(each(lambda x: x * coefficient, exact(tensor)), tensor.dtype.name)


def _filled(tensor: Tensor, value: Real) -> Value:
    return Value(full(tensor.shape, value), tensor.dtype.name)


def norm_ulps(tensors: Any, settings: Settings) -> int:
    """Return the allowed error of a norm, in ULP of its own dtype (see TOLERANCE_WHY)."""
    present = [t for t in tensors if t is not None]
    if isinf(number(settings["ord"])) or not present:
        return 0
    precision = FLOATS[norm_dtype(present, settings)].precision
    narrow = FLOATS[narrowest(present)].precision
    if settings["accumulate"] == "input_dtype":
        return _relative_ulps(present, settings) * int(2 ** (precision - narrow))
    mixed = len({real_name(t.dtype.name) for t in present}) > 1
    # Norms of narrow tensors that are rounded before they join a wider total bring their own ULP along.
    parts = (
        int(2 ** (precision - narrow)) if mixed and settings["norm_dtype"] == "input_dtype" else 0
    )
    return _relative_ulps(present, settings) + parts


def grad_ulps(tensors: Any, settings: Settings, dtype: str | None = None) -> int:
    """Return the allowed error of a clipped gradient in ULP of a dtype (default: the widest of them).

    The error of the norm is one number for all: of a narrower gradient it is so many ULP fewer (see
    TOLERANCE_WHY).
    """
    present = [t for t in tensors if t is not None]
    widest_precision = max((_precision(t.dtype.name) for t in present), default=24)
    own = widest_precision if dtype is None else _precision(dtype)
    if settings["accumulate"] == "input_dtype" and not isinf(number(settings["ord"])) and present:
        wider = 2.0 ** (own - FLOATS[narrowest(present)].precision)
        return ceil(_relative_ulps(present, settings) * wider) + 4
    narrower = 2.0 ** (own - max(widest_precision, 24))
    stored = widest_precision < 24 and settings["norm_dtype"] == "input_dtype"
    return ceil(norm_ulps(tensors, settings) * narrower) + stored + 4


def each_grad_ulps(tensors: Any, settings: Settings) -> list[int | None]:
    """Return the allowed error of each clipped gradient of a list, in ULP of its own dtype."""
    return [None if t is None else grad_ulps(tensors, settings, t.dtype.name) for t in tensors]


def _precision(dtype: str) -> int:
    return FLOATS[real_name(dtype)].precision


def _relative_ulps(present: list[Tensor], settings: Settings) -> int:
    complex_size = sizes([t for t in present if t.dtype.kind == "c"])
    count = ceil((sizes(present) + complex_size + 2) / number(settings["ord"]))
    return count + 4 + (2 if complex_size else 0) + _flushed_ulps(present, settings)


def _flushed_ulps(tensors: Any, settings: Settings) -> int:
    # Naive powers in the subnormal range keep an absolute error of one subnormal each.
    if settings["norm"] == "exact":
        return 0
    fmt = FLOATS[widest(tensors)]
    order = number(settings["ord"])
    values = np.concatenate(
        [np.abs(parts(t).astype(np.float64)).ravel() for t in tensors if t is not None] or [[]]
    )
    largest = np.max(values[np.isfinite(values)], initial=0.0)
    if largest == 0 or np.log2(largest) * order >= fmt.emin:
        return 0
    spacing = fmt.emin - (fmt.precision - 1)
    lost = 2.0 ** min(spacing - np.log2(largest) * order + fmt.precision, 60)
    return ceil(len(values) * lost / order)
