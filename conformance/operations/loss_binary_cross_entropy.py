"""``loss.binary_cross_entropy``: probabilities against logits, with the gradient of the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.exact import INF, NAN, ONE, ZERO, Real, Reject, ctx, each, exact, full, total
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value
from conformance.operations import _dtype_cases
from conformance.operations._binary_cross_entropy_cases import cases
from conformance.oracle.activations import finite, sigmoid
from conformance.oracle.layers import LOSS_DTYPE, check_dtypes, check_shape, loss_dtype

Tensors = dict[str, Any]


def _softplus(size: Real) -> Real:
    """Return log(1 + exp(-|z|))."""
    return ctx.log1p(ctx.exp(-size)) if size < 1e4 else (ZERO if size == size else NAN)


def limit(z: Real, t: Real) -> Real:
    """Return the loss of one element; at an infinite logit its limit."""
    missing = ONE - t if z > 0 else t
    return (ZERO if missing == 0 else abs(z) * missing) + _softplus(abs(z))


def linear_form(z: Real, t: Real) -> Real:
    """Return the loss in IEEE arithmetic on max(z, 0) - z·t + log(1 + exp(-|z|))."""
    return (z if z > 0 or z != z else ZERO) - z * t + _softplus(abs(z))


def sigmoid_form(z: Real, t: Real) -> Real:
    """Return the loss in IEEE arithmetic on (1 - t)·z - log σ(z)."""
    log_sigmoid = (z if z < 0 else ZERO) - _softplus(abs(z))
    return (ONE - t) * z - log_sigmoid


FORMS: dict[str, Callable[[Real, Real], Real]] = {
    "limit": limit, "linear_form": linear_form, "sigmoid_form": sigmoid_form,
}  # fmt: skip


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """loss = Σ -t log σ(z) - (1 - t) log(1 - σ(z)) / n;  dx = (σ(z) - t) / n;  n = 1 for a sum."""
    return _loss(inputs, settings, FORMS[settings["infinite_logit"]])


def _check(inputs: Tensors, settings: Tensors) -> int:
    check_dtypes(**inputs)
    x, targets = inputs["x"], inputs["targets"]
    check_shape("targets", targets, x.shape)
    if x.size == 0 and settings["reduction"] == "mean" and settings["empty_mean"] == "reject":
        raise Reject("the mean over no element is undefined")
    inside = (targets >= 0) & (targets <= 1)
    if settings["outside_targets"] == "reject" and not np.all(inside):
        raise Reject("targets must be probabilities, in [0, 1]")
    return int(x.size) if settings["reduction"] == "mean" else 1


def _loss(inputs: Tensors, settings: Tensors, form: Callable[[Real, Real], Real]) -> Tensors:
    count = _check(inputs, settings)
    z, t = exact(inputs["x"]), exact(inputs["targets"])
    losses = each(form, z, t).ravel()
    sizes = each(lambda a, b: abs(a) * (1 + abs(b)) + _softplus(abs(a)), z, t).ravel()
    dx = each(lambda a, b: (sigmoid(a) - b) / max(count, 1), z, t)
    of_dx = each(lambda a, b: (sigmoid(a) + abs(b)) / max(count, 1), z, t)
    loss = total(losses) / count if count else NAN
    scale = total(finite(sizes)) / max(count, 1)
    return {
        "loss": Value(full((), loss), loss_dtype(inputs, settings), full((), scale)),
        "dx": Value(dx, inputs["x"].dtype.name, finite(of_dx)),
    }


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """ULP of the sum of the magnitudes of the terms; see TOLERANCE_WHY."""
    return {"loss": inputs["x"].size + 14, "dx": 12}


def _form(form: Callable[[Real, Real], Real]) -> Any:
    return lambda inputs, settings: _loss(inputs, settings, form)


def _scaled(
    loss: Callable[[Tensors, Tensors], float], dx: Callable[[Tensors, Tensors], float]
) -> Any:
    """Return a mistake that is wrong by a factor."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        right = oracle(inputs, settings)
        factors = {"loss": loss(inputs, settings), "dx": dx(inputs, settings)}
        return {
            name: Value(each(lambda v, f=factors[name]: v * f, value.exact), value.dtype)
            for name, value in right.items()
        }

    return mistaken


def _size(inputs: Tensors, settings: Tensors) -> float:
    return max(inputs["x"].size, 1) if settings["reduction"] == "mean" else 1


def _rows(inputs: Tensors, settings: Tensors) -> float:
    """Return the number of elements per example, where a mean is over the examples."""
    x = inputs["x"]
    return x.size / max(len(x), 1) if x.ndim and settings["reduction"] == "mean" else 1


