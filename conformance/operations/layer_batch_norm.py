"""``layer.batch_norm``: batch normalisation, forward, backward and the running values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.exact import ONE, Real, divide, each, exact, real
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value
from conformance.operations import _dtype_cases
from conformance.operations._batch_norm_cases import cases
from conformance.oracle import normalisation
from conformance.oracle.normalisation import batch_norm as oracle

Tensors = dict[str, Any]


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """Two ULP of the bounds that each number carries."""
    return dict.fromkeys(("y", "dx", "dscale", "dshift", "running_mean", "running_var"), 2)


def _count(inputs: Tensors) -> int:
    return int(np.prod(inputs["x"].shape[:-1]))


def _times(factor: Callable[[Tensors, Tensors], Real], *names: str) -> Any:
    """Return a mistake that is wrong by a factor in some outputs."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        right = oracle(inputs, settings)
        if not _count(inputs):
            return right
        by = factor(inputs, settings)
        return right | {n: Value(right[n].exact * by, right[n].dtype) for n in names}

    return mistaken


def _with(**changes: Any) -> Any:
    return lambda inputs, settings: oracle(inputs, settings | changes)


def _running(blend: Callable[[Real, Real, Real, int], Real], *names: str) -> Any:
    """Return a mistake in the running values: a function of old, new, momentum and the count."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        right, share = oracle(inputs, settings), real(float(settings["momentum"]))
        if not settings["training"]:
            return right
        whole = oracle(inputs, settings | {"momentum": 1.0})
        found = {}
        for name in names:
            old, new = exact(inputs[name]), whole[name].exact
            wrong = each(lambda a, b: blend(a, b, share, _count(inputs)), old, new)
            found[name] = Value(wrong, right[name].dtype)
        return right | found

    return mistaken


def one_pass(inputs: Tensors, settings: Tensors) -> Tensors:
    """The variance is the mean of the squares minus the square of the mean, in the format of x."""
    right, x = oracle(inputs, settings), inputs["x"]
    if not settings["training"]:
        return right
    axes = tuple(range(x.ndim - 1))
    with np.errstate(all="ignore"):
        count = x.dtype.type(_count(inputs))
        mean = np.sum(x, axis=axes, dtype=x.dtype) / count
        var = np.sum(x * x, axis=axes, dtype=x.dtype) / count - mean * mean
        inverse = 1 / np.sqrt(var + x.dtype.type(float(settings["eps"])))
        y = inputs["scale"] * (x - mean) * inverse + inputs["shift"]
    return right | {"y": Value(exact(y), x.dtype.name)}


def _axes(*axes: int) -> Any:
    """Return a mistake that takes other axes for those of the batch: x (N, H, W, C) is regrouped."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        right, x = oracle(inputs, settings), inputs["x"]
        if not settings["training"] or x.ndim != 4:
            return right
        wide = x.astype(np.float64)
        mean = wide.mean(axis=axes, keepdims=True)
        var = wide.var(axis=axes, keepdims=True)
        y = (wide - mean) / np.sqrt(var + float(settings["eps"]))
        scale, shift = (inputs[n].astype(np.float64) for n in ("scale", "shift"))
        return right | {"y": Value(exact(y * scale + shift), x.dtype.name)}

    return mistaken


def outside(inputs: Tensors, settings: Tensors) -> Tensors:
    """eps is added to the standard deviation, not to the variance."""
    y, batch = normalisation.forward(inputs, settings)
    eps = real(float(settings["eps"]))
    right = normalisation.results(inputs, settings, y, batch)
    deviation = each(lambda v: v**0.5 + eps, batch.var.exact)
    exactly = divide(batch.scale.exact * (batch.x.exact - batch.mean.exact), deviation)
    return right | {"y": Value(exactly + exact(inputs["shift"]), right["y"].dtype)}


def unbiased_normalisation(inputs: Tensors, settings: Tensors) -> Tensors:
    """The unbiased variance normalises too."""
    y, batch = normalisation.forward(inputs, settings)
    right = normalisation.results(inputs, settings, y, batch)
    if not settings["training"] or batch.count < 2:
        return right
    eps, wider = real(float(settings["eps"])), real(batch.count) / (batch.count - 1)
    deviation = each(lambda v: (v * wider + eps) ** 0.5, batch.var.exact)
    exactly = divide(batch.scale.exact * (batch.x.exact - batch.mean.exact), deviation)
    return right | {"y": Value(exactly + exact(inputs["shift"]), right["y"].dtype)}


