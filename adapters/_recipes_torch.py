"""The articles' recipes as a user of PyTorch writes them: modules, autograd, ``torch.optim``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters._recipes import Script, answer, neuron_masks
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


def canonical(parameter: Tensor) -> Any:
    """Return a weight as NumPy holds it in a script: HWIO, or (in, out)."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[parameter.ndim]
    return parameter.detach().permute(axes).numpy().copy()


def native(array: Any) -> Tensor:
    """Return a tensor with PyTorch's axes."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
    return torch.from_numpy(array).permute(axes)


def loss_of(description: Any, y: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss."""
    if description["operation"] == "loss.mse":
        return functional.mse_loss(y, targets)
    return functional.cross_entropy(y, targets)


def images(x: Any) -> Tensor:
    """Return examples; images become NCHW."""
    tensor = torch.from_numpy(x)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def neuron_gradients(model: nn.Sequential, x: Tensor, targets: Tensor) -> list[Any]:
    """Return each hidden unit's mean |∂ℓ_n/∂z_n|."""
    hidden = [m for m in model if isinstance(m, nn.Linear)][:-1]
    seen: list[Tensor] = []
    for module in model:
        x = module(x)
        if any(module is h for h in hidden):
            x.retain_grad()
            seen.append(x)
    functional.cross_entropy(x, targets, reduction="sum").backward()
    return [z.grad.abs().mean(dim=0).numpy() for z in seen if z.grad is not None]


def masks_of(script: Script, model: nn.Sequential, parameters: list[Any]) -> list[Any]:
    """Return the masks that a script asks for, with PyTorch's axes."""
    how = script.description["prune"]
    if how["by"] == "neurons":
        assert script.score is not None
        x, targets = images(script.score[0]), torch.from_numpy(script.score[1])
        kept = [g >= how["threshold"] for g in neuron_gradients(model, x, targets)]
        return [native(m) for m in neuron_masks([canonical(p) for p in parameters], kept)]
    chosen = [parameters[i].detach() for i in how["parameters"]]
    sizes = [w.abs().flatten() for w in chosen]
    flat = torch.cat(sizes)
    kept = torch.ones_like(flat, dtype=torch.bool)
    count = round(how["amount"] * flat.numel())
    kept[torch.topk(flat, count, largest=False).indices] = False
    pieces = torch.split(kept, [len(s) for s in sizes])
    result: list[Any] = [None] * len(parameters)
    for i, weight, piece in zip(how["parameters"], chosen, pieces, strict=True):
        result[i] = piece.reshape(weight.shape)
    return result


def shrink(how: Any, parameters: list[Any]) -> None:
    """Shrink the weights whose gradients are small."""
    for i in how["parameters"]:
        small = parameters[i].grad.abs() <= np.float32(how["threshold"])
        parameters[i].data[small] *= 1 - how["rate"]


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
