"""``clip.per_example``: clip each example's gradient by its own norm, then add up or average."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np

from conformance.exact import ZERO, Exact, Reject, each, exact, full, magnitude, real
from conformance.formats import FLOATS, Tensor
from conformance.operation import Flag, Mistake, Operation, Param, Value, widest
from conformance.operations._clip_per_example_cases import cases
from conformance.oracle import clipping

Settings = dict[str, Any]
Clip = Callable[[Tensor, Any, Settings], Any]


def oracle(
    inputs: dict[str, Any], settings: Settings, clip: Clip = clipping.apply
) -> dict[str, Any]:
    """n_b = ‖g_b‖ over all tensors, or over each; g ← Σ_b g_b · min(1, c/n_b), divided by B for a mean."""
    settings = _of_a_norm(settings)
    clipping.check(settings)
    examples = batch(inputs["grads"])
    if (
        examples == 0
        and any(g is not None for g in inputs["grads"])
        and settings["reduction"] == "mean"
    ):
        raise Reject("the mean over no example is undefined")
    norms = [
        norms_of(g, b, inputs["grads"], settings) for g in inputs["grads"] for b in range(examples)
    ]
    divisor = real(examples if settings["reduction"] == "mean" else 1)
    grads = []
    for i, g in enumerate(inputs["grads"]):
        own = norms[i * examples : (i + 1) * examples]
        grads.append(None if g is None else reduced(g, own, divisor, settings, clip))
    return {"grads": grads, "norms": _reported(inputs["grads"], norms, examples, settings)}


def _of_a_norm(settings: Settings) -> Settings:
    """Return the settings as those of a clip by the 2-norm, without the dials that play no part here."""
    return settings | {
        "ord": 2,
        "norm_dtype": "float32_or_wider",
        "below_limit": "unchanged",
    }


def batch(grads: list[Any]) -> int:
    """Return the number of examples that all gradients share; 0 if there is no gradient."""
    present = [g for g in grads if g is not None]
    if any(g.ndim == 0 for g in present):
        raise Reject("a gradient without a leading axis of examples")
    counts = sorted({len(g) for g in present})
    if len(counts) > 1:
        raise Reject(f"gradients with different numbers of examples: {counts}")
    return counts[0] if counts else 0


def norms_of(g: Any, b: int, grads: list[Any], settings: Settings) -> Any:
    """Return the norm that example b of a tensor is clipped by."""
    together = grads if settings["scope"] == "all" else [g]
    present = [np.asarray(t[b]) for t in together if t is not None]
    return clipping.norm(present, settings).exact.item() if present else ZERO


def reduced(g: Tensor, norms: list[Any], divisor: Any, settings: Settings, clip: Clip) -> Value:
    """Return the sum of the clipped examples over the divisor, and that of their magnitudes."""
    total, scale = full(g.shape[1:]), full(g.shape[1:])
    for example, n in zip(g, norms, strict=True):
        example = np.asarray(example)
        clipped = clip(example, n, settings)
        values = clipped.exact if isinstance(clipped, Value) else exact(clipped)
        total, scale = _plus(total, values), _plus(scale, magnitude(values))
    return Value(_over(total, divisor), g.dtype.name, _over(scale, divisor))


def _plus(a: Exact, b: Exact) -> Exact:
    return each(lambda x, y: x + y, a, b)


def _over(a: Exact, divisor: Any) -> Exact:
    return each(lambda x: x / divisor, a)


def _reported(grads: list[Any], norms: list[Any], examples: int, settings: Settings) -> Value:
    present = [g for g in grads if g is not None]
    dtype = (
        clipping.norm_dtype(present, settings) if settings["scope"] == "all" else widest(present)
    )
    rows = np.array(norms, dtype=object).reshape(len(grads), examples)
    if settings["scope"] == "tensor":
        return Value(rows, dtype)
    return Value(rows[0] if len(grads) else full((0,)), dtype)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """ULP allowed of each tensor, and of the norms; the derivation is TOLERANCE_WHY."""
    settings = _of_a_norm(settings)
    present = [g for g in inputs["grads"] if g is not None and g.size]

    def examples(together: list[Tensor]) -> list[list[Tensor]]:
        return [[np.asarray(g[b]) for g in together] for b in range(len(together[0]))]

    def allowed(g: Tensor | None) -> int:
        if g is None or not g.size:
            return 0
        mine = examples(present if settings["scope"] == "all" else [g])
        sums = len(g) + 1
        if FLOATS[g.dtype.name].precision < 24:
            sums = ceil(sums * 2.0**-8) + 3
        return max(clipping.grad_ulps(one, settings, g.dtype.name) for one in mine) + sums

    lists = [present] if settings["scope"] == "all" and present else [[g] for g in present]
    norms = (clipping.norm_ulps(one, settings) for some in lists for one in examples(some))
    return {"grads": [allowed(g) for g in inputs["grads"]], "norms": max(norms, default=0)}


TOLERANCE_WHY = (
    "Norms as for clip.norm over the elements of one example. Each clipped example has the error of"
    " clip.norm's output relative to itself; adding B of them and dividing once adds B + 1. All of it is"
    " relative to the sum of the magnitudes, so that cancellation is nobody's fault. 16-bit gradients are"
    " summed in float32; rounding each clipped example and its factor to 16 bits is allowed for (3)."
)


def _clipped_mean(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The examples are averaged (or added) first and the result is clipped."""
    right = oracle(inputs, settings)
    open_limit = settings | {"max_norm": "inf", "infinite_limit": "identity"}
    averaged = oracle(inputs, open_limit)["grads"]
    present = [value for value in averaged if value is not None]
    squares = [x * x for value in present for x in value.exact.ravel()]
    n = clipping.total(squares) ** real(0.5)
    limit = clipping.number(settings["max_norm"])
    factor = real(limit) / n if n == n and n > limit else real(1)
    scaled = [None if v is None else Value(v.exact * factor, v.dtype, v.scale) for v in averaged]
    return right | {"grads": scaled}


