"""``loss.softmax_cross_entropy``: class targets against logits, with the gradient of the logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import NAN, ZERO, Reject, ctx, exact, full
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value
from conformance.operations import _dtype_cases
from conformance.oracle import layers

Tensors = dict[str, Any]


def _check(inputs: Tensors, settings: Tensors) -> None:
    layers.check_dtypes(x=inputs["x"])
    x, targets = inputs["x"], inputs["targets"]
    layers.check_shape("x", x, ("N", "C"))
    layers.check_shape("targets", targets, (len(x),))
    if x.shape[1] == 0:
        raise Reject("x must have at least one class")
    if targets.dtype != np.int64:
        raise Reject(f"targets must be int64, got {targets.dtype}")
    if np.any((targets < 0) | (targets >= x.shape[1])):
        raise Reject(f"targets must be at least 0 and less than the {x.shape[1]} classes")
    averages_nothing = len(x) == 0 and settings["reduction"] == "mean"
    if averages_nothing and settings["empty_mean"] == "reject":
        raise Reject("the mean over no example is undefined")


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """loss_n = log Σ_j exp(z_nj) - z_nt;  dx_nj = (softmax(z_n)_j - [j = t]) / N."""
    _check(inputs, settings)
    return _loss(exact(inputs["x"]), inputs["targets"], settings, inputs)


def _loss(logits: Any, targets: Any, settings: Tensors, inputs: Tensors) -> Tensors:
    dtype, reduction = inputs["x"].dtype.name, settings["reduction"]
    of_loss = layers.loss_dtype(inputs, settings)
    if len(logits) == 0 and reduction == "mean":
        return {"loss": Value(full((), NAN), of_loss), "dx": Value(logits, dtype)}
    loss, context = layers.softmax_cross_entropy_forward(logits, targets, reduction)
    dx = layers.softmax_cross_entropy_backward(context)
    scale, dx_scale = layers.softmax_cross_entropy_scale(logits, targets, reduction)
    return {
        "loss": Value(full((), loss), of_loss, full((), scale)),
        "dx": Value(dx, dtype, dx_scale),
    }


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """ULP of the scales that ``softmax_cross_entropy_scale`` defines."""
    examples, classes = inputs["x"].shape
    return {"loss": classes + 10 + examples + 1, "dx": classes + 18}


def _changed(
    logits: Any = lambda z: z,
    targets: Any = lambda t, classes: t,
    after: Any = lambda result, inputs, settings: result,
) -> Any:
    """Return a mistake in the logits, in the targets, or in the results."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        _check(inputs, settings)
        z, t = logits(exact(inputs["x"])), targets(inputs["targets"], inputs["x"].shape[1])
        result = _loss(z, t, settings, inputs)
        return after(result, inputs, settings)

    return mistaken


def _times(loss: Any, dx: Any) -> Any:
    """Multiply the loss and the gradient by what functions of the inputs say."""

    def after(result: Tensors, inputs: Tensors, settings: Tensors) -> Tensors:
        factors = {"loss": loss, "dx": dx}
        return {
            name: Value(
                full((), value.exact.item() * factors[name](inputs["x"].shape, settings))
                if value.exact.ndim == 0
                else value.exact * factors[name](inputs["x"].shape, settings),
                value.dtype,
            )
            for name, value in result.items()
        }

    return after


def _examples(shape: Any, settings: Tensors) -> int:
    return max(shape[0], 1) if settings["reduction"] == "mean" else 1


def unshifted(inputs: Tensors, settings: Tensors) -> Tensors:
    """exp overflows in the dtype of x, since the maximum is not subtracted first."""
    result = oracle(inputs, settings)
    limit = float(np.log(float(np.finfo(inputs["x"].dtype).max)))
    if not np.any(inputs["x"] > limit):
        return result
    nan = full(inputs["x"].shape, NAN)
    return {
        "loss": Value(full((), NAN), result["loss"].dtype), "dx": Value(nan, result["dx"].dtype)
    }  # fmt: skip


def over_the_batch(inputs: Tensors, settings: Tensors) -> Tensors:
    """The softmax runs over the examples of each class."""
    result, x = oracle(inputs, settings), exact(inputs["x"])
    if len(x) == 0:
        return result
    powers = layers.apply(ctx.exp, np.exp, x - x.max(axis=0, keepdims=True))
    hot = np.arange(x.shape[1]) == inputs["targets"][:, None]
    dx = powers / powers.sum(axis=0, keepdims=True) - hot.astype(np.int64)
    return result | {"dx": Value(dx / _examples(x.shape, settings), result["dx"].dtype)}


