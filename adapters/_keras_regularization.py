"""Keras's regularisers, differentiated by the backend, and its constraints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from adapters._keras_backend import (
    BACKEND,
    FLUSH,
    WIDE,
    Outputs,
    Tensor,
    Tensors,
    dtype_of,
    pull_back,
)
from adapters.base import Operations, Unsupported

operations = Operations()

REGULARIZERS: dict[str, Callable[..., Any]] = {
    "penalty.l1": lambda strength: keras.regularizers.L1(strength),
    "penalty.l2": lambda strength: keras.regularizers.L2(strength),
    "penalty.elastic_net": keras.regularizers.L1L2,
}


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


@operations.operation("penalty.l1", WIDE, PENALTY | SIGN)
def penalty_l1(weights: Tensors, *, strength: float) -> Outputs:
    """``keras.regularizers.L1``."""
    return _penalty(weights, keras.regularizers.L1(strength))


@operations.operation("penalty.l2", WIDE, PENALTY)
def penalty_l2(weights: Tensors, *, strength: float) -> Outputs:
    """``keras.regularizers.L2``."""
    return _penalty(weights, keras.regularizers.L2(strength))


@operations.operation("penalty.elastic_net", WIDE, PENALTY | SIGN)
def penalty_elastic_net(weights: Tensors, *, l1: float, l2: float) -> Outputs:
    """``keras.regularizers.L1L2``."""
    return _penalty(weights, keras.regularizers.L1L2(l1, l2))


@operations.operation(
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


def penalty_gradients(variables: list[Any], penalty: Mapping[str, Any] | None) -> Tensors:
    """Return the gradients of a regulariser over variables, without a penalty nothing for each."""
    if penalty is None:
        return [None] * len(variables)
    made = REGULARIZERS.get(penalty["operation"])
    if made is None:
        raise Unsupported("Keras has no groups in its penalties")
    regularizer = made(**{k: v for k, v in penalty.items() if k != "operation"})
    return _penalty([keras.ops.convert_to_tensor(v.value) for v in variables], regularizer)["grads"]
