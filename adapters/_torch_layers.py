"""PyTorch's layers and losses: ``torch.nn.functional`` forward, ``torch.autograd.grad`` backward.

The suite's layouts (NHWC, HWIO, dense weights (in, out)) are permuted to PyTorch's under autograd, so
that gradients come back in the layout of their inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters.base import Adapter, Rejected, Unsupported

Outputs = dict[str, Any]
Pair = list[int]
Pads = list[list[int]]

NAN_MEAN = {"empty_mean": "undefined"}


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


def _loss(function: Any) -> Callable[..., Outputs]:
    def run(x: Tensor, targets: Tensor, *, reduction: str = "mean") -> Outputs:
        x = _leaf(x)
        loss = function(x, targets, reduction=reduction)
        return {"loss": loss, "dx": torch.autograd.grad(loss, x)[0]}

    return run


def _refusing(function: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """Take these errors as refusals: they are how PyTorch answers shapes that do not fit."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Outputs:
        try:
            return function(*args, **kwargs)
        except (RuntimeError, IndexError) as error:
            raise Rejected(str(error).partition("\n")[0]) from error

    return run


def register(adapter: Adapter) -> None:
    """Register the layers and losses on PyTorch's adapter."""
    for operation_id, function, dialect in (
        ("layer.dense", _dense, {}),
        ("layer.conv2d", _conv2d, {}),
        ("layer.max_pool2d", _max_pool2d, {}),
        ("layer.avg_pool2d", _avg_pool2d, {"count_padding": True}),
        ("layer.relu", _elementwise(functional.relu), {}),
        ("layer.flatten", _elementwise(lambda x: torch.flatten(x, start_dim=1)), {}),
        ("loss.softmax_cross_entropy", _loss(functional.cross_entropy), NAN_MEAN),
        ("loss.mse", _loss(functional.mse_loss), NAN_MEAN),
    ):
        adapter.operation(operation_id, dialect=dialect)(_refusing(function))