def without_target(inputs: Tensors, settings: Tensors) -> Tensors:
    """dx is the softmax, without the 1 at the target."""
    result, x = oracle(inputs, settings), inputs["x"]
    hot = (np.arange(x.shape[1]) == inputs["targets"][:, None]).astype(np.int64)
    share = exact(hot) / _examples(x.shape, settings)
    return result | {"dx": Value(result["dx"].exact + share, result["dx"].dtype)}


def wrapped(inputs: Tensors, settings: Tensors) -> Tensors:
    """A target out of range is taken modulo the number of classes."""
    x = inputs["x"]
    targets = np.mod(inputs["targets"], x.shape[1]) if x.ndim == 2 else inputs["targets"]
    return oracle(inputs | {"targets": targets}, settings)


def ignored(inputs: Tensors, settings: Tensors) -> Tensors:
    """A target out of range costs nothing, as a row of zeros does that stands for its one-hot row."""
    x, targets = inputs["x"], inputs["targets"]
    outside = (targets < 0) | (targets >= x.shape[-1])
    if not np.any(outside):
        return oracle(inputs, settings)
    result = oracle(inputs | {"targets": np.where(outside, 0, targets)}, settings)
    return {
        "loss": Value(full((), ZERO), result["loss"].dtype),
        "dx": Value(full(x.shape), result["dx"].dtype),
    }


def _clipped_loss(result: Tensors, inputs: Tensors, settings: Tensors) -> Tensors:
    loss = result["loss"].exact.item()
    capped = ctx.mpf(64) if loss > 64 else loss
    return result | {"loss": Value(full((), capped), result["loss"].dtype)}


def _one(shape: Any, settings: Tensors) -> int:
    return 1


