"""MLX's layers and losses: ``mlx.nn`` forward, ``mx.vjp`` backward.

Images are NHWC as in the suite; dense weights are (out, in) and kernels OHWI, so both are permuted under
differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from adapters._backward import LOSSES, Tensor, Tensors, elementwise, in_stretches, with_gradients
from adapters.base import Adapter, Unsupported

Outputs = dict[str, Any]
# Exponentials and convolutions of float64 are computed in float32, which layer.sigmoid shows.
NARROW = ("float32", "float16", "bfloat16")
Pair = list[int]
Pads = list[list[int]]


def _pull_back(
    function: Callable[..., Tensor], inputs: Tensors, dy: Tensor
) -> tuple[Tensor, Tensors]:
    y = function(**inputs)
    if y.shape != dy.shape:
        raise Unsupported("mlx.core.vjp checks no shape of an upstream gradient, it would read on")
    grads = mx.vjp(
        lambda *xs: function(**dict(zip(inputs, xs, strict=True))), [*inputs.values()], [dy]
    )
    return y, dict(zip(inputs, grads[1], strict=True))


_run = with_gradients(_pull_back)


def _dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``mlx.nn.Linear``."""

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        layer = nn.Linear(1, 1, bias is not None)
        layer.update({"weight": weight.T} | ({} if bias is None else {"bias": bias}))
        return layer(x)

    return _run(forward, dy, x=x, weight=weight, bias=bias)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    dy: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
) -> Outputs:
    """``mlx.core.conv_general``."""
    (top, bottom), (left, right) = padding

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = mx.conv_general(
            x, weight.transpose(3, 0, 1, 2), stride, ([top, left], [bottom, right]), dilation,
            groups=groups,
        )  # fmt: skip
        return y if bias is None else y + bias

    return _run(forward, dy, x=x, weight=weight, bias=bias)


def _pool2d(kind: Any) -> Callable[..., Outputs]:
    def run(
        x: Tensor,
        dy: Tensor,
        *,
        window: Pair,
        stride: Pair | None = None,
        padding: Pads,
        dilation: Pair,
        ceil_mode: bool = False,
    ) -> Outputs:
        if ceil_mode or dilation != [1, 1]:
            raise Unsupported("the pooling of MLX has neither ceil_mode nor dilation")
        if any(before != after for before, after in padding):
            raise Unsupported("the pooling of MLX pads alike on both sides")
        own = tuple(before for before, _ in padding)
        layer = kind(tuple(window), tuple(stride or window), own)
        return _run(lambda x: layer(x), dy, x=x)

    return run


def _batch_norm(
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

    outputs = _run(forward, dy, x=x, scale=scale, shift=shift)
    forward(x, scale, shift)
    return outputs | {"running_mean": layer.running_mean, "running_var": layer.running_var}


def _rnn(
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

    return _run(forward, dy, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return nn.leaky_relu(x, slope)


def _flatten(x: Tensor) -> Tensor:
    return mx.flatten(x, 1)


def _loss(function: Callable[..., Tensor]) -> Any:
    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        loss, dx = mx.value_and_grad(lambda x: function(x, targets, reduction=reduction))(x)
        return {"loss": loss, "dx": dx}

    return run


def _cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if x.ndim != 2 or targets.shape != x.shape[:1]:
        raise Unsupported("mlx.nn.losses.cross_entropy broadcasts")
    return nn.losses.cross_entropy(x, targets, reduction=reduction)


def _binary_cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return nn.losses.binary_cross_entropy(x, targets, with_logits=True, reduction=reduction)


def register(adapter: Adapter) -> None:
    """Register the layers and losses."""
    for operation_id, function, dialect in (
        ("layer.dense", _dense, {}),
        ("layer.max_pool2d", _pool2d(nn.MaxPool2d), {"ties": "split"}),
        ("layer.avg_pool2d", _pool2d(nn.AvgPool2d), {"count_padding": True}),
        ("layer.relu", elementwise(_run, nn.relu), {"nan": "no_gradient"}),
        ("layer.leaky_relu", elementwise(_run, _leaky_relu), {"at_zero": "one"}),
        ("layer.sigmoid", elementwise(_run, nn.sigmoid), {}),
        ("layer.tanh", elementwise(_run, nn.tanh), {}),
        ("layer.flatten", elementwise(_run, _flatten), {}),
        ("layer.batch_norm", _batch_norm, {}),
        ("layer.rnn", _rnn, {}),
        ("loss.mse", _loss(nn.losses.mse_loss), LOSSES),
    ):  # fmt: skip
        adapter.operation(operation_id, dialect=dialect)(function)
    for operation_id, function, dialect in (
        ("layer.conv2d", _conv2d, {}),
        ("loss.softmax_cross_entropy", _loss(_cross_entropy), LOSSES),
        ("loss.binary_cross_entropy", _loss(_binary_cross_entropy),
         {**LOSSES, "outside_targets": "extrapolate", "infinite_logit": "linear_form"}),
    ):  # fmt: skip
        adapter.operation(operation_id, NARROW, dialect)(function)
