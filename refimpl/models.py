"""Models from a plain description, with the gradient of every parameter.

A model is a list of layers, each a dict that JSON can hold, named after the operation that it is::

    cnn = [
        {"operation": "layer.conv2d", "filters": 32, "kernel": [3, 3]},
        {"operation": "layer.relu"},
        {"operation": "layer.avg_pool2d", "window": [2, 2]},
        {"operation": "layer.flatten"},
        {"operation": "layer.dense", "units": 10},
    ]

The parameters are one flat list: weight and bias of each layer that has them (a recurrent layer has
its recurrent weight between the two), in the order of the layers. Images are NHWC, kernels HWIO, dense
weights (in, out), sequences (N, T, in).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import array_api_compat
import numpy as np

from .arrays import Array, namespace
from .layers import (
    avg_pool2d,
    conv2d,
    dense,
    flatten,
    leaky_relu,
    max_pool2d,
    relu,
    rnn,
    sigmoid,
    tanh,
)
from .losses import binary_cross_entropy, mse, softmax_cross_entropy

Model = Sequence[Mapping[str, Any]]
Params = list[Array]
Backprop = Callable[..., tuple[Array, Params]]


def _rnn(x: Array, weight: Array, recurrent: Array, bias: Array, **options: Any) -> Any:
    """Return the states of a recurrent layer that starts from zeros, and its backward pass."""
    device = array_api_compat.device(x)
    h0 = namespace(x).zeros((x.shape[0], weight.shape[1]), dtype=x.dtype, device=device)
    y, backprop = rnn(x, weight, recurrent, bias, h0, **options)
    return y, lambda dy: backprop(dy)[:-1]


WITH_PARAMETERS: dict[str, Callable[..., Any]] = {
    "layer.dense": dense,
    "layer.conv2d": conv2d,
    "layer.rnn": _rnn,
}
WITHOUT_PARAMETERS: dict[str, Callable[..., Any]] = {
    "layer.relu": relu,
    "layer.leaky_relu": leaky_relu,
    "layer.sigmoid": sigmoid,
    "layer.tanh": tanh,
    "layer.flatten": flatten,
    "layer.max_pool2d": max_pool2d,
    "layer.avg_pool2d": avg_pool2d,
}
LOSSES: dict[str, Callable[..., Any]] = {
    "loss.softmax_cross_entropy": softmax_cross_entropy,
    "loss.mse": mse,
    "loss.binary_cross_entropy": binary_cross_entropy,
}


def parameter_count(layer: Mapping[str, Any]) -> int:
    """Return how many parameter arrays a layer takes from the list."""
    if layer["operation"] == "layer.rnn":
        return 3
    return 2 if layer["operation"] in WITH_PARAMETERS else 0


def forward(model: Model, params: Sequence[Array], x: Array) -> tuple[Array, Backprop]:
    """Run a model; return its output and the function that goes back through it.

    ``x`` has the batch along its first axis. ``backprop(dy)`` returns ``dx`` and the gradients of the
    parameters, in their order: each layer's backward pass, last layer first (the chain rule). With
    ``with_dx=False`` a convolution that comes first spares its part of ``dx``, which is None then.

    Raises ValueError for an unknown layer or a number of parameters that does not fit the model.
    """
    expected = sum(parameter_count(layer) for layer in model)
    if len(params) != expected:
        raise ValueError(f"the model has {expected} parameters, got {len(params)}")
    remaining = list(params)
    pullbacks: list[Callable[..., Any]] = []
    for layer in model:
        options = _options(layer)
        if layer["operation"] in WITH_PARAMETERS:
            count = parameter_count(layer)
            own, remaining = remaining[:count], remaining[count:]
            x, pullback = WITH_PARAMETERS[layer["operation"]](x, *own, **options)
        else:
            x, pullback = WITHOUT_PARAMETERS[layer["operation"]](x, **options)
        pullbacks.append(pullback)

    spares = bool(model) and model[0]["operation"] == "layer.conv2d"

    def backprop(dy: Array, with_dx: bool = True) -> tuple[Array, Params]:
        grads: Params = []
        for index in reversed(range(len(pullbacks))):
            last = index == 0 and spares and not with_dx
            result = pullbacks[index](dy, with_dx=False) if last else pullbacks[index](dy)
            if isinstance(result, tuple):
                dy, *own = result
                grads = [*own, *grads]
            else:
                dy = result
        return dy, grads

    return x, backprop


def _options(layer: Mapping[str, Any]) -> dict[str, Any]:
    if layer["operation"] not in WITH_PARAMETERS and layer["operation"] not in WITHOUT_PARAMETERS:
        known = ", ".join(sorted(WITH_PARAMETERS | WITHOUT_PARAMETERS))
        raise ValueError(f"unknown layer {layer['operation']!r}; there are: {known}")
    shape = {"operation", "units", "filters", "kernel"}
    return {name: value for name, value in layer.items() if name not in shape}


def loss(
    description: Mapping[str, Any], y: Array, targets: Array
) -> tuple[Array, Callable[[], Array]]:
    """Return the loss (0-d) that a description names, and the function that gives its gradient."""
    if description["operation"] not in LOSSES:
        raise ValueError(
            f"unknown loss {description['operation']!r}; there are: {', '.join(LOSSES)}"
        )
    return LOSSES[description["operation"]](y, targets, description.get("reduction", "mean"))


def initial_params(
    model: Model, input_shape: Sequence[int], seed: int, dtype: str = "float32"
) -> list[np.ndarray[Any, Any]]:
    """Draw initial parameters with NumPy: normal weights, zero biases.

    Every backend starts from the same bits: draw here, then move the arrays to the device.
    ``input_shape`` is that of one example, without the batch. Weights have the variance 2 / fan_in
    (He et al. 2015, "Delving deep into rectifiers"), those of a recurrent layer, whose tanh is the
    identity around 0, 1 / fan_in (LeCun et al. 1998, "Efficient BackProp").
    """
    rng = np.random.default_rng(seed)
    shape = tuple(input_shape)
    params: list[np.ndarray[Any, Any]] = []
    for layer in model:
        if layer["operation"] in WITH_PARAMETERS:
            gain = 1.0 if layer["operation"] == "layer.rnn" else 2.0
            for weight_shape in _weight_shapes(layer, shape):
                fan_in = math.prod(weight_shape[:-1])
                weight = rng.standard_normal(weight_shape) * math.sqrt(gain / fan_in)
                params.append(weight.astype(dtype))
            params.append(np.zeros(weight_shape[-1], dtype))
        shape = _output_shape(layer, params, shape)
    return params


def _weight_shapes(layer: Mapping[str, Any], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    if layer["operation"] == "layer.dense":
        return [(*shape, int(layer["units"]))]
    if layer["operation"] == "layer.rnn":
        units = int(layer["units"])
        return [(shape[-1], units), (units, units)]
    return [(*layer["kernel"], shape[-1] // layer.get("groups", 1), int(layer["filters"]))]


def _output_shape(
    layer: Mapping[str, Any], params: Sequence[np.ndarray[Any, Any]], shape: tuple[int, ...]
) -> tuple[int, ...]:
    count = parameter_count(layer)
    own = list(params[-count:]) if count else []
    dtype = own[0].dtype if own else np.float32
    y, _ = forward([layer], own, np.zeros((1, *shape), dtype))
    return tuple(int(size) for size in y.shape[1:])
