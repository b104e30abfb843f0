"""TensorFlow's custom training loop: GradientTape, ``tf.clip_by_*``, Keras optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from adapters.base import Adapter, Unsupported

Tensor = Any
Description = Mapping[str, Any]
Outputs = dict[str, Any]

OPTIMIZERS = {
    "optim.sgd": tf.keras.optimizers.SGD,
    "optim.adam": tf.keras.optimizers.Adam,
    "optim.adamw": tf.keras.optimizers.AdamW,
}
NAMES = {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}
DIALECT = {
    "clip.negative_limit": "ignore",
    "optimizer.momentum_form": "lr_inside",
    "optimizer.eps_at": "before_bias_correction",
    "optimizer.decay": "decoupled_by_lr",
    "optimizer.hyperparameters": "float32",
    "optimizer.step_count": "optimizer",
}


def make_optimizer(variables: list[Any], description: Description) -> Any:
    """Return a Keras optimiser that is built on the variables."""
    options = {
        NAMES.get(name, name): value
        for name, value in description.items()
        if name not in ("operation", "lr")
    }
    if options.pop("dampening", 0):
        raise Unsupported("tf.keras.optimizers.SGD has no dampening")
    adaptive = description["operation"] != "optim.sgd"
    decay = {"weight_decay": 0.0} if description["operation"] == "optim.adamw" else {}
    defaults = ({"epsilon": 1e-8} if adaptive else {}) | decay
    stepper = OPTIMIZERS[description["operation"]](at(description["lr"], 0), **(defaults | options))
    stepper.build(variables)
    return stepper


def clip_gradients(
    grads: list[Tensor], description: Description | None
) -> tuple[list[Tensor], Tensor]:
    """Return the clipped gradients and their norm before that."""
    total = tf.linalg.global_norm(grads)
    if description is None:
        return grads, total
    order = description.get("ord", 2)
    if description["operation"] == "clip.value":
        low = description["min"] if description.get("min") is not None else grads[0].dtype.min
        high = description["max"] if description.get("max") is not None else grads[0].dtype.max
        return [tf.clip_by_value(g, low, high) for g in grads], total
    if order != 2:
        raise Unsupported("tf.clip_by_norm and tf.clip_by_global_norm know the 2-norm only")
    if description["operation"] == "clip.norm":
        return [tf.clip_by_norm(g, description["max_norm"]) for g in grads], total
    return tf.clip_by_global_norm(grads, description["max_norm"])


def penalty_of(variables: list[Any], description: Description) -> Tensor:
    """Return a penalty of ``tf.keras.regularizers`` as part of the loss."""
    kinds = {"penalty.l1": tf.keras.regularizers.L1, "penalty.l2": tf.keras.regularizers.L2}
    regularizer = kinds[description["operation"]](description["strength"])
    return tf.add_n([regularizer(variable) for variable in variables])


def train_step(
    params: list[Tensor],
    grads: list[list[list[Tensor | None]]],
    masks: list[Tensor | None] | None = None,
    *,
    optimizer: Description,
    clip: Description | None = None,
    penalty: Description | None = None,
    accumulate: str = "mean",
    loss_scale: Any = 1.0,
) -> Outputs:
    """A user's loop over given gradients: add up, unscale, check, clip, apply, mask."""
    if any(not micro for micro in grads):
        raise Unsupported("a loop over no micro-batches calls nothing of TensorFlow")
    if any(at(loss_scale, step) <= 0 for step in range(len(grads))):
        raise Unsupported(
            "a loss scale that the user's loop divides by is not TensorFlow's to check"
        )
    variables = [tf.Variable(p) for p in params]
    stepper = make_optimizer(variables, optimizer)
    after, norms, skipped = [], [], []
    for step, micro_batches in enumerate(grads):
        combined = _combined(micro_batches, accumulate, at(loss_scale, step))
        if penalty is not None:
            with tf.GradientTape() as tape:
                extra = penalty_of(variables, penalty)
            pairs = zip(combined, tape.gradient(extra, variables), strict=True)
            combined = [e if g is None else g + e for g, e in pairs]
        there = [(g, v) for g, v in zip(combined, variables, strict=True) if g is not None]
        given, own = [g for g, _ in there], [v for _, v in there]
        finite = all(bool(tf.reduce_all(tf.math.is_finite(g))) for g in given)
        clipped, total = clip_gradients(given, clip)
        norms.append(total if finite else tf.linalg.global_norm(given))
        skipped.append(not finite)
        if finite:
            stepper.learning_rate = at(optimizer["lr"], step)
            stepper.apply(clipped, own)
            mask_weights(stepper, variables, masks)
        after.append([v.read_value() for v in variables])
    return {
        "params": after,
        "total_norm": tf.stack(norms),
        "skipped": tf.constant(skipped, dtype=tf.int32),
    }


