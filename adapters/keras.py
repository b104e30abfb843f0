"""Keras 3 on the backend that KERAS_BACKEND names: its optimisers' clipping, regularisers, constraints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from adapters import _keras_layers, _keras_optimizers
from adapters._keras_backend import (
    BACKEND,
    FLUSH,
    REFUSALS,
    VERSION,
    dtype_of,
    pull_back,
    to_native,
    to_numpy,
)  # fmt: skip
from adapters._keras_optimizers import step
from adapters.base import Adapter, Function, Unsupported

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]

WIDE = ("float64", "float32")

adapter = Adapter(
    f"keras_{BACKEND}",
    version=f"{keras.__version__}+{BACKEND}.{VERSION.replace('+', '.')}",
    homepage="https://keras.io",
    to_native=to_native,
    to_numpy=to_numpy,
    rejections=REFUSALS,
)


# --- clipping ---------------------------------------------------------------------------------


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


def _norm(grads: Tensors) -> Tensor:
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


@adapter.operation("clip.global_norm", dialect=CLIP_NORM)
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``keras.optimizers.Optimizer(global_clipnorm=…)``."""
    _only_two(ord)
    return {"grads": _clipped(grads, global_clipnorm=max_norm), "total_norm": _norm(grads)}


@adapter.operation("clip.norm", dialect=CLIP_NORM | {"nonfinite": "multiply"})
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``keras.optimizers.Optimizer(clipnorm=…)``."""
    _only_two(ord)
    return {
        "grads": _clipped(grads, clipnorm=max_norm),
        "norms": [None if g is None else _norm([g]) for g in grads],
    }


@adapter.operation("clip.value", dialect={"zero_limit": "disabled", "nan_limit": "ignore", **FLUSH})
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


# --- regularisation -----------------------------------------------------------------------------


def _penalty(weights: Tensors, regularizer: Callable[[Tensor], Tensor]) -> Outputs:
    """Return the sum of a regulariser over the weights, and its gradients."""
    present = [weight for weight in weights if weight is not None]
    if not present or len({dtype_of(weight) for weight in present}) > 1:
        raise Unsupported("each regulariser of Keras has the dtype of its weight")
    value, found = pull_back(lambda leaves: sum(map(regularizer, leaves)), present)
    grads = iter(found)
    return {"value": value, "grads": [None if w is None else next(grads) for w in weights]}


PENALTY = {"hyperparameters": "float32", **FLUSH} if BACKEND == "tensorflow" else FLUSH
# Clipping to [0, a negative limit] gives 0, but on JAX the limit.
NEGATIVE = {} if BACKEND == "jax" else {"negative_limit": "zeros"}
SIGN = {"sign_of_zero": "plus_one"} if BACKEND == "jax" else {}


@adapter.operation("penalty.l1", WIDE, PENALTY | SIGN)
def penalty_l1(weights: Tensors, *, strength: float) -> Outputs:
    """``keras.regularizers.L1``."""
    return _penalty(weights, keras.regularizers.L1(strength))


@adapter.operation("penalty.l2", WIDE, PENALTY)
def penalty_l2(weights: Tensors, *, strength: float) -> Outputs:
    """``keras.regularizers.L2``."""
    return _penalty(weights, keras.regularizers.L2(strength))


@adapter.operation("penalty.elastic_net", WIDE, PENALTY | SIGN)
def penalty_elastic_net(weights: Tensors, *, l1: float, l2: float) -> Outputs:
    """``keras.regularizers.L1L2``."""
    return _penalty(weights, keras.regularizers.L1L2(l1, l2))


@adapter.operation(
    "project.max_norm",
    WIDE,
    {
        "eps": 1e-7, "below_limit": "rescaled", "nonfinite": "multiply", "norm": "naive",
        "infinite_limit": "multiply", "nan_limit": "all_nan", **NEGATIVE, **FLUSH,
    },
)  # fmt: skip
def project_max_norm(weights: Tensors, *, max_norm: float, axis: int | list[int]) -> Outputs:
    """``keras.constraints.MaxNorm``, whose axis is what the norms run over."""

    def one(weight: Tensor) -> Tensor:
        rank, named = len(weight.shape), axis if isinstance(axis, list) else [axis]
        groups = {a % rank for a in named if -rank <= a < rank}
        if len(groups) != len(named):
            raise Unsupported("keras.constraints.MaxNorm takes the other axes")
        rest = [a for a in range(rank) if a not in groups]
        return keras.constraints.MaxNorm(max_norm, axis=rest)(weight)

    return {"weights": [None if w is None else one(w) for w in weights]}


LACKING = {
    "Keras has no pruning": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "Keras schedules learning rates only: in float32, with no first step and no mask updates": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "Keras has no clip by the norms of units or of examples": "clip.unitwise clip.per_example",
    "Keras takes norms in one process": "dist.global_norm",
    "Keras has no groups in its penalties, and no proximal steps": """
        penalty.group_lasso prox.l1 prox.l2 prox.elastic_net prox.group_lasso prox.hard_threshold""",
    "Keras has no such constraint": "project.l1_ball",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations)

_keras_layers.register(adapter)
_keras_optimizers.register(adapter)


def _in_floatx(function: Function) -> Function:
    """Let floatx be float64 where a tensor is: Keras keeps numbers of its own in it, so its users do so."""

    def run(**arguments: Any) -> Mapping[str, Any]:
        wide = any(
            dtype_of(x) == "float64" for x in keras.tree.flatten(arguments) if hasattr(x, "dtype")
        )
        keras.config.set_floatx("float64" if wide else "float32")
        try:
            return function(**arguments)
        finally:
            keras.config.set_floatx("float32")

    return run


for operation_id, function in adapter.functions.items():
    # TensorFlow rounds Python numbers to float32 whatever floatx is, which is one setting of a dial.
    if BACKEND != "tensorflow" or not operation_id.startswith(("optim.", "train.")):
        adapter.functions[operation_id] = _in_floatx(function)