MISTAKES = (
    Mistake("maximum not subtracted", "exp overflows, and inf/inf is NaN", unshifted),
    Mistake("loss capped", "log-probabilities stop at -64", _changed(after=_clipped_loss)),
    Mistake("sum for mean", "the mean is not divided by the number of examples",
            _changed(after=_times(_examples, _examples))),
    Mistake("gradient not averaged", "the loss is a mean, dx belongs to the sum",
            _changed(after=_times(_one, _examples))),
    Mistake("mean over elements", "the mean divides by examples times classes",
            _changed(after=_times(*[lambda s, p: ctx.mpf(1) / (s[1] if p["reduction"] == "mean" else 1)] * 2))),
    Mistake("mean for sum", "the sum is divided by the number of examples",
            _changed(after=_times(*[
                lambda s, p: ctx.mpf(1) / (s[0] if p["reduction"] == "sum" and s[0] else 1)] * 2))),
    Mistake("softmax over the batch", "dx has the softmax of columns", over_the_batch),
    Mistake("target not subtracted", "dx is the softmax itself", without_target),
    Mistake("targets from one", "classes are counted from 1",
            _changed(targets=lambda t, classes: np.where(t > 0, t - 1, classes - 1))),
    Mistake("sign of logits", "dx and loss are those of -x", _changed(logits=lambda z: -z)),
    Mistake("targets wrap around", "-1 is the last class, and C the first", wrapped),
    Mistake("targets out of range are free", "their loss and gradient are 0", ignored),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "loss_n = log Σ_j exp(z_nj) - z_nt, in nats; `mean` averages over the examples, `sum` adds them.",
    "C2": "dx_nj = softmax(z_n)_j - [j = t_n], divided by N under `mean`.",
    "C3": "Finite logits of any size give the right finite loss: exp never overflows.",
    "C4": "A logit of -inf has probability 0; as the target it makes the loss infinite, and dx finite.",
    "C5": "A NaN or +inf among an example's logits makes its loss and its whole row of dx NaN, no other row.",
    "C6": "Targets are int64 class indices; one below 0 or not below C is refused.",
    "C7": "The mean over no example is refused; the sum is 0. One class costs nothing.",
    "C8": "loss is 0-d, float64 if x is float64, else float32; dx has the dtype of x.",
    "C9": "x must be (N, C) with C >= 1 and targets (N,).",
    "C10": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag(
        "BASIC", "Several examples and classes, all different; targets in every position."
    ),
    "sum": Flag("BASIC", "reduction = sum."),
    "one-example": Flag("EDGE_CASE", "A batch of one."),
    "one-class": Flag("EDGE_CASE", "A single class, or two."),
    "overflow": Flag("OVERFLOW", "Logits whose exp is beyond the dtype."),
    "certain": Flag("PRECISION", "A probability next to 1: the loss is tiny and 1 - p cancels."),
    "shifted": Flag("PRECISION", "A large constant added to all logits, or magnitudes far apart."),
    "equal-logits": Flag("EDGE_CASE", "All logits equal: a uniform softmax."),
    "infinite": Flag("EDGE_CASE", "Logits of -inf (masked classes) or +inf."),
    "nan": Flag("EDGE_CASE", "A NaN logit."),
    "bad-target": Flag(
        "KNOWN_BUG",
        "A target that is no class: some libraries count it as 0, wrap it around or read elsewhere.",
        ("pytorch/pytorch#91383", "pytorch/pytorch#15508"),
    ),
    "bad-shape": Flag("EDGE_CASE", "Shapes that do not fit."),
    "empty-batch": Flag("EDGE_CASE", "No example."),
    "bad-dtype": _dtype_cases.FLAG,
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(108)
    inf, nan = np.inf, np.nan

    def add(
        name: str, flags: str, labels: str, x: Any, targets: Any, reduction: str = "mean",
        dtypes: Any = WIDE,
    ) -> None:  # fmt: skip
        x = random.uniform(*x, low=-4.0, high=4.0) if isinstance(x, tuple) else x
        both = {"x": x, "targets": fixed(targets, "int64")}
        c.add(name, flags, labels, both, {"reduction": reduction}, dtypes)

    add("basic", "basic", "C1 C2 C8", (4, 3), [2, 0, 1, 2], dtypes=ALL)
    add("basic-sum", "basic sum", "C1 C2", (4, 3), [1, 2, 0, 0], "sum", ALL)
    add("by-hand", "basic", "C1 C2", tensor([2, 1, 0], [0, 1, 2]), [0, 0], dtypes=ALL)
    add("more-classes-than-examples", "basic", "C1 C2", (2, 7), [6, 3])
    add("square", "basic", "C1 C2", (3, 3), [0, 2, 2])
    add("square-sum", "basic sum", "C1 C2", (3, 3), [1, 0, 0], "sum")
    add("many-classes", "basic sum", "C1 C2", (2, 100), [99, 0], "sum")
    add(
        "many-examples",
        "basic",
        "C1 C2",
        (40, 2),
        [int(t) for t in Stream(109).integers(40, below=2)],
    )
    add("one-example", "one-example", "C1 C2", (1, 4), [3])
    add("one-example-sum", "one-example sum", "C1 C2", (1, 4), [0], "sum")
    add("two-classes", "one-class one-example", "C1 C2", tensor([0.3, -1.2]), [1])
    add("one-class", "one-class", "C7", tensor([5.0], [-3.0]), [0, 0])
    add("one-class-huge", "one-class overflow", "C3 C7", tensor([1e30]), [0])
    for target in range(3):
        add(
            f"overflow-target-{target}",
            "overflow one-example",
            "C3",
            tensor([1000, 0, -1000]),
            [target],
        )
    add(
        "overflow-batch",
        "overflow",
        "C3",
        tensor([1000, 0, -1000], [0.5, -1, 2], [-500, 0, 500]),
        [1, 2, 0],
    )
    add("overflow-batch-sum", "overflow sum", "C3", tensor([300, 200], [-800, -900]), [1, 0], "sum")
    add("very-negative", "overflow", "C3", tensor([-1000, -1001, -1003]), [0])
    add("largest", "overflow", "C3", tensor([1e37, -1e37], [1e37, 1e37]), [1, 0])
    add("certain", "certain", "C1 C2", tensor([20, 0, 1], [0, 3, -18]), [0, 1])
    add("nearly-certain", "certain", "C1 C2", tensor([8, 0, -1]), [0])
    add("certainly-wrong", "certain", "C1 C2", tensor([20, 0, 1], [0, 15, 1]), [1, 0], "sum")
    add("beyond-precision", "certain overflow", "C1 C2 C3", tensor([60, 0, 1]), [0])
    shifted = 1000.0 + np.floor(random.uniform(3, 4, low=-8.0, high=8.0)) / 4
    add("shifted-up", "shifted overflow", "C1 C3", shifted, [2, 0, 3])
    add("shifted-down", "shifted overflow", "C1 C3", shifted - 2000, [1, 1, 0])
    add("spread", "shifted", "C1 C2", random.spread(3, 5, high=50.0), [4, 2, 0])
    add("equal-logits", "equal-logits", "C1 C2", np.full((2, 3), 0.75), [2, 1])
    add("zero-logits", "equal-logits sum", "C1 C2", np.zeros((3, 5)), [0, 4, 2], "sum")
    add("equal-large-logits", "equal-logits overflow", "C3", np.full((1, 4), 512.0), [1])
    add("masked-class", "infinite", "C4", tensor([-inf, 0, 0], [1, 2, -inf]), [1, 0])
    add("masked-target", "infinite", "C4", tensor([-inf, 0, 0], [1, 0.5, 2]), [0, 1])
    add("all-masked-but-target", "infinite", "C4", tensor([-inf, 3, -inf]), [1])
    add("infinite-logit", "infinite", "C5", tensor([inf, 0, 0], [1, 2, 3]), [0, 2])
    add("infinite-other-logit", "infinite", "C5", tensor([inf, 0, 0], [1, 2, 3]), [1, 2], "sum")
    add("nan-logit", "nan", "C5", tensor([nan, 0, 0], [1, 2, 3]), [1, 0])
    add("nan-target-logit", "nan", "C5", tensor([1, 2, 3], [0, nan, 1]), [1, 1])
    add("nan-and-infinity", "nan infinite", "C5", tensor([nan, inf], [0, 1]), [0, 1], "sum")
    add("target-too-large", "bad-target", "C6", (2, 3), [1, 3])
    add("target-minus-one", "bad-target", "C6", (2, 3), [-1, 2])
    add("target-far-below", "bad-target", "C6", (2, 3), [0, -7], "sum")
    add("fewer-targets", "bad-shape", "C9", (3, 2), [0, 1])
    add("one-axis", "bad-shape", "C9", tensor(1, 2, 3), [0, 1, 1])
    add("empty-batch", "empty-batch", "C7", (0, 3), [])
    add("empty-batch-sum", "empty-batch sum", "C7", (0, 3), [], "sum")
    for name, dtype in (("float", "float32"), ("boolean", "bool")):
        x = {"x": random.uniform(2, 2), "targets": fixed([1, 0], dtype)}
        c.add(f"{name}-targets", "bad-target", "C6", x, {"reduction": "mean"}, ("float32",))
    _dtype_cases.refused(
        c, "C10",
        {"x": random.uniform(2, 3, low=-2.0, high=2.0), "targets": fixed([2, 0], "int64")},
    )  # fmt: skip


OPERATION = Operation(
    id="loss.softmax_cross_entropy",
    summary="Cross-entropy of a softmax over logits with class targets, and its gradient.",
    formula="loss_n = log Σ_j exp(z_nj) - z_nt;  dx_nj = softmax(z_n)_j - [j = t]",
    sources=(
        "J. S. Bridle: Probabilistic interpretation of feedforward classification network outputs. 1990",
        "N. J. Higham, P. Blanchard, D. J. Higham: Accurately computing the log-sum-exp and softmax functions."
        " IMA J. Numer. Anal. 41, 2021",
    ),
    constraints=CONSTRAINTS,
    inputs={"x": "(N, C): the logits z", "targets": "(N,) int64: the class of each example"},
    outputs={"loss": "0-d", "dx": "like x"},
    params=(Param("reduction", "mean over the examples, or sum", default="mean"),),
    dials=(
        Dial("empty_mean", "reject", "the mean over no example: refused, or NaN", ("undefined",)),
        layers.LOSS_DTYPE,
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "With m the maximum and s = Σ exp(z_j - m) >= 1, the loss is m + log s - z_t. s has a relative error"
        " of (C + 4 + log C)·u (C - 1 additions, exp good to 4u, rounded differences), which the logarithm"
        " passes on as an absolute error; the logarithm and the two sums add less than 6u. So: C + 10 units"
        " of 1 + |m| + log s + |z_t| for one example, and N + 1 more for the sum and the division. A softmax"
        " next to 1 may be off by u, whatever the loss is. A probability has the relative error of its"
        " exponent, C + 14 units of 1 + |m| + log s + |z_j|; subtracting 1 and dividing by N add 4, measured"
        " against 1 at the target."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {"empty_mean": "undefined", "loss_dtype": "input_dtype"},
        "tensorflow": {"empty_mean": "undefined", "loss_dtype": "input_dtype", "subnormals": "flush"},
    },
)  # fmt: skip
