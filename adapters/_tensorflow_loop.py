"""What a custom training loop of TensorFlow is made of: a Keras optimiser, clip, penalty and masks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from adapters._tensorflow_arrays import Description, Tensor
from adapters._tensorflow_optimizers import make
from adapters.base import Unsupported

DEFAULTS: dict[str, dict[str, Any]] = {
    "optim.sgd": {},
    "optim.adam": {"eps": 1e-8},
    "optim.adamw": {"eps": 1e-8, "weight_decay": 0.0},
    "optim.rmsprop": {"eps": 1e-8, "alpha": 0.99},
    "optim.adagrad": {"eps": 1e-10, "initial_accumulator": 0.0},
}
"""The suite's defaults, where Keras has others."""


def make_optimizer(variables: list[Any], description: Description) -> Any:
    """Return a Keras optimiser that is built on the variables."""
    name = description["operation"]
    given = {k: v for k, v in description.items() if k not in ("operation", "lr")}
    stepper = make(name, at(description["lr"], 0), DEFAULTS[name] | given)
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
    kinds = {
        "penalty.l1": tf.keras.regularizers.L1,
        "penalty.l2": tf.keras.regularizers.L2,
        "penalty.elastic_net": tf.keras.regularizers.L1L2,
    }
    if description["operation"] not in kinds:
        raise Unsupported("tf.keras.regularizers has no penalty of groups")
    strengths = [v for k, v in description.items() if k in ("strength", "l1", "l2")]
    regularizer = kinds[description["operation"]](*strengths)
    return tf.add_n([regularizer(variable) for variable in variables])


def add_penalty(
    grads: list[Tensor | None], variables: list[Any], penalty: Description | None
) -> list[Tensor | None]:
    """Return the gradients and what a penalty gives each variable."""
    if penalty is None:
        return grads
    with tf.GradientTape() as tape:
        extra = penalty_of(variables, penalty)
    pairs = zip(grads, tape.gradient(extra, variables), strict=True)
    return [e if g is None else g + e for g, e in pairs]


def combined(micro_batches: Any, accumulate: str, scale: float = 1.0) -> list[Tensor | None]:
    """Return the sum or the mean of the gradients of micro-batches, without the loss scale."""
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


def at(value: Any, step: int) -> float:
    """Return a parameter that is one number, or one per step."""
    return float(value[step] if isinstance(value, list) else value)
