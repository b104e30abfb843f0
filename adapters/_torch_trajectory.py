"""PyTorch's training of a small model: autograd, clip, step, and ``torch.nn.utils.prune`` on a schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import prune as pruning

from adapters._torch_loop import (
    DIALECT,
    Description,
    clip_gradients,
    make_optimizer,
    penalty_of,
    set_lr,
)
from adapters._torch_models import LOSSES, forward
from adapters.base import Operations

Outputs = dict[str, Any]

operations = Operations()


class Held(torch.nn.Module):
    """A parameter in a module of its own, for ``torch.nn.utils.prune`` works on modules."""

    def __init__(self, weight: Tensor) -> None:
        """Hold a copy of a parameter."""
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())

    def forward(self) -> Tensor:
        """Return the parameter, masked if it is pruned."""
        return self.weight


def _sparsity(schedule: Description, step: int) -> float | None:
    begin, end = schedule["begin"], schedule["end"]
    if not begin <= step <= end or ((step - begin) % schedule["frequency"] and step != end):
        return None
    left = (1 - (step - begin) / (end - begin)) ** schedule["power"]
    return schedule["final"] + (schedule["initial"] - schedule["final"]) * left


def _prune(modules: list[Held], plan: Description, step: int) -> None:
    """Prune the smallest weights of the chosen modules together, up to the schedule's sparsity."""
    sparsity = _sparsity(plan["schedule"], step)
    if sparsity is None:
        return
    chosen = [modules[i] for i in plan["parameters"]]
    for module in chosen:
        module()  # the masked weight is made anew by the forward pass, not by the optimiser's step
    total = sum(m.weight.numel() for m in chosen)
    already = sum(int((m.weight_mask == 0).sum()) for m in chosen if pruning.is_pruned(m))
    pruning.global_unstructured(
        [(m, "weight") for m in chosen],
        pruning.L1Unstructured,
        amount=round(sparsity * total) - already,
    )


@operations.operation(
    "train.trajectory", ("float64", "float32"), DIALECT | {"prune.gradient": "masked"}
)
def train_trajectory(
    params: list[Tensor],
    x: Any,
    targets: Any,
    dropout: Any = None,
    *,
    model: Any,
    loss: Description,
    optimizer: Description,
    clip: Description | None = None,
    penalty: Description | None = None,
    prune: Description | None = None,
    accumulate: str = "mean",
) -> Outputs:
    """A user's training loop over a small model, with autograd and ``torch.nn.utils.prune``."""
    modules = [Held(p) for p in params]
    parameters = [m.weight for m in modules]
    stepper = make_optimizer(parameters, optimizer)
    record: dict[str, list[Any]] = {
        n: [] for n in ("loss", "grads", "total_norm", "params", "masks")
    }
    for step, (xs, ts) in enumerate(zip(x, targets, strict=True)):
        stepper.zero_grad()
        share = len(xs) if accumulate == "mean" else 1
        losses = []
        for images, labels in zip(xs, ts, strict=True):
            y = forward(model, [m() for m in modules], images)
            measure = LOSSES[loss["operation"]]
            value = measure(y, labels, reduction=loss.get("reduction", "mean")) / share
            value.backward()
            losses.append(value.detach())
        if penalty is not None:
            penalty_of(parameters, penalty).backward()
        record["loss"].append(sum(losses[1:], losses[0]))
        record["grads"].append([p.grad.clone() for p in parameters])
        record["total_norm"].append(clip_gradients(parameters, clip).clone())
        set_lr(stepper, optimizer, step)
        stepper.step()
        if prune is not None:
            _prune(modules, prune, step)
        record["params"].append([m().detach().clone() for m in modules])
        record["masks"].append([_mask_of(m) for m in modules])
    outputs: Outputs = {
        **record,
        "loss": torch.stack(record["loss"]),
        "total_norm": torch.stack(record["total_norm"]),
    }
    return outputs if prune is not None else {k: v for k, v in outputs.items() if k != "masks"}


def _mask_of(module: Held) -> Tensor | None:
    return module.weight_mask.bool() if pruning.is_pruned(module) else None
