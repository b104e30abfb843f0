"""TensorFlow's custom training loop: GradientTape, ``tf.clip_by_*``, Keras optimisers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from adapters._tensorflow_arrays import WIDE, Description, Outputs, Tensor
from adapters._tensorflow_loop import (
    add_penalty,
    at,
    clip_gradients,
    combined,
    make_optimizer,
    mask_weights,
)
from adapters._tensorflow_models import forward, loss_of
from adapters.base import Operations, Unsupported

DIALECT = {
    "clip.negative_limit": "ignore",
    "optimizer.momentum_form": "lr_inside",
    "optimizer.eps_at": "before_bias_correction",
    "optimizer.uncorrected_eps_at": "inside_root",
    "optimizer.decay": "decoupled_by_lr",
    "optimizer.hyperparameters": "float32",
    "optimizer.step_count": "optimizer",
}

operations = Operations()


@operations.operation("train.step", WIDE, DIALECT)
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
        unscaled = combined(micro_batches, accumulate, at(loss_scale, step))
        whole = add_penalty(unscaled, variables, penalty)
        there = [(g, v) for g, v in zip(whole, variables, strict=True) if g is not None]
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


@operations.operation("train.trajectory", WIDE, DIALECT)
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
        grads = add_penalty(combined(micro, accumulate), variables, penalty)
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
