"""TensorFlow and its Keras: ``tf.clip_by_global_norm``, ``tf.keras.optimizers``, ``tf.nn`` and friends."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

# Read when TensorFlow is loaded: its start-up notices would bury what matters on standard error.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from adapters import _tensorflow_layers, _tensorflow_training
from adapters.base import Adapter, Unsupported, interval

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]

WIDE = ("float64", "float32")

adapter = Adapter(
    "tensorflow",
    version=f"{tf.__version__}+keras.{tf.keras.__version__}",
    homepage="https://www.tensorflow.org",
    to_native=tf.constant,
    to_numpy=lambda tensor: tensor.numpy(),
    rejections=(tf.errors.InvalidArgumentError, TypeError),  # TypeError: of dtypes
)


def _each(function: Callable[[Tensor], Tensor], tensors: Tensors) -> Tensors:
    return [None if tensor is None else function(tensor) for tensor in tensors]


def _only_two(ord: float) -> None:
    if ord != 2:
        raise Unsupported("TensorFlow clips by the 2-norm only")


@adapter.operation(
    "clip.global_norm",
    dialect={
        "norm": "naive", "below_limit": "rescaled", "zero_over_zero": "nan",
        "infinite_limit": "nan", "negative_limit": "ignore", "nan_limit": "nan",
        "subnormals": "flush", "accumulate": "input_dtype", "norm_dtype": "input_dtype",
        "duplicates": "twice",
    },
)  # fmt: skip
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``tf.clip_by_global_norm``."""
    _only_two(ord)
    clipped, total = tf.clip_by_global_norm(grads, max_norm)
    return {"grads": clipped, "total_norm": total}


@adapter.operation(
    "clip.norm",
    dialect={
        "nonfinite": "multiply", "norm": "naive", "below_limit": "rescaled",
        "zero_over_zero": "nan", "infinite_limit": "nan", "negative_limit": "zeros",
        "nan_limit": "nan", "subnormals": "flush", "accumulate": "input_dtype",
        "norm_dtype": "input_dtype",
    },
)  # fmt: skip
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``tf.clip_by_norm``, which returns no norm: the norms are those of ``tf.norm``."""
    _only_two(ord)
    clipped = _each(lambda g: tf.clip_by_norm(g, max_norm), grads)
    return {"grads": clipped, "norms": _each(tf.norm, grads)}


@adapter.operation(
    "clip.value",
    dialect={"crossed_bounds": "min_wins", "nan_limit": "nan", "subnormals": "flush"},
)
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``tf.clip_by_value``; a bound that is not given is an infinite one."""
    min, max = interval(
        min, max, range, "tf.clip_by_value takes two bounds, and no width beside them"
    )
    if min is None and max is None:
        raise Unsupported("tf.clip_by_value cannot be called without a bound")
    low = -np.inf if min is None else min
    high = np.inf if max is None else max
    return {"grads": _each(lambda g: tf.clip_by_value(g, low, high), grads)}


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
    return {"value": value, "grads": _each(lambda _: next(grads), weights)}


PENALTY = {"hyperparameters": "float32", "subnormals": "flush"}


@adapter.operation("penalty.l1", dtypes=WIDE, dialect=PENALTY)
def penalty_l1(weights: Tensors, *, strength: float) -> Outputs:
    """``tf.keras.regularizers.L1``."""
    return _penalty(weights, tf.keras.regularizers.L1(strength))


@adapter.operation("penalty.l2", dtypes=WIDE, dialect=PENALTY)
def penalty_l2(weights: Tensors, *, strength: float) -> Outputs:
    """``tf.keras.regularizers.L2``."""
    return _penalty(weights, tf.keras.regularizers.L2(strength))


@adapter.operation("penalty.elastic_net", dtypes=WIDE, dialect=PENALTY)
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

    return {"weights": _each(one, weights)}


@adapter.operation(
    "prox.l1", dtypes=WIDE, dialect={"zero_sign": "of_weight", "subnormals": "flush"}
)
def prox_l1(weights: Tensors, *, strength: float, step: float) -> Outputs:
    """``tf.raw_ops.ResourceApplyProximalGradientDescent`` with l1."""
    return _proximal(weights, strength, 0.0, step)


@adapter.operation("prox.l2", dtypes=WIDE, dialect={"half": True, "subnormals": "flush"})
def prox_l2(weights: Tensors, *, strength: float, step: float) -> Outputs:
    """``tf.raw_ops.ResourceApplyProximalGradientDescent`` with l2, whose penalty is halved."""
    return _proximal(weights, 0.0, strength, step)


@adapter.operation(
    "prox.elastic_net",
    dtypes=WIDE,
    dialect={"half": True, "zero_sign": "of_weight", "subnormals": "flush"},
)
def prox_elastic_net(weights: Tensors, *, l1: float, l2: float, step: float) -> Outputs:
    """``tf.raw_ops.ResourceApplyProximalGradientDescent`` with l1 and l2, whose penalty is halved."""
    return _proximal(weights, l1, l2, step)


