"""Optax's clipping: its gradient transformations and ``optax.tree.clip``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adapters._optax_arrays import FLUSH, Outputs, Tensor, Tensors, other_axes
from adapters.base import WITH_COMPLEX, Operations, Unsupported, interval

operations = Operations()


def _only_two(ord: float) -> None:
    if ord != 2:
        raise Unsupported("Optax clips by the 2-norm only")


def _transformed(transformation: Any, updates: Any, params: Any = None) -> Any:
    """Return what a gradient transformation makes of updates; ``None`` is no leaf of a JAX tree."""
    update = jax.jit(lambda u, p: transformation.update(u, transformation.init(p), p)[0])
    return update(updates, params)


def _norm(tree: Any) -> Tensor:
    norm = jax.jit(optax.tree.norm)(tree)
    if jax.tree.leaves(tree):
        return norm
    return norm.astype(jnp.float32)  # of a Python number, which has 64 bits


CLIP_NORM = {
    "nonfinite": "multiply", "norm": "naive", "accumulate": "input_dtype",
    "norm_dtype": "input_dtype", "at_equal": "rescaled", "zero_over_zero": "nan",
    "infinite_limit": "multiply", "nan_limit": "nan", "negative_limit": "flip_sign",
}  # fmt: skip


@operations.operation("clip.global_norm", WITH_COMPLEX, CLIP_NORM | {"duplicates": "twice"})
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``optax.clip_by_global_norm``, which returns no norm: the norm is that of ``optax.tree.norm``."""
    _only_two(ord)
    clipped = _transformed(optax.clip_by_global_norm(max_norm), grads)
    return {"grads": clipped, "total_norm": _norm(grads)}


@operations.operation("clip.norm", WITH_COMPLEX, CLIP_NORM)
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``optax.clip_by_global_norm`` on one tensor at a time."""
    _only_two(ord)
    clip = optax.clip_by_global_norm(max_norm)
    return {
        "grads": [None if g is None else _transformed(clip, g) for g in grads],
        "norms": [None if g is None else _norm(g) for g in grads],
    }


@operations.operation(
    "clip.value",
    dialect={"crossed_bounds": "max_wins", "nan_limit": "nan", **FLUSH},
)
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``optax.clip``, whose interval is symmetric; ``optax.tree.clip`` for others."""
    min, max = interval(min, max, range, "optax.clip has no width beside its bounds")
    if min is None and max is None:
        raise Unsupported("optax.clip cannot be called without a bound")
    if max is not None and min == -max:
        return {"grads": _transformed(optax.clip(max), grads)}
    return {"grads": jax.jit(lambda tree: optax.tree.clip(tree, min, max))(grads)}


@operations.operation(
    "clip.unitwise",
    dialect={
        "div_eps": 1e-6, "nonfinite": "multiply", "norm": "naive", "accumulate": "input_dtype",
        "at_equal": "rescaled", "infinite_limit": "multiply", "nan_limit": "nan",
        "negative_limit": "flip_sign",
    },
)  # fmt: skip
def clip_unitwise(
    grads: Tensors, weights: Tensors, *, clipping: float, unit_axis: Any, eps: float
) -> Outputs:
    """``optax.adaptive_grad_clip``, whose axes are those that a norm runs over."""

    def one(grad: Tensor, weight: Tensor) -> Tensor:
        if grad.ndim < 2:
            over = None
        else:
            over = other_axes(grad, unit_axis)
        return _transformed(optax.adaptive_grad_clip(clipping, eps, over), grad, weight)

    pairs = zip(grads, weights, strict=True)
    return {"grads": [None if g is None else one(g, w) for g, w in pairs]}
