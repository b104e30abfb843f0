"""What a training loop of PyTorch is made of: an optimiser of ``torch.optim``, clip and penalty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

Description = Mapping[str, Any]

OPTIMIZERS = {
    "optim.sgd": torch.optim.SGD,
    "optim.adam": torch.optim.Adam,
    "optim.adamw": torch.optim.AdamW,
    "optim.rmsprop": torch.optim.RMSprop,
    "optim.adagrad": torch.optim.Adagrad,
}
NAMES = {"initial_accumulator": "initial_accumulator_value"}

DIALECT = {"clip.eps_at": "denominator", "clip.eps": 1e-6, "clip.negative_limit": "flip_sign"}


def make_optimizer(parameters: list[Tensor], description: Description) -> torch.optim.Optimizer:
    """Return an optimiser of ``torch.optim``; the learning rate is set step by step."""
    options = {NAMES.get(k, k): v for k, v in description.items() if k not in ("operation", "lr")}
    if "beta1" in options or "beta2" in options:
        options["betas"] = (options.pop("beta1", 0.9), options.pop("beta2", 0.999))
    defaults = {} if description["operation"] == "optim.sgd" else {"weight_decay": 0.0}
    rate = at(description["lr"], 0)
    return OPTIMIZERS[description["operation"]](parameters, lr=rate, **(defaults | options))


def clip_gradients(parameters: list[Tensor], description: Description | None) -> Tensor:
    """Clip the gradients in place; return their norm before that."""
    given = [p for p in parameters if p.grad is not None]
    total = get_total_norm([p.grad for p in given])
    if description is None:
        return total
    if description["operation"] == "clip.global_norm":
        return clip_grad_norm_(given, description["max_norm"], description.get("ord", 2))
    if description["operation"] == "clip.norm":
        for p in given:
            clip_grad_norm_([p], description["max_norm"], description.get("ord", 2))
        return total
    low, high = description.get("min"), description.get("max")
    if high is not None and low == -high:
        clip_grad_value_(given, high)
    else:
        for p in given:
            p.grad.clamp_(low, high)
    return total


def penalty_of(parameters: list[Tensor], description: Description) -> Tensor:
    """Return a penalty as part of the loss."""
    terms = [_penalty(p, description) for p in parameters]
    return sum(terms[1:], terms[0])


def _penalty(p: Tensor, description: Description) -> Tensor:
    strength = description.get("strength")
    if description["operation"] == "penalty.l1":
        return strength * p.abs().sum()
    if description["operation"] == "penalty.l2":
        return strength * p.square().sum()
    if description["operation"] == "penalty.elastic_net":
        return description["l1"] * p.abs().sum() + description["l2"] * p.square().sum()
    axis = description["axis"]
    groups = {a % p.ndim for a in (axis if isinstance(axis, list) else [axis])}
    rest = [a for a in range(p.ndim) if a not in groups]
    return strength * (torch.linalg.vector_norm(p, dim=rest) if rest else p.abs()).sum()


def set_lr(stepper: torch.optim.Optimizer, description: Description, step: int) -> None:
    """Set the learning rate of a step."""
    for group in stepper.param_groups:
        group["lr"] = at(description["lr"], step)


def at(value: Any, step: int) -> float:
    """Return a parameter that is one number, or one per step."""
    return float(value[step] if isinstance(value, list) else value)
