"""TensorFlow's regularisation: Keras's regularisers and constraints, and proximal steps of ``tf.raw_ops``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import tensorflow as tf

from adapters._tensorflow_arrays import WIDE, Outputs, Tensor, Tensors, each
from adapters.base import Operations, Unsupported

operations = Operations()


def _penalty(weights: Tensors, regularizer: Callable[[Tensor], Tensor]) -> Outputs:
    """Return the sum of a regulariser over the weights, and its gradients.

    Keras gives the value the dtype of the weight, and keeps its weights wide: under mixed precision
    they are float32 too.
    """
    present = [weight for weight in weights if weight is not None]
    if len({weight.dtype for weight in present}) > 1:
        raise Unsupported("each regulariser of Keras has the dtype of its weight: they do not add")
    with tf.GradientTape() as tape:
        tape.watch(present)
        value = tf.add_n([regularizer(weight) for weight in present])
    # A regulariser leaves out a part whose strength is 0, so that there may be nothing to connect.
    unconnected = tf.UnconnectedGradients.ZERO
    grads = iter(tape.gradient(value, present, unconnected_gradients=unconnected))
    return {"value": value, "grads": each(lambda _: next(grads), weights)}


PENALTY = {"hyperparameters": "float32", "subnormals": "flush"}


@operations.operation("penalty.l1", dtypes=WIDE, dialect=PENALTY)
def penalty_l1(weights: Tensors, *, strength: float) -> Outputs:
    """``tf.keras.regularizers.L1``."""
    return _penalty(weights, tf.keras.regularizers.L1(strength))


@operations.operation("penalty.l2", dtypes=WIDE, dialect=PENALTY)
def penalty_l2(weights: Tensors, *, strength: float) -> Outputs:
    """``tf.keras.regularizers.L2``."""
    return _penalty(weights, tf.keras.regularizers.L2(strength))


@operations.operation("penalty.elastic_net", dtypes=WIDE, dialect=PENALTY)
def penalty_elastic_net(weights: Tensors, *, l1: float, l2: float) -> Outputs:
    """``tf.keras.regularizers.L1L2``."""
    return _penalty(weights, tf.keras.regularizers.L1L2(l1, l2))


def _proximal(weights: Tensors, l1: float, l2: float, step: float) -> Outputs:
    """One step of ``tf.raw_ops.ResourceApplyProximalGradientDescent`` with a gradient of zero."""

    def one(weight: Tensor) -> Tensor:
        variable, number = tf.Variable(weight), partial(tf.constant, dtype=weight.dtype)
        tf.raw_ops.ResourceApplyProximalGradientDescent(
            var=variable.handle, alpha=number(step), l1=number(l1), l2=number(l2),
            delta=tf.zeros_like(weight),
        )  # fmt: skip
        return variable.read_value()

    return {"weights": each(one, weights)}


@operations.operation(
    "prox.l1", dtypes=WIDE, dialect={"zero_sign": "of_weight", "subnormals": "flush"}
)
def prox_l1(weights: Tensors, *, strength: float, step: float) -> Outputs:
    """``tf.raw_ops.ResourceApplyProximalGradientDescent`` with l1."""
    return _proximal(weights, strength, 0.0, step)


@operations.operation("prox.l2", dtypes=WIDE, dialect={"half": True, "subnormals": "flush"})
def prox_l2(weights: Tensors, *, strength: float, step: float) -> Outputs:
    """``tf.raw_ops.ResourceApplyProximalGradientDescent`` with l2, whose penalty is halved."""
    return _proximal(weights, 0.0, strength, step)


@operations.operation(
    "prox.elastic_net",
    dtypes=WIDE,
    dialect={"half": True, "zero_sign": "of_weight", "subnormals": "flush"},
)
def prox_elastic_net(weights: Tensors, *, l1: float, l2: float, step: float) -> Outputs:
    """``tf.raw_ops.ResourceApplyProximalGradientDescent`` with l1 and l2, whose penalty is halved."""
    return _proximal(weights, l1, l2, step)


@operations.operation(
    "project.max_norm",
    dtypes=WIDE,
    dialect={
        "eps": 1e-7, "below_limit": "rescaled", "nonfinite": "multiply", "norm": "naive",
        "infinite_limit": "multiply", "negative_limit": "zeros", "nan_limit": "all_nan",
        "subnormals": "flush",
    },
)  # fmt: skip
def project_max_norm(weights: Tensors, *, max_norm: float, axis: int | list[int]) -> Outputs:
    """``tf.keras.constraints.MaxNorm``, whose axis is what the norms run over."""

    def one(weight: Tensor) -> Tensor:
        rank = len(weight.shape)
        groups = axis if isinstance(axis, list) else [axis]
        if len({a % rank for a in groups if -rank <= a < rank} if rank else ()) != len(groups):
            raise Unsupported("tf.keras.constraints.MaxNorm takes the other axes")
        rest = [a for a in range(rank) if a not in {g % rank for g in groups}]
        return tf.keras.constraints.MaxNorm(max_norm, axis=rest)(weight)

    return {"weights": each(one, weights)}
