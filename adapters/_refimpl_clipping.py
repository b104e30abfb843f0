"""Clipping of the canonical implementation, put before the suite."""

from __future__ import annotations

from typing import Any

from adapters.base import WITH_COMPLEX, Operations
from refimpl import adaptive_clipping, clipping, pruning

Tensors = list[Any]
Outputs = dict[str, Any]

operations = Operations()


@operations.operation("clip.value", dtypes=WITH_COMPLEX)
def clip_value(grads: Tensors, **params: Any) -> Outputs:
    """``refimpl.clipping.clip_value``."""
    return {"grads": clipping.clip_value(grads, **params)}


@operations.operation("clip.norm", dtypes=WITH_COMPLEX)
def clip_norm(grads: Tensors, *, max_norm: float, **params: Any) -> Outputs:
    """``refimpl.clipping.clip_norm``."""
    clipped, norms = clipping.clip_norm(grads, max_norm, **params)
    return {"grads": clipped, "norms": norms}


@operations.operation("clip.global_norm", dtypes=WITH_COMPLEX)
def clip_global_norm(grads: Tensors, *, max_norm: float, **params: Any) -> Outputs:
    """``refimpl.clipping.clip_global_norm``."""
    clipped, total = clipping.clip_global_norm(grads, max_norm, **params)
    return {"grads": clipped, "total_norm": total}


@operations.operation("clip.unitwise")
def clip_unitwise(grads: Tensors, weights: Tensors, **params: Any) -> Outputs:
    """``refimpl.adaptive_clipping.clip_unitwise``."""
    return {"grads": adaptive_clipping.clip_unitwise(grads, weights, **params)}


@operations.operation("clip.per_example")
def clip_per_example(grads: Tensors, **params: Any) -> Outputs:
    """``refimpl.adaptive_clipping.clip_per_example``."""
    clipped, norms = adaptive_clipping.clip_per_example(grads, **params)
    return {"grads": clipped, "norms": norms}


@operations.operation("prune.clipped_gradient")
def prune_clipped_gradient(grads: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.clipped_gradient``."""
    return {"grads": pruning.clipped_gradient(grads, **params)}
