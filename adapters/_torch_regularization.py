"""What PyTorch has of regularisation: autograd of a user's penalty, the shrinking functions, renorm."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters._torch_arrays import refusing
from adapters.base import Operations, Unsupported

Tensors = list[Tensor | None]
Outputs = dict[str, Any]

operations = Operations()


def _penalty(weights: Tensors, term: Callable[[Tensor], Tensor], *strengths: float) -> Outputs:
    """Return the sum of a term over all weights, widened to one dtype, and what autograd makes of it."""
    if not all(0 <= strength < float("inf") for strength in strengths):
        raise Unsupported("a penalty is a user's expression, which checks no strength")
    with refusing(RuntimeError, IndexError):
        leaves = [None if w is None else w.detach().requires_grad_() for w in weights]
    given = [w for w in leaves if w is not None]
    wide = reduce(torch.promote_types, (w.dtype for w in given), torch.float32)
    value = sum((term(w.to(wide)) for w in given), torch.zeros(()))
    grads = iter(torch.autograd.grad(value, given) if given else ())
    return {"value": value, "grads": [None if w is None else next(grads) for w in leaves]}


@operations.operation("penalty.l1")
def penalty_l1(weights: Tensors, *, strength: float) -> Outputs:
    """What autograd makes of ``strength * w.abs().sum()``."""
    return _penalty(weights, lambda w: strength * w.abs().sum(), strength)


@operations.operation("penalty.l2")
def penalty_l2(weights: Tensors, *, strength: float) -> Outputs:
    """What autograd makes of ``strength * w.square().sum()``."""
    return _penalty(weights, lambda w: strength * w.square().sum(), strength)


@operations.operation("penalty.elastic_net")
def penalty_elastic_net(weights: Tensors, *, l1: float, l2: float) -> Outputs:
    """What autograd makes of ``l1 * w.abs().sum() + l2 * w.square().sum()``."""
    return _penalty(weights, lambda w: l1 * w.abs().sum() + l2 * w.square().sum(), l1, l2)


@operations.operation("penalty.group_lasso")
def penalty_group_lasso(weights: Tensors, *, strength: float, axis: Any) -> Outputs:
    """What autograd makes of ``strength * torch.linalg.vector_norm(w, dim=…).sum()``."""

    def term(w: Tensor) -> Tensor:
        rest = _other_axes(w, axis)
        norms = torch.linalg.vector_norm(w, dim=rest) if rest else w.abs()
        return strength * norms.sum()

    return _penalty(weights, term, strength)


def _other_axes(w: Tensor, axis: Any) -> list[int]:
    """Return the axes that ``axis`` does not name; which of its own it would refuse is not asked."""
    named = axis if isinstance(axis, list) else [axis]
    groups = {a % w.ndim for a in named if -w.ndim <= a < w.ndim}
    if len(groups) != len(named):
        raise Unsupported("PyTorch's functions take the other axes: those that the norms run over")
    return [a for a in range(w.ndim) if a not in groups]


@operations.operation("prox.l1", dialect={"zero_sign": "of_weight"})
def prox_l1(weights: Tensors, *, strength: float, step: float) -> Outputs:
    """``torch.nn.functional.softshrink``."""
    with refusing(RuntimeError, IndexError):
        shrunk = [None if w is None else functional.softshrink(w, strength * step) for w in weights]
    return {"weights": shrunk}


@operations.operation("prox.hard_threshold", dialect={"threshold_dtype": "input_dtype"})
def prox_hard_threshold(
    weights: Tensors, *, count: int | None = None, threshold: float | None = None
) -> Outputs:
    """``torch.nn.functional.hardshrink``."""
    if threshold is None or count is not None:
        raise Unsupported(
            "PyTorch has no thresholding by count: torch.topk breaks ties as it likes"
        )
    return {
        "weights": [None if w is None else functional.hardshrink(w, threshold) for w in weights]
    }


@operations.operation(
    "project.max_norm", dialect={"eps": 1e-7, "norm": "naive", "nonfinite": "nan_below"}
)
def project_max_norm(weights: Tensors, *, max_norm: float, axis: Any) -> Outputs:
    """``torch.renorm``."""
    if isinstance(axis, list):
        raise Unsupported("torch.renorm takes one dimension")
    if any(w is not None and w.ndim == 1 for w in weights):
        raise Unsupported("torch.renorm needs at least two dimensions")
    with refusing(RuntimeError, IndexError):
        scaled = [None if w is None else torch.renorm(w, 2, axis, max_norm) for w in weights]
    return {"weights": scaled}


NO_PROX = "PyTorch has no proximal operators beyond its shrinking activations"
LACKING = {
    "prox.l2": NO_PROX,
    "prox.elastic_net": NO_PROX,
    "prox.group_lasso": NO_PROX,
    "project.l1_ball": "PyTorch has no projection onto the ball of the 1-norm",
}


for _operation_id, _reason in LACKING.items():
    operations.lacks(_reason, _operation_id)
