"""Layers and losses of the canonical implementation, put before the suite."""

from __future__ import annotations

from typing import Any

from adapters.base import Operations
from refimpl import layers, losses

Outputs = dict[str, Any]

operations = Operations()


@operations.operation("layer.dense")
def layer_dense(x: Any, weight: Any, bias: Any, dy: Any) -> Outputs:
    """``refimpl.layers.dense``."""
    y, backprop = layers.dense(x, weight, bias)
    return {"y": y, **_gradients(backprop(dy))}


@operations.operation("layer.conv2d")
def layer_conv2d(x: Any, weight: Any, bias: Any, dy: Any, **params: Any) -> Outputs:
    """``refimpl.layers.conv2d``."""
    y, backprop = layers.conv2d(x, weight, bias, **params)
    return {"y": y, **_gradients(backprop(dy))}


def _gradients(gradients: Any) -> Outputs:
    return dict(zip(("dx", "dweight", "dbias"), gradients, strict=True))


@operations.operation("layer.max_pool2d")
def layer_max_pool2d(x: Any, dy: Any, **params: Any) -> Outputs:
    """``refimpl.layers.max_pool2d``."""
    y, backprop = layers.max_pool2d(x, **params)
    return {"y": y, "dx": backprop(dy)}


@operations.operation("layer.avg_pool2d")
def layer_avg_pool2d(x: Any, dy: Any, **params: Any) -> Outputs:
    """``refimpl.layers.avg_pool2d``."""
    y, backprop = layers.avg_pool2d(x, **params)
    return {"y": y, "dx": backprop(dy)}


@operations.operation("layer.relu")
def layer_relu(x: Any, dy: Any, **dials: Any) -> Outputs:
    """``refimpl.layers.relu``."""
    y, backprop = layers.relu(x, **dials)
    return {"y": y, "dx": backprop(dy)}


@operations.operation("layer.flatten")
def layer_flatten(x: Any, dy: Any) -> Outputs:
    """``refimpl.layers.flatten``."""
    y, backprop = layers.flatten(x)
    return {"y": y, "dx": backprop(dy)}


@operations.operation("loss.softmax_cross_entropy")
def loss_softmax_cross_entropy(x: Any, targets: Any, **params: Any) -> Outputs:
    """``refimpl.losses.softmax_cross_entropy``."""
    loss, backprop = losses.softmax_cross_entropy(x, targets, **params)
    return {"loss": loss, "dx": backprop()}


@operations.operation("loss.mse")
def loss_mse(x: Any, targets: Any, **params: Any) -> Outputs:
    """``refimpl.losses.mse``."""
    loss, backprop = losses.mse(x, targets, **params)
    return {"loss": loss, "dx": backprop()}
