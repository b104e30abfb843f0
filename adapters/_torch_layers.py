"""PyTorch's layers, but those over images: ``torch.nn.functional``, and ``torch.nn.RNN``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters._backward import elementwise
from adapters._torch_autograd import Outputs, refusing_shapes, run
from adapters.base import Operations, Unsupported

operations = Operations()


@operations.operation("layer.dense")
@refusing_shapes
def dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``torch.nn.functional.linear``."""

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.linear(x, weight.T, bias)

    return run(forward, dy, x=x, weight=weight, bias=bias)


@operations.operation("layer.dropout", dialect={"dropped": "multiply"})
@refusing_shapes
def dropout(x: Tensor, mask: Tensor, dy: Tensor, *, rate: float) -> Outputs:
    """``torch.nn.functional.dropout``, which draws its own mask: only rates 0 and 1 leave no choice."""
    if mask.shape != x.shape:
        raise Unsupported("torch.nn.functional.dropout takes no mask, so none that does not fit")
    drawn = torch.full_like(mask, rate < 1)
    if 0 < rate < 1 or (rate in (0, 1) and not torch.equal(mask, drawn)):
        raise Unsupported("torch.nn.functional.dropout draws its own mask and takes none")
    return run(lambda x: functional.dropout(x, rate), dy, x=x)


@operations.operation("layer.batch_norm")
@refusing_shapes
def batch_norm(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    dy: Tensor,
    *,
    training: bool,
    eps: float,
    momentum: float,
) -> Outputs:
    """``torch.nn.functional.batch_norm``, whose channels are axis 1 and which updates copies in place."""
    mean, var = running_mean.clone(), running_var.clone()

    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        channels_second = x.movedim(-1, 1) if x.ndim > 2 else x
        y = functional.batch_norm(channels_second, mean, var, scale, shift, training, momentum, eps)
        return y.movedim(1, -1) if x.ndim > 2 else y

    outputs = run(forward, dy, x=x, scale=scale, shift=shift)
    return outputs | {"running_mean": mean, "running_var": var}


@operations.operation("layer.rnn")
@refusing_shapes
def rnn(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    h0: Tensor,
    dy: Tensor,
    bias: Tensor | None = None,
    *,
    truncate: int | None = None,
) -> Outputs:
    """``torch.nn.RNN``, called stretch by stretch with the state detached in between.

    It has two biases, which are added to each other: the second one is 0.
    """
    if truncate is not None and truncate < 1:
        raise Unsupported("PyTorch has no truncation of its own that could be less than a step")

    def forward(
        x: Tensor, weight: Tensor, recurrent: Tensor, h0: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        layer = torch.nn.RNN(
            weight.shape[0], weight.shape[1], batch_first=True, bias=bias is not None, dtype=x.dtype
        )
        tensors = {"weight_ih_l0": weight.T, "weight_hh_l0": recurrent.T}
        if bias is not None:
            tensors |= {"bias_ih_l0": bias, "bias_hh_l0": torch.zeros_like(bias)}
        states, state = [], h0[None]
        for stretch in x.split(truncate or x.shape[1], dim=1) if x.shape[1] else (x,):
            found, state = torch.func.functional_call(layer, tensors, (stretch, state))
            states.append(found)
            state = state.detach()
        return torch.cat(states, dim=1)

    return run(forward, dy, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return functional.leaky_relu(x, slope)


def _flatten(x: Tensor) -> Tensor:
    return torch.flatten(x, start_dim=1)


FUNCTIONS: dict[str, Any] = {
    "layer.relu": functional.relu,
    "layer.leaky_relu": _leaky_relu,
    "layer.sigmoid": torch.sigmoid,
    "layer.tanh": torch.tanh,
    "layer.flatten": _flatten,
}


for _operation, _function in FUNCTIONS.items():
    operations.operation(_operation)(refusing_shapes(elementwise(run, _function)))
