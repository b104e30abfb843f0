"""``score.fisher``: the square of the gradient, the empirical Fisher information of one batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, fixed, tensor
from conformance.exact import Exact
from conformance.operation import Flag, Mistake, Operation
from conformance.operations import _score_cases
from conformance.oracle import scores

Settings = dict[str, Any]


def formula(g: Exact) -> Exact:
    """s = g²."""
    return g * g


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 1: one product is rounded."""
    return {"scores": 1}


def _mean(g: Exact) -> Exact:
    return 0 * g + formula(g).sum() / g.size if g.size else g


MISTAKES = (
    Mistake("not squared", "the score is |g|", scores.oracle(abs)),
    Mistake("sign kept", "the score is g·|g|", scores.oracle(lambda g: g * abs(g))),
    Mistake("halved", "the score is ½·g²", scores.oracle(lambda g: formula(g) / 2)),
    Mistake("averaged over the tensor", "all weights of a tensor share the mean of g²",
            scores.oracle(_mean)),
    Mistake("divided by the number", "the score is g²/n", scores.oracle(lambda g: formula(g) / max(g.size, 1))),
    Mistake("variance", "the mean of the tensor's gradients is taken off first",
            scores.oracle(lambda g: formula(g - g.sum() / g.size) if g.size else g)),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "Each score is g², never negative; who has a gradient for each example averages the scores.",
    "C2": "A score has the shape and dtype of its gradient, 0-d and empty ones included.",
    "C3": "It is rounded once: it overflows to infinity or flushes to zero only where g² itself does.",
    "C4": "An absent gradient has no scores: it is not the same as a gradient of zero.",
    "C5": "NaN scores NaN, and either infinity scores +infinity.",
}

SHARED = (
    *("basic", "observed", "signs", "zeros", "non-finite"),
    *("small", "large", "shapes", "absent", "mixed-dtypes"),
)
FLAGS = {name: _score_cases.FLAGS[name] for name in SHARED} | {
    "examples": Flag(
        "BASIC",
        "Gradients of two examples: the score of their mean is not the mean of their scores.",
    ),
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(54)

    def add(name: str, flags: str, labels: str, grads: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"grads": grads}, dtypes=dtypes)

    add("four", "observed signs", "C1", [tensor(4, -3, 2, -1)])
    add("second-batch", "observed zeros examples", "C1", [tensor(0, 1, 2, -3)])
    add("mean-of-both", "observed examples", "C1", [tensor(2, -1, 2, -2)])
    add("sum-of-both", "observed examples", "C1", [tensor(4, -2, 4, -4)])
    add("two-tensors", "basic signs", "C1 C2", [random.uniform(4, 3), random.uniform(2, 1, 5)])
    add("wide-range", "basic", "C1", [random.spread(3, 5, high=200.0), random.spread(6, high=10.0)])
    add("constant", "basic", "C1", [tensor([3, 3], [3, 3]), tensor(-0.5, -0.5)])
    add("zeros", "zeros", "C1", [tensor(0, -0.0, -1), tensor([-0.0])])
    add("all-zero", "zeros", "C1", [tensor([0, -0.0], [-0.0, 0])])
    add("non-finite", "non-finite", "C5", [tensor(-np.inf, 2, np.nan), tensor([np.inf], [-1])])
    add("only-nan", "non-finite", "C5", [tensor(np.nan), tensor([-3.0], [np.nan])])
    add("barely-normal", "small", "C3", [tensor(1.1e-19, -2e-19, 3e-18)], ("float32", "bfloat16"))
    add("subnormal-scores", "small", "C3", [tensor(1e-20, -3e-21, 2e-22)], ("float32", "bfloat16"))
    add("subnormal-scores", "small", "C3", [tensor(1e-3, -3e-3, 1.5e-3)], ("float16",))
    add("vanishing", "small", "C3", [tensor(-1e-30, 1e-25, 1e-38, 1)], ("float32", "bfloat16"))
    add("vanishing", "small", "C3", [tensor(1e-4, -1e-4, 1e-7, 0.5)], ("float16",))
    add("vanishing", "small", "C3", [tensor(1e-170, -1e-160, 1e-200, 1)], ("float64",))
    add("exploding", "large", "C3", [tensor(-3e38, 1e30, 1e19, -3e18)], ("float32", "bfloat16"))
    add("exploding", "large", "C3", [tensor(-300, 6e4, 200, -255)], ("float16",))
    add("exploding", "large", "C3", [tensor(-1e200, 1e160, 1e150)], ("float64",))
    add("zero-dimensional", "shapes", "C1 C2", [np.array(-0.5), random.uniform(1, 3, 2)])
    add("empty", "shapes", "C2", [tensor(-1, 2), np.zeros((2, 0))])
    add("absent", "absent", "C4", [tensor(-1, 2), None, tensor([0.0], [-3.0])])
    add("all-absent", "absent", "C4", [None, None], ("float32",))
    add("no-tensors", "absent", "C4", [], ("float32",))
    mixed = [fixed([-1.5, 2.3], "bfloat16"), fixed([[-0.1], [3.0]], "float64"), tensor(-7, 0.7)]
    add("mixed", "mixed-dtypes", "C1 C2", mixed, ("float64", "float32", "float16"))


OPERATION = Operation(
    id="score.fisher",
    summary="Score each weight by the square of its gradient.",
    formula="s = g²",
    sources=(
        "L. Theis, I. Korshunova, A. Tejani, F. Huszár: Faster gaze prediction with dense networks and"
        " Fisher pruning. 2018",
    ),
    constraints=CONSTRAINTS,
    inputs={"grads": "list of gradients of any shapes; null is an absent one"},
    outputs=scores.OUTPUTS,
    params=(),
    oracle=scores.oracle(formula),
    tolerance=tolerance,
    tolerance_why="One product, rounded once; from float32 to 16 bits the same.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)
