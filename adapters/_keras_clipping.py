"""Keras's clipping, which its optimisers do: seen in one whose step is to keep the gradient it is given."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from adapters._keras_backend import FLUSH, Outputs, Tensor, Tensors
from adapters._keras_optimizers import step
from adapters.base import Operations, Unsupported

operations = Operations()


class Keep(keras.optimizers.Optimizer):
    """An optimiser whose step is to keep the gradient that it is given after clipping."""

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        """Write the gradient to its variable."""
        self.assign(variable, gradient)


def _clipped(grads: Tensors, **clip: float) -> Tensors:
    """Return the gradients as a Keras optimiser applies them."""
    if all(g is None for g in grads):
        raise Unsupported("an optimiser of Keras without a gradient has nothing to apply")
    if any(g is other for i, g in enumerate(grads) if g is not None for other in grads[:i]):
        raise Unsupported("an optimiser of Keras has each variable once")
    kept = step(Keep(1.0, **clip), [g for g in grads if g is not None])
    return [None if g is None else kept.pop(0) for g in grads]


def norm(grads: Tensors) -> Tensor:
    """Return the norm before clipping, which no optimiser of Keras tells, as a user would measure it."""
    squares = [ops.sum(ops.square(g)) for g in grads if g is not None]
    return ops.sqrt(ops.sum(ops.stack(squares)))


def _only_two(ord: float) -> None:
    if ord != 2:
        raise Unsupported("Keras clips by the 2-norm only")


CLIP_NORM = {
    "norm": "naive", "below_limit": "rescaled", "infinite_limit": "nan", "zero_limit": "disabled",
    "negative_limit": "ignore", "nan_limit": "ignore", "accumulate": "input_dtype",
    "norm_dtype": "input_dtype", **FLUSH,
}  # fmt: skip


@operations.operation("clip.global_norm", dialect=CLIP_NORM)
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``keras.optimizers.Optimizer(global_clipnorm=…)``."""
    _only_two(ord)
    return {"grads": _clipped(grads, global_clipnorm=max_norm), "total_norm": norm(grads)}


@operations.operation("clip.norm", dialect=CLIP_NORM | {"nonfinite": "multiply"})
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``keras.optimizers.Optimizer(clipnorm=…)``."""
    _only_two(ord)
    return {
        "grads": _clipped(grads, clipnorm=max_norm),
        "norms": [None if g is None else norm([g]) for g in grads],
    }


@operations.operation(
    "clip.value", dialect={"zero_limit": "disabled", "nan_limit": "ignore", **FLUSH}
)
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``keras.optimizers.Optimizer(clipvalue=…)``."""
    if range is not None and min is None and max is None:
        min, max = -range / 2, range / 2
    if range is not None or max is None or min != -max:
        raise Unsupported("the clipvalue of Keras is one bound for both signs")
    return {"grads": _clipped(grads, clipvalue=max)}