def _with(change: Callable[[dict[str, Any], Settings], Settings]) -> Any:
    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        right = oracle(inputs, settings)
        return right | {"grads": oracle(inputs, change(inputs, settings))["grads"]}

    return mistaken


def _expected_batch(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A mean divides by 16, the batch size that was expected."""
    right, examples = oracle(inputs, settings), batch(inputs["grads"])
    if settings["reduction"] == "sum" or not examples:
        return right
    ratio = real(examples) / 16
    return right | {
        "grads": [
            None if v is None else Value(v.exact * ratio, v.dtype, v.scale * ratio)
            for v in right["grads"]
        ]
    }


def _nan_passes(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """An example whose factor is NaN is added unclipped; an infinite one is multiplied by 0."""

    def lenient(example: Tensor, n: Any, s: Settings) -> Any:
        return example if n != n else clipping.apply(example, n, s | {"nonfinite": "multiply"})

    return oracle(inputs, settings, lenient)


def _no_root(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The factor is c / n²."""
    return oracle(inputs, settings, lambda g, n, s: clipping.apply(g, n * n, s))


def _normalised(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Every example is scaled to the limit, those below it too."""

    def scaled(example: Tensor, n: Any, s: Settings) -> Any:
        limit = clipping.number(s["max_norm"])
        if not 0 < n < limit < np.inf:
            return clipping.apply(example, n, s)
        return Value(each(lambda x: x * real(limit) / n, exact(example)), example.dtype.name)

    return oracle(inputs, settings, scaled)


def _limit_ignored(inputs: dict[str, Any], settings: Settings) -> Settings:
    return settings | {"max_norm": 1.0}


def _other_scope(inputs: dict[str, Any], settings: Settings) -> Settings:
    return settings | {"scope": "tensor" if settings["scope"] == "all" else "all"}


def _sum_for_mean(inputs: dict[str, Any], settings: Settings) -> Settings:
    return settings | {"reduction": "sum"}


def _split_limit(inputs: dict[str, Any], settings: Settings) -> Settings:
    count = sum(g is not None for g in inputs["grads"])
    limit = clipping.number(settings["max_norm"])
    split = settings["scope"] == "tensor" and count > 0
    return settings | ({"max_norm": limit / count**0.5} if split else {})


MISTAKES = (
    Mistake(
        "mean clipped", "the batch's gradient is clipped, not each example's", _clipped_mean,
        ("tensorflow/privacy#135", "tensorflow/privacy#46", "meta-pytorch/opacus#655"),
    ),
    Mistake("limit ignored", "the threshold is always 1", _with(_limit_ignored), ("meta-pytorch/opacus#664",)),
    Mistake("other scope", "norms run per tensor where all count, or the reverse", _with(_other_scope)),
    Mistake("sum for mean", "the sum is not divided", _with(_sum_for_mean)),
    Mistake("limit split", "with scope tensor the limit is divided by the root of the number of tensors",
            _with(_split_limit)),
    Mistake("expected batch", "the sum is divided by a batch size that was expected, not the real one",
            _expected_batch, ("meta-pytorch/opacus#420",)),
    Mistake("NaN passes", "an example with a NaN norm is added unclipped", _nan_passes,
            ("google-deepmind/optax@017762fb:optax/transforms/_clipping.py",)),
    Mistake("squared norm", "the root is forgotten", _no_root),
    Mistake("normalised", "examples below the limit are enlarged", _normalised),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "Each example is clipped by its own 2-norm: multiplied by min(1, max_norm / norm).",
    "C2": "Scope all: one norm an example, over all tensors. Scope tensor: one an example and tensor.",
    "C3": "The clipped examples are added up; mean divides by the number of examples that are there.",
    "C4": "norms are those before clipping, float64 if any gradient is float64, else float32: (examples,);"
          " for scope tensor (tensors, examples), a row of zeros for an absent gradient.",
    "C5": "A norm is right whenever it is representable; 16-bit gradients are accumulated in float32.",
    "C6": "An example with a NaN or infinite norm makes all that it takes part in NaN: never a silent zero.",
    "C7": "max_norm = 0 gives zeros; max_norm = +inf clips nothing, whatever the norms are.",
    "C8": "A negative or NaN max_norm is refused.",
    "C9": "An absent gradient stays absent and does not count; without gradients there are no examples.",
    "C10": "A gradient without a leading axis, or different numbers of examples, are refused.",
    "C11": "No example: the sum is zero, the mean is refused.",
    "C12": "Each output has the dtype of its gradient, and its shape without the leading axis.",
}  # fmt: skip

FLAGS = {
    "examples": Flag("BASIC", "Examples above and below the threshold, in several tensors."),
    "clip-then-mean": Flag(
        "KNOWN_BUG", "The mean of clipped gradients is not the clipped mean.",
        ("tensorflow/privacy#135", "tensorflow/privacy#46", "meta-pytorch/opacus#655"),
    ),
    "limits": Flag("KNOWN_BUG", "Two thresholds must give two results.", ("meta-pytorch/opacus#664",)),
    "actual-batch": Flag(
        "KNOWN_BUG", "A mean over the examples that are there, not over those expected.",
        ("meta-pytorch/opacus#420",),
    ),
    "bad-example": Flag(
        "KNOWN_BUG", "A NaN or infinite example among good ones.",
        ("google-deepmind/optax@017762fb:optax/transforms/_clipping.py",),
    ),
    "per-tensor": Flag("BASIC", "A norm for each example and tensor."),
    "at-threshold": Flag("EDGE_CASE", "Norms that equal the threshold."),
    "below": Flag("BASIC", "No example is clipped."),
    "eps-visible": Flag("DIALECT", "Norm and threshold near 1e-6, where an epsilon shows."),
    "zero-example": Flag("EDGE_CASE", "Examples without a gradient."),
    "zero-limit": Flag("EDGE_CASE", "max_norm = 0."),
    "infinite-limit": Flag("EDGE_CASE", "max_norm = inf."),
    "bad-limit": Flag("EDGE_CASE", "A negative or NaN max_norm."),
    "one-example": Flag("EDGE_CASE", "A batch of one."),
    "no-example": Flag("EDGE_CASE", "A batch of none."),
    "square-overflow": Flag("OVERFLOW", "Squares overflow or flush although the norms do not."),
    "cancellation": Flag("PRECISION", "Examples that nearly cancel each other."),
    "absent": Flag("EDGE_CASE", "Absent gradients, empty lists."),
    "shapes": Flag("EDGE_CASE", "One number an example, empty tensors, many axes."),
    "mismatch": Flag("EDGE_CASE", "Batches that do not fit each other."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list."),
    "wide-range": Flag("PRECISION", "Magnitudes from 1e-3 to 1e3, both signs."),
}  # fmt: skip


OPERATION = Operation(
    id="clip.per_example",
    summary="Clip each example's gradient by its own norm, then add the examples up or average them.",
    formula="n_b = ‖g_b‖₂;  g ← Σ_b g_b · min(1, max_norm / n_b), divided by the number of examples for mean",
    sources=(
        "M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L. Zhang: Deep learning with"
        " differential privacy. CCS 2016 (algorithm 1, without its noise)",
    ),
    constraints=CONSTRAINTS,
    inputs={"grads": "list of float tensors (examples, …); null is an absent gradient"},
    outputs={
        "grads": "the list, clipped and reduced over the examples",
        "norms": "before clipping: (examples,), or (tensors, examples) for scope tensor",
    },
    params=(
        clipping.PARAMS[0],
        Param("reduction", "over the examples: mean or sum", default="mean"),
        Param(
            "scope", "all: one norm an example; tensor: one an example and tensor", default="all"
        ),
    ),
    dials=tuple(d for d in clipping.DIALS if d.name not in ("norm_dtype", "below_limit")),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)
