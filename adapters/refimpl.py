"""The canonical implementation itself, as an ordinary participant (NumPy arrays)."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.base import Adapter
from refimpl import clipping, pruning, schedules, scores

Tensors = list[Any]
Outputs = dict[str, Any]

adapter = Adapter("refimpl", version=np.__version__, to_native=lambda x: x, to_numpy=np.asarray)


@adapter.operation("clip.value")
def clip_value(grads: Tensors, **params: Any) -> Outputs:
    """``refimpl.clipping.clip_value``."""
    return {"grads": clipping.clip_value(grads, **params)}


@adapter.operation("clip.norm")
def clip_norm(grads: Tensors, *, max_norm: float, ord: float = 2, **dials: Any) -> Outputs:
    """``refimpl.clipping.clip_norm``."""
    clipped, norms = clipping.clip_norm(grads, max_norm, ord, **dials)
    return {"grads": clipped, "norms": norms}


@adapter.operation("clip.global_norm")
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float = 2, **dials: Any) -> Outputs:
    """``refimpl.clipping.clip_global_norm``."""
    clipped, total = clipping.clip_global_norm(grads, max_norm, ord, **dials)
    return {"grads": clipped, "total_norm": total}


@adapter.operation("score.magnitude")
def score_magnitude(weights: Tensors) -> Outputs:
    """``refimpl.scores.magnitude``."""
    return {"scores": scores.magnitude(weights)}


@adapter.operation("score.gradient")
def score_gradient(grads: Tensors) -> Outputs:
    """``refimpl.scores.gradient``."""
    return {"scores": scores.gradient(grads)}


@adapter.operation("prune.threshold")
def prune_threshold(weights: Tensors, scores: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.prune_threshold``."""
    masks, pruned = pruning.prune_threshold(weights, scores, **params)
    return {"masks": masks, "weights": pruned}


@adapter.operation("prune.fraction")
def prune_fraction(weights: Tensors, scores: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.prune_fraction``."""
    masks, pruned = pruning.prune_fraction(weights, scores, **params)
    return {"masks": masks, "weights": pruned}


@adapter.operation("prune.shrink")
def prune_shrink(weights: Tensors, scores: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.shrink``."""
    return {"weights": pruning.shrink(weights, scores, **params)}


@adapter.operation("schedule.polynomial")
def schedule_polynomial(**params: Any) -> Outputs:
    """``refimpl.schedules.polynomial``."""
    sparsity, updates = schedules.polynomial(**params)
    return {"sparsity": sparsity, "updates": updates}
