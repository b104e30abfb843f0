"""tinygrad's layers, but those over images: methods of ``Tensor``, dense weights (in, out)."""

from __future__ import annotations

from tinygrad import Context, Tensor, nn

from adapters._backward import elementwise
from adapters._tinygrad_arrays import Outputs, run
from adapters.base import Operations, Unsupported

operations = Operations()


@operations.operation("layer.dense")
def dense(x: Tensor, weight: Tensor, dy: Tensor, bias: Tensor | None = None) -> Outputs:
    """``Tensor.linear``."""
    if x.ndim != 2 or x.shape[1:] != weight.shape[:1]:
        raise Unsupported("Tensor.linear broadcasts")

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return x.linear(weight, bias)

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
    """``nn.BatchNorm``, which has the channels second."""
    layer = nn.BatchNorm(x.shape[-1], eps, momentum=momentum)
    layer.running_mean, layer.running_var = running_mean.clone(), running_var.clone()

    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        layer.weight, layer.bias = scale, shift
        order = (0, x.ndim - 1, *range(1, x.ndim - 1)) if x.ndim > 1 else (0,)
        back = (0, *range(2, x.ndim), 1) if x.ndim > 1 else (0,)
        return layer(x.permute(order)).permute(back)

    with Context(TRAINING=int(training)):
        outputs = run(forward, dy, x=x, scale=scale, shift=shift)
        Tensor.realize(*outputs.values())
    return outputs | {"running_mean": layer.running_mean, "running_var": layer.running_var}


def _flatten(x: Tensor) -> Tensor:
    return x.flatten(1)


def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return x.leaky_relu(slope)


for _operation, _function, _dialect in (
    ("layer.relu", Tensor.relu, {"nan": "zero"}),
    ("layer.leaky_relu", _leaky_relu, {"at_zero": "one"}),
    ("layer.sigmoid", Tensor.sigmoid, {}),
    ("layer.tanh", Tensor.tanh, {}),
    ("layer.flatten", _flatten, {}),
):
    operations.operation(_operation, dialect=_dialect)(elementwise(run, _function))
