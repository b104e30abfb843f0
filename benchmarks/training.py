"""One training step, from the batch to the new parameters, as a user of either library writes it.

Forward, softmax cross-entropy, backward, clip by the global norm, SGD with momentum. Both sides start
from the same parameters and are compared after a few steps, so that the times are of the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from refimpl import models, trainer

from .timing import Run

LOSS = {"operation": "loss.softmax_cross_entropy"}
LR, MOMENTUM, MAX_NORM = 0.01, 0.9, 1.0

MLP: list[dict[str, Any]] = [
    {"operation": "layer.dense", "units": 64},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 32},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 10},
]
CNN: list[dict[str, Any]] = [
    {"operation": "layer.conv2d", "filters": 32, "kernel": [3, 3]},
    {"operation": "layer.relu"},
    {"operation": "layer.conv2d", "filters": 64, "kernel": [3, 3]},
    {"operation": "layer.relu"},
    {"operation": "layer.avg_pool2d", "window": [2, 2]},
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 128},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 10},
]


class Refimpl:
    """The canonical trainer; each call takes a step."""

    def __init__(
        self,
        model: list[dict[str, Any]],
        x: Any,
        targets: Any,
        move: Callable[[Any], Any] = lambda array: array,
    ) -> None:
        self.model, self.batch = model, (move(x), move(targets))
        self.plan = trainer.Plan(
            {"operation": "optim.sgd", "lr": LR, "momentum": MOMENTUM},
            clip={"operation": "clip.global_norm", "max_norm": MAX_NORM},
        )
        params = models.initial_params(model, x.shape[1:], seed=0)
        self.state = trainer.start(self.plan, [move(param) for param in params])

    def __call__(self) -> None:
        """Take one step."""
        self.state = trainer.train(self.model, LOSS, self.plan, self.state, [[self.batch]])

    def params(self) -> list[Any]:
        """Return the parameters."""
        return self.state.params


class Torch:
    """PyTorch in eager mode, from the same parameters; each call takes a step."""

    def __init__(
        self,
        model: list[dict[str, Any]],
        x: Any,
        targets: Any,
        channels_last: bool = False,
        device: str = "cpu",
    ) -> None:
        params = models.initial_params(model, x.shape[1:], seed=0)
        self.net = torch.nn.Sequential(*_modules(model, params)).to(device)
        self.x, self.targets = torch.from_numpy(x).to(device), torch.from_numpy(targets).to(device)
        if x.ndim == 4:
            self.x = self.x.permute(0, 3, 1, 2).contiguous()
        if channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
            self.x = self.x.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LR, momentum=MOMENTUM)

    def __call__(self) -> None:
        """Take one step."""
        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.net(self.x), self.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), MAX_NORM)
        self.optimizer.step()

    def params(self) -> list[Any]:
        """Return the parameters in the layout of ``refimpl``, dense layers after a flatten excepted."""
        return [_to_ours(p.detach().numpy()) for p in self.net.parameters()]


def _modules(model: list[dict[str, Any]], params: list[Any]) -> list[torch.nn.Module]:
    remaining = iter(params)
    modules: list[torch.nn.Module] = []
    channels: int | None = None
    for layer in model:
        kind = layer["operation"]
        if kind == "layer.conv2d":
            weight = next(remaining).transpose(3, 2, 0, 1)
            channels = weight.shape[0]
            module: torch.nn.Module = torch.nn.Conv2d(weight.shape[1], channels, weight.shape[2:])
        elif kind == "layer.dense":
            weight = next(remaining)
            if channels is not None:
                # PyTorch flattens (C, H, W), refimpl (H, W, C).
                side = int((weight.shape[0] // channels) ** 0.5)
                images = weight.reshape(side, side, channels, -1)
                weight = images.transpose(2, 0, 1, 3).reshape(weight.shape)
                channels = None
            weight = weight.T
            module = torch.nn.Linear(weight.shape[1], weight.shape[0])
        else:
            modules.append(
                {
                    "layer.relu": torch.nn.ReLU,
                    "layer.avg_pool2d": lambda: torch.nn.AvgPool2d(2),
                    "layer.flatten": torch.nn.Flatten,
                }[kind]()
            )
            continue
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            module.bias.copy_(torch.from_numpy(next(remaining)))
        modules.append(module)
    return modules


def _to_ours(array: Any) -> Any:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def batch(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return a batch of random examples of that shape, and classes from 0 to 9."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape).astype(np.float32), rng.integers(0, 10, shape[0])


SHAPES = {"cnn": (64, 28, 28, 1), "mlp": (32, 32)}
MODELS = {"cnn": CNN, "mlp": MLP}


def peers(name: str) -> dict[str, Callable[[], Run]]:
    """Return what makes a step of each library."""
    model, data = MODELS[name], batch(SHAPES[name])
    makers: dict[str, Callable[[], Run]] = {
        "refimpl": lambda: Refimpl(model, *data),
        "torch": lambda: Torch(model, *data),
    }
    if name == "cnn":
        makers["torch channels_last"] = lambda: Torch(model, *data, channels_last=True)
    return makers


def check(name: str) -> None:
    """Raise ValueError if the libraries do not take the same steps."""
    data = batch(SHAPES[name])
    ours, theirs = Refimpl(MODELS[name], *data), Torch(MODELS[name], *data)
    for _ in range(3):
        ours()
        theirs()
    for mine, other in zip(ours.params(), theirs.params(), strict=True):
        # The dense layer after the flatten has its rows in another order; sorted, they agree.
        if not np.allclose(np.sort(mine, axis=0), np.sort(other, axis=0), rtol=1e-3, atol=1e-5):
            raise ValueError("refimpl and torch do not take the same training step")
