"""``clip.global_norm``: scale all gradients by one factor so that their joint norm is at most c.

In the order of this module: what is right (the oracle) and how far off an answer may be, what is wrong by
anyone's definition, the constraints in words, why a case is asked, and all of it as one ``OPERATION``.
The cases themselves stand in ``_clip_global_norm_cases.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.exact import each, exact, full, real
from conformance.operation import Flag, Mistake, Operation, Value, map_tensors
from conformance.operations._clip_global_norm_cases import cases
from conformance.oracle import clipping


def oracle(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """n = (Σ |g_i|^p)^(1/p) over every element of every tensor; g ← g · min(1, c/n)."""
    clipping.check(settings)
    present = [g for g in inputs["grads"] if g is not None]
    total_norm = clipping.norm(clipping.counted(present, settings), settings)
    n = total_norm.exact.item()

    def clipped(g: Any) -> Any:
        return clipping.apply(g, n, settings, times=clipping.times(g, present, settings))

    return {"grads": map_tensors(clipped, inputs["grads"]), "total_norm": total_norm}


def tolerance(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """ULP allowed per output; the derivation is ``clipping.TOLERANCE_WHY``."""
    grads = inputs["grads"]
    present = [g for g in grads if g is not None]
    scalings = max((clipping.times(g, present, settings) for g in present), default=1)
    each = clipping.each_grad_ulps(grads, settings)
    return {
        "grads": [None if ulps is None else scalings * ulps for ulps in each],
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
        total = change(clipping.counted(present, settings), settings)
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


def max_for_min(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The factor is max(1, c/n): small gradients grow to the threshold, large ones are left alone."""
    result = unclamped(inputs, settings)
    n, c = result["total_norm"].exact.item(), clipping.number(settings["max_norm"])
    return result | {"grads": inputs["grads"]} if c < n < np.inf else result


def norm_after(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The norm is reported after clipping."""
    result = oracle(inputs, settings)
    n, c = result["total_norm"].exact.item(), clipping.number(settings["max_norm"])
    if n > c:
        result["total_norm"] = Value(full((), real(c)), result["total_norm"].dtype)
    return result


def real_part_only(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A complex number is squared without its modulus, or its imaginary part is dropped."""
    result = oracle(inputs, settings)
    present = clipping.counted([g for g in inputs["grads"] if g is not None], settings)
    seen = clipping.norm([np.ascontiguousarray(g.real) for g in present], settings)
    clipped = map_tensors(lambda g: clipping.apply(g, seen.exact.item(), settings), inputs["grads"])
    return result | {"grads": clipped, "total_norm": seen}


def limit_in_float32(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A finite limit that float32 does not hold counts as infinite."""
    limit = clipping.number(settings["max_norm"])
    beyond = float(np.finfo(np.float32).max) < limit < np.inf
    return oracle(inputs, settings | ({"max_norm": "inf"} if beyond else {}))


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
    Mistake("max for min", "the factor is max(1, c/n), which only enlarges", max_for_min),
    Mistake("norm after clipping", "the reported norm is that of the clipped gradients", norm_after),
    Mistake("limit in float32", "a finite limit beyond float32 counts as infinite", limit_in_float32),
    Mistake("imaginary part dropped", "only the real parts of complex numbers count", real_part_only),
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
    "C12": "Of a complex number the modulus counts; both parts are multiplied by the same real factor.",
    "C13": 'The very same tensor listed twice (a fixture writes {"same_as": index of the first}) counts'
    " once; tensors that are merely equal count each.",
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
    "complex": Flag("EDGE_CASE", "Complex gradients."),
    "tied": Flag(
        "KNOWN_BUG",
        "A tied weight: the very same tensor listed twice.",
        ("NVIDIA/Megatron-LM#7227",),
    ),
    "copies": Flag(
        "EDGE_CASE", "Different tensors with equal values, which do count each.", ("apache/mxnet#12859",)
    ),
}  # fmt: skip


OPERATION = Operation(
    id="clip.global_norm",
    summary="Scale all gradients by one factor so that their joint norm is at most max_norm.",
    formula="n = (Σ|g|^p)^(1/p) over all tensors;  g ← g · min(1, max_norm / n)",
    sources=(
        "R. Pascanu, T. Mikolov, Y. Bengio: On the difficulty of training recurrent neural networks. ICML 2013",
        "T. Mikolov: Statistical language models based on neural networks. PhD thesis, Brno 2012",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "grads": "list of float or complex tensors of any shapes; null is an absent gradient,"
        ' {"same_as": i} the very tensor of entry i again'
    },
    outputs={"grads": "the list, clipped", "total_norm": "0-d: the norm before clipping"},
    params=clipping.PARAMS,
    dials=(*clipping.DIALS, clipping.DUPLICATES),
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
            "duplicates": "twice_in_place",
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
            "duplicates": "twice",
        },
    },
)
