"""``score.gradient``: the score of a weight is the magnitude of its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, fixed, tensor
from conformance.formats import Tensor
from conformance.operation import Flag, Mistake, Operation, map_tensors

Settings = dict[str, Any]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """s = |g|: the sign bit is cleared, nothing else."""
    return {"scores": map_tensors(lambda x: np.asarray(np.abs(x)), inputs["grads"])}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: no rounding happens."""
    return {"scores": 0}


def _mistaken(change: Callable[[Tensor], Tensor]) -> Any:
    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            return {"scores": map_tensors(lambda g: np.asarray(change(g)), inputs["grads"])}

    return mistake


def _per_tensor(g: Tensor) -> Tensor:
    return np.full_like(g, np.mean(np.abs(g.astype(np.float64)))) if g.size else g


MISTAKES = (
    Mistake(
        "no absolute value",
        "the score is the gradient itself, so steep descents rank lowest",
        _mistaken(lambda g: g),
        ("intel/neural-compressor#592",),
    ),
    Mistake(
        "squared",
        "the score is g² (the Fisher score), which flushes to zero where gradients are small",
        _mistaken(lambda g: g * g),
    ),
    Mistake(
        "averaged over the tensor", "all weights of a tensor share one score", _mistaken(_per_tensor)
    ),
    Mistake(
        "negative zero",
        "-0 keeps its sign, so a sort of the bits puts it elsewhere",
        _mistaken(lambda g: np.where(g == 0, g, np.abs(g))),
    ),
    Mistake(
        "NaN becomes zero",
        "a NaN gradient gets the lowest score in silence",
        _mistaken(lambda g: np.where(np.isnan(g), np.zeros_like(g), np.abs(g))),
    ),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "Each score is |g|, exact in every dtype; the score of -0 is +0.",
    "C2": "A score has the shape and dtype of its gradient, 0-d and empty ones included.",
    "C3": "NaN scores NaN, and either infinity scores +infinity.",
    "C4": "An absent gradient has no scores: it is not the same as a gradient of zero.",
}

FLAGS = {
    "basic": Flag("BASIC", "Several tensors, both signs."),
    "signs": Flag(
        "KNOWN_BUG", "The sign of a gradient says nothing of its size.", ("intel/neural-compressor#592",)
    ),
    "zeros": Flag("EDGE_CASE", "Zeros of either sign."),
    "non-finite": Flag("EDGE_CASE", "NaN and infinities."),
    "small": Flag("OVERFLOW", "Gradients whose squares underflow or overflow."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and many-dimensional tensors."),
    "absent": Flag("EDGE_CASE", "Absent gradients, or none at all."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list."),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(41)

    def add(name: str, flags: str, labels: str, grads: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"grads": grads}, dtypes=dtypes)

    add("four", "basic signs", "C1", [tensor(4, -3, 2, -1)])
    add("two-tensors", "basic signs", "C1 C2", [random.uniform(4, 3), random.uniform(2, 1, 5)])
    add("wide-range", "basic", "C1", [random.spread(3, 5), random.spread(6)])
    add("zeros", "zeros", "C1", [tensor(0, -0.0, -1), tensor([-0.0])])
    add("all-zero", "zeros", "C1", [tensor([0, -0.0], [-0.0, 0])])
    add("non-finite", "non-finite", "C3", [tensor(-np.inf, 2, np.nan), tensor([np.inf], [-1])])
    add("vanishing", "small", "C1", [tensor(-1e-30, 1e-25, 3e-38)], ("float32", "bfloat16"))
    add("subnormal", "small", "C1", [tensor(-1e-45, 1e-40, -2)], ("float32",))
    add("subnormal", "small", "C1", [tensor(-6e-8, 1e-5, -2)], ("float16",))
    add("exploding", "small", "C1", [tensor(-3e38, 1e30)], ("float32", "bfloat16"))
    add("zero-dimensional", "shapes", "C1 C2", [np.array(-0.5), random.uniform(1, 3, 2)])
    add("empty", "shapes", "C2", [tensor(-1, 2), np.zeros((2, 0))])
    add("absent", "absent", "C4", [tensor(-1, 2), None, tensor([0.0], [-3.0])])
    add("all-absent", "absent", "C4", [None, None], ("float32",))
    add("no-tensors", "absent", "C4", [], ("float32",))
    mixed = [fixed([-1.5, 2.0], "bfloat16"), fixed([[-0.1], [3.0]], "float64"), tensor(-7, 7)]
    add("mixed", "mixed-dtypes", "C1 C2", mixed, ("float64", "float32", "float16"))


OPERATION = Operation(
    id="score.gradient",
    summary="Score each weight by the magnitude of its gradient.",
    formula="s = |g|",
    sources=(
        "U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen: Rigging the lottery: making all tickets"
        " winners. ICML 2020 (the criterion by which weights grow)",
    ),
    constraints=CONSTRAINTS,
    inputs={"grads": "list of gradients of any shapes; null is an absent one"},
    outputs={"scores": "the list of scores: the lowest are pruned first"},
    params=(),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Clearing the sign bit rounds nothing, so the bits are asked for.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)
