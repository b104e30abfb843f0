"""``layer.dropout``: inverted dropout with a given mask, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, fixed, tensor
from conformance.exact import ONE, ZERO, Real, Reject, each, exact, real
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value
from conformance.operations import _dtype_cases
from conformance.oracle.layers import check_dtypes, check_shape

Tensors = dict[str, Any]


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """y = x/(1 - rate) where the mask keeps, else 0;  dx = dy/(1 - rate) there, else 0."""
    check_dtypes(x=inputs["x"], dy=inputs["dy"])
    rate = float(settings["rate"])
    if not 0 <= rate <= 1:
        raise Reject(f"rate must be in [0, 1], got {rate}")
    if rate == 1 and settings["rate_one"] == "reject":
        raise Reject("rate must be less than 1")
    for name in ("mask", "dy"):
        check_shape(name, inputs[name], inputs["x"].shape)
    zero = (lambda v: v * ZERO) if settings["dropped"] == "multiply" else (lambda v: ZERO)

    def thinned(v: Real, kept: Any) -> Real:
        return v / (ONE - real(rate)) if kept and rate < 1 else zero(v)

    return _both(inputs, thinned)


def _both(inputs: Tensors, forward: Any, backward: Any = None) -> Tensors:
    """Apply a function of an element and its mask to x, and one to dy."""
    dtype, mask = inputs["x"].dtype.name, inputs["mask"]
    y = each(forward, exact(inputs["x"]), mask)
    dx = each(backward or forward, exact(inputs["dy"]), mask)
    return {"y": Value(y, dtype), "dx": Value(dx, dtype)}


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """Three roundings: see TOLERANCE_WHY."""
    return {"y": 3, "dx": 3}


def _factors(forward: Any, backward: Any) -> Any:
    """Return a mistake that scales what is kept by functions of the rate."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        right, rate = oracle(inputs, settings), real(float(settings["rate"]))
        if rate == 1:
            return right
        return _both(
            inputs,
            lambda v, kept: v * forward(rate) if kept else ZERO,
            lambda v, kept: v * backward(rate) if kept else ZERO,
        )

    return mistaken


def _after(change: Any) -> Any:
    """Return a mistake that changes the answer to the arguments that the operation takes."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        right = oracle(inputs, settings)
        return right | change(inputs, settings, right)

    return mistaken


def undefined(inputs: Tensors, settings: Tensors) -> Tensors:
    """0 · 1/(1 - 1) is NaN where the mask is 0 and the factor infinite."""
    right = oracle(inputs, settings)
    if float(settings["rate"]) < 1:
        return right
    return _both(inputs, lambda v, kept: v * ZERO * real(np.inf))


def _masked(change: Any) -> Any:
    """Return a mistake in the mask: a function of the mask and x."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        oracle(inputs, settings)
        return oracle(inputs | {"mask": change(inputs["mask"], inputs["x"])}, settings)

    return mistaken


def _first_row(mask: Any, x: Any) -> Any:
    return np.broadcast_to(mask[:1], mask.shape) if mask.ndim else mask


