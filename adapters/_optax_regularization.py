"""Regularisation with Optax: ``jax.grad`` of multiples of ``optax.tree.norm``, and its projections."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
import optax
from optax import projections

from adapters._optax_arrays import FLUSH, WIDE, Outputs, Tensor, Tensors, other_axes
from adapters.base import Operations, Unsupported

operations = Operations()


def _penalty(weights: Tensors, penalty: Callable[[Tensors], Tensor], *strengths: float) -> Outputs:
    if not all(0 <= strength < float("inf") for strength in strengths):
        raise Unsupported("a penalty is a user's expression, which checks no strength")
    dtypes = [w.dtype for w in weights if w is not None]
    wide = reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))

    def widened(leaves: Tensors) -> Tensor:
        return jnp.asarray(penalty(jax.tree.map(lambda w: w.astype(wide), leaves)), wide)

    value, grads = jax.jit(jax.value_and_grad(widened))(weights)
    return {"value": value, "grads": grads}


@operations.operation("penalty.l1", dialect={"sign_of_zero": "plus_one", **FLUSH})
def penalty_l1(weights: Tensors, *, strength: float) -> Outputs:
    """``jax.grad`` of a multiple of ``optax.tree.norm`` with ``ord=1``."""
    return _penalty(weights, lambda w: strength * optax.tree.norm(w, ord=1), strength)


@operations.operation("penalty.l2", dialect=FLUSH)
def penalty_l2(weights: Tensors, *, strength: float) -> Outputs:
    """``jax.grad`` of a multiple of ``optax.tree.norm`` with ``squared=True``."""
    return _penalty(weights, lambda w: strength * optax.tree.norm(w, squared=True), strength)


@operations.operation("penalty.elastic_net", dialect={"sign_of_zero": "plus_one", **FLUSH})
def penalty_elastic_net(weights: Tensors, *, l1: float, l2: float) -> Outputs:
    """``jax.grad`` of the sum of both."""

    def penalty(w: Tensors) -> Tensor:
        magnitudes = l1 * optax.tree.norm(w, ord=1) if l1 else 0.0
        squares = l2 * optax.tree.norm(w, squared=True) if l2 else 0.0
        return magnitudes + squares

    return _penalty(weights, penalty, l1, l2)


@operations.operation("project.l1_ball", WIDE, {"zero_sign": "of_weight", **FLUSH})
def project_l1_ball(weights: Tensors, *, radius: float) -> Outputs:
    """``optax.projections.projection_l1_ball``, which takes JAX's default dtype alone, so no 16 bits."""

    def one(weight: Tensor) -> Tensor:
        with jax.enable_x64(weight.dtype == jnp.float64):
            return jax.jit(lambda w: projections.projection_l1_ball(w, radius))(weight)

    return {"weights": [None if w is None else one(w) for w in weights]}


@operations.operation(
    "project.max_norm",
    dialect={
        "norm": "naive", "nonfinite": "multiply", "below_limit": "rescaled",
        "infinite_limit": "multiply", "nan_limit": "all_nan", **FLUSH,
    },
)  # fmt: skip
def project_max_norm(weights: Tensors, *, max_norm: float, axis: int | list[int]) -> Outputs:
    """``optax.projections.projection_l2_ball``, mapped over the axes of the groups by ``jax.vmap``."""

    def one(weight: Tensor) -> Tensor:
        over = other_axes(weight, axis)

        def project(w: Tensor) -> Tensor:
            return projections.projection_l2_ball(w, max_norm)

        for a in sorted(set(range(weight.ndim)) - set(over)):
            project = jax.vmap(project, a, a)
        return jax.jit(project)(weight)

    return {"weights": [None if w is None else one(w) for w in weights]}
