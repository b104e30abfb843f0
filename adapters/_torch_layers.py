"""PyTorch's layers and losses: ``torch.nn.functional`` forward, ``torch.autograd.grad`` backward.

The suite's layouts (NHWC, HWIO, dense weights (in, out)) are permuted to PyTorch's under autograd, so
that gradients come back in the layout of their inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters._backward import LOSSES
from adapters._torch_arrays import refusing
from adapters.base import Adapter, Unsupported

Outputs = dict[str, Any]
Pair = list[int]
Pads = list[list[int]]


def _backward(y: Tensor, dy: Tensor, **inputs: Tensor | None) -> Outputs:
    """Return ``y`` and the gradient of each input under the name that the suite gives it."""
    given = {name: x for name, x in inputs.items() if x is not None}
    grads = torch.autograd.grad(y, list(given.values()), dy)
    found = dict(zip(given, grads, strict=True))
    return {"y": y, **{f"d{name}": found.get(name) for name in inputs}}


def _leaf(x: Tensor | None) -> Any:
    return None if x is None else x.detach().requires_grad_()


def _nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _pad(x: Tensor, padding: Pads, value: float = 0.0) -> Tensor:
    (top, bottom), (left, right) = padding
    return functional.pad(x, (left, right, top, bottom), value=value)


def _dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``torch.nn.functional.linear``."""
    x, weight, bias = _leaf(x), _leaf(weight), _leaf(bias)
    return _backward(functional.linear(x, weight.T, bias), dy, x=x, weight=weight, bias=bias)


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
    """``torch.nn.functional.conv2d``; its padding is symmetric, so ``pad`` comes first."""
    x, weight, bias = _leaf(x), _leaf(weight), _leaf(bias)
    padded, kernel = _pad(_nchw(x), padding), weight.permute(3, 2, 0, 1).contiguous()
    y = functional.conv2d(padded, kernel, bias, stride, 0, dilation, groups)
    return _backward(_nhwc(y), dy, x=x, weight=weight, bias=bias)


def _max_pool2d(
    x: Tensor,
    dy: Tensor,
    *,
    window: Pair,
    stride: Pair | None = None,
    padding: Pads,
    dilation: Pair,
    ceil_mode: bool = False,
) -> Outputs:
    """``torch.nn.functional.max_pool2d``; ``pad`` with -inf where its own padding cannot serve."""
    x = _leaf(x)
    padded, own = _own_padding(_nchw(x), window, padding, ceil_mode, float("-inf"))
    y = functional.max_pool2d(padded, window, stride, own, dilation, ceil_mode)
    return _backward(_nhwc(y), dy, x=x)


def _avg_pool2d(
    x: Tensor,
    dy: Tensor,
    *,
    window: Pair,
    stride: Pair | None = None,
    padding: Pads,
    dilation: Pair,
    ceil_mode: bool = False,
) -> Outputs:
    """``torch.nn.functional.avg_pool2d`` with its default, which counts the padding."""
    if dilation != [1, 1]:
        raise Unsupported("torch.nn.functional.avg_pool2d has no dilation")
    x = _leaf(x)
    padded, own = _own_padding(_nchw(x), window, padding, ceil_mode, 0.0)
    y = functional.avg_pool2d(padded, window, stride, own, ceil_mode)
    return _backward(_nhwc(y), dy, x=x)


def _own_padding(
    x: Tensor, window: Pair, padding: Pads, ceil_mode: bool, value: float
) -> tuple[Tensor, Pair]:
    """Return the padding that a pooling function takes, or 0 and an input that is padded already."""
    (top, bottom), (left, right) = padding
    if top == bottom and left == right and 2 * top <= window[0] and 2 * left <= window[1]:
        return x, [top, left]
    if ceil_mode:
        raise Unsupported("PyTorch's pooling has ceil_mode only with symmetric padding")
    return _pad(x, padding, value), [0, 0]


