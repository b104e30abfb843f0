"""A training step as Optax has it: apply_if_finite around a chain of clip and optimiser.

Several micro-batches to a step are what ``optax.MultiSteps`` around all that is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adapters.base import Adapter, Unsupported

Tensor = Any
Description = Mapping[str, Any]
Outputs = dict[str, Any]

DIALECT = {
    "clip.negative_limit": "flip_sign",
    "optimizer.hyperparameters": "exact",
    "optimizer.uncorrected_eps_at": "inside_root",
}
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
    """A user's loop over given gradients: unscale, penalty, what Optax does of the step, mask."""
    if any(not micro for micro in grads):
        raise Unsupported("a loop over no micro-batches calls nothing of Optax")
    if any(g is None for step in grads for micro in step for g in micro):
        raise Unsupported(
            "jax.grad gives no absent gradients, and a state of Optax has no place for them"
        )
    if penalty is not None and accumulate == "sum" and len(grads[0]) > 1:
        raise Unsupported("a penalty in every micro-batch's loss is added as often by MultiSteps")
    if any(at(loss_scale, step) <= 0 for step in range(len(grads))):
        raise Unsupported("a loss scale that the user's loop divides by is not Optax's to check")
    finite = optax.apply_if_finite(
        optax.chain(*make_clip(clip), make_optimizer(optimizer, _schedule(optimizer["lr"]))),
        max_consecutive_errors=len(grads) + 1,
    )
    several = any(len(micro) > 1 for micro in grads)
    counts = jnp.asarray([len(micro) for micro in grads], jnp.int32)
    stepper: Any = finite
    if several:
        stepper = optax.MultiSteps(
            finite,
            lambda step: counts[step],
            accumulate == "mean",
            accumulator_dtype=jnp.result_type(*params) if params else None,
        )
    state = stepper.init(params)

    @jax.jit
    def micro_step(params: list[Tensor], state: Any, grads: list[Tensor], scale: Any) -> Any:
        given = jax.tree.map(lambda g: g / scale.astype(g.dtype), grads)
        if penalty is not None:
            extra = jax.grad(penalty_of)(params, penalty)
            given = jax.tree.map(lambda g, e: g + e, given, extra)
        updates, state = stepper.update(given, state, params)
        return optax.apply_updates(params, updates), state, given

    @jax.jit
    def norm_of(given: list[list[Tensor]]) -> Tensor:
        combine = jnp.mean if accumulate == "mean" else jnp.sum
        return optax.tree.norm(jax.tree.map(lambda *g: combine(jnp.stack(g), 0), *given))

    after, norms, skipped = [], [], []
    for step, micro_batches in enumerate(grads):
        given = []
        for micro in micro_batches:
            scale = jnp.asarray(at(loss_scale, step))
            params, state, one = micro_step(params, state, micro, scale)
            given.append(one)
        norms.append(norm_of(given))
        skipped.append(not bool((state.inner_opt_state if several else state).last_finite))
        if masks is not None and not skipped[-1]:
            params = mask_all(params, masks)
            state = optax.tree.map_params(stepper, mask, state, masks)
        after.append(params)
    return {
        "params": after,
        "total_norm": jnp.stack(norms),
        "skipped": jnp.asarray(skipped, jnp.int32),
    }


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


def _schedule(lr: Any) -> Any:
    if not isinstance(lr, list):
        return lr
    table = jnp.asarray(lr)
    return lambda count: table[count]


def at(value: Any, step: int) -> float:
    """Return a parameter that is one number, or one per step."""
    return float(value[step] if isinstance(value, list) else value)


def register(adapter: Adapter) -> None:
    """Register the loop."""
    adapter.operation("train.step", ("float64", "float32"), DIALECT)(train_step)
