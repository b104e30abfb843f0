"""The articles' recipes as a user of PyTorch writes them: modules, autograd, ``torch.optim``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters._recipes import Script, answer
from adapters._recipes_torch_pruning import canonical, images, masks_of, shrink
from adapters._torch_loop import clip_gradients, make_optimizer, penalty_of


class Flatten(nn.Module):
    """Flatten images with the channel counting fastest, as NHWC images are laid out."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, …) as (N, rest)."""
        return torch.flatten(x.permute(0, 2, 3, 1) if x.ndim == 4 else x, 1)


def build(model: Any, params: list[Any]) -> nn.Sequential:
    """Return the modules of a model with the given initial parameters."""
    modules: list[nn.Module] = []
    remaining = [torch.from_numpy(p) for p in params]
    for layer in model:
        name = layer["operation"]
        if name in ("layer.dense", "layer.conv2d"):
            weight, bias, *remaining = remaining
            module: Any
            if name == "layer.dense":
                module = nn.Linear(*weight.shape)
                weight = weight.T
            else:
                module = nn.Conv2d(weight.shape[2], weight.shape[3], tuple(weight.shape[:2]))
                weight = weight.permute(3, 2, 0, 1)
            with torch.no_grad():
                module.weight.copy_(weight)
                module.bias.copy_(bias)
            modules.append(module)
        else:
            kinds: dict[str, Any] = {
                "layer.relu": nn.ReLU,
                "layer.flatten": Flatten,
                "layer.avg_pool2d": nn.AvgPool2d,
                "layer.max_pool2d": nn.MaxPool2d,
            }
            modules.append(kinds[name](*([layer["window"]] if "window" in layer else [])))
    return nn.Sequential(*modules)


def loss_of(description: Any, y: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss."""
    if description["operation"] == "loss.mse":
        return functional.mse_loss(y, targets)
    return functional.cross_entropy(y, targets)


def run(script: Script) -> Any:
    """Train as the script says."""
    d = script.description
    model = build(d["model"], script.params)
    parameters = list(model.parameters())
    stepper = make_optimizer(parameters, d["optimizer"])
    masks: list[Any] = [None] * len(parameters)
    losses, norms = [], []
    for step, (x, targets) in enumerate(zip(script.x, script.targets, strict=True)):
        if d.get("prune") and d["prune"]["step"] == step:
            masks = masks_of(script, model, parameters)
            _apply(masks, parameters, stepper)
            stepper = make_optimizer(parameters, d["optimizer"])
        stepper.zero_grad()
        loss = loss_of(d["loss"], model(images(x)), torch.from_numpy(targets))
        total = loss + penalty_of(parameters, d["penalty"]) if d.get("penalty") else loss
        total.backward()
        if d.get("shrink"):
            shrink(d["shrink"], parameters)
        norms.append(float(clip_gradients(parameters, d.get("clip"))))
        stepper.step()
        _apply(masks, parameters, stepper)
        losses.append(loss.item())
    kept = [None if m is None else canonical(m) for m in masks]
    return answer(losses, norms, [canonical(p) for p in parameters], kept)


def _apply(masks: list[Any], parameters: list[Any], stepper: Any) -> None:
    for p, mask in zip(parameters, masks, strict=True):
        if mask is not None:
            p.data.masked_fill_(~mask, 0.0)
            for value in stepper.state[p].values():
                if isinstance(value, Tensor) and value.shape == mask.shape:
                    value.masked_fill_(~mask, 0.0)