def _elementwise(function: Any) -> Callable[..., Outputs]:
    def run(x: Tensor, dy: Tensor) -> Outputs:
        x = _leaf(x)
        return _backward(function(x), dy, x=x)

    return run


def _leaky_relu(x: Tensor, dy: Tensor, *, slope: float) -> Outputs:
    """``torch.nn.functional.leaky_relu``."""
    x = _leaf(x)
    return _backward(functional.leaky_relu(x, slope), dy, x=x)


def _dropout(x: Tensor, mask: Tensor, dy: Tensor, *, rate: float) -> Outputs:
    """``torch.nn.functional.dropout``, which draws its own mask: only rates 0 and 1 leave no choice."""
    if mask.shape != x.shape:
        raise Unsupported("torch.nn.functional.dropout takes no mask, so none that does not fit")
    drawn = torch.full_like(mask, rate < 1)
    if 0 < rate < 1 or (rate in (0, 1) and not torch.equal(mask, drawn)):
        raise Unsupported("torch.nn.functional.dropout draws its own mask and takes none")
    x = _leaf(x)
    return _backward(functional.dropout(x, rate), dy, x=x)


def _batch_norm(
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
    x, scale, shift = _leaf(x), _leaf(scale), _leaf(shift)
    mean, var = running_mean.clone(), running_var.clone()
    channels_second = x.movedim(-1, 1) if x.ndim > 2 else x
    y = functional.batch_norm(channels_second, mean, var, scale, shift, training, momentum, eps)
    y = y.movedim(1, -1) if x.ndim > 2 else y
    gradients = _backward(y, dy, x=x, scale=scale, shift=shift)
    return gradients | {"running_mean": mean, "running_var": var}


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
    """``torch.nn.RNN``, called stretch by stretch with the state detached in between.

    It has two biases, which are added to each other: the second one is 0.
    """
    if truncate is not None and truncate < 1:
        raise Unsupported("PyTorch has no truncation of its own that could be less than a step")
    x, weight, recurrent, h0, bias = (_leaf(t) for t in (x, weight, recurrent, h0, bias))
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
    y = torch.cat(states, dim=1)
    return _backward(y, dy, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)


def _loss(function: Any) -> Callable[..., Outputs]:
    def run(x: Tensor, targets: Tensor, *, reduction: str = "mean") -> Outputs:
        x = _leaf(x)
        loss = function(x, targets, reduction=reduction)
        return {"loss": loss, "dx": torch.autograd.grad(loss, x)[0]}

    return run


REFUSALS = (RuntimeError, IndexError)
"""How PyTorch answers shapes that do not fit."""


def register(adapter: Adapter) -> None:
    """Register the layers and losses on PyTorch's adapter."""
    for operation_id, function, dialect in (
        ("layer.dense", _dense, {}),
        ("layer.conv2d", _conv2d, {}),
        ("layer.max_pool2d", _max_pool2d, {}),
        ("layer.avg_pool2d", _avg_pool2d, {"count_padding": True}),
        ("layer.relu", _elementwise(functional.relu), {}),
        ("layer.leaky_relu", _leaky_relu, {}),
        ("layer.sigmoid", _elementwise(torch.sigmoid), {}),
        ("layer.tanh", _elementwise(torch.tanh), {}),
        ("layer.dropout", _dropout, {"dropped": "multiply"}),
        ("layer.batch_norm", _batch_norm, {}),
        ("layer.rnn", _rnn, {}),
        ("layer.flatten", _elementwise(lambda x: torch.flatten(x, start_dim=1)), {}),
        ("loss.softmax_cross_entropy", _loss(functional.cross_entropy), LOSSES),
        ("loss.mse", _loss(functional.mse_loss), LOSSES),
        (
            "loss.binary_cross_entropy",
            _loss(functional.binary_cross_entropy_with_logits),
            {**LOSSES, "outside_targets": "extrapolate", "infinite_logit": "sigmoid_form"},
        ),
    ):
        adapter.operation(operation_id, dialect=dialect)(refusing(*REFUSALS)(function))
