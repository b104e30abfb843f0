"""PyTorch's pruning of single weights: ``torch.nn.utils.prune``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import prune

from adapters._torch_arrays import refusing
from adapters.base import Operations, Unsupported

Tensors = list[Tensor | None]
Modules = list[torch.nn.Module | None]
Outputs = dict[str, Any]

operations = Operations()

TOPK = {"ties": "unspecified", "nan_score": "highest"}
"""Weights are ranked by ``torch.topk``."""


def modules_of(weights: Tensors, previous: Tensors | None) -> Modules:
    """Return a module for each weight, pruned by its previous mask if it has one."""
    modules: Modules = []
    for index, weight in enumerate(weights):
        if weight is None:
            modules.append(None)
            continue
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(weight)
        mask = None if previous is None else previous[index]
        if mask is not None:
            with refusing(RuntimeError, AssertionError, IndexError):
                prune.custom_from_mask(module, "weight", mask)
        modules.append(module)
    return modules


def mask_of(module: torch.nn.Module) -> Tensor:
    """Return a module's mask: all ones as long as nothing is pruned."""
    mask = getattr(module, "weight_mask", None)
    return torch.ones_like(module.weight, dtype=torch.bool) if mask is None else mask.bool()


def _masks(modules: Modules) -> Tensors:
    return [None if m is None else mask_of(m) for m in modules]


def _prune(modules: Modules, scores: Tensors, quantity: float | int, scope: str) -> None:
    """Prune by ``prune.l1_unstructured`` or ``global_unstructured`` with ``importance_scores``."""
    if len(modules) != len(scores):
        raise Unsupported("a score belongs to its parameter, so none could be left over")
    pairs = zip(modules, scores, strict=True)
    scored = [(m, s) for m, s in pairs if m is not None and s is not None]
    if scope == "global":
        prune.global_unstructured(
            [(m, "weight") for m, _ in scored],
            prune.L1Unstructured,
            importance_scores={(m, "weight"): s for m, s in scored},
            amount=quantity,
        )
    elif not scored:
        raise Unsupported("prune.l1_unstructured has one parameter; for none nothing is called")
    for m, s in scored if scope == "tensor" else ():
        with refusing(RuntimeError, AssertionError, IndexError):
            prune.l1_unstructured(m, "weight", amount=quantity, importance_scores=s)


def quantity_of(amount: float | None, count: int | None) -> float | int:
    """Return the amount as PyTorch tells a share from a number: by its type."""
    if amount is not None and count is None:
        return float(amount)
    if count is None or amount is not None:
        raise Unsupported("PyTorch has one argument, amount, a float or an integer")
    return count


@operations.operation(
    "prune.fraction", dialect=TOPK | {"score_sign": "ignored", "masking": "multiply"}
)
def prune_fraction(
    weights: Tensors,
    scores: Tensors,
    previous: Tensors | None = None,
    *,
    amount: float | None = None,
    count: int | None = None,
    scope: str = "tensor",
) -> Outputs:
    """``prune.l1_unstructured`` and ``prune.global_unstructured`` with ``importance_scores``."""
    quantity = quantity_of(amount, count)
    modules = modules_of(weights, previous)
    _prune(modules, scores, quantity, scope)
    return {
        "masks": _masks(modules),
        "weights": [None if m is None else m.weight for m in modules],
    }


@operations.operation("prune.iterative", dialect=TOPK | {"score_sign": "ignored"})
def prune_iterative(
    weights: Tensors,
    scores: list[Tensors],
    previous: Tensors | None = None,
    *,
    amounts: list[float],
    scope: str = "tensor",
) -> Outputs:
    """The same call again and again on the same modules, whose masks accumulate."""
    if len(amounts) != len(scores):
        raise Unsupported("each round is a call with an amount and scores, so none is left over")
    modules = modules_of(weights, previous)
    rounds = []
    for amount, ranked in zip(amounts, scores, strict=True):
        _prune(modules, ranked, float(amount), scope)
        rounds.append(_masks(modules))
    return {"masks": rounds}
