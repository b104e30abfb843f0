"""``clip.value``: limit every element of a gradient to an interval."""

from __future__ import annotations

from math import inf, isnan
from typing import Any

import numpy as np

from conformance.cases import ALL, COMPLEX, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import Reject, exact, real
from conformance.formats import Tensor, round_exact
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value, map_tensors

Settings = dict[str, Any]


def bounds(settings: Settings) -> tuple[float, float]:
    """Return the interval; a missing side is infinite, ``range`` c means [-c/2, c/2]."""
    low, high, width = (settings[name] for name in ("min", "max", "range"))
    if width is not None:
        if low is not None or high is not None:
            raise Reject("give range, or min and max, not both")
        return -float(width) / 2, float(width) / 2
    if low is None and high is None:
        raise Reject("give min, max or range")
    return -inf if low is None else float(low), inf if high is None else float(high)


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """g ← min(max(g, low), high), element by element; a NaN stays NaN."""
    low, high = bounds(settings)
    if any(g is not None and g.dtype.kind == "c" for g in inputs["grads"]):
        raise Reject("complex numbers have no order, so no interval")
    if isnan(low) or isnan(high):
        if settings["nan_limit"] == "reject":
            raise Reject("a bound must be a number, got nan")
        if settings["nan_limit"] == "ignore":
            return {"grads": inputs["grads"]}
        return {"grads": map_tensors(lambda g: np.full_like(g, np.nan), inputs["grads"])}
    if low > high:
        if settings["crossed_bounds"] == "reject":
            raise Reject(f"min must be <= max, got {low} and {high}")
        low = high = high if settings["crossed_bounds"] == "max_wins" else low
    if low == high == 0 and settings["zero_limit"] == "disabled":
        return {"grads": inputs["grads"]}
    return {"grads": map_tensors(lambda g: limited(g, low, high, settings), inputs["grads"])}


def limited(g: Tensor, low: float, high: float, settings: Settings) -> Any:
    """Return one tensor limited to the interval, in its own dtype."""
    name = g.dtype.name
    values = g.astype(np.float64)
    result = g.copy()
    result[values < low] = round_exact(real(low), name)
    result[values > high] = round_exact(real(high), name)
    if settings["nan"] == "to_bound":
        result[np.isnan(values)] = round_exact(real(low), name)
    if low == 0 or high == 0:
        # Which zero min(-0, +0) returns is not laid down, so only the value is asked for.
        return Value(exact(result), name)
    return result


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Nothing is computed, only chosen: the bits are asked for, except of a zero bound's sign."""
    return {"grads": 1}


def _mistaken(change: Any) -> Any:
    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        low, high = bounds(settings)
        return {"grads": map_tensors(lambda g: change(g, low, high, settings), inputs["grads"])}

    return mistake


def _high_only(g: Tensor, low: float, high: float, s: Settings) -> Any:
    return limited(g, -inf, high, s)


def _low_only(g: Tensor, low: float, high: float, s: Settings) -> Any:
    return limited(g, low, inf, s)


def _symmetric(g: Tensor, low: float, high: float, s: Settings) -> Any:
    return limited(g, -high, high, s) if high >= 0 else g


def _max_for_min(g: Tensor, low: float, high: float, s: Settings) -> Any:
    return limited(g, high, inf, s)


def _by_norm(g: Tensor, low: float, high: float, s: Settings) -> Any:
    values = g.astype(np.float64)
    top = float(np.max(np.abs(values), initial=0.0))
    return g if not top > high or high == inf else (values * (high / top)).astype(g.dtype)


def _twice_range(g: Tensor, low: float, high: float, s: Settings) -> Any:
    factor = 2.0 if s["range"] is not None else 1.0
    return limited(g, factor * low, factor * high, s)


def _nan_to_zero(g: Tensor, low: float, high: float, s: Settings) -> Any:
    result = limited(g, low, high, s)
    if isinstance(result, Value):
        return result
    return np.where(np.isnan(result.astype(np.float64)), np.zeros_like(result), result)


MISTAKES = (
    Mistake("lower bound forgotten", "only values above max are limited", _mistaken(_high_only)),
    Mistake("upper bound forgotten", "only values below min are limited", _mistaken(_low_only)),
    Mistake("bounds taken as symmetric", "min is ignored, -max is used", _mistaken(_symmetric)),
    Mistake(
        "scaled instead of limited", "the tensor is scaled to max |g| = c", _mistaken(_by_norm)
    ),
    Mistake("max for min", "max(max(g, low), high): no value below max", _mistaken(_max_for_min)),
    Mistake("range not halved", "range c is taken as [-c, c]", _mistaken(_twice_range)),
    Mistake("NaN becomes zero", "a NaN is replaced, which hides it", _mistaken(_nan_to_zero)),
)

