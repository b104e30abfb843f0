"""A training step as Optax has it: apply_if_finite around a chain of clip and optimiser.

Several micro-batches to a step are what ``optax.MultiSteps`` around all that is for.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adapters._optax_arrays import WIDE, Description, Outputs, Tensor
from adapters._optax_loop import at, make_clip, make_optimizer, mask, mask_all, penalty_of
from adapters._optax_optimizers import ABSENT, schedule
from adapters.base import Operations, Unsupported

DIALECT = {
    "clip.negative_limit": "flip_sign",
    "optimizer.hyperparameters": "exact",
    "optimizer.uncorrected_eps_at": "inside_root",
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
    """A user's loop over given gradients: unscale, penalty, what Optax does of the step, mask."""
    if any(not micro for micro in grads):
        raise Unsupported("a loop over no micro-batches calls nothing of Optax")
    if any(g is None for step in grads for micro in step for g in micro):
        raise Unsupported(ABSENT)
    if penalty is not None and accumulate == "sum" and len(grads[0]) > 1:
        raise Unsupported("a penalty in every micro-batch's loss is added as often by MultiSteps")
    if any(at(loss_scale, step) <= 0 for step in range(len(grads))):
        raise Unsupported("a loss scale that the user's loop divides by is not Optax's to check")
    finite = optax.apply_if_finite(
        optax.chain(*make_clip(clip), make_optimizer(optimizer, schedule(optimizer["lr"]))),
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
