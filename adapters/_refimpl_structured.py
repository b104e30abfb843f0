"""Prunings of groups and in rounds, of the canonical implementation, put before the suite."""

from __future__ import annotations

from typing import Any

from adapters.base import Operations
from refimpl import pruning, structured

Outputs = dict[str, Any]

operations = Operations()


@operations.operation("prune.structured")
def prune_structured(weights: Any, **params: Any) -> Outputs:
    """``refimpl.structured.prune_structured``."""
    mask, pruned = structured.prune_structured(weights, **params)
    return {"mask": mask, "weights": pruned}


@operations.operation("prune.n_m")
def prune_n_m(weights: Any, scores: Any, **params: Any) -> Outputs:
    """``refimpl.structured.prune_n_m``."""
    mask, pruned = structured.prune_n_m(weights, scores, **params)
    return {"mask": mask, "weights": pruned}


@operations.operation("prune.block")
def prune_block(weights: Any, scores: Any, **params: Any) -> Outputs:
    """``refimpl.structured.prune_block``."""
    mask, pruned = structured.prune_block(weights, scores, **params)
    return {"mask": mask, "weights": pruned}


@operations.operation("prune.iterative")
def prune_iterative(weights: Any, scores: Any, **params: Any) -> Outputs:
    """``refimpl.pruning.prune_iterative``."""
    return {"masks": pruning.prune_iterative(weights, scores, **params)}
