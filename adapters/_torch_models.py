"""Small models as a user of PyTorch writes them, with ``torch.nn.functional``, and their losses.

Images are NHWC outside and NCHW inside each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters.base import Unsupported

Description = Mapping[str, Any]

LOSSES: dict[str, Any] = {
    "loss.softmax_cross_entropy": functional.cross_entropy,
    "loss.mse": functional.mse_loss,
    "loss.binary_cross_entropy": functional.binary_cross_entropy_with_logits,
}


def forward(layers: Any, weights: list[Tensor], x: Tensor) -> Tensor:
    """Run a model with these weights, which its layers take in turn."""
    remaining = list(weights)
    for layer in layers:
        count, function = LAYERS[layer["operation"]]
        own, remaining = remaining[:count], remaining[count:]
        x = function(x, *own, {k: v for k, v in layer.items() if k != "operation"})
    return x


def _images(function: Any) -> Any:
    """Return a function of NHWC images from one of NCHW images."""

    def run(x: Tensor, *own: Any) -> Tensor:
        return function(x.permute(0, 3, 1, 2), *own).permute(0, 2, 3, 1)

    return run


def _conv2d(images: Tensor, weight: Tensor, bias: Tensor, options: Description) -> Tensor:
    return functional.conv2d(images, weight.permute(3, 2, 0, 1), bias)


def _batch_norm(x: Tensor, scale: Tensor, shift: Tensor, options: Description) -> Tensor:
    second = x.movedim(-1, 1)
    y = functional.batch_norm(second, None, None, scale, shift, True, eps=options.get("eps", 1e-5))
    return y.movedim(1, -1)


def _rnn(
    x: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor, options: Description
) -> Tensor:
    """``torch.nn.RNN``, stretch by stretch with the state detached in between."""
    layer = torch.nn.RNN(*weight.shape, batch_first=True, dtype=x.dtype)
    tensors = {"weight_ih_l0": weight.T, "weight_hh_l0": recurrent.T}
    tensors |= {"bias_ih_l0": bias, "bias_hh_l0": torch.zeros_like(bias)}
    states, state = [], x.new_zeros(1, len(x), weight.shape[1])
    for stretch in x.split(options.get("truncate") or x.shape[1], dim=1):
        found, state = torch.func.functional_call(layer, tensors, (stretch, state))
        states.append(found)
        state = state.detach()
    return torch.cat(states, dim=1)


def _dropout(x: Tensor, options: Description) -> Tensor:
    raise Unsupported("torch.nn.functional.dropout draws its own mask and takes none")


LAYERS: dict[str, tuple[int, Any]] = {
    "layer.dense": (2, lambda x, weight, bias, _: functional.linear(x, weight.T, bias)),
    "layer.conv2d": (2, _images(_conv2d)),
    "layer.relu": (0, lambda x, _: functional.relu(x)),
    "layer.leaky_relu": (0, lambda x, options: functional.leaky_relu(x, options["slope"])),
    "layer.sigmoid": (0, lambda x, _: torch.sigmoid(x)),
    "layer.tanh": (0, lambda x, _: torch.tanh(x)),
    "layer.max_pool2d": (
        0, _images(lambda x, o: functional.max_pool2d(x, o["window"], o.get("stride"))),
    ),
    "layer.avg_pool2d": (
        0, _images(lambda x, o: functional.avg_pool2d(x, o["window"], o.get("stride"))),
    ),
    "layer.flatten": (0, lambda x, _: torch.flatten(x, 1)),
    "layer.dropout": (0, _dropout),
    "layer.batch_norm": (2, _batch_norm),
    "layer.rnn": (3, _rnn),
}  # fmt: skip
