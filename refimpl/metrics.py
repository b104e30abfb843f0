"""Validation: how good a model is on data that it does not learn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .arrays import Array, astype, namespace
from .checks import same_length
from .models import Model, forward, loss


def accuracy(logits: Array, targets: Array) -> Array:
    """Return the share of examples whose largest logit is that of their class, as 0-d float32.

    ``logits`` is (N, C), ``targets`` (N,) holds class indices. Among equal logits the first counts;
    an example with a NaN logit is wrong whatever its class is. Raises ValueError for shapes that do
    not fit and where there are no examples, which have no accuracy.
    """
    xp = namespace(logits, targets)
    if logits.ndim != 2 or tuple(targets.shape) != (logits.shape[0],):
        raise ValueError(
            f"logits must be (N, C) and targets (N,), "
            f"got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    if 0 in logits.shape:
        raise ValueError(f"accuracy needs examples and classes, got logits {tuple(logits.shape)}")
    sound = ~xp.any(xp.isnan(logits), axis=1)
    # where a NaN stands nothing is compared, for libraries differ in what the largest is
    comparable = xp.where(xp.isnan(logits), xp.zeros_like(logits), logits)
    guesses = astype(xp, xp.argmax(comparable, axis=1), targets.dtype)
    return xp.mean(astype(xp, sound & (guesses == targets), xp.float32))


def evaluate(
    model: Model,
    loss_description: Mapping[str, Any],
    params: Sequence[Array],
    batches: Iterable[tuple[Array, Array]],
) -> dict[str, float]:
    """Return ``loss``, ``accuracy`` (for class targets) and ``examples`` over all batches.

    Both are means over the *examples*: a last batch that is smaller weighs less, so that the result
    does not depend on how the data are cut. With ``reduction`` ``sum`` the loss is the sum over all
    examples. ``batches`` yields ``(x, targets)``; batches without examples do not count. The sums
    are kept in Python floats, one value per batch read from the device.

    Raises ValueError where there are no examples at all.
    """
    mean = loss_description.get("reduction", "mean") == "mean"
    classes = loss_description["operation"] == "loss.softmax_cross_entropy"
    total, right, examples = 0.0, 0.0, 0
    for x, targets in batches:
        same_length("x", x, "targets", targets)
        count = int(x.shape[0])
        if not count:
            continue
        y, _ = forward(model, params, x)
        value, _ = loss(loss_description, y, targets)
        total += float(value) * (count if mean else 1)
        right += float(accuracy(y, targets)) * count if classes else 0.0
        examples += count
    if not examples:
        raise ValueError("there are no examples to evaluate the model on")
    result = {"loss": total / examples if mean else total, "examples": float(examples)}
    return result | ({"accuracy": right / examples} if classes else {})
