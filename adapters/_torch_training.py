"""PyTorch's training step, written as its documentation asks: GradScaler, backward, clip, step, mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters._torch_loop import (
    DIALECT,
    Description,
    at,
    clip_gradients,
    make_optimizer,
    penalty_of,
    set_lr,
)
from adapters.base import Operations, Unsupported

Outputs = dict[str, Any]

operations = Operations()


@operations.operation("train.step", ("float64", "float32"), DIALECT)
def train_step(
    params: list[Tensor],
    grads: list[list[list[Tensor | None]]],
    masks: list[Tensor | None] | None = None,
    *,
    optimizer: Description,
    clip: Description | None = None,
    penalty: Description | None = None,
    accumulate: str = "mean",
    loss_scale: Any = 1.0,
) -> Outputs:
    """A user's loop: backward of Σ w·g puts each given gradient where a model's would be."""
    if any(not micro for micro in grads):
        raise Unsupported("a loop over no micro-batches calls nothing of PyTorch")
    parameters = [torch.nn.Parameter(p.clone()) for p in params]
    stepper = make_optimizer(parameters, optimizer)
    after, norms, skipped = [], [], []
    for step, micro_batches in enumerate(grads):
        scaler = torch.amp.GradScaler("cpu", init_scale=at(loss_scale, step))
        stepper.zero_grad()
        for index, micro in enumerate(micro_batches):
            products = [
                (w * g).sum() for w, g in zip(parameters, micro, strict=True) if g is not None
            ]
            share = len(micro_batches) if accumulate == "mean" else 1
            for product in products:
                (product / share).backward()
            if penalty is not None and index == 0:
                scaler.scale(penalty_of(parameters, penalty)).backward()
        set_lr(stepper, optimizer, step)
        norms.append(_scaled_step(scaler, stepper, parameters, clip))
        skipped.append(scaler.get_scale() < at(loss_scale, step))
        if masks is not None and not skipped[-1]:
            _mask(stepper, parameters, masks)
        after.append([p.detach().clone() for p in parameters])
    return {
        "params": after,
        "total_norm": torch.stack(norms),
        "skipped": torch.tensor(skipped, dtype=torch.int32),
    }


def _scaled_step(
    scaler: torch.amp.GradScaler, stepper: Any, parameters: list[Tensor], how: Description | None
) -> Tensor:
    # The scale is made when the first loss is scaled.
    scaler.scale(torch.zeros(()))
    scaler.unscale_(stepper)
    total = clip_gradients(parameters, how)
    scaler.step(stepper)
    scaler.update()
    return total.detach().clone()


def _mask(stepper: Any, parameters: list[Tensor], masks: list[Tensor | None]) -> None:
    for p, mask in zip(parameters, masks, strict=True):
        if mask is None:
            continue
        p.data.masked_fill_(~mask, 0.0)
        for value in stepper.state[p].values():
            if isinstance(value, Tensor) and value.shape == mask.shape:
                value.masked_fill_(~mask, 0.0)
