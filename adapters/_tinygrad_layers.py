"""tinygrad's layers and losses: methods of ``Tensor`` forward, ``Tensor.gradient`` backward.

Images are NCHW and kernels OIHW in tinygrad, so both are permuted under differentiation; a weight of
``Tensor.linear`` is (in, out), as in the suite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad import Context, Tensor, nn

from adapters._backward import LOSSES, Tensors, elementwise, with_gradients
from adapters.base import Adapter, Unsupported

Outputs = dict[str, Any]
Pair = list[int]
Pads = list[list[int]]


def _pull_back(
    function: Callable[..., Tensor], inputs: Tensors, dy: Tensor
) -> tuple[Tensor, Tensors]:
    y = function(**inputs)
    if y.shape != dy.shape:
        raise Unsupported("Tensor.gradient broadcasts an upstream gradient of another shape")
    return y, dict(zip(inputs, y.gradient(*inputs.values(), gradient=dy), strict=True))


_run = with_gradients(_pull_back)


def _dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``Tensor.linear``."""
    if x.ndim != 2 or x.shape[1:] != weight.shape[:1]:
        raise Unsupported("Tensor.linear broadcasts")

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return x.linear(weight, bias)

    return _run(forward, dy, x=x, weight=weight, bias=bias)


def _around(padding: Pads) -> tuple[int, ...]:
    """Return zeros around an image as tinygrad has them: left, right, top, bottom."""
    (top, bottom), (left, right) = padding
    return left, right, top, bottom


def _images(y: Tensor) -> Tensor:
    return y.permute(0, 2, 3, 1)


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
    """``Tensor.conv2d``."""

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        images, kernel = x.permute(0, 3, 1, 2), weight.permute(3, 2, 0, 1)
        return _images(images.conv2d(
            kernel, bias, groups, tuple(stride), tuple(dilation), _around(padding)
        ))  # fmt: skip

    return _run(forward, dy, x=x, weight=weight, bias=bias)


def _pool2d(pool: Callable[..., Tensor]) -> Callable[..., Outputs]:
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
        def forward(x: Tensor) -> Tensor:
            steps = tuple(stride or window)
            return _images(pool(
                x.permute(0, 3, 1, 2), tuple(window), steps, tuple(dilation), _around(padding),
                ceil_mode,
            ))  # fmt: skip

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
    """``nn.BatchNorm``, which has the channels second."""
    layer = nn.BatchNorm(x.shape[-1], eps, momentum=momentum)
    layer.running_mean, layer.running_var = running_mean.clone(), running_var.clone()

    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        layer.weight, layer.bias = scale, shift
        order = (0, x.ndim - 1, *range(1, x.ndim - 1)) if x.ndim > 1 else (0,)
        back = (0, *range(2, x.ndim), 1) if x.ndim > 1 else (0,)
        return layer(x.permute(order)).permute(back)

    with Context(TRAINING=int(training)):
        outputs = _run(forward, dy, x=x, scale=scale, shift=shift)
        Tensor.realize(*outputs.values())
    return outputs | {"running_mean": layer.running_mean, "running_var": layer.running_var}


def _flatten(x: Tensor) -> Tensor:
    return x.flatten(1)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return x.leaky_relu(slope)


def _loss(function: Callable[..., Tensor]) -> Any:
    def run(x: Tensor, targets: Tensor, *, reduction: str) -> Outputs:
        loss = function(x, targets, reduction)
        return {"loss": loss, "dx": loss.gradient(x)[0]}

    return run


def _cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if x.ndim != 2 or targets.shape != x.shape[:1]:
        raise Unsupported("Tensor.sparse_categorical_crossentropy broadcasts")
    return x.sparse_categorical_crossentropy(targets, reduction=reduction)


def _binary_cross_entropy(x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if x.shape != targets.shape:
        raise Unsupported("Tensor.binary_crossentropy_logits broadcasts")
    return x.binary_crossentropy_logits(targets, reduction=reduction)


def register(adapter: Adapter) -> None:
    """Register the layers and losses."""
    for operation_id, function, dialect in (
        ("layer.dense", _dense, {}),
        ("layer.conv2d", _conv2d, {}),
        ("layer.max_pool2d", _pool2d(Tensor.max_pool2d), {"ties": "split", "nan": "ignore"}),
        ("layer.avg_pool2d", _pool2d(Tensor.avg_pool2d), {"count_padding": True}),
        ("layer.relu", elementwise(_run, Tensor.relu), {"nan": "zero"}),
        ("layer.leaky_relu", elementwise(_run, _leaky_relu), {"at_zero": "one"}),
        ("layer.sigmoid", elementwise(_run, Tensor.sigmoid), {}),
        ("layer.tanh", elementwise(_run, Tensor.tanh), {}),
        ("layer.flatten", elementwise(_run, _flatten), {}),
        ("layer.batch_norm", _batch_norm, {}),
        ("loss.softmax_cross_entropy", _loss(_cross_entropy), LOSSES),
        ("loss.binary_cross_entropy", _loss(_binary_cross_entropy),
         {**LOSSES, "outside_targets": "extrapolate"}),
    ):  # fmt: skip
        adapter.operation(operation_id, dialect=dialect)(function)