CONSTRAINTS = {
    "C1": "Each element is replaced by the nearest number of [min, max]; min alone or max alone will do.",
    "C2": "An element inside the interval, or at a bound, comes back bit for bit.",
    "C3": "range c means [-c/2, c/2].",
    "C4": "NaN stays NaN; an infinite element becomes the bound.",
    "C5": "min = max = 0 gives zeros; an infinite bound limits nothing on its side.",
    "C6": "A NaN bound, min > max (so a negative range) and no bound at all are refused.",
    "C7": "An absent gradient stays absent; an empty list gives an empty list.",
    "C8": "Each output has the dtype and shape of its gradient; bounds are rounded to that dtype.",
    "C9": "A complex gradient is refused: complex numbers have no order.",
}

FLAGS = {
    "basic": Flag("BASIC", "Values below, inside and above the interval, in several tensors."),
    "one-sided": Flag("BASIC", "Only one bound, or bounds that are not symmetric."),
    "range": Flag("BASIC", "The interval given by its width."),
    "at-bound": Flag("EDGE_CASE", "Values exactly at a bound.", ("pytorch/pytorch#7002",)),
    "nan": Flag("EDGE_CASE", "NaN among the gradients.", ("pytorch/pytorch#76795",)),
    "infinite": Flag("EDGE_CASE", "Infinite gradients or bounds."),
    "zero-limit": Flag(
        "EDGE_CASE", "An interval of zero width at zero.", ("tensorflow/tensorflow#33929",)
    ),
    "bad-bounds": Flag("EDGE_CASE", "Crossed, NaN or missing bounds.", ("pytorch/pytorch#31367",)),
    "absent": Flag("KNOWN_BUG", "Absent gradients, an empty list.", ("pytorch/pytorch#35753",)),
    "shapes": Flag("EDGE_CASE", "0-d, empty and multi-dimensional tensors."),
    "beyond-dtype": Flag("OVERFLOW", "A bound that the gradients' dtype cannot hold."),
    "rounded-bound": Flag("PRECISION", "A bound that is rounded to the gradients' dtype."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list."),
    "subnormal": Flag("EDGE_CASE", "Subnormal gradients inside the interval."),
    "complex": Flag("EDGE_CASE", "Complex gradients."),
    "large-and-small": Flag(
        "KNOWN_BUG", "One bad entry must not change the others.", ("karpathy/nanochat#162",)
    ),
}


def cases(c: Cases) -> None:
    """Write the cases."""

    def add(
        name: str, flags: str, labels: str, grads: Any, dtypes: Any = ALL, **params: Any
    ) -> None:
        c.add(name, flags, labels, {"grads": grads}, params, dtypes)

    random = Stream(3)
    two = [tensor([3, -1, 0.5], [-0.25, 2, -7]), tensor(-4, 0.125, 1)]
    add("symmetric", "basic", "C1 C2", two, min=-1.0, max=1.0)
    add("wide-interval", "basic", "C2", two, min=-16.0, max=16.0)
    add(
        "inside-and-outside",
        "basic large-and-small",
        "C1 C2",
        [tensor(1e4, -0.5, 0.25)],
        min=-0.75,
        max=0.75,
    )
    add("asymmetric", "one-sided", "C1", two, min=-0.5, max=2.0)
    add("positive-interval", "one-sided", "C1", two, min=0.5, max=2.0)
    add("min-only", "one-sided", "C1", two, min=-0.5)
    add("max-only", "one-sided", "C1", two, max=0.75)
    add("from-zero", "one-sided", "C1", two, min=0.0, max=2.0)
    add("range", "range", "C1 C3", two, range=3.0)
    add("range-of-article", "range", "C3", [tensor(0.3, -0.3, 0.25, -0.2)], range=0.5)
    add("range-zero", "range zero-limit", "C3 C5", two, range=0.0)
    add("range-negative", "range bad-bounds", "C6", two, range=-2.0)
    add("at-bound", "at-bound", "C2", [tensor(1, -1, 1.0), tensor([6.0, 0.5])], min=-1.0, max=6.0)
    add(
        "one-step-outside",
        "at-bound",
        "C1",
        [tensor(1 + 2.0**-7, -1 - 2.0**-7, 1)],
        min=-1.0,
        max=1.0,
    )
    add("nan", "nan", "C4", [tensor(np.nan, 5, -5), tensor([0.5, np.nan])], min=-1.0, max=1.0)
    add("nan-only", "nan", "C4", [tensor(np.nan)], max=1.0)
    add("infinite-gradient", "infinite", "C4", [tensor(np.inf, -np.inf, 0.5)], min=-2.0, max=1.0)
    add("infinite-bounds", "infinite", "C5", [tensor(3, -4e4, 0)], min="-inf", max="inf")
    add(
        "infinite-everything",
        "infinite",
        "C4 C5",
        [tensor(np.inf, -np.inf, np.nan)],
        max="inf",
        min=-1.0,
    )
    add("zero-limit", "zero-limit", "C5", two, min=0.0, max=0.0)
    add("crossed", "bad-bounds", "C6", two, min=1.0, max=-1.0)
    add("crossed-uneven", "bad-bounds", "C6", two, min=2.0, max=0.5)
    add("nan-bound", "bad-bounds", "C6", two, WIDE, min="nan", max=1.0)
    add("no-bound", "bad-bounds", "C6", two, ("float32",))
    add("range-and-max", "bad-bounds", "C6", two, ("float32",), range=2.0, max=1.0)
    add("absent", "absent", "C7", [None, tensor(3, -4), None], min=-1.0, max=1.5)
    add("all-absent", "absent", "C7", [None], ("float32",), min=-1.0, max=1.0)
    add("empty-list", "absent", "C7", [], ("float32",), min=-1.0, max=1.0)
    add("shapes", "shapes", "C8", [np.array(-3.0), np.zeros((0, 2)), random.uniform(2, 3, 2)],
        min=-0.5, max=0.25)  # fmt: skip
    add(
        "beyond-float16",
        "beyond-dtype",
        "C8",
        [tensor(-6e4, 1, np.inf)],
        ("float16",),
        min=-1e5,
        max=1e5,
    )
    add(
        "beyond-float32",
        "beyond-dtype",
        "C8",
        [tensor(-3e38, 1)],
        ("float32", "bfloat16"),
        min=-1e39,
        max=1e39,
    )
    add(
        "tiny-bound",
        "rounded-bound beyond-dtype",
        "C8",
        [tensor(1, -1, 2.0**-30)],
        WIDE,
        min=-1e-30,
        max=1e-30,
    )
    add(
        "tenth",
        "rounded-bound",
        "C1 C8",
        [tensor(0.3, -0.3, 0.05), tensor([0.1, -0.1])],
        min=-0.1,
        max=0.1,
    )
    add("third", "rounded-bound", "C1 C8", [tensor(0.5, -0.5, 0.25)], min=-1 / 3, max=2 / 3)
    add("mixed-dtypes", "mixed-dtypes", "C8",
        [fixed([3.0, 0.1], "float16"), fixed([-2.0, 0.05], "float32"), fixed([0.2, -4.0], "bfloat16")],
        ("float32",), min=-0.1, max=0.1)  # fmt: skip
    for dtype in ("float64", "bfloat16"):
        add("mixed-with-float32", "mixed-dtypes", "C8", [tensor(0.3, -2.5), fixed([-2.0, 0.05], "float32")],
            (dtype,), min=-0.7, max=0.3)  # fmt: skip
    for dtype, small in (("float64", 5e-324), ("float16", 6e-8)):
        add(
            "subnormal",
            "subnormal",
            "C2",
            [tensor(small, -20 * small, 3.0)],
            (dtype,),
            min=-1.0,
            max=1.0,
        )
    add(
        "subnormal",
        "subnormal",
        "C2",
        [tensor(1e-45, -1e-40, 3.0)],
        ("float32",),
        min=-1.0,
        max=1.0,
    )
    add(
        "uneven", "basic", "C1 C2", [random.uniform(7, 5), random.spread(11)], min=-0.375, max=0.625
    )
    z = np.array([[3 - 4j, 0.25 + 0.5j, -2 + 0j]])
    add("complex", "complex", "C9", [z], COMPLEX, min=-1.0, max=1.0)
    add("complex-after-real", "complex", "C9", [tensor(0.5, -3), fixed(z, "complex64")],
        ("float32",), range=2.0)  # fmt: skip


OPERATION = Operation(
    id="clip.value",
    summary="Limit every element of every gradient to an interval.",
    formula="g ← min(max(g, low), high);  range c: low = -c/2, high = c/2",
    sources=(
        "T. Mikolov: Statistical language models based on neural networks. PhD thesis, Brno 2012",
    ),
    constraints=CONSTRAINTS,
    inputs={"grads": "list of float tensors of any shapes; null is an absent gradient"},
    outputs={"grads": "the list, limited"},
    params=(
        Param("min", "lower bound, in the units of the gradient; absent: none"),
        Param("max", "upper bound, in the units of the gradient; absent: none"),
        Param("range", "width c of the interval [-c/2, c/2]; excludes min and max"),
    ),
    dials=(
        Dial(
            "nan", "propagate", "a NaN element stays NaN, or becomes the lower bound", ("to_bound",)
        ),
        Dial("crossed_bounds", "reject", "min > max", ("max_wins", "min_wins")),
        Dial(
            "nan_limit",
            "reject",
            "a NaN bound: refused, all NaN, or no clipping",
            ("nan", "ignore"),
        ),
        Dial(
            "zero_limit",
            "zeros",
            "min = max = 0: zeros, or clipping is switched off",
            ("disabled",),
        ),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "Nothing is computed, only chosen: the bits must be right. A bound of 0 leaves its sign open."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {"crossed_bounds": "max_wins", "nan_limit": "nan", "in_place": "documented"},
        "tensorflow": {"crossed_bounds": "min_wins", "nan_limit": "nan", "subnormals": "flush"},
    },
)