def _combined(micro_batches: Any, accumulate: str, scale: float) -> list[Tensor | None]:
    share = len(micro_batches) if accumulate == "mean" else 1
    result = []
    for parts in zip(*micro_batches, strict=True):
        given = [g for g in parts if g is not None]
        result.append(tf.add_n(given) / share / scale if given else None)
    return result


def mask_weights(stepper: Any, variables: list[Any], masks: list[Tensor | None] | None) -> None:
    """Set masked weights, and the optimiser's slots of them, to zero."""
    for i, mask in enumerate(masks or []):
        if mask is None:
            continue
        slots = [s.value for s in stepper.variables if s.path.endswith(_slot_names(i, variables))]
        for variable in [variables[i], *slots]:
            if variable.shape == mask.shape:
                variable.assign(tf.where(mask, variable, tf.zeros_like(variable)))


def _slot_names(index: int, variables: list[Any]) -> tuple[str, ...]:
    name = variables[index].name.split(":")[0]
    return tuple(f"{name}_{slot}" for slot in ("momentum", "velocity"))


def forward(layers: Any, weights: list[Any], x: Tensor) -> Tensor:
    """Run a model with the functions of ``tf.nn``; images are NHWC as in the fixtures."""
    remaining = list(weights)
    for layer in layers:
        name = layer["operation"]
        if name == "layer.dense":
            weight, bias, *remaining = remaining
            x = tf.nn.bias_add(tf.matmul(x, weight), bias)
        elif name == "layer.conv2d":
            weight, bias, *remaining = remaining
            x = tf.nn.bias_add(tf.nn.conv2d(x, weight, strides=1, padding="VALID"), bias)
        elif name == "layer.avg_pool2d":
            x = tf.nn.avg_pool2d(x, layer["window"], layer["window"], "VALID")
        else:
            x = tf.nn.relu(x) if name == "layer.relu" else tf.reshape(x, (x.shape[0], -1))
    return x


def train_trajectory(
    params: list[Tensor],
    x: Any,
    targets: Any,
    *,
    model: Any,
    loss: Description,
    optimizer: Description,
    clip: Description | None = None,
    penalty: Description | None = None,
    prune: Description | None = None,
    accumulate: str = "mean",
) -> Outputs:
    """A user's training loop over a small model."""
    if prune is not None:
        raise Unsupported(
            "TensorFlow has no pruning; TensorFlow Model Optimization is another package"
        )
    if penalty is not None or loss["operation"] != "loss.softmax_cross_entropy":
        raise Unsupported("this loop has cross-entropy without a penalty")
    variables = [tf.Variable(p) for p in params]
    stepper = make_optimizer(variables, optimizer)
    record: dict[str, list[Any]] = {n: [] for n in ("loss", "grads", "total_norm", "params")}
    for step, (xs, ts) in enumerate(zip(x, targets, strict=True)):
        losses, micro = [], []
        for images, labels in zip(xs, ts, strict=True):
            with tf.GradientTape() as tape:
                y = forward(model, variables, images)
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, y)
                reduce = (
                    tf.reduce_mean if loss.get("reduction", "mean") == "mean" else tf.reduce_sum
                )
                value = reduce(each)
            micro.append(tape.gradient(value, variables))
            losses.append(value)
        grads = _combined(micro, accumulate, 1.0)
        clipped, total = clip_gradients(grads, clip)
        stepper.learning_rate = at(optimizer["lr"], step)
        stepper.apply(clipped, variables)
        share = len(losses) if accumulate == "mean" else 1
        record["loss"].append(tf.add_n(losses) / share)
        record["grads"].append(grads)
        record["total_norm"].append(total)
        record["params"].append([v.read_value() for v in variables])
    return {
        **record,
        "loss": tf.stack(record["loss"]),
        "total_norm": tf.stack(record["total_norm"]),
    }


def at(value: Any, step: int) -> float:
    """Return a parameter that is one number, or one per step."""
    return float(value[step] if isinstance(value, list) else value)


def register(adapter: Adapter) -> None:
    """Register the loops."""
    wide = ("float64", "float32")
    adapter.operation("train.step", wide, DIALECT)(train_step)
    adapter.operation("train.trajectory", wide, DIALECT)(train_trajectory)