def running_lost(inputs: Tensors, settings: Tensors) -> Tensors:
    """The running values come back as they were."""
    same = {name: inputs[name] for name in ("running_mean", "running_var")}
    return oracle(inputs, settings) | same


def eval_learns(inputs: Tensors, settings: Tensors) -> Tensors:
    """The running values move outside training too."""
    right = oracle(inputs, settings)
    if settings["training"] or _count(inputs) < 2:
        return right
    moved = oracle(inputs, settings | {"training": True})
    return right | {name: moved[name] for name in ("running_mean", "running_var")}


def _blind(to: str) -> Any:
    return lambda inputs, settings: normalisation.blind(inputs, settings, to)


MISTAKES = (
    Mistake("one-pass variance", "E[x²] - E[x]² cancels where the mean is large", one_pass,
            ("tenstorrent/tt-metal#45968", "google/objax#182")),
    Mistake("mode ignored", "training whatever is asked for", _with(training=True)),
    Mistake("running values in training", "the running values normalise in training too",
            _with(training=False)),
    Mistake("eps ignored", "nothing is added to the variance", _with(eps=0.0)),
    Mistake("eps fixed", "eps is 1e-3 whatever is asked for", _with(eps=1e-3)),
    Mistake("eps outside the root", "eps is added to the standard deviation", outside),
    Mistake("unbiased variance normalises", "the layer divides by the root of m/(m-1)·var",
            unbiased_normalisation),
    Mistake("momentum of the old", "momentum weighs the old value",
            _running(lambda old, new, s, m: s * old + (ONE - s) * new, "running_mean", "running_var"),
            ("PaddlePaddle/Paddle#51120", "pytorch/pytorch#15298")),
    Mistake("running values lost", "what was learned does not come back", running_lost),
    Mistake("evaluation learns", "the running values move outside training too", eval_learns),
    Mistake("running sum", "the new values are added without a weight for the old",
            _running(lambda old, new, s, m: old + s * new, "running_mean", "running_var")),
    Mistake("running deviation", "the root of the variance is averaged",
            _running(lambda old, new, s, m: (ONE - s) * old + s * new**0.5, "running_var"), ("torch/nn#567",)),
    Mistake("corrected twice", "the variance is multiplied by m/(m-1) twice",
            _running(lambda old, new, s, m: (ONE - s) * old + s * new * m / max(m - 1, 1), "running_var")),
    Mistake("statistics taken for constants", "dx is that of evaluation", _blind("both")),
    Mistake("variance taken for a constant", "dx lacks the part that goes through the variance",
            _blind("variance")),
    Mistake("mean taken for a constant", "dx lacks the part that goes through the mean", _blind("mean")),
    Mistake("gradients averaged", "dscale and dshift are means",
            _times(lambda i, s: ONE / _count(i), "dscale", "dshift")),
    Mistake("over the batch axis", "NHWC is normalised over N alone", _axes(0)),
    Mistake("over the image", "NHWC is normalised over H and W: instance normalisation", _axes(1, 2)),
    Mistake("over the channels", "NHWC is normalised over C: layer normalisation", _axes(3)),
    Mistake("scale ignored", "the scale is taken to be 1",
            lambda i, s: oracle(i | {"scale": np.ones_like(i["scale"])}, s)),
    Mistake("shift ignored", "the shift is taken to be 0",
            lambda i, s: oracle(i | {"shift": np.zeros_like(i["shift"])}, s)),
    Mistake("upstream gradient ignored", "the backward pass starts from ones",
            lambda i, s: oracle(i | {"dy": np.ones_like(i["dy"])}, s)),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "In training, mean and variance (of m, biased) are those of x over all axes but the last.",
    "C2": "y = scale·(x - mean)/√(var + eps) + shift; eps is added under the root.",
    "C3": "dx goes through x, the mean and the variance; dscale and dshift are sums, never means.",
    "C4": "running = (1 - momentum)·old + momentum·new: momentum weighs the new batch.",
    "C5": "The running variance learns the unbiased variance (times m/(m - 1)), or the biased one (dial).",
    "C6": "Outside training the running values normalise and come back bit for bit, and the gradients take"
    " them for constants.",
    "C7": "The variance does not cancel where the mean is large: it is the mean of the squared differences.",
    "C8": "A channel of equal values gives the shift, and dx is what scale/√eps leaves of dy minus its mean.",
    "C9": "A single value per channel has no unbiased variance: training is refused (not if biased). No value"
    " at all is always refused. Outside training both are fine.",
    "C10": "An infinity or a NaN spoils its own channel only.",
    "C11": "eps is finite and at least 0, momentum in [0, 1]; shapes that do not fit are refused.",
    "C12": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "(N, C): different statistics in every channel, uneven upstream gradient."),
    "image": Flag("BASIC", "NHWC: statistics over three axes."),
    "sequence": Flag("EDGE_CASE", "(N, T, C): statistics over two axes."),
    "evaluation": Flag("BASIC", "training is false: the running values normalise."),
    "running": Flag(
        "KNOWN_BUG", "Whose weight momentum is, and which variance is averaged.",
        ("pytorch/pytorch#1410", "pytorch/pytorch#15298", "PaddlePaddle/Paddle#51120",
         "ml-explore/mlx#3817", "tenstorrent/tt-metal#55438"),
    ),
    "momentum-edge": Flag("EDGE_CASE", "Momentum 0 or 1."),
    "large-mean": Flag(
        "KNOWN_BUG", "A mean that is large beside the deviation: E[x²] - E[x]² cancels.",
        ("tenstorrent/tt-metal#45968", "google/objax#182", "BVLC/caffe#3963"),
    ),
    "constant-channel": Flag("EDGE_CASE", "A channel of equal values: only eps keeps it from 0/0."),
    "eps-visible": Flag("EDGE_CASE", "eps is not small beside the variance, or 0."),
    "one-value": Flag("EDGE_CASE", "One value per channel, or two."),
    "empty-batch": Flag("EDGE_CASE", "No example."),
    "uneven-upstream": Flag("EDGE_CASE", "dy differs by orders of magnitude and is zero in places."),
    "nonfinite": Flag("EDGE_CASE", "An infinite or NaN element."),
    "bad-parameter": Flag("EDGE_CASE", "eps or momentum out of range."),
    "bad-shape": Flag("EDGE_CASE", "Shapes that do not fit each other."),
    "bad-dtype": _dtype_cases.FLAG,
}  # fmt: skip


