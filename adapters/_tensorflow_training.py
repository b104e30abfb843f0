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
    "optim.rmsprop": tf.keras.optimizers.RMSprop,
    "optim.adagrad": tf.keras.optimizers.Adagrad,
}
NAMES = {
    "beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon", "alpha": "rho",
    "initial_accumulator": "initial_accumulator_value",
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "optim.sgd": {},
    "optim.adam": {"epsilon": 1e-8},
    "optim.adamw": {"epsilon": 1e-8, "weight_decay": 0.0},
    "optim.rmsprop": {"epsilon": 1e-8, "rho": 0.99},
    "optim.adagrad": {"epsilon": 1e-10, "initial_accumulator_value": 0.0},
}
"""The suite's defaults, where Keras has others."""
DIALECT = {
    "clip.negative_limit": "ignore",
    "optimizer.momentum_form": "lr_inside",
    "optimizer.eps_at": "before_bias_correction",
    "optimizer.uncorrected_eps_at": "inside_root",
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
    if options.pop("lr_decay", 0):
        raise Unsupported("tf.keras.optimizers.Adagrad has no lr_decay")
    name = description["operation"]
    stepper = OPTIMIZERS[name](at(description["lr"], 0), **(DEFAULTS[name] | options))
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
    kinds["penalty.elastic_net"] = tf.keras.regularizers.L1L2
    if description["operation"] not in kinds:
        raise Unsupported("tf.keras.regularizers has no penalty of groups")
    strengths = [v for k, v in description.items() if k in ("strength", "l1", "l2")]
    regularizer = kinds[description["operation"]](*strengths)
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
        total = total if finite else tf.linalg.global_norm(given)
        norms.append(tf.cast(total, variables[0].dtype))  # of no gradients it is a float32
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
        count, function = LAYERS[layer["operation"]]
        own, remaining = remaining[:count], remaining[count:]
        x = function(x, *own, {k: v for k, v in layer.items() if k != "operation"})
    return x


def _conv2d(x: Tensor, weight: Any, bias: Any, options: Description) -> Tensor:
    return tf.nn.bias_add(tf.nn.conv2d(x, weight, strides=1, padding="VALID"), bias)


def _pool(function: Any) -> Any:
    def run(x: Tensor, options: Description) -> Tensor:
        window = options["window"]
        return function(x, window, options.get("stride", window), "VALID")

    return run


def _batch_norm(x: Tensor, scale: Any, shift: Any, options: Description) -> Tensor:
    mean, variance = tf.nn.moments(x, list(range(x.ndim - 1)))
    return tf.nn.batch_normalization(x, mean, variance, shift, scale, options.get("eps", 1e-5))


def _rnn(x: Tensor, weight: Any, recurrent: Any, bias: Any, options: Description) -> Tensor:
    """``tf.keras.layers.SimpleRNN``, by stretches with a state that lets no gradient through."""
    layer = tf.keras.layers.SimpleRNN(weight.shape[1], return_sequences=True, dtype=x.dtype.name)
    layer.build(x.shape)
    seeds = [variable.value for variable in layer.non_trainable_variables]
    stretch = options.get("truncate") or x.shape[1]
    states, state = [], tf.zeros((x.shape[0], weight.shape[1]), x.dtype)
    for start in range(0, x.shape[1], stretch):
        steps = x[:, start : start + stretch]
        found = layer.stateless_call([weight, recurrent, bias], seeds, steps, initial_state=state)
        states.append(found[0])
        state = tf.stop_gradient(found[0][:, -1])
    return tf.concat(states, axis=1)


def _dropout(x: Tensor, options: Description) -> Tensor:
    raise Unsupported("tf.nn.dropout draws its own mask and takes none")


LAYERS: dict[str, tuple[int, Any]] = {
    "layer.dense": (2, lambda x, weight, bias, _: tf.nn.bias_add(tf.matmul(x, weight), bias)),
    "layer.conv2d": (2, _conv2d),
    "layer.relu": (0, lambda x, _: tf.nn.relu(x)),
    "layer.leaky_relu": (0, lambda x, options: tf.nn.leaky_relu(x, options["slope"])),
    "layer.sigmoid": (0, lambda x, _: tf.sigmoid(x)),
    "layer.tanh": (0, lambda x, _: tf.tanh(x)),
    "layer.max_pool2d": (0, _pool(tf.nn.max_pool2d)),
    "layer.avg_pool2d": (0, _pool(tf.nn.avg_pool2d)),
    "layer.flatten": (0, lambda x, _: tf.reshape(x, (x.shape[0], -1))),
    "layer.dropout": (0, _dropout),
    "layer.batch_norm": (2, _batch_norm),
    "layer.rnn": (3, _rnn),
}


def loss_of(description: Description, y: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of the outputs, reduced as the description says."""
    name = description["operation"]
    if name == "loss.softmax_cross_entropy":
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, y)
    elif name == "loss.mse":
        each = tf.math.squared_difference(y, targets)
    else:
        each = tf.nn.sigmoid_cross_entropy_with_logits(targets, y)
    mean = description.get("reduction", "mean") == "mean"
    return tf.reduce_mean(each) if mean else tf.reduce_sum(each)


def train_trajectory(
    params: list[Tensor],
    x: Any,
    targets: Any,
    dropout: Any = None,
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
    variables = [tf.Variable(p) for p in params]
    stepper = make_optimizer(variables, optimizer)
    record: dict[str, list[Any]] = {n: [] for n in ("loss", "grads", "total_norm", "params")}
    for step, (xs, ts) in enumerate(zip(x, targets, strict=True)):
        losses, micro = [], []
        for images, labels in zip(xs, ts, strict=True):
            with tf.GradientTape() as tape:
                y = forward(model, variables, images)
                value = loss_of(loss, y, labels)
            micro.append(tape.gradient(value, variables))
            losses.append(value)
        grads = _combined(micro, accumulate, 1.0)
        if penalty is not None:
            with tf.GradientTape() as tape:
                extra = penalty_of(variables, penalty)
            grads = tf.nest.map_structure(tf.add, grads, tape.gradient(extra, variables))
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
