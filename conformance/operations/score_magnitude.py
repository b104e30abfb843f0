"""``score.magnitude``: the score of a weight is its magnitude."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, fixed, tensor
from conformance.formats import Tensor
from conformance.operation import Flag, Mistake, Operation, map_tensors

Settings = dict[str, Any]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """s = |w|: the sign bit is cleared, nothing else."""
    return {"scores": map_tensors(lambda x: np.asarray(np.abs(x)), inputs["weights"])}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: no rounding happens."""
    return {"scores": 0}


def _mistaken(change: Callable[[Tensor], Tensor]) -> Any:
    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            return {"scores": map_tensors(lambda w: np.asarray(change(w)), inputs["weights"])}

    return mistake


def _relative(w: Tensor) -> Tensor:
    top = np.max(np.abs(w), initial=0)
    return np.abs(w) / top if top > 0 else np.abs(w)


MISTAKES = (
    Mistake(
        "no absolute value",
        "the score is the weight itself, so large negative weights rank lowest",
        _mistaken(lambda w: w),
        ("intel/neural-compressor#592",),
    ),
    Mistake(
        "squared",
        "the score is w², whose order is lost where squares underflow or overflow",
        _mistaken(lambda w: w * w),
    ),
    Mistake(
        "relative to the largest",
        "each tensor is divided by its largest magnitude, which a comparison of tensors sees",
        _mistaken(_relative),
    ),
    Mistake(
        "negative zero",
        "-0 keeps its sign, so a sort of the bits puts it elsewhere",
        _mistaken(lambda w: np.where(w == 0, w, np.abs(w))),
    ),
    Mistake(
        "NaN becomes zero",
        "a NaN weight gets the lowest score in silence",
        _mistaken(lambda w: np.where(np.isnan(w), np.zeros_like(w), np.abs(w))),
    ),
)

CONSTRAINTS = {
    "C1": "Each score is |w|, exact in every dtype; the score of -0 is +0.",
    "C2": "A score has the shape and dtype of its weight, 0-d and empty ones included.",
    "C3": "NaN scores NaN, and either infinity scores +infinity.",
    "C4": "An absent tensor has no scores.",
}

FLAGS = {
    "signs": Flag(
        "KNOWN_BUG",
        "A large negative weight matters most.",
        ("intel/neural-compressor#592", "intel/neural-compressor#652"),
    ),
    "basic": Flag("BASIC", "Several tensors, both signs."),
    "zeros": Flag("EDGE_CASE", "Zeros of either sign."),
    "non-finite": Flag("EDGE_CASE", "NaN and infinities."),
    "extreme": Flag("OVERFLOW", "Squares would overflow, underflow or lose the order."),
    "subnormal": Flag("EDGE_CASE", "Subnormal weights."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and many-dimensional tensors."),
    "absent": Flag("EDGE_CASE", "Absent tensors, or none at all."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list."),
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(40)

    def add(name: str, flags: str, labels: str, weights: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": weights}, dtypes=dtypes)

    add("large-negative", "signs", "C1", [tensor(-5, 1, 2)])
    add("two-tensors", "basic signs", "C1 C2", [random.uniform(3, 4), random.uniform(5, low=-9)])
    add("wide-range", "basic", "C1", [random.spread(2, 3, 4), random.spread(7)])
    add("zeros", "zeros signs", "C1", [tensor([0, -0.0, 1], [-1, -0.0, 0])])
    add("non-finite", "non-finite", "C3", [tensor(np.nan, -np.inf, np.inf, -2)])
    add("only-nan", "non-finite", "C3", [tensor(np.nan), tensor([-3.0], [np.nan])])
    add("squares-underflow", "extreme", "C1", [tensor(-1e-30, 1e-25, 1, -2)], ("float32",))
    add("squares-overflow", "extreme", "C1", [tensor(-1e25, 1e30, -1e20, 2)], ("float32",))
    add("squares-of-halves", "extreme", "C1", [tensor(-1e-5, 3e-6, 300, -4e4)], ("float16",))
    add("squares-of-doubles", "extreme", "C1", [tensor(-1e-200, 1e-170, 1e200)], ("float64",))
    add("subnormal", "subnormal", "C1", [tensor(-1e-45, 1e-40, -1e-39, 2)], ("float32", "bfloat16"))
    add("subnormal", "subnormal", "C1", [tensor(-6e-8, 1e-5, -1)], ("float16",))
    add("zero-dimensional", "shapes", "C1 C2", [np.array(-3.0), random.uniform(2, 1, 3)])
    add("empty", "shapes", "C2", [np.zeros((0, 3)), tensor(-1, 2)])
    add("absent", "absent", "C4", [None, tensor(-1, 2), None])
    add("no-tensors", "absent", "C4", [], ("float32",))
    mixed = [fixed([-1.5, 2.0], "float16"), fixed([[-0.1], [3.0]], "float64"), tensor(-7, 7)]
    add("mixed", "mixed-dtypes", "C1 C2", mixed, ("float64", "float32", "bfloat16"))


OPERATION = Operation(
    id="score.magnitude",
    summary="Score each weight by its magnitude.",
    formula="s = |w|",
    sources=(
        "S. Han, J. Pool, J. Tran, W. Dally: Learning both weights and connections for efficient neural"
        " networks. NeurIPS 2015",
    ),
    constraints=CONSTRAINTS,
    inputs={"weights": "list of float tensors of any shapes; null is an absent one"},
    outputs={"scores": "the list of scores: the lowest are pruned first"},
    params=(),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Clearing the sign bit rounds nothing, so the bits are asked for.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)
