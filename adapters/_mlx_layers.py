"""MLX's layers, but those over images: ``mlx.nn``, whose dense weights are (out, in), so permuted."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from adapters._backward import elementwise, in_stretches
from adapters._mlx_arrays import Outputs, Tensor, run
from adapters.base import Operations, Unsupported

operations = Operations()


@operations.operation("layer.dense")
def dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``mlx.nn.Linear``."""

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        layer = nn.Linear(1, 1, bias is not None)
        layer.update({"weight": weight.T} | ({} if bias is None else {"bias": bias}))
        return layer(x)

    return run(forward, dy, x=x, weight=weight, bias=bias)


@operations.operation("layer.batch_norm")
def batch_norm(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    dy: Tensor,
    *,
    eps: float,
    momentum: float,
    training: bool,
) -> Outputs:
    """``mlx.nn.BatchNorm``."""
    if x.ndim == 1:
        raise Unsupported("mlx.nn.BatchNorm takes two to four axes")
    layer = nn.BatchNorm(x.shape[-1], eps, momentum)
    layer.train(training)

    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        layer.update({"weight": scale, "bias": shift})
        layer.running_mean, layer.running_var = running_mean, running_var
        return layer(x)

    outputs = run(forward, dy, x=x, scale=scale, shift=shift)
    forward(x, scale, shift)
    return outputs | {"running_mean": layer.running_mean, "running_var": layer.running_var}


@operations.operation("layer.rnn")
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
    """``mlx.nn.RNN``, called stretch by stretch with a state that lets no gradient through."""
    if truncate is not None and truncate < 1:
        raise Unsupported("MLX has no truncation of its own that could be less than a step")
    layer = nn.RNN(weight.shape[0], weight.shape[1], bias is not None)

    def forward(
        x: Tensor, weight: Tensor, recurrent: Tensor, h0: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        tensors = {"Wxh": weight.T, "Whh": recurrent.T} | ({} if bias is None else {"bias": bias})
        layer.update(tensors)
        return mx.concatenate(in_stretches(layer, x, h0, truncate, mx.stop_gradient), axis=1)

    return run(forward, dy, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return nn.leaky_relu(x, slope)


def _flatten(x: Tensor) -> Tensor:
    return mx.flatten(x, 1)


for _operation, _function, _dialect in (
    ("layer.relu", nn.relu, {"nan": "no_gradient"}),
    ("layer.leaky_relu", _leaky_relu, {"at_zero": "one"}),
    ("layer.sigmoid", nn.sigmoid, {}),
    ("layer.tanh", nn.tanh, {}),
    ("layer.flatten", _flatten, {}),
):
    operations.operation(_operation, dialect=_dialect)(elementwise(run, _function))