MISTAKES = (
    Mistake("not scaled", "what is kept is not divided by 1 - rate", _factors(lambda r: ONE, lambda r: ONE)),
    Mistake("gradient not scaled", "dx lacks the factor that y has",
            _factors(lambda r: ONE / (ONE - r), lambda r: ONE)),
    Mistake("scaled by the rate", "the rate is taken for the probability of keeping",
            _factors(lambda r: ONE / r if r else ONE, lambda r: ONE / r if r else ONE),
            ("gorgonia/gorgonia#399",)),
    Mistake("multiplied", "what is kept is multiplied by 1 - rate, as at test time of plain dropout",
            _factors(lambda r: ONE - r, lambda r: ONE - r)),
    Mistake("gradient scaled twice", "dx has the factor squared",
            _factors(lambda r: ONE / (ONE - r), lambda r: ONE / (ONE - r) ** 2)),
    Mistake("rate 1 divides by zero", "0 times an infinite factor is NaN", undefined, ("google/flax#2055",)),
    Mistake("mask inverted", "the mask says what is dropped", _masked(lambda mask, x: ~mask)),
    Mistake("gradient not masked", "dy passes everywhere", _after(lambda inputs, settings, right: {
        "dx": _both(inputs, lambda v, kept: v if float(settings["rate"]) == 1
                    else v / (ONE - real(float(settings["rate"]))))["dx"]})),
    Mistake("mask from x", "an input of 0 blocks its gradient, as if the mask had",
            _masked(lambda mask, x: mask & (x != 0)), ("ROCm/tensorflow-upstream#1008",)),
    Mistake("one mask for all examples", "the mask of the first example serves for every one",
            _masked(_first_row)),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "y = x/(1 - rate) where the mask is true and 0 elsewhere: the expectation of y over masks is x.",
    "C2": "dx = dy/(1 - rate) where the mask is true and 0 elsewhere, whatever x is.",
    "C3": "A dropped element is 0, whatever it was: no infinity or NaN gets through.",
    "C4": "With rate 0 what is kept passes unchanged; the given mask still drops.",
    "C5": "With rate 1 everything is 0, whatever the mask: nothing is divided by 0.",
    "C6": "1 - rate is not computed in 16 bits: next to 1 the factor would be far off.",
    "C7": "rate is in [0, 1]; others are refused, NaN too.",
    "C8": "Any shape, 0-d and empty ones included; mask and dy have the shape of x, nothing is broadcast.",
    "C9": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Some are dropped and some kept, in no pattern; uneven upstream gradient."),
    "inexact": Flag("PRECISION", "A rate that no binary format has, or one next to 1."),
    "rate-zero": Flag("EDGE_CASE", "Rate 0."),
    "rate-one": Flag("KNOWN_BUG", "Rate 1: zeros, never NaN.", ("google/flax#2055", "elixir-nx/axon#367")),
    "bad-rate": Flag("EDGE_CASE", "A rate that is no probability."),
    "all-or-nothing": Flag("EDGE_CASE", "A mask that keeps everything, or nothing."),
    "zero-input": Flag("KNOWN_BUG", "An input of 0 that is kept: its gradient passes.",
                       ("ROCm/tensorflow-upstream#1008",)),
    "nonfinite": Flag("EDGE_CASE", "Infinite or NaN elements, kept and dropped."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and four-dimensional tensors."),
    "bad-shape": Flag("EDGE_CASE", "A mask or a dy that does not fit."),
    "bad-dtype": _dtype_cases.FLAG,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(124)
    nan, inf = np.nan, np.inf

    def add(
        name: str,
        flags: str,
        labels: str,
        x: Any,
        rate: Any,
        mask: Any = None,
        dy: Any = None,
        dtypes: Any = ALL,
    ) -> None:
        x = random.uniform(*x, low=-4.0, high=4.0) if isinstance(x, tuple) else x
        mask = random.uniform(*x.shape) < 0.3 if mask is None else np.array(mask, dtype=bool)
        dy = random.uniform(*x.shape, low=-3.0, high=3.0) if dy is None else dy
        c.add(
            name,
            flags,
            labels,
            {"x": x, "mask": fixed(mask, "bool"), "dy": dy},
            {"rate": rate},
            dtypes,
        )

    add("basic", "basic", "C1 C2", (4, 5), 0.5)
    add(
        "by-hand",
        "basic",
        "C1 C2",
        tensor([3, -6, 1], [0.75, 9, -2]),
        0.25,
        [[1, 0, 1], [1, 1, 0]],
        tensor([6, 5, -1.5], [4, -9, 8]),
    )
    add("quarter", "basic", "C1 C2", (3, 4), 0.75)
    add("eighth", "basic", "C1 C2", (2, 6), 0.125)
    add("column", "basic", "C1 C2", (5, 1), 0.5)
    add("tenth", "inexact", "C1 C2 C6", (3, 4), 0.1)
    add("third", "inexact", "C1 C2 C6", (2, 5), 1 / 3)
    add("fifth", "inexact basic", "C1 C2 C6", (4, 3), 0.2)
    add("thousandth", "inexact", "C1 C6", (2, 3), 0.001)
    add("nearly-all", "inexact", "C1 C2 C6", (2, 6), 0.999)
    add("nearly-one", "inexact", "C1 C6", (2, 4), 1 - 2.0**-12, None, None)
    add("rate-zero", "rate-zero", "C4", (3, 4), 0)
    add("rate-zero-keeps", "rate-zero all-or-nothing", "C4", (2, 3), 0.0, np.ones((2, 3)))
    add("rate-zero-drops", "rate-zero all-or-nothing", "C4", (2, 3), 0.0, np.zeros((2, 3)))
    add(
        "rate-zero-nonfinite",
        "rate-zero nonfinite",
        "C3 C4",
        tensor(inf, nan, -1),
        0.0,
        [1, 1, 1],
        tensor(2, 3, -inf),
    )
    add("rate-one", "rate-one all-or-nothing", "C5", (3, 4), 1.0, np.zeros((3, 4)))
    add("rate-one-integer", "rate-one", "C5", (2, 3), 1, np.zeros((2, 3)))
    add("rate-one-kept", "rate-one", "C5", (2, 3), 1.0, [[0, 1, 0], [1, 0, 0]])
    add("rate-one-keeps", "rate-one all-or-nothing", "C5", (2, 2), 1.0, np.ones((2, 2)))
    add(
        "rate-one-nonfinite",
        "rate-one nonfinite",
        "C3 C5",
        tensor(inf, nan, -1),
        1.0,
        [0, 0, 0],
        tensor(2, -inf, nan),
    )
    for name, rate in (
        ("negative", -0.5),
        ("above-one", 1.5),
        ("slightly-negative", -1e-3),
        ("slightly-above", 1.001),
        ("nan", "nan"),
        ("infinite", "inf"),
    ):
        add(f"rate-{name}", "bad-rate", "C7", (2, 3), rate, None, None, ("float32",))
    add("keeps-all", "all-or-nothing", "C1 C2", (2, 5), 0.5, np.ones((2, 5)))
    add("drops-all", "all-or-nothing", "C1 C2", (2, 5), 0.5, np.zeros((2, 5)))
    add(
        "zero-input",
        "zero-input",
        "C1 C2",
        tensor([0, 1, 0], [-0.0, 0, -2]),
        0.5,
        [[1, 1, 0], [1, 0, 1]],
    )
    add("zero-inputs", "zero-input", "C2", np.zeros((2, 3)), 0.25, [[1, 0, 1], [0, 1, 1]])
    add("zero-input-rate-zero", "zero-input rate-zero", "C2 C4", tensor(0, 3, 0), 0.0, [1, 1, 1])
    add("infinite-dropped", "nonfinite", "C3", tensor(inf, -inf, 1), 0.5, [0, 0, 1])
    add("infinite-kept", "nonfinite", "C1", tensor(inf, -inf, 1), 0.5, [1, 1, 0])
    add("nan-dropped", "nonfinite", "C3", tensor([nan, 2], [3, nan]), 0.5, [[0, 1], [1, 1]])
    add("upstream-dropped", "nonfinite", "C3", tensor(1, 2, 3), 0.5, [0, 0, 1], tensor(inf, nan, 5))
    add("zero-dimensional", "shapes", "C8", np.array(3.5), 0.5, True, np.array(-2.0))
    add("zero-dimensional-dropped", "shapes", "C8", np.array(3.5), 0.5, False, np.array(-2.0))
    add("empty", "shapes", "C8", np.zeros((0, 3)), 0.5)
    add("image", "shapes basic", "C1 C2 C8", (2, 2, 3, 2), 0.5)
    add("mask-of-a-row", "bad-shape", "C8", (2, 3), 0.5, [1, 0, 1], None, ("float32",))
    add(
        "mask-transposed",
        "bad-shape",
        "C8",
        (2, 3),
        0.5,
        [[1, 0], [1, 1], [0, 1]],
        None,
        ("float32",),
    )
    add(
        "upstream-mismatch",
        "bad-shape",
        "C8",
        (2, 3),
        0.5,
        None,
        random.uniform(3, 2),
        ("float32",),
    )
    _dtype_cases.refused(
        c, "C9",
        {"x": random.uniform(2, 3, low=-2.0, high=2.0), "dy": random.uniform(2, 3),
         "mask": fixed([[True, False, True], [False, True, True]], "bool")},
        {"rate": 0.25},
    )  # fmt: skip


OPERATION = Operation(
    id="layer.dropout",
    summary="Inverted dropout with a given mask, with its gradient.",
    formula="y = x · mask / (1 - rate);  dx = dy · mask / (1 - rate)",
    sources=(
        "N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov: Dropout: a simple way to"
        " prevent neural networks from overfitting. JMLR 15, 2014",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "x": "float tensor of any shape",
        "mask": "like x, bool: true keeps",
        "dy": "like x: the upstream gradient, dL/dy",
    },
    outputs={"y": "like x", "dx": "like x"},
    params=(Param("rate", "the probability of being dropped, in [0, 1]", required=True),),
    dials=(
        Dial("dropped", "zero", "a dropped element is 0, or itself times 0", ("multiply",)),
        Dial("rate_one", "zeros", "rate 1 drops everything, or is refused", ("reject",)),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "The factor 1/(1 - rate) is computed in float64 and rounded to the format (u; in float64 a difference"
        " and a quotient, 2u), and the product is (u): 3u, and one ULP of a number is at least u times it."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {"dropped": "multiply"},
        "tensorflow": {"rate_one": "reject", "subnormals": "flush"},
        "mlx": {"rate_one": "reject"},
    },
)  # fmt: skip