@adapter.operation(
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

    return {"weights": _each(one, weights)}


def _trajectory(
    optimizer: Callable[..., Any],
    params: Tensors,
    grads: list[Tensors],
    lr: float | list[float],
    **options: Any,
) -> Outputs:
    """Step a Keras optimiser, built on all the parameters, through the gradients that are there."""
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    if optimizer is not tf.keras.optimizers.AdamW and not options["weight_decay"]:
        options["weight_decay"] = None  # its default: no decay, rather than one of 0 * w
    variables = [tf.Variable(param) for param in params]
    stepper = optimizer(rates[0] if rates else 0.0, **options)
    stepper.build(variables)
    after = []
    for rate, step in zip(rates, grads, strict=True):
        stepper.learning_rate = rate
        pairs = [(g, v) for g, v in zip(step, variables, strict=True) if g is not None]
        stepper.apply([g for g, _ in pairs], [v for _, v in pairs])
        after.append([variable.read_value() for variable in variables])
    return {"params": after}


@adapter.operation(
    "optim.sgd",
    dtypes=WIDE,
    dialect={
        "decay": "decoupled_by_lr", "momentum_form": "lr_inside", "hyperparameters": "float32",
        "subnormals": "flush", "in_place": "documented",
    },
)  # fmt: skip
def optim_sgd(
    params: Tensors,
    grads: list[Tensors],
    *,
    lr: float | list[float],
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
) -> Outputs:
    """``tf.keras.optimizers.SGD``."""
    if dampening:
        raise Unsupported("tf.keras.optimizers.SGD has no dampening")
    return _trajectory(
        tf.keras.optimizers.SGD, params, grads, lr,
        momentum=float(momentum), nesterov=nesterov, weight_decay=weight_decay,
    )  # fmt: skip


def _adam(
    optimizer: Callable[..., Any],
    params: Tensors,
    grads: list[Tensors],
    *,
    lr: float | list[float],
    beta1: float,
    beta2: float,
    eps: float,
    **options: Any,
) -> Outputs:
    return _trajectory(
        optimizer, params, grads, lr, beta_1=beta1, beta_2=beta2, epsilon=eps, **options
    )


@adapter.operation(
    "optim.adam",
    dtypes=WIDE,
    dialect={
        "eps_at": "before_bias_correction", "decay": "decoupled_by_lr",
        "hyperparameters": "float32", "step_count": "optimizer", "subnormals": "flush",
        "in_place": "documented",
    },
)  # fmt: skip
def optim_adam(params: Tensors, grads: list[Tensors], **options: Any) -> Outputs:
    """``tf.keras.optimizers.Adam``."""
    return _adam(tf.keras.optimizers.Adam, params, grads, **options)


@adapter.operation(
    "optim.adamw",
    dtypes=WIDE,
    dialect={
        "eps_at": "before_bias_correction", "hyperparameters": "float32",
        "step_count": "optimizer", "subnormals": "flush", "in_place": "documented",
    },
)  # fmt: skip
def optim_adamw(params: Tensors, grads: list[Tensors], **options: Any) -> Outputs:
    """``tf.keras.optimizers.AdamW``."""
    return _adam(tf.keras.optimizers.AdamW, params, grads, **options)


@adapter.operation(
    "optim.rmsprop",
    dtypes=WIDE,
    dialect={
        "eps_at": "inside_root", "decay": "decoupled_by_lr", "momentum_form": "lr_inside",
        "hyperparameters": "float32", "subnormals": "flush", "in_place": "documented",
    },
)  # fmt: skip
def optim_rmsprop(
    params: Tensors,
    grads: list[Tensors],
    *,
    lr: float | list[float],
    alpha: float,
    eps: float,
    **options: Any,
) -> Outputs:
    """``tf.keras.optimizers.RMSprop``."""
    return _trajectory(
        tf.keras.optimizers.RMSprop, params, grads, lr, rho=alpha, epsilon=eps, **options
    )


@adapter.operation(
    "optim.adagrad",
    dtypes=WIDE,
    dialect={
        "eps_at": "inside_root", "decay": "decoupled_by_lr", "hyperparameters": "float32",
        "subnormals": "flush", "in_place": "documented",
    },
)  # fmt: skip
def optim_adagrad(
    params: Tensors,
    grads: list[Tensors],
    *,
    lr: float | list[float],
    lr_decay: float,
    eps: float,
    initial_accumulator: float,
    weight_decay: float,
) -> Outputs:
    """``tf.keras.optimizers.Adagrad``."""
    if lr_decay:
        raise Unsupported("tf.keras.optimizers.Adagrad has no lr_decay")
    return _trajectory(
        tf.keras.optimizers.Adagrad, params, grads, lr, epsilon=eps,
        initial_accumulator_value=initial_accumulator, weight_decay=weight_decay,
    )  # fmt: skip


LACKING = {
    "TensorFlow prunes in another package, TensorFlow Model Optimization": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "Keras schedules learning rates only: in float32, with no first step and no mask updates": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "TensorFlow has no clip by the norms of units or of examples": "clip.unitwise clip.per_example",
    "TensorFlow's sharded norms need a distribution strategy; this suite runs one process": """
        dist.global_norm""",
    "TensorFlow has no groups in its penalties and proximal steps": """
        penalty.group_lasso prox.group_lasso""",
    "TensorFlow has no such operator": "prox.hard_threshold project.l1_ball layer.dropout",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations)

_tensorflow_layers.register(adapter)
_tensorflow_training.register(adapter)
