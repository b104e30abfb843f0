"""Scores, prunings and schedules of the canonical implementation, put before the suite."""

from __future__ import annotations

from typing import Any

from adapters import _refimpl_structured
from adapters.base import Operations
from refimpl import pruning, schedules, scores

Tensors = list[Any]
Outputs = dict[str, Any]

operations = Operations()
operations.include(_refimpl_structured.operations)


@operations.operation("score.magnitude")
def score_magnitude(weights: Tensors) -> Outputs:
    """``refimpl.scores.magnitude``."""
    return {"scores": scores.magnitude(weights)}


@operations.operation("score.gradient")
def score_gradient(grads: Tensors) -> Outputs:
    """``refimpl.scores.gradient``."""
    return {"scores": scores.gradient(grads)}


@operations.operation("score.taylor")
def score_taylor(weights: Tensors, grads: Tensors, **dials: Any) -> Outputs:
    """``refimpl.scores.taylor``."""
    return {"scores": scores.taylor(weights, grads, **dials)}


@operations.operation("score.snip")
def score_snip(weights: Tensors, grads: Tensors, **dials: Any) -> Outputs:
    """``refimpl.scores.snip``."""
    return {"scores": scores.snip(weights, grads, **dials)}


@operations.operation("score.movement")
def score_movement(weights: Tensors, grads: Tensors) -> Outputs:
    """``refimpl.scores.movement``."""
    return {"scores": scores.movement(weights, grads)}


@operations.operation("score.fisher")
def score_fisher(grads: Tensors) -> Outputs:
    """``refimpl.scores.fisher``."""
    return {"scores": scores.fisher(grads)}


@operations.operation("score.obd")
def score_obd(weights: Tensors, hessian: Tensors, **dials: Any) -> Outputs:
    """``refimpl.scores.obd``."""
    return {"scores": scores.obd(weights, hessian, **dials)}


@operations.operation("score.wanda")
def score_wanda(weights: Tensors, activations: Tensors, **dials: Any) -> Outputs:
    """``refimpl.scores.wanda``."""
    return {"scores": scores.wanda(weights, activations, **dials)}


@operations.operation("prune.threshold")
def prune_threshold(weights: Tensors, scores: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.prune_threshold``."""
    masks, pruned = pruning.prune_threshold(weights, scores, **params)
    return {"masks": masks, "weights": pruned}


@operations.operation("prune.fraction")
def prune_fraction(weights: Tensors, scores: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.prune_fraction``."""
    masks, pruned = pruning.prune_fraction(weights, scores, **params)
    return {"masks": masks, "weights": pruned}


@operations.operation("prune.shrink")
def prune_shrink(weights: Tensors, scores: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.shrink``."""
    return {"weights": pruning.shrink(weights, scores, **params)}


@operations.operation("schedule.constant")
def schedule_constant(**params: Any) -> Outputs:
    """``refimpl.schedules.constant``."""
    sparsity, updates = schedules.constant(**params)
    return {"sparsity": sparsity, "updates": updates}


@operations.operation("schedule.exponential")
def schedule_exponential(**params: Any) -> Outputs:
    """``refimpl.schedules.exponential``."""
    sparsity, updates = schedules.exponential(**params)
    return {"sparsity": sparsity, "updates": updates}


@operations.operation("schedule.polynomial")
def schedule_polynomial(**params: Any) -> Outputs:
    """``refimpl.schedules.polynomial``."""
    sparsity, updates = schedules.polynomial(**params)
    return {"sparsity": sparsity, "updates": updates}
