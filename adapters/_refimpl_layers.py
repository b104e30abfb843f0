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


@operations.operation("layer.leaky_relu")
def layer_leaky_relu(x: Any, dy: Any, **params: Any) -> Outputs:
    """``refimpl.layers.leaky_relu``."""
    y, backprop = layers.leaky_relu(x, **params)
    return {"y": y, "dx": backprop(dy)}


@operations.operation("layer.sigmoid")
def layer_sigmoid(x: Any, dy: Any) -> Outputs:
    """``refimpl.layers.sigmoid``."""
    y, backprop = layers.sigmoid(x)
    return {"y": y, "dx": backprop(dy)}


@operations.operation("layer.tanh")
def layer_tanh(x: Any, dy: Any) -> Outputs:
    """``refimpl.layers.tanh``."""
    y, backprop = layers.tanh(x)
    return {"y": y, "dx": backprop(dy)}


@operations.operation("layer.dropout")
def layer_dropout(x: Any, mask: Any, dy: Any, **params: Any) -> Outputs:
    """``refimpl.layers.dropout``."""
    y, backprop = layers.dropout(x, mask, **params)
    return {"y": y, "dx": backprop(dy)}


@operations.operation("layer.batch_norm")
def layer_batch_norm(
    x: Any, scale: Any, shift: Any, running_mean: Any, running_var: Any, dy: Any, **params: Any
) -> Outputs:
    """``refimpl.layers.batch_norm``."""
    y, running, backprop = layers.batch_norm(x, scale, shift, running_mean, running_var, **params)
    gradients = dict(zip(("dx", "dscale", "dshift"), backprop(dy), strict=True))
    return {"y": y, **gradients, "running_mean": running[0], "running_var": running[1]}


@operations.operation("layer.rnn")
def layer_rnn(
    x: Any, weight: Any, recurrent: Any, bias: Any, h0: Any, dy: Any, **params: Any
) -> Outputs:
    """``refimpl.layers.rnn``."""
    y, backprop = layers.rnn(x, weight, recurrent, bias, h0, **params)
    names = ("dx", "dweight", "drecurrent", "dbias", "dh0")
    return {"y": y, **dict(zip(names, backprop(dy), strict=True))}


@operations.operation("loss.binary_cross_entropy")
def loss_binary_cross_entropy(x: Any, targets: Any, **params: Any) -> Outputs:
    """``refimpl.losses.binary_cross_entropy``."""
    loss, backprop = losses.binary_cross_entropy(x, targets, **params)
    return {"loss": loss, "dx": backprop()}


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
