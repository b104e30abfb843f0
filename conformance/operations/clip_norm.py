"""``clip.norm``: scale each gradient by its own factor so that its own norm is at most c."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import ALL, COMPLEX, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import each, exact, full, real
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors
from conformance.operations import clip_global_norm
from conformance.operations._clip_global_norm_cases import at_the_edges
from conformance.oracle import clipping


def oracle(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """For every tensor by itself: n = (Σ|g|^p)^(1/p); g ← g · min(1, c/n)."""
    clipping.check(settings)
    norms = map_tensors(lambda g: clipping.norm([g], settings), inputs["grads"])
    grads = [
        None if g is None else clipping.apply(g, n.exact.item(), settings)
        for g, n in zip(inputs["grads"], norms, strict=True)
    ]
    return {"grads": grads, "norms": norms}


def tolerance(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """ULP allowed of each tensor, taken by itself; the derivation is ``clipping.TOLERANCE_WHY``."""

    def each(ulps: Callable[..., int]) -> list[int | None]:
        return [None if g is None else ulps([g], settings) for g in inputs["grads"]]

    return {"grads": each(clipping.grad_ulps), "norms": each(clipping.norm_ulps)}


def _global(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    result = oracle(inputs, settings)
    return result | {
        "grads": clip_global_norm.oracle(inputs, settings | {"duplicates": "once"})["grads"]
    }


def _changed(change: Any) -> Any:
    def mistaken(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        result = oracle(inputs, settings)
        norms = [None if g is None else change(g, settings) for g in inputs["grads"]]
        grads = [
            None if g is None else clipping.apply(g, n, settings)
            for g, n in zip(inputs["grads"], norms, strict=True)
        ]
        reported = [
            None if n is None else Value(full((), n), was.dtype)
            for n, was in zip(norms, result["norms"], strict=True)
        ]
        return {"grads": grads, "norms": reported}

    return mistaken


def _first_axis(g: Any, settings: Any) -> Any:
    row = g[:1] if g.ndim else g
    return clipping.norm([row], settings).exact.item()


def _rooted_by_size(g: Any, settings: Any) -> Any:
    n = clipping.norm([g], settings).exact.item()
    return n / real(max(g.size, 1)) ** real(0.5)


def _unclamped(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    result, limit = oracle(inputs, settings), clipping.number(settings["max_norm"])
    for i, (g, n) in enumerate(zip(inputs["grads"], result["norms"], strict=True)):
        if g is not None and 0 < n.exact.item() < limit < np.inf:
            factor = real(limit) / n.exact.item()
            scaled = each(lambda x, by=factor: x * by, exact(g))
            result["grads"][i] = Value(scaled, g.dtype.name)
    return result


MISTAKES = (
    Mistake("one norm for all", "every tensor is scaled by the global norm", _global),
    Mistake(
        "norm of the first row", "the norm does not run over every axis", _changed(_first_axis)
    ),
    Mistake(
        "root mean square", "the norm is divided by the root of the size", _changed(_rooted_by_size)
    ),
    Mistake("coefficient unclamped", "gradients below the threshold are enlarged", _unclamped),
    Mistake(
        "ord ignored",
        "the norm is always the 2-norm",
        _changed(lambda g, s: clipping.norm([g], s | {"ord": 2}).exact.item()),
    ),
)

CONSTRAINTS = {
    "C1": "Each tensor's norm is (Σ|g|^p)^(1/p) over all of its elements; for p = inf, max |g|.",
    "C2": "A tensor whose norm exceeds max_norm is multiplied by max_norm / norm; no other is touched.",
    "C3": "A tensor whose norm is at or below max_norm comes back bit for bit.",
    "C4": "norms holds each norm before clipping, float64 for float64 gradients, else float32.",
    "C5": "A norm is right whenever it is representable: squares that overflow or flush do not matter.",
    "C6": "A NaN or infinite norm makes every element of that tensor NaN, and of no other.",
    "C7": "max_norm = 0 gives zeros; max_norm = +inf gives the input, whatever the norm is.",
    "C8": "A negative or NaN max_norm is refused; so is an ord that is not > 0.",
    "C9": "An absent gradient stays absent, and so does its norm.",
    "C10": "Each output has the dtype and shape of its gradient; 0-d and empty tensors are allowed.",
    "C11": "Of a complex number the modulus counts; both parts are multiplied by the same real factor.",
}

_SHARED = (
    "single below at-threshold orders zero-gradient zero-limit infinite-limit negative-limit nan-limit"
    " bad-ord infinite-gradient nan-gradient square-overflow square-underflow coefficient-underflow"
    " eps-visible absent empty shapes mixed-dtypes long-sum subnormal wide-range"
    " complex"
)
FLAGS = {
    **{name: clip_global_norm.FLAGS[name] for name in _SHARED.split()},
    "own-norm": Flag(
        "KNOWN_BUG",
        "Several tensors, each above, at or below the threshold by its own norm.",
        ("keras-team/keras#13575", "tensorflow/tensorflow#36001"),
    ),
    "never-binding": Flag(
        "KNOWN_BUG", "A threshold that never binds is the identity.", ("PaddlePaddle/Paddle#9048",)
    ),
}


def cases(c: Cases) -> None:
    """Write the cases."""

    def add(
        name: str, flags: str, labels: str, grads: Any, max_norm: Any, dtypes: Any = WIDE, **p: Any
    ) -> None:
        c.add(name, flags, labels, {"grads": grads}, {"max_norm": max_norm, **p}, dtypes)

    random = Stream(2)
    three = [tensor([3, -4], [12, 0]), tensor(0.5, -0.25), tensor([[2.0], [-1]])]
    add("own-norms", "own-norm", "C1 C2 C4", three, 2.0, ALL)
    add("above-and-below", "own-norm", "C1 C2 C3", [tensor(3, 4), tensor(0.3, 0.4)], 1.0, ALL)
    add("rows-differ", "own-norm", "C1 C2", [tensor([1, -2, 2], [6, 0.5, 3])], 4.0, ALL)
    add(
        "equal-and-above", "own-norm at-threshold", "C2 C3", [tensor(3, 4), tensor(-6, 8)], 5.0, ALL
    )
    add("at-threshold", "at-threshold", "C3", [tensor(-3, 4)], 5.0, ALL)
    add(
        "at-small-threshold",
        "at-threshold eps-visible",
        "C3",
        [tensor(3, 4) * 2.0**-22],
        5 * 2.0**-22,
    )
    add(
        "just-below-by-less-than-eps",
        "below eps-visible",
        "C3",
        [tensor(3, 4) * 2.0**-22],
        5.25 * 2.0**-22,
    )
    add("below", "below", "C3", [tensor(3, 4), tensor([0.5, -1])], 7.0, ALL)
    add("never-binding", "never-binding below", "C3", [tensor(3, -4, 0.1), tensor([1e-3])], 1e6)
    add(
        "limit-49",
        "never-binding below",
        "C3",
        [tensor(0.1, -0.7, 1 / 3), tensor([5.0, 0.3])],
        49.0,
    )
    for name, order in (("1", 1), ("3", 3), ("half", 0.5), ("inf", "inf")):
        grads = [tensor(3, -4, 1.5), tensor([0.5], [-2]), tensor(0.125)]
        add(f"ord-{name}", "orders own-norm", "C1 C2", grads, 2.25, ALL, ord=order)
    add("zero-gradient", "zero-gradient own-norm", "C3", [tensor(0, -0.0), tensor(3, -4)], 1.0, ALL)
    add(
        "zero-gradient-zero-limit",
        "zero-gradient zero-limit",
        "C7",
        [tensor(0, 0), tensor(1.0)],
        0.0,
    )
    add("zero-limit", "zero-limit", "C7", [tensor(3, -4), tensor([1.0])], 0.0, ALL)
    add("infinite-limit", "infinite-limit", "C7", [tensor(3, -4), tensor([1.0])], "inf", ALL)
    add("infinite-limit-infinite-gradient", "infinite-limit infinite-gradient", "C7",
        [tensor(np.inf, -4), tensor([1.0])], "inf")  # fmt: skip
    add("negative-limit", "negative-limit", "C8", [tensor(3, 4), tensor(-0.5)], -1.0, ALL)
    add("nan-limit", "nan-limit", "C8", [tensor(3, 4)], "nan", ALL)
    add("ord-0", "bad-ord", "C8", [tensor(3, 4)], 1.0, ord=0)
    at_the_edges(add, "C5")
    add("ord-negative", "bad-ord", "C8", [tensor(3, 4)], 1.0, ord=-2)
    add(
        "infinite-gradient",
        "infinite-gradient",
        "C6",
        [tensor(-2, 0, np.inf), tensor(4, 0, 3)],
        2.0,
        ALL,
    )
    add("nan-gradient", "nan-gradient", "C6", [tensor(1, -2), tensor(np.nan, 3)], 6.0, ALL)
    add(
        "square-overflow",
        "square-overflow",
        "C5",
        [tensor(3e20, 4e20)],
        1.0,
        ("float32", "bfloat16"),
    )
    add("huge-0-d", "square-overflow", "C2 C5", [np.array(3e38)], 1e-6, ("float32",))
    add("huge-0-d", "square-overflow", "C2 C5", [np.array(-1.5e308)], 1e-6, ("float64",))
    add("square-overflow", "square-overflow", "C5", [tensor(3e160, 4e160)], 1.0, ("float64",))
    add("hundred-300", "square-overflow", "C5", [np.full(100, 300.0)], 1.0, ("float16",))
    add(
        "square-underflow",
        "square-underflow",
        "C5",
        [tensor(3e-30, 4e-30)],
        1e-30,
        ("float32", "bfloat16"),
    )
    add(
        "square-underflow", "square-underflow", "C5", [tensor(3e-170, 4e-170)], 1e-170, ("float64",)
    )
    add("coefficient-underflow", "coefficient-underflow square-overflow", "C2 C5",
        [tensor(2e38, 1e38)], 1e-6, ("float32", "bfloat16"))  # fmt: skip
    add("coefficient-underflow-64", "coefficient-underflow square-overflow", "C2 C5",
        [tensor(2e307, 1e307)], 1e-6, ("float64",))  # fmt: skip
    add("tiny-threshold", "eps-visible", "C2", [tensor(3e-9, 4e-9)], 1e-9)
    add("micro-threshold", "eps-visible", "C2", [tensor(3e-6, -4e-6), tensor([1e-7])], 1e-6)
    add("absent", "absent", "C9", [None, tensor(3, -4), None, tensor([12.0])], 6.5, ALL)
    add("empty-list", "empty", "C9", [], 1.0, ("float32",))
    add("empty-tensor", "empty", "C9 C10", [np.zeros((0, 3)), tensor(3, 4)], 1.0)
    add(
        "shapes",
        "shapes",
        "C10",
        [np.array(-2.0), random.uniform(2, 1, 3), random.uniform(4)],
        0.75,
        ALL,
    )
    add("mixed-dtypes", "mixed-dtypes", "C4 C10",
        [fixed([3.0, 1.0], "float16"), fixed([-2.0, 5.0], "float32"), fixed([0.1, 4.0], "float64")],
        2.0, ("float64",))  # fmt: skip
    add("subnormal", "subnormal below", "C3", [tensor(1e-45, -1e-40, 2.0)], 3.0, ("float32",))
    add("subnormal", "subnormal below", "C3", [tensor(5e-324, -1e-310, 2.0)], 3.0, ("float64",))
    add("subnormal", "subnormal below", "C3", [tensor(6e-8, -3e-6, 2.0)], 3.0, ("float16",))
    add("single", "single", "C1 C2", [tensor([1, -2], [3, -5], [0.5, 7])], 2.0, ALL)
    add(
        "wide-range",
        "wide-range own-norm",
        "C1 C2",
        [random.spread(37), random.spread(5, 7)],
        10.0,
        ("float64", "float32", "bfloat16"),
    )
    add("long-sum", "long-sum own-norm", "C1 C2", [random.uniform(5000), random.uniform(70, 60)], 1.0,
        ("float32", "bfloat16", "float16"))  # fmt: skip
    z = [np.array([3 + 4j, -1 - 2j, 0.5j]), np.array([[0.5 - 1j], [-0.25 + 0j]])]
    add("complex", "complex own-norm", "C4 C11", z, 2.0, COMPLEX)
    add(
        "complex-at-threshold", "complex at-threshold", "C3 C11", [np.array([3 + 4j])], 5.0, COMPLEX
    )
    add("complex-below", "complex below", "C3 C11", z, 16.0, COMPLEX)
    for name, order in (("1", 1), ("inf", "inf")):
        add(f"complex-ord-{name}", "complex orders", "C1 C11", z, 2.0, COMPLEX, ord=order)
    add("complex-imaginary", "complex", "C11", [np.array([3j, -4j]), np.array([0j])], 1.0, COMPLEX)
    bad = [np.array([complex(1, np.nan), 2j]), np.array([3 - 4j]), np.array([complex(-np.inf, 2)])]
    add("complex-non-finite", "complex nan-gradient infinite-gradient", "C6 C11", bad, 2.0, COMPLEX)
    mixed = [fixed([3 - 4j, 1j], "complex64"), fixed([2.0, -1.0], "float32"), tensor(0.5)]
    add("complex-and-real", "complex mixed-dtypes", "C4 C11", mixed, 2.0, WIDE)


OPERATION = Operation(
    id="clip.norm",
    summary="Scale each gradient by its own factor so that its own norm is at most max_norm.",
    formula="for every tensor: n = (Σ|g|^p)^(1/p);  g ← g · min(1, max_norm / n)",
    sources=clip_global_norm.OPERATION.sources,
    constraints=CONSTRAINTS,
    inputs={"grads": "list of float or complex tensors of any shapes; null is an absent gradient"},
    outputs={
        "grads": "the list, clipped",
        "norms": "for each gradient its 0-d norm before clipping",
    },
    params=clipping.PARAMS,
    dials=clipping.DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=clipping.TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {
            name: value
            for name, value in clip_global_norm.OPERATION.dialects["torch"].items()
            if name != "duplicates"
        },
        "tensorflow": {
            "nonfinite": "multiply",
            "norm": "naive",
            "below_limit": "rescaled",
            "zero_over_zero": "nan",
            "infinite_limit": "nan",
            "negative_limit": "zeros",
            "nan_limit": "nan",
            "subnormals": "flush",
            "accumulate": "input_dtype",
            "norm_dtype": "input_dtype",
        },
    },
)
