"""What a training step of Optax is made of: clip and optimiser as links of a chain, penalty and masks."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from adapters._optax_arrays import Description, Tensor
from adapters.base import Unsupported

OPTIONS = {
    "optim.sgd": {"momentum", "nesterov"},
    "optim.adam": {"b1", "b2", "eps", "amsgrad"},
    "optim.adamw": {"b1", "b2", "eps"},
    "optim.rmsprop": {"decay", "eps", "momentum", "centered"},
    "optim.adagrad": {"eps", "initial_accumulator_value"},
}
RENAMED = {
    "beta1": "b1", "beta2": "b2", "alpha": "decay",
    "initial_accumulator": "initial_accumulator_value",
}  # fmt: skip


def make_clip(description: Description | None) -> list[optax.GradientTransformation]:
    """Return the clip as the first link of a chain, or none."""
    if description is None:
        return []
    if description["operation"] == "clip.value":
        low, high = description.get("min"), description.get("max")
        return [optax.stateless(lambda updates, _: optax.tree.clip(updates, low, high))]
    if description.get("ord", 2) != 2:
        raise Unsupported("Optax clips by the 2-norm only")
    clip = optax.clip_by_global_norm(description["max_norm"])
    if description["operation"] == "clip.global_norm":
        return [clip]

    def each(updates: Any, _: Any) -> Any:
        return [clip.update(u, clip.init(u))[0] for u in updates]

    return [optax.stateless(each)]


def make_optimizer(description: Description, lr: Any) -> optax.GradientTransformation:
    """Return the optimiser, after ``optax.add_decayed_weights`` where the decay is coupled."""
    operation = description["operation"]
    options = {
        RENAMED.get(name, name): value
        for name, value in description.items()
        if name not in ("operation", "lr", "weight_decay")
    }
    for name in options.keys() - OPTIONS[operation]:
        raise Unsupported(f"Optax has no {name} for {operation}")
    decay = description.get("weight_decay", 0.0)
    if operation == "optim.adamw":
        return optax.adamw(lr, weight_decay=description.get("weight_decay", 0.01), **options)
    make = {
        "optim.sgd": optax.sgd,
        "optim.adam": optax.amsgrad if options.pop("amsgrad", False) else optax.adam,
        "optim.rmsprop": optax.rmsprop,
        "optim.adagrad": optax.adagrad,
    }[operation]
    decays = [optax.add_decayed_weights(decay)] if decay else []
    return optax.chain(*decays, make(lr, **options))


def penalty_of(params: list[Tensor], description: Description) -> Tensor:
    """Return a penalty as part of the loss."""
    operation, strength = description["operation"], description.get("strength")
    if operation == "penalty.l1":
        return strength * optax.tree.norm(params, ord=1)
    if operation == "penalty.l2":
        return strength * optax.tree.norm(params, squared=True)
    if operation == "penalty.elastic_net":
        magnitudes = description["l1"] * optax.tree.norm(params, ord=1)
        return magnitudes + description["l2"] * optax.tree.norm(params, squared=True)
    raise Unsupported(f"Optax has no {operation}")


def mask(value: Tensor, kept: Tensor) -> Tensor:
    """Set what is masked to zero."""
    return jnp.where(kept, value, jnp.zeros((), value.dtype))


def mask_all(params: list[Tensor], masks: list[Tensor | None]) -> list[Tensor]:
    """Set masked parameters to zero."""
    return [p if m is None else mask(p, m) for p, m in zip(params, masks, strict=True)]


def at(value: Any, step: int) -> float:
    """Return a parameter that is one number, or one per step."""
    return float(value[step] if isinstance(value, list) else value)
