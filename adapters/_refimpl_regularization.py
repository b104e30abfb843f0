"""Group and mixed penalties, proximal maps and projections of refimpl, put before the suite."""

from __future__ import annotations

from typing import Any

from adapters.base import Operations
from refimpl import projections, regularization

Tensors = list[Any]
Outputs = dict[str, Any]

operations = Operations()


@operations.operation("penalty.elastic_net")
def penalty_elastic_net(weights: Tensors, **params: Any) -> Outputs:
    """``refimpl.regularization.penalty_elastic_net``."""
    value, grads = regularization.penalty_elastic_net(weights, **params)
    return {"value": value, "grads": grads}


@operations.operation("penalty.group_lasso")
def penalty_group_lasso(weights: Tensors, **params: Any) -> Outputs:
    """``refimpl.regularization.penalty_group_lasso``."""
    value, grads = regularization.penalty_group_lasso(weights, **params)
    return {"value": value, "grads": grads}


@operations.operation("prox.l2")
def prox_l2(weights: Tensors, **params: Any) -> Outputs:
    """``refimpl.regularization.prox_l2``."""
    return {"weights": regularization.prox_l2(weights, **params)}


@operations.operation("prox.elastic_net")
def prox_elastic_net(weights: Tensors, **params: Any) -> Outputs:
    """``refimpl.regularization.prox_elastic_net``."""
    return {"weights": regularization.prox_elastic_net(weights, **params)}


@operations.operation("prox.group_lasso")
def prox_group_lasso(weights: Tensors, **params: Any) -> Outputs:
    """``refimpl.regularization.prox_group_lasso``."""
    return {"weights": regularization.prox_group_lasso(weights, **params)}


@operations.operation("prox.hard_threshold")
def prox_hard_threshold(weights: Tensors, **params: Any) -> Outputs:
    """``refimpl.projections.hard_threshold``."""
    return {"weights": projections.hard_threshold(weights, **params)}


@operations.operation("project.max_norm")
def project_max_norm(weights: Tensors, **params: Any) -> Outputs:
    """``refimpl.projections.project_max_norm``."""
    return {"weights": projections.project_max_norm(weights, **params)}


@operations.operation("project.l1_ball")
def project_l1_ball(weights: Tensors, **params: Any) -> Outputs:
    """``refimpl.projections.project_l1_ball``."""
    return {"weights": projections.project_l1_ball(weights, **params)}
