"""Keras's training steps, with the clipping, accumulation and loss scaling of its own optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from adapters._keras_backend import Outputs, Tensors, dtype_of
from adapters._keras_clipping import norm
from adapters._keras_optimizers import Stepper, make
from adapters._keras_regularization import penalty_gradients
from adapters.base import Operations, Unsupported

Description = Mapping[str, Any]

# In float64 the clipping of Keras differs between the backends, which clip.norm and clip.global_norm show.
NARROW = ("float32",)
TRAIN = {
    "clip.negative_limit": "ignore",
    "optimizer.momentum_form": "lr_inside",
    "optimizer.eps_at": "before_bias_correction",
    "optimizer.uncorrected_eps_at": "inside_root",
    "optimizer.decay": "decoupled_by_lr",
    "optimizer.step_count": "optimizer",
    "optimizer.hyperparameters": "float32",
}
operations = Operations()


def _clip_options(clip: Description | None) -> dict[str, float]:
    if clip is None:
        return {}
    if clip["operation"] == "clip.value":
        if clip.get("max") is None or clip.get("min") != -clip["max"]:
            raise Unsupported("the clipvalue of Keras is one bound for both signs")
        return {"clipvalue": clip["max"]}
    if clip.get("ord", 2) != 2:
        raise Unsupported("Keras clips by the 2-norm only")
    name = {"clip.norm": "clipnorm", "clip.global_norm": "global_clipnorm"}[clip["operation"]]
    return {name: clip["max_norm"]}


@operations.operation("train.step", NARROW, TRAIN)
def train_step(
    params: Tensors,
    grads: list[list[Tensors]],
    masks: Any = None,
    *,
    optimizer: Description,
    clip: Description | None = None,
    penalty: Description | None = None,
    accumulate: str = "mean",
    loss_scale: Any = 1.0,
) -> Outputs:
    """An optimiser of Keras that clips and accumulates by itself, in ``LossScaleOptimizer`` if scaled."""
    counts = {len(micro) for micro in grads}
    if len(counts) != 1 or not max(counts) or (accumulate != "mean" and counts != {1}):
        raise Unsupported(
            "gradient_accumulation_steps of Keras averages one number of micro-batches"
        )
    micro_batches = counts.pop()
    if masks is not None:
        raise Unsupported("Keras has no masks: its constraints reach the weights, not the state")
    if isinstance(loss_scale, list):
        raise Unsupported("the loss scale of keras.optimizers.LossScaleOptimizer is its own")
    if micro_batches > 1 and any(g is None for s in grads for m in s for g in m):
        raise Unsupported("Keras accumulates gradients that are there")
    if loss_scale <= 0:
        raise Unsupported("a loss scale that cannot be is not Keras's to check")
    dtype = dtype_of(params[0])
    options = {k: v for k, v in optimizer.items() if k not in ("operation", "lr")}
    if optimizer["operation"] != "optim.sgd":
        options = {"eps": 1e-8, "weight_decay": 0.0} | options
    if loss_scale == 1 and micro_batches > 1:
        options["gradient_accumulation_steps"] = micro_batches
    elif micro_batches > 1:
        raise Unsupported("LossScaleOptimizer of Keras scales each micro-batch for itself")
    options |= _clip_options(clip)
    inner = make(optimizer["operation"], _at(optimizer["lr"], 0), **options)
    scaled = loss_scale != 1
    outer = keras.optimizers.LossScaleOptimizer(inner, loss_scale) if scaled else inner
    variables = [keras.Variable(ops.copy(p), dtype=dtype) for p in params]
    stepper = Stepper(outer, variables)
    after, norms, skipped = [], [], []
    for number, step_grads in enumerate(grads):
        inner.learning_rate = _at(optimizer["lr"], number)
        extra = penalty_gradients(variables, penalty)
        totals: Tensors = []
        for micro in step_grads:
            given = [g if e is None else (e * loss_scale if g is None else g + e * loss_scale)
                     for g, e in zip(micro, extra, strict=True)]  # fmt: skip
            totals.append(given)
            values = stepper(given)
        mean = [None if g[0] is None else sum(g) / len(g) / loss_scale
                for g in zip(*totals, strict=True)]  # fmt: skip
        norms.append(norm(mean))
        finite = bool(ops.all(ops.isfinite(norms[-1])))
        if not finite and not scaled:
            raise Unsupported(
                "the optimisers of Keras check for finite gradients when they scale only"
            )
        skipped.append(not finite)
        after.append(values)
    return {
        "params": after,
        "total_norm": ops.stack(norms),
        "skipped": ops.convert_to_tensor(skipped, dtype="int32"),
    }


def _at(value: Any, number: int) -> float:
    return float(value[number] if isinstance(value, list) else value)
