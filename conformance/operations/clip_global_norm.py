"""``clip.global_norm``: scale all gradients by one factor so that their joint norm is at most c."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import each, exact, full, real
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors
from conformance.oracle import clipping


def oracle(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """n = (Σ |g_i|^p)^(1/p) over every element of every tensor; g ← g · min(1, c/n)."""
    clipping.check(settings)
    present = [g for g in inputs["grads"] if g is not None]
    total_norm = clipping.norm(present, settings)
    n = total_norm.exact.item()
    clipped = map_tensors(lambda g: clipping.apply(g, n, settings), inputs["grads"])
    return {"grads": clipped, "total_norm": total_norm}


def tolerance(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, int]:
    """ULP allowed per output; the derivation is ``clipping.TOLERANCE_WHY``."""
    grads = inputs["grads"]
    return {
        "grads": clipping.grad_ulps(grads, settings),
        "total_norm": clipping.norm_ulps(grads, settings),
    }


def per_tensor(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Each tensor is clipped by its own norm; the total is reported right."""
    result = oracle(inputs, settings)
    result["grads"] = map_tensors(
        lambda g: clipping.apply(g, clipping.norm([g], settings).exact.item(), settings),
        inputs["grads"],
    )
    return result


def _with_total(change: Any) -> Any:
    def mistaken(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        clipping.check(settings)
        present = [g for g in inputs["grads"] if g is not None]
        total = change(present, settings)
        return {
            "grads": map_tensors(lambda g: clipping.apply(g, total, settings), inputs["grads"]),
            "total_norm": Value(full((), total), clipping.norm_dtype(present, settings)),
        }

    return mistaken


def _max_of_norms(present: Any, settings: Any) -> Any:
    return max((clipping.norm([g], settings).exact.item() for g in present), default=real(0))


def _sum_of_norms(present: Any, settings: Any) -> Any:
    return sum((clipping.norm([g], settings).exact.item() for g in present), real(0))


def _root_forgotten(present: Any, settings: Any) -> Any:
    n = clipping.norm(present, settings).exact.item()
    return n if clipping.number(settings["ord"]) == np.inf else n ** real(settings["ord"])


def _always_two(present: Any, settings: Any) -> Any:
    return clipping.norm(present, settings | {"ord": 2}).exact.item()


def unclamped(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The factor c/n is applied without min(1, ·): small gradients grow to the threshold."""
    result = oracle(inputs, settings)
    n, c = result["total_norm"].exact.item(), clipping.number(settings["max_norm"])
    if 0 < n < c < np.inf:
        factor = real(c) / n
        result["grads"] = map_tensors(
            lambda g: Value(each(lambda x: x * factor, exact(g)), g.dtype.name), inputs["grads"]
        )
    return result


def norm_after(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The norm is reported after clipping."""
    result = oracle(inputs, settings)
    n, c = result["total_norm"].exact.item(), clipping.number(settings["max_norm"])
    if n > c:
        result["total_norm"] = Value(full((), real(c)), result["total_norm"].dtype)
    return result


MISTAKES = (
    Mistake(
        "norm per tensor", "each tensor is clipped by its own norm", per_tensor,
        ("keras-team/keras#13575", "tensorflow/tensorflow#29108"),
    ),
    Mistake(
        "largest norm as total", "the total is the maximum of the tensors' norms",
        _with_total(_max_of_norms), ("facebookresearch/fairscale#167",),
    ),
    Mistake("sum of norms as total", "the norms are added, not their powers", _with_total(_sum_of_norms)),
    Mistake("root forgotten", "the sum of powers stands for the norm", _with_total(_root_forgotten)),
    Mistake("ord ignored", "the norm is always the 2-norm", _with_total(_always_two)),
    Mistake("coefficient unclamped", "gradients below the threshold are enlarged", unclamped),
    Mistake("norm after clipping", "the reported norm is that of the clipped gradients", norm_after),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "The norm is (Σ|g|^p)^(1/p) over all elements of all tensors together; for p = inf, max |g|.",
    "C2": "If the norm exceeds max_norm, every tensor is multiplied by max_norm / norm.",
    "C3": "If the norm is at or below max_norm, every output is bit for bit the input.",
    "C4": "total_norm is the norm before clipping, float64 if any gradient is float64, else float32.",
    "C5": "The norm is right whenever it is representable: squares that overflow or flush do not matter.",
    "C6": "A NaN or infinite norm makes every element of every output NaN: never a silent zero.",
    "C7": "max_norm = 0 gives zeros; max_norm = +inf gives the input, whatever the norm is.",
    "C8": "A negative or NaN max_norm is refused; so is an ord that is not > 0.",
    "C9": "An absent gradient stays absent and does not count; without gradients the norm is 0.",
    "C10": "Each output has the dtype and shape of its gradient; 0-d and empty tensors are allowed.",
    "C11": "16-bit gradients are accumulated in float32, and the norm is not limited by their range.",
}

FLAGS = {
    "two-tensors": Flag("BASIC", "Several tensors share one factor."),
    "single": Flag("BASIC", "One tensor."),
    "below": Flag("BASIC", "The norm is below the threshold: nothing may change, not one bit."),
    "at-threshold": Flag(
        "EDGE_CASE", "The norm equals the threshold exactly.", ("google-deepmind/optax#1752",)
    ),
    "per-tensor": Flag(
        "KNOWN_BUG",
        "One tensor is above the threshold, another below: a factor per tensor turns the direction.",
        ("keras-team/keras#13575", "tensorflow/tensorflow#29108", "huggingface/transformers#614"),
    ),
    "orders": Flag("BASIC", "p-norms other than 2.", ("meta-pytorch/torchrec#3199",)),
    "zero-gradient": Flag("EDGE_CASE", "Every gradient is zero.", ("google-deepmind/optax#1752",)),
    "zero-limit": Flag("EDGE_CASE", "max_norm = 0.", ("google-deepmind/optax#1752", "OpenNMT/OpenNMT-py#1140")),
    "infinite-limit": Flag("KNOWN_BUG", "max_norm = inf, to measure a norm.", ("Skovorp/feral#16",)),
    "negative-limit": Flag("KNOWN_BUG", "max_norm < 0 turns descent into ascent.", ("pytorch/pytorch#31367",)),
    "nan-limit": Flag("EDGE_CASE", "max_norm = NaN.", ("pytorch/pytorch#31367",)),
    "bad-ord": Flag("EDGE_CASE", "An ord that is no norm."),
    "infinite-gradient": Flag(
        "KNOWN_BUG",
        "An infinite element: zeros would hide the overflow.",
        ("tensorflow/tensorflow#21363", "pytorch/pytorch#46849", "keras-team/keras#14075"),
    ),
    "nan-gradient": Flag("EDGE_CASE", "A NaN element."),
    "square-overflow": Flag(
        "OVERFLOW",
        "Squares overflow although the norm does not.",
        ("pytorch/pytorch#46849", "FeRx-NLME/ferx-core#1112", "facebookresearch/fairscale#263"),
    ),
    "square-underflow": Flag(
        "OVERFLOW",
        "Squares flush to zero although the norm does not.",
        ("FeRx-NLME/ferx-core#1112", "facebookresearch/fairscale#263"),
    ),
    "norm-overflow": Flag("OVERFLOW", "The norm itself is beyond float32."),
    "coefficient-underflow": Flag(
        "OVERFLOW", "max_norm / norm is below the normal numbers, the result is not."
    ),
    "eps-visible": Flag(
        "DIALECT",
        "Norm and threshold near 1e-6, where an epsilon in the denominator shows.",
        ("goodfire-ai/spd#643",),
    ),
    "absent": Flag("EDGE_CASE", "Absent gradients.", ("pytorch/pytorch#35753",)),
    "empty": Flag("KNOWN_BUG", "Empty tensors or an empty list.",
                  ("meta-pytorch/torchrec#3891", "NVIDIA/Megatron-LM#5529")),
    "shapes": Flag("EDGE_CASE", "0-d and multi-dimensional tensors in one list."),
    "mixed-dtypes": Flag("KNOWN_BUG", "Several dtypes in one list.", ("pytorch/pytorch#12159",)),
    "long-sum": Flag(
        "PRECISION",
        "Many elements: a sum in the gradient's own dtype stagnates, a chunked one may combine wrongly.",
        ("pytorch/pytorch#15602", "pytorch/pytorch#20551", "AI-Hypercomputer/maxtext#5143"),
    ),
    "subnormal": Flag("EDGE_CASE", "Subnormal gradients."),
    "wide-range": Flag("PRECISION", "Magnitudes from 1e-3 to 1e3, both signs."),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""

    def add(
        name: str, flags: str, labels: str, grads: Any, max_norm: Any, dtypes: Any = WIDE, **p: Any
    ) -> None:
        c.add(name, flags, labels, {"grads": grads}, {"max_norm": max_norm, **p}, dtypes)

    random = Stream(1)
    two = [tensor([3, -1], [0.5, 2]), tensor(-4, 0.25, 1)]
    add("two-tensors", "two-tensors", "C1 C2 C4", two, 2.5, ALL)
    add("two-tensors-shuffled", "two-tensors", "C1 C2", two[::-1], 2.5, ALL)
    add("below", "below", "C3 C4", two, 7.0, ALL)
    add("just-below", "below", "C3", [tensor(3, 4)], 5.0078125, ALL)
    add("just-above", "single", "C2", [tensor(3, 4)], 4.984375, ALL)
    add("at-threshold", "at-threshold", "C3", [tensor(3, 4)], 5.0, ALL)
    add(
        "at-threshold-two",
        "at-threshold two-tensors",
        "C3",
        [tensor(6, 0, -2), tensor([3.0])],
        7.0,
        ALL,
    )
    add(
        "at-small-threshold",
        "at-threshold eps-visible",
        "C3",
        [tensor(3, 4) * 2.0**-22],
        5 * 2.0**-22,
    )
    add("one-above-one-below", "per-tensor", "C1 C2", [tensor(3, 4), tensor(0.3, 0.4)], 1.0, ALL)
    add("groups-at-one", "per-tensor", "C1 C2", [tensor(0.6, -0.8), tensor([-0.8], [0.6])], 1.0)
    add("rank-norms-3-and-4", "per-tensor", "C1 C2", [tensor(-3, 0), tensor(0, 0, 4)], 1.0, ALL)
    add(
        "just-below-by-less-than-eps",
        "below eps-visible",
        "C3",
        [tensor(3, 4) * 2.0**-22],
        5.25 * 2.0**-22,
    )
    for name, order in (("1", 1), ("3", 3), ("half", 0.5), ("inf", "inf"), ("2-and-half", 2.5)):
        add(
            f"ord-{name}",
            "orders",
            "C1 C2",
            [tensor(3, -4, 1.5), tensor([0.5], [-2])],
            2.0,
            ALL,
            ord=order,
        )
        add(
            f"ord-{name}-below",
            "orders below",
            "C1 C3",
            [tensor(3, -4), tensor([0.5])],
            64.0,
            ord=order,
        )
    add("ord-1-at-threshold", "orders at-threshold", "C1 C3", [tensor(3, -4)], 7.0, ALL, ord=1)
    add(
        "ord-inf-at-threshold", "orders at-threshold", "C1 C3", [tensor(3, -4)], 4.0, ALL, ord="inf"
    )
    add("zero-gradient", "zero-gradient", "C3", [tensor(0, -0.0, 0)], 1.0, ALL)
    add("zero-gradient-zero-limit", "zero-gradient zero-limit", "C7", [tensor(0, 0, 0)], 0.0, ALL)
    add("zero-limit", "zero-limit", "C7", [tensor(3, -4), tensor([1.0])], 0.0, ALL)
    add("infinite-limit", "infinite-limit", "C7", [tensor(3, -4), tensor([1.0])], "inf", ALL)
    add(
        "infinite-limit-infinite-gradient",
        "infinite-limit infinite-gradient",
        "C7",
        [tensor(np.inf, -4), tensor([1.0])],
        "inf",
    )
    add("negative-limit", "negative-limit", "C8", [tensor(3, 4)], -1.0, ALL)
    add("nan-limit", "nan-limit", "C8", [tensor(3, 4)], "nan")
    for name, order in (("0", 0), ("negative", -1), ("nan", "nan")):
        add(f"ord-{name}", "bad-ord", "C8", [tensor(3, 4)], 1.0, ord=order)
    add(
        "infinite-gradient",
        "infinite-gradient",
        "C6",
        [tensor(-2, 0, np.inf), tensor(4, 0, 0)],
        6.0,
        ALL,
    )
    add(
        "minus-infinite-gradient",
        "infinite-gradient",
        "C6",
        [tensor(1, -2), tensor(-np.inf, 3)],
        6.0,
    )
    add(
        "infinite-gradient-ord-inf",
        "infinite-gradient orders",
        "C6",
        [tensor(1, np.inf)],
        6.0,
        ord="inf",
    )
    add(
        "infinite-gradient-zero-limit",
        "infinite-gradient zero-limit",
        "C6",
        [tensor(1, np.inf)],
        0.0,
    )
    add("nan-gradient", "nan-gradient", "C6", [tensor(1, -2), tensor(np.nan, 3)], 6.0, ALL)
    add("nan-gradient-below", "nan-gradient", "C6", [tensor(np.nan, 0), tensor([0.5])], 1e4)
    add(
        "square-overflow",
        "square-overflow",
        "C5",
        [tensor(3e20, 4e20)],
        1.0,
        ("float32", "bfloat16"),
    )
    add("square-overflow", "square-overflow", "C5", [tensor(3e160, 4e160)], 1.0, ("float64",))
    add(
        "square-overflow-below",
        "square-overflow",
        "C3 C5",
        [tensor(3e20, 4e20)],
        1e21,
        ("float32",),
    )
    add(
        "square-overflow-below",
        "square-overflow",
        "C3 C5",
        [tensor(3e160, 4e160)],
        1e161,
        ("float64",),
    )
    add(
        "hundred-large", "square-overflow", "C5", [np.full(100, 1e20)], 1.0, ("float32", "bfloat16")
    )
    add("hundred-300", "square-overflow", "C5 C11", [np.full(100, 300.0)], 1.0, ("float16",))
    add(
        "hundred-300-below",
        "square-overflow below",
        "C3 C5 C11",
        [np.full(100, 300.0)],
        1e4,
        ("float16",),
    )
    add(
        "norm-beyond-float16", "square-overflow", "C5 C11", [np.full(4, 60000.0)], 1.0, ("float16",)
    )
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
    add("square-underflow", "square-underflow", "C5 C11", [np.full(100, 1e-4)], 1e-4, ("float16",))
    add(
        "large-and-one",
        "square-overflow",
        "C5",
        [tensor(2.0**127, 1.0)],
        2.0**100,
        ("float32", "bfloat16"),
    )
    add("large-and-one", "square-overflow", "C5", [tensor(2.0**1023, 1.0)], 2.0**900, ("float64",))
    add("norm-overflow", "norm-overflow", "C6", [np.full(16, 3e38)], 1.0, ("float32", "bfloat16"))
    add("norm-overflow", "norm-overflow", "C6", [np.full(16, 1.5e308)], 1.0, ("float64",))
    add(
        "coefficient-underflow",
        "coefficient-underflow square-overflow",
        "C2 C5",
        [tensor(2e38, 1e38)],
        1e-6,
        ("float32", "bfloat16"),
    )
    add(
        "coefficient-underflow",
        "coefficient-underflow square-overflow",
        "C2 C5",
        [tensor(1e308, 5e307)],
        1e-10,
        ("float64",),
    )
    add("tiny-threshold", "eps-visible", "C2", [tensor(3e-9, 4e-9)], 1e-9)
    add("micro-threshold", "eps-visible", "C2", [tensor(3e-6, -4e-6), tensor([1e-7])], 1e-6)
    add("milli-threshold", "eps-visible", "C2", [tensor(0.03, -0.04), tensor([0.001])], 0.01)
    add("absent", "absent", "C9", [None, tensor(3, -4), None, tensor([12.0])], 6.5, ALL)
    add("all-absent", "absent", "C9", [None, None], 1.0, ("float32",))
    add("empty-list", "empty", "C9", [], 1.0, ("float32",))
    add("empty-tensor", "empty", "C9 C10", [np.zeros((0, 3)), tensor(3, 4)], 1.0)
    add("only-empty-tensor", "empty", "C9 C10", [np.zeros(0)], 1.0)
    add(
        "empty-tensor-ord-inf",
        "empty orders",
        "C9 C10",
        [np.zeros(0), tensor(3, -4)],
        1.0,
        ord="inf",
    )
    add("empty-list-ord-inf", "empty orders", "C9", [], 1.0, ("float32",), ord="inf")
    add(
        "shapes",
        "shapes",
        "C10",
        [np.array(2.0), random.uniform(2, 1, 3), random.uniform(4)],
        1.5,
        ALL,
    )
    add("zero-dimensional", "shapes", "C10", [np.array(-3.0)], 1.0, ALL)
    add(
        "mixed-16-32-64",
        "mixed-dtypes",
        "C4 C10",
        [fixed([3.0, 1.0], "float16"), fixed([-2.0, 5.0], "float32"), fixed([0.1, 4.0], "float64")],
        2.0,
        ("float64",),
    )
    add(
        "mixed-16-32",
        "mixed-dtypes",
        "C4 C10",
        [fixed([300.0, 1.0], "float16"), fixed([[-2.0, 5.0]], "float32"), fixed([0.5], "bfloat16")],
        2.0,
        ("float32",),
    )
    add(
        "mixed-16-16",
        "mixed-dtypes",
        "C4 C10 C11",
        [fixed([300.0, 7.0], "float16"), fixed([2e20], "bfloat16")],
        2.0,
        ("float16",),
    )
    add(
        "subnormal-at-zero-cost",
        "subnormal below",
        "C3",
        [tensor(1e-45, -1e-40, 2.0)],
        3.0,
        ("float32",),
    )
    add(
        "subnormal-only",
        "subnormal below square-underflow",
        "C3 C5",
        [tensor(1e-45, -1e-40)],
        1.0,
        ("float32",),
    )
    add("wide-range", "wide-range", "C1 C2", [random.spread(37), random.spread(5, 7)], 10.0)
    add(
        "wide-range-16",
        "wide-range",
        "C1 C2 C11",
        [random.spread(37, high=64.0), random.spread(5, 7, high=64.0)],
        10.0,
        ("float16", "bfloat16"),
    )
    add("long-ones", "long-sum", "C1 C2", [np.ones(40000)], 50.0, ("float32",))
    add(
        "long-uneven",
        "long-sum",
        "C1 C2 C11",
        [random.uniform(5000), random.uniform(70, 60)],
        1.0,
        ALL,
    )


OPERATION = Operation(
    id="clip.global_norm",
    summary="Scale all gradients by one factor so that their joint norm is at most max_norm.",
    formula="n = (Σ|g|^p)^(1/p) over all tensors;  g ← g · min(1, max_norm / n)",
    sources=(
        "R. Pascanu, T. Mikolov, Y. Bengio: On the difficulty of training recurrent neural networks. ICML 2013",
        "T. Mikolov: Statistical language models based on neural networks. PhD thesis, Brno 2012",
    ),
    constraints=CONSTRAINTS,
    inputs={"grads": "list of float tensors of any shapes; null is an absent gradient"},
    outputs={"grads": "the list, clipped", "total_norm": "0-d: the norm before clipping"},
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
            "eps_at": "denominator",
            "eps": 1e-6,
            "nonfinite": "multiply",
            "norm": "naive",
            "norm_dtype": "input_dtype",
            "infinite_limit": "multiply",
            "negative_limit": "flip_sign",
            "nan_limit": "nan",
            "in_place": "documented",
        },
        "tensorflow": {
            "norm": "naive",
            "below_limit": "rescaled",
            "zero_over_zero": "nan",
            "infinite_limit": "nan",
            "negative_limit": "ignore",
            "nan_limit": "nan",
            "subnormals": "flush",
            "accumulate": "input_dtype",
            "norm_dtype": "input_dtype",
        },
    },
)
