"""PaddlePaddle's layers, but those over images: ``paddle.nn.functional``, dense weights (in, out)."""

from __future__ import annotations

import paddle
from paddle.nn import functional

from adapters._backward import elementwise
from adapters._paddle_arrays import NARROW, WIDE, Outputs, Tensor, run
from adapters.base import Operations, Unsupported

operations = Operations()


@operations.operation("layer.dense", WIDE)
def dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``paddle.nn.functional.linear``."""
    return run(functional.linear, dy, x=x, weight=weight, bias=bias)


# Its eps and momentum are float32 for float64 images too.
@operations.operation("layer.batch_norm", NARROW, {"running_variance": "biased"})
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

    outputs = run(forward, dy, x=x, scale=scale, shift=shift)
    return outputs | {"running_mean": mean, "running_var": var}


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return functional.leaky_relu(x, slope)


def _flatten(x: Tensor) -> Tensor:
    return paddle.flatten(x, start_axis=1)


for _operation, _function, _dialect in (
    ("layer.relu", functional.relu, {"nan": "zero"}),
    ("layer.leaky_relu", _leaky_relu, {"at_zero": "one"}),
    ("layer.sigmoid", functional.sigmoid, {}),
    ("layer.tanh", functional.tanh, {}),
    ("layer.flatten", _flatten, {}),
):
    operations.operation(_operation, WIDE, _dialect)(elementwise(run, _function))
