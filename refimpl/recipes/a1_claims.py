"""What article A1 says, each statement with a run that shows how it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import clipping, models, scores
from ..pruning import prune_fraction, prune_threshold
from . import training
from .a1 import EPOCHS, MODEL, PLAN, WEIGHTS, fit, shrinking
from .report import Claim, Report, Table
from .script import shrunk
from .training import Options


def difference(options: Options) -> Report:
    """Output minus target beside the gradient: other shapes, other numbers."""
    data = training.parts(options.data, options.seed)
    params = models.initial_params(MODEL, data.shape, options.seed)
    x, labels = data.train.x[:48], data.train.labels[:48]
    y, backprop = models.forward(MODEL, params, x)
    _, loss_gradient = models.loss(training.CROSS_ENTROPY, y, labels)
    _, grads = backprop(loss_gradient())
    residual = y - (np.arange(10) == labels[:, None])
    rows = [("output - target", str(residual.shape), float(np.linalg.norm(residual)))]
    for name, grad in zip(("W₁", "b₁", "W₂", "b₂"), grads, strict=True):
        rows.append((f"∂loss/∂{name}", str(grad.shape), float(np.linalg.norm(grad))))
    text = (
        "The gradient is the derivative of the loss by each weight and has the weights' shapes. A difference "
        "enters it (softmax minus target, by the chain rule), it is not the difference."
    )
    table = Table("", ("", "shape", "norm"), ("", "", ".4f"), rows)
    same = sum(g.shape == residual.shape for g in grads)
    return Report("What a gradient is", [text], [table], (), {"same_shape": same})


def clipping_(options: Options) -> Report:
    """One step of the method: the norm of the gradient before and after, and the weights."""
    data = training.parts(options.data, options.seed)
    params = models.initial_params(MODEL, data.shape, options.seed)
    y, backprop = models.forward(MODEL, params, data.train.x[:32])
    _, loss_gradient = models.loss(training.CROSS_ENTROPY, y, data.train.labels[:32])
    _, grads = backprop(loss_gradient())
    before = float(clipping.global_norm(grads))
    after_params = shrunk(shrinking(1e-3, 0.5), params, grads)
    after = float(clipping.global_norm(grads))
    changed = sum(int(np.count_nonzero(a != b)) for a, b in zip(params, after_params, strict=True))
    text = (
        f"Norm of the gradient before {before:.4f}, after {after:.4f}; weights changed: {changed:,}. "
        "It is a pruning of weights, chosen by their gradients."
    )
    numbers = {"before": before, "after": after, "changed": changed}
    return Report("Called gradient clipping", [text], (), (), numbers)


def labels(options: Options) -> Report:
    """Differentiate the labels by the weights: nothing depends on them; everything is "small"."""
    data = training.parts(options.data, options.seed)
    params = models.initial_params(MODEL, data.shape, options.seed)
    weights = [params[i] for i in WEIGHTS]
    step = 1e-3
    slope = 0.0
    for w in weights:
        moved = w + np.float32(step)
        assert not np.array_equal(w, moved)
        # the labels after a step of any weight, minus the labels before it
        slope = max(slope, float(np.max(abs(data.train.labels - data.train.labels))) / step)
    zero = [np.zeros_like(w) for w in weights]
    masks, _ = prune_threshold(weights, scores.gradient(zero), 0.01)
    share = training.sparsity(masks)
    text = (
        f"Difference quotient: {slope:g}. A framework gives no gradient at all (None); taken for 0, it selects "
        f"{share:.0%} of the weights at any threshold. A loss that is a constant is not minimised either."
    )
    numbers = {"slope": slope, "selected": share}
    return Report("The labels, differentiated by the weights", [text], (), (), numbers)


def stationary(options: Options) -> Report:
    """Prune a trained network by small gradients, small weights, small products of the two."""
    data = training.parts(options.data, options.seed)
    state = fit(data, options.seed, options.epochs or 2 * EPOCHS, None)
    y, backprop = models.forward(MODEL, state.params, data.train.x)
    _, loss_gradient = models.loss(training.CROSS_ENTROPY, y, data.train.labels)
    _, grads = backprop(loss_gradient())
    weights, own = [state.params[i] for i in WEIGHTS], [grads[i] for i in WEIGHTS]
    ranked = {
        "|gradient|": scores.gradient(own),
        "|weight|": scores.magnitude(weights),
        "|gradient · weight|": scores.taylor(weights, own),
    }
    rows: list[Any] = []
    amounts = (0.0, 0.4, 0.6, 0.8)
    for name, score in ranked.items():
        shares = []
        for amount in amounts:
            masks, _ = prune_fraction(weights, score, amount=amount, scope="global")
            kept = training.spread(masks, WEIGHTS, 4)
            params = training.pruned(PLAN, state.params, kept).params
            shares.append(training.share_right(MODEL, params, data.test))
        rows.append((name, *shares))
    trained = float(clipping.global_norm(grads))
    text = (
        f"After training the norm of the gradient over all examples is {trained:.4f}: all weights are near "
        "a stationary point, the important ones too. How much one matters, the loss without it says."
    )
    header = ("smallest first", *(f"{a:.0%} pruned" for a in amounts))
    table = Table("Test accuracy", header, ("", *[".2%"] * len(amounts)), rows)
    numbers = {"by_gradient": rows[0][-1], "by_magnitude": rows[1][-1], "norm": trained}
    return Report("A small gradient means an unimportant weight", [text], [table], (), numbers)


CLAIMS = (
    Claim(
        "difference",
        "The gradient is the difference between output and target.",
        "It is the derivative of the loss by the weights.",
        difference,
    ),
    Claim(
        "clipping",
        "The method is gradient clipping.",
        "No gradient is clipped: weights are pruned where gradients are small.",
        clipping_,
    ),
    Claim(
        "labels",
        "`tape.gradient(labels, weights)` gives the gradients.",
        "Labels do not depend on weights. The program gets None, and what it minimises is a constant.",
        labels,
    ),
    Claim(
        "assign",
        "`weights[i] = weights[i] * (1 - alpha)`",
        "A `tf.Variable` takes no item assignment; `assign` writes to it.",
        needs="tensorflow",
    ),
    Claim(
        "stationary",
        "A weight with a small gradient is unimportant.",
        "A small gradient says that the weight is near a stationary point of the loss.",
        stationary,
    ),
)