def _one(inputs: Tensors, settings: Tensors) -> float:
    return 1


def _gradient(function: Callable[[Real, Real], Real]) -> Any:
    """Return a mistake in the gradient of one element."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        right, count = oracle(inputs, settings), _size(inputs, settings)
        dx = each(function, exact(inputs["x"]), exact(inputs["targets"]))
        return right | {"dx": Value(each(lambda d: d / count, dx), right["dx"].dtype)}

    return mistaken


def from_probability(inputs: Tensors, settings: Tensors) -> Tensors:
    """The logarithms of σ(z) and 1 - σ(z), as rounded: infinite, or 0 times infinity, where they are 0."""
    right, x = oracle(inputs, settings), inputs["x"]
    t = inputs["targets"]
    with np.errstate(all="ignore"):
        p = (1 / (1 + np.exp(-x))).astype(x.dtype)
        losses = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    value = total(exact(losses).ravel()) / _size(inputs, settings)
    return right | {"loss": Value(full((), value), right["loss"].dtype)}


def _overflowing(z: Real, t: Real) -> Real:
    return INF if z < -88 else limit(z, t)


def _clipped(z: Real, t: Real) -> Real:
    """Return the loss of a probability clipped to [1e-7, 1 - 1e-7]."""
    p = min(max(sigmoid(z), ctx.mpf("1e-7")), ONE - ctx.mpf("1e-7")) if z == z else z
    return -(t * ctx.log(p) + (ONE - t) * ctx.log(ONE - p))


def unclamped(inputs: Tensors, settings: Tensors) -> Tensors:
    """Targets out of range are clamped into it without a word."""
    return oracle(inputs | {"targets": np.clip(inputs["targets"], 0, 1)}, settings)


MISTAKES = (
    Mistake("from the probability", "log(1 - σ(z)) where σ(z) rounds to 1", from_probability,
            ("huggingface/candle#2561",)),
    Mistake("overflow", "log(1 + exp(-z)) is infinite at very negative logits", _form(_overflowing),
            ("pytorch/pytorch#1792",)),
    Mistake("probability clipped", "σ(z) is clipped to [1e-7, 1 - 1e-7] first", _form(_clipped),
            ("keras-team/keras#9247",)),
    Mistake("mean for sum", "a sum is divided by the number of elements", _scaled(
        lambda i, s: 1 / max(i["x"].size, 1) if s["reduction"] == "sum" else 1,
        lambda i, s: 1 / max(i["x"].size, 1) if s["reduction"] == "sum" else 1)),
    Mistake("sum for mean", "reduction is ignored", _scaled(_size, _size)),
    Mistake("gradient of the sum", "dx is not divided by the number of elements", _scaled(_one, _size)),
    Mistake("mean over examples", "the mean is over the first axis alone", _scaled(_rows, _rows)),
    Mistake("positive class alone", "the loss is -t log σ(z)",
            _form(lambda z, t: ZERO if t == 0 else t * limit(z, ONE))),
    Mistake("target inverted", "1 - t is taken for t", _form(lambda z, t: limit(z, ONE - t))),
    Mistake("in bits", "the logarithm is to base 2", _scaled(lambda i, s: 1 / float(np.log(2)), _one)),
    Mistake("gradient of the probability", "dx lacks the derivative of the sigmoid: (p - t)/(p(1 - p))",
            _gradient(lambda z, t: (p := sigmoid(z)) - t if abs(z) > 40 or z != z
                      else ((p := sigmoid(z)) - t) / (p * (ONE - p)))),
    Mistake("gradient through the sigmoid twice", "dx has p(1 - p) once more",
            _gradient(lambda z, t: ((p := sigmoid(z)) - t) * p * (ONE - p))),
    Mistake("gradient of the sign", "at a logit of 0 exactly, the derivatives of |z| and of max(z, 0) are 0",
            _gradient(lambda z, t: sigmoid(z) - t - (ctx.mpf(0.5) if z == 0 else ZERO)),
            ("pytorch/pytorch#1792",)),
    Mistake("targets clamped", "targets beyond [0, 1] are clamped", unclamped),
    Mistake("targets rounded", "targets are taken for 0 or 1",
            lambda i, s: oracle(i | {"targets": (i["targets"] > 0.5).astype(i["x"].dtype)}
                                if i["x"].shape == i["targets"].shape
                                and np.all((i["targets"] >= 0) & (i["targets"] <= 1)) else i, s)),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "loss = mean (or sum) over all elements of -t·log σ(z) - (1 - t)·log(1 - σ(z)).",
    "C2": "dx = (σ(z) - t)/n, with n the number of elements for a mean and 1 for a sum; also at z = 0.",
    "C3": "Nothing overflows and no logarithm of 0 is taken: at large |z| the loss is |z|·(1 - t) or |z|·t.",
    "C4": "Targets are any probabilities, not 0 and 1 alone.",
    "C5": "At an infinite logit the loss is its limit: 0 on the target's side, else infinite; dx is σ - t.",
    "C6": "Targets beyond [0, 1], NaN too, are refused (or the formula is used for them: dial).",
    "C7": "A NaN logit gives a NaN loss, and a NaN gradient at its own place only.",
    "C8": "targets has the shape of x: nothing is broadcast, not even (N, 1) against (N,).",
    "C9": "The mean over no element is refused (or NaN: dial); the sum is 0.",
    "C10": "dx has the dtype of x.",
    "C11": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Logits of either sign, targets of 0, 1 and between."),
    "sum": Flag("BASIC", "reduction = sum."),
    "soft-targets": Flag("EDGE_CASE", "Targets between 0 and 1."),
    "zero-logit": Flag("KNOWN_BUG", "A logit of exactly 0, where |z| and max(z, 0) have no derivative.",
                       ("pytorch/pytorch#1792", "pytorch/pytorch#2195")),
    "large-logits": Flag("KNOWN_BUG", "σ(z) rounds to 1, or exp(-z) overflows.",
                         ("huggingface/candle#2561", "keras-team/keras#9247", "pytorch/pytorch#1792")),
    "certain": Flag("PRECISION", "The right side, with certainty: the loss is tiny."),
    "infinite": Flag("KNOWN_BUG", "An infinite logit.",
                     ("pytorch/pytorch#135359", "pyro-ppl/numpyro#2240")),
    "nan": Flag("EDGE_CASE", "A NaN logit."),
    "outside-targets": Flag("EDGE_CASE", "Targets beyond [0, 1]."),
    "shape-mismatch": Flag("EDGE_CASE", "Targets of another shape."),
    "shapes": Flag("EDGE_CASE", "0-d, one and four axes."),
    "empty": Flag("EDGE_CASE", "No element."),
    "bad-dtype": _dtype_cases.FLAG,
}  # fmt: skip


OPERATION = Operation(
    id="loss.binary_cross_entropy",
    summary="Cross-entropy of a sigmoid over logits with probabilities, and its gradient.",
    formula="loss = Σ (max(z, 0) - z·t + log(1 + exp(-|z|))) / n;  dx = (σ(z) - t) / n",
    sources=(
        "C. M. Bishop: Pattern recognition and machine learning, 4.3.2. Springer, 2006",
        "N. J. Higham: Accuracy and stability of numerical algorithms, 2nd ed. SIAM, 2002",
    ),
    constraints=CONSTRAINTS,
    inputs={"x": "the logits z, any shape", "targets": "like x: probabilities t"},
    outputs={"loss": "0-d", "dx": "like x"},
    params=(Param("reduction", "mean over all elements, or sum", default="mean"),),
    dials=(
        Dial("empty_mean", "reject", "the mean over no element: refused, or NaN", ("undefined",)),
        LOSS_DTYPE,
        Dial(
            "outside_targets", "reject", "targets beyond [0, 1]: refused, or put into the formula",
            ("extrapolate",),
        ),
        Dial(
            "infinite_logit", "limit",
            "the loss at an infinite logit: its limit, or what IEEE arithmetic makes of max(z, 0) - z·t +"
            " log(1 + exp(-|z|)) (linear_form) or of (1 - t)·z - log σ(z) (sigmoid_form)",
            ("linear_form", "sigmoid_form"),
        ),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "The loss of an element is a sum of z·t or z·(1 - t), max(z, 0) and log(1 + exp(-|z|)), each of at"
        " most |z|·(1 + |t|) + log 2: two roundings for the product, 4u each for exp and the logarithm, and 3"
        " for the sums are less than 13u of the sum of magnitudes, the scale; n - 1 additions and the"
        " division by n add n. The sigmoid is good to 8u (see layer.sigmoid); the difference with t and the"
        " division by n add 3: less than 12u of σ + |t|. One ULP of a number is at least u times it."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {
            "empty_mean": "undefined", "outside_targets": "extrapolate", "infinite_logit": "sigmoid_form",
            "loss_dtype": "input_dtype",
        },
        "tensorflow": {
            "empty_mean": "undefined", "outside_targets": "extrapolate", "infinite_logit": "linear_form",
            "loss_dtype": "input_dtype", "subnormals": "flush",
        },
    },
)  # fmt: skip
