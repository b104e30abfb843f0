"""S-shaped activations and leaks, exactly, with the magnitudes that their errors are measured against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.exact import NAN, ONE, ZERO, Exact, Real, ctx, each, exact, real
from conformance.formats import FLOATS
from conformance.operation import Mistake, Value
from conformance.oracle.layers import check_dtypes, check_shape

Tensors = dict[str, Any]


def sigmoid(x: Real) -> Real:
    """Return 1 / (1 + exp(-x)); 0 and 1 at the infinities."""
    if x != x:
        return NAN
    return ONE / (ONE + ctx.exp(-x)) if x >= 0 else ctx.exp(x) / (ONE + ctx.exp(x))


def floored(values: Exact, dtype: str) -> Exact:
    """Return magnitudes of which an ULP is at least the smallest normal number where they are below it.

    1/(1 + exp(-x)) is 0 as soon as exp(-x) overflows, which is before the result underflows. Not so
    in float16, which is computed in float32.
    """
    fmt = FLOATS[dtype]
    if dtype == "float16":
        return each(abs, values)
    lowest = real(4 * fmt.tiny)
    floor = ctx.ldexp(real(fmt.tiny), fmt.precision - 1)
    return each(lambda v: floor if abs(v) < lowest else abs(v), values)


def s_shaped(
    function: Callable[[Real], Real],
    slope: Callable[[Real], Real],
    scales: Callable[[Exact, str], tuple[Exact, Exact]],
) -> Callable[[Tensors, Tensors], Tensors]:
    """Return the oracle of y = f(x), dx = dy·f'(x), with f' as a function of y.

    ``scales(y, dtype)`` are what the errors of y and of f' are measured against.
    """

    def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
        check_dtypes(**inputs)
        check_shape("dy", inputs["dy"], inputs["x"].shape)
        dtype, dy = inputs["x"].dtype.name, exact(inputs["dy"])
        y = each(function, exact(inputs["x"]))
        of_y, of_slope = scales(y, dtype)
        dx = each(lambda d, v: d * slope(v), dy, y)
        of_dx = each(lambda d, s: abs(d) * s, dy, of_slope)
        return {"y": Value(y, dtype, finite(of_y)), "dx": Value(dx, dtype, finite(of_dx))}

    return oracle


def finite(scale: Exact) -> Exact:
    """Return a scale with 0 (none) where it is not a finite number."""
    return each(lambda s: s if ctx.isfinite(s) else ZERO, scale)


def mistakes(
    oracle: Callable[[Tensors, Tensors], Tensors], table: tuple[tuple[str, str, str, Any], ...]
) -> tuple[Mistake, ...]:
    """Return known mistakes from rows of (name, description, output, function of x, y and dy).

    The function gets exact numbers and returns what stands for the named output.
    """

    def mistaken(output: str, function: Any) -> Callable[[Tensors, Tensors], Tensors]:
        def run(inputs: Tensors, settings: Tensors) -> Tensors:
            result, dtype = oracle(inputs, settings), inputs["x"].dtype.name
            x, y, dy = exact(inputs["x"]), result["y"].exact, exact(inputs["dy"])
            wrong = each(lambda a, b, c: function(a, b, c), x, y, dy)
            return result | {output: Value(wrong, dtype)}

        return run

    return tuple(Mistake(name, text, mistaken(out, f)) for name, text, out, f in table)