OPERATION = Operation(
    id="layer.batch_norm",
    summary="Batch normalisation, with its gradients and the running values.",
    formula="y = scale·(x - mean)/√(var + eps) + shift;  running ← (1 - momentum)·running + momentum·new",
    sources=(
        "S. Ioffe, C. Szegedy: Batch normalization: accelerating deep network training by reducing internal"
        " covariate shift. ICML 2015",
        "T. F. Chan, G. H. Golub, R. J. LeVeque: Algorithms for computing the sample variance. The American"
        " Statistician 37, 1983",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "x": "(N, C), NHWC or any (…, C)",
        "scale": "(C,)",
        "shift": "(C,)",
        "running_mean": "(C,)",
        "running_var": "(C,)",
        "dy": "like x: the upstream gradient, dL/dy",
    },
    outputs={
        "y": "like x",
        "dx": "like x",
        "dscale": "(C,)",
        "dshift": "(C,)",
        "running_mean": "(C,), the new one",
        "running_var": "(C,), the new one",
    },
    params=(
        Param("training", "whether the batch or the running values normalise", default=True),
        Param("eps", "what is added to the variance, finite and at least 0", default=1e-5),
        Param("momentum", "the weight of the new batch in the running values, in [0, 1]", default=0.1),
    ),
    dials=(
        Dial(
            "running_variance", "unbiased", "which variance of a batch is averaged: m/(m-1)·var, or var",
            ("biased",),
        ),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "Each number carries a first-order bound on its rounding error in roundoffs u, as in optim.sgd; a sum"
        " of m terms adds (m - 1)·Σ|terms|. The order of the operations is the least accurate of the usual"
        " ones: y = a·x + (shift - a·mean) with a = scale/√(var + eps), and Σ dy·(x - mean) as Σ dy·x -"
        " mean·Σ dy. The variance is bounded by m·u·|mean|/deviation, which holds for two passes and for"
        " Welford's updates, not for E[x²] - E[x]² (Chan et al. 1983). eps and m/(m - 1) are rounded to the"
        " format once; the average of old and new adds"
        " 4·(|old| + |new|), for 1 - (1 - momentum) may stand for momentum. 2 ULP of the bound, because"
        " another order at most doubles the number of operations."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {},
        "tensorflow": {"running_variance": "biased", "subnormals": "flush"},
    },
)  # fmt: skip
