"""What the articles' recipes prune, as a user of PyTorch writes it, and the axes of both sides."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters._recipes import Script, neuron_masks


def canonical(parameter: Tensor) -> Any:
    """Return a weight as NumPy holds it in a script: HWIO, or (in, out)."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[parameter.ndim]
    return parameter.detach().permute(axes).numpy().copy()


def native(array: Any) -> Tensor:
    """Return a tensor with PyTorch's axes."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
    return torch.from_numpy(array).permute(axes)


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
