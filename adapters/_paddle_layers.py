"""PaddlePaddle's layers and losses: ``paddle.nn.functional`` forward, ``paddle.grad`` backward.

Images and dense weights are laid out as in the suite; kernels are OIHW, permuted under autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
from paddle.nn import functional

from adapters._backward import LOSSES, Tensor, Tensors, elementwise, with_gradients
from adapters.base import Adapter, Unsupported

Outputs = dict[str, Any]
Pair = list[int]
Pads = list[list[int]]


def _pull_back(
    function: Callable[..., Tensor], inputs: Tensors, dy: Tensor
) -> tuple[Tensor, Tensors]:
    leaves = {name: x.clone().detach() for name, x in inputs.items()}
    for leaf in leaves.values():
        leaf.stop_gradient = False
    y = function(**leaves)
    grads = paddle.grad(y, list(leaves.values()), dy, allow_unused=True)
    found = {name: paddle.zeros_like(x) if g is None else g
             for (name, x), g in zip(leaves.items(), grads, strict=True)}  # fmt: skip
    return y.detach(), found


_run = with_gradients(_pull_back)


def _dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``paddle.nn.functional.linear``."""
    return _run(functional.linear, dy, x=x, weight=weight, bias=bias)


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
    """``paddle.nn.functional.conv2d``."""
    (top, bottom), (left, right) = padding

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.conv2d(
            x, weight.transpose([3, 2, 0, 1]), bias, stride, [top, bottom, left, right], dilation,
            groups, "NHWC",
        )  # fmt: skip

    return _run(forward, dy, x=x, weight=weight, bias=bias)


def _pool2d(function: Any, **options: Any) -> Callable[..., Outputs]:
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
        if dilation != [1, 1]:
            raise Unsupported("the pooling of PaddlePaddle has no dilation")
        (top, bottom), (left, right) = padding

        def forward(x: Tensor) -> Tensor:
            return function(x, window, stride or window, [top, bottom, left, right],
                            ceil_mode=ceil_mode, data_format="NHWC", **options)  # fmt: skip

        return _run(forward, dy, x=x)

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
    """``paddle.nn.functional.batch_norm``, whose momentum is the weight of the old average."""
    mean, var = running_mean.clone(), running_var.clone()
    layout = {2: "NC", 3: "NLC", 4: "NHWC"}.get(x.ndim)
    if layout is None:
        raise Unsupported(
            "paddle.nn.functional.batch_norm takes two to four axes with channels last"
        )

    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return functional.batch_norm(
            x, mean, var, scale, shift, training, 1.0 - momentum, eps, layout
        )

    outputs = _run(forward, dy, x=x, scale=scale, shift=shift)
    return outputs | {"running_mean": mean, "running_var": var}


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
    raise Unsupported("the weights of paddle.nn.SimpleRNN are parameters of its own")


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return functional.leaky_relu(x, slope)


def _flatten(x: Tensor) -> Tensor:
    return paddle.flatten(x, start_axis=1)


def _loss(function: Callable[..., Tensor]) -> Any:
    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        leaf = x.clone().detach()
        leaf.stop_gradient = False
        loss = function(leaf, targets, reduction=reduction)
        return {"loss": loss.detach(), "dx": paddle.grad(loss, leaf)[0]}

    return run


def register(adapter: Adapter) -> None:
    """Register the layers and losses."""
    wide = ("float64", "float32")
    for operation_id, function, dialect in (
        ("layer.dense", _dense, {}),
        ("layer.conv2d", _conv2d, {}),
        ("layer.max_pool2d", _pool2d(functional.max_pool2d), {"nan": "ignore"}),
        ("layer.avg_pool2d", _pool2d(functional.avg_pool2d), {}),
        ("layer.relu", elementwise(_run, functional.relu), {"nan": "zero"}),
        ("layer.leaky_relu", elementwise(_run, _leaky_relu), {"at_zero": "one"}),
        ("layer.sigmoid", elementwise(_run, functional.sigmoid), {}),
        ("layer.tanh", elementwise(_run, functional.tanh), {}),
        ("layer.flatten", elementwise(_run, _flatten), {}),
        ("layer.rnn", _rnn, {}),
        ("loss.softmax_cross_entropy", _loss(functional.cross_entropy), LOSSES),
        ("loss.mse", _loss(functional.mse_loss), LOSSES),
        ("loss.binary_cross_entropy", _loss(functional.binary_cross_entropy_with_logits),
         {**LOSSES, "outside_targets": "extrapolate", "infinite_logit": "linear_form"}),
    ):  # fmt: skip
        adapter.operation(operation_id, wide, dialect)(function)
    # Its eps and momentum are float32 for float64 images too.
    adapter.operation("layer.batch_norm", ("float32",), {"running_variance": "biased"})(_batch_norm)
