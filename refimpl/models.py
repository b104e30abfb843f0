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
its recurrent weight between the two, batch norm has scale and shift), in the order of the layers. Images
are NHWC, kernels HWIO, dense weights (in, out), sequences (N, T, in).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import array_api_compat
import numpy as np

from . import numpy_images, numpy_stacks
from .arrays import Array, is_numpy, namespace
from .layers import (
    avg_pool2d,
    batch_norm,
    conv2d,
    dense,
    dropout,
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


BATCH_NORM, DROPOUT = "layer.batch_norm", "layer.dropout"
LAYERS = frozenset({*WITH_PARAMETERS, *WITHOUT_PARAMETERS, BATCH_NORM, DROPOUT})
TWO_PARAMETERS = frozenset({*WITH_PARAMETERS, BATCH_NORM})
WITHOUT_DX = frozenset({"layer.conv2d", "layer.dense"})
"""Layers whose backward pass can spare ``dx``, which nobody needs of a model's first layer."""

SHAPE = frozenset({"operation", "units", "filters", "kernel"})
"""What of a description is not an option: it gives the parameters their shapes."""


def parameter_count(layer: Mapping[str, Any]) -> int:
    """Return how many parameter arrays a layer takes from the list."""
    if layer["operation"] == "layer.rnn":
        return 3
    return 2 if layer["operation"] in TWO_PARAMETERS else 0


def forward(model: Model, params: Sequence[Array], x: Array) -> tuple[Array, Backprop]:
    """Run a model; return its output and the function that goes back through it.

    ``x`` has the batch along its first axis. ``backprop(dy)`` returns ``dx`` and the gradients of the
    parameters, in their order: each layer's backward pass, last layer first (the chain rule). With
    ``with_dx=False`` a convolution or a dense layer that comes first spares its part of ``dx``, which
    is None then. Batch norm takes the statistics of this batch, and dropout drops nothing:
    :func:`run` knows more.

    Raises ValueError for an unknown layer or a number of parameters that does not fit the model.
    """
    y, backprop, _ = run(model, params, x)
    return y, backprop


def run(
    model: Model,
    params: Sequence[Array],
    x: Array,
    *,
    masks: Sequence[Array] | None = None,
    running: Sequence[Array] | None = None,
    training: bool = True,
) -> tuple[Array, Backprop, list[Array]]:
    """Run a model as :func:`forward` does; return also the new running values of its batch norms.

    Args:
        model: its layers.
        params: weight and bias of each layer that has them.
        x: the batch, along its first axis.
        masks: one boolean array for each dropout layer, in order, of the shape that the layer sees
            (:func:`dropout_masks`); None drops nothing, as when a model is used.
        running: mean and variance of each batch norm, in order (:func:`initial_running`). None keeps
            no account of them.
        training: whether batch norm takes the statistics of this batch, else the running ones.

    Raises ValueError for an unknown layer, or a number of parameters, masks or running values that
    does not fit the model.
    """
    fast = is_numpy(namespace(x, *params))
    if masks is None and running is None and fast:
        known = numpy_stacks.run(model, params, x)
        if known is not None:
            return (*known, [])
    _check_count("parameters", len(params), sum([parameter_count(layer) for layer in model]))
    names = [layer["operation"] for layer in model]
    if masks is not None:
        _check_count("masks of dropout", len(masks), names.count(DROPOUT))
    if running is not None or not training:
        _check_count("running values", len(running or ()), 2 * names.count(BATCH_NORM))
    taken, given, statistics = 0, iter(masks or ()), list(running or ())
    pullbacks: list[Callable[..., Any]] = []
    updated: list[Array] = []
    begun = numpy_images.run(model, params, x) if fast else None
    if begun is not None:
        x, pullback, done, taken = begun
        pullbacks.append(pullback)
        model, names = model[done:], names[done:]
    for layer, name in zip(model, names, strict=True):
        if name in WITHOUT_PARAMETERS:
            x, pullback = WITHOUT_PARAMETERS[name](x, **_options(layer))
            pullbacks.append(pullback)
            continue
        options, count = _options(layer), parameter_count(layer)
        own, taken = params[taken : taken + count], taken + count
        if name == BATCH_NORM:
            (scale, shift), (mean, var) = own, statistics[:2] or (own[1], own[0])
            statistics = statistics[2:]
            x, new, pullback = batch_norm(x, scale, shift, mean, var, training=training, **options)
            updated += new if running is not None else ()
        elif name == DROPOUT:
            if masks is None:
                continue
            x, pullback = dropout(x, next(given), **options)
        else:
            x, pullback = WITH_PARAMETERS[name](x, *own, **options)
        pullbacks.append(pullback)

    spares = begun is not None or (bool(names) and names[0] in WITHOUT_DX)

    def backprop(dy: Array, with_dx: bool = True) -> tuple[Array, Params]:
        first = pullbacks[0] if spares and not with_dx else None
        grads: Params = []
        for pullback in reversed(pullbacks):
            spared = {"with_dx": False} if pullback is first else {}
            result = pullback(dy, **spared)
            if isinstance(result, tuple):
                dy, *own = result
                grads[:0] = own
            else:
                dy = result
        return dy, grads

    return x, backprop, updated


def _check_count(what: str, given: int, expected: int) -> None:
    if given != expected:
        raise ValueError(f"the model has {expected} {what}, got {given}")


def _options(layer: Mapping[str, Any]) -> dict[str, Any]:
    if layer["operation"] not in LAYERS:
        known = ", ".join(sorted(LAYERS))
        raise ValueError(f"unknown layer {layer['operation']!r}; there are: {known}")
    return {name: value for name, value in layer.items() if name not in SHAPE}


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
    params: list[np.ndarray[Any, Any]] = []
    for layer, shape in zip(model, _shapes(model, input_shape), strict=True):
        if layer["operation"] == BATCH_NORM:
            params += [np.ones(shape[-1], dtype), np.zeros(shape[-1], dtype)]
        elif layer["operation"] in WITH_PARAMETERS:
            gain = 1.0 if layer["operation"] == "layer.rnn" else 2.0
            for weight_shape in _weight_shapes(layer, shape):
                fan_in = math.prod(weight_shape[:-1])
                weight = rng.standard_normal(weight_shape) * math.sqrt(gain / fan_in)
                params.append(weight.astype(dtype))
            params.append(np.zeros(weight_shape[-1], dtype))
    return params


def initial_running(
    model: Model, input_shape: Sequence[int], dtype: str = "float32"
) -> list[np.ndarray[Any, Any]]:
    """Return mean 0 and variance 1 for each channel of each batch norm, as NumPy arrays."""
    return [
        fill(shape[-1], dtype)
        for layer, shape in zip(model, _shapes(model, input_shape), strict=True)
        if layer["operation"] == BATCH_NORM
        for fill in (np.zeros, np.ones)
    ]


def dropout_masks(
    model: Model, input_shape: Sequence[int], count: int, rng: np.random.Generator
) -> list[np.ndarray[Any, Any]]:
    """Draw the masks of every dropout layer for ``count`` examples with NumPy (True keeps)."""
    return [
        rng.random((count, *shape)) >= layer["rate"]
        for layer, shape in zip(model, _shapes(model, input_shape), strict=True)
        if layer["operation"] == DROPOUT
    ]


def _shapes(model: Model, input_shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the shape, without the batch, of what each layer sees."""
    shape, shapes = tuple(input_shape), []
    for layer in model:
        shapes.append(shape)
        if layer["operation"] in (BATCH_NORM, DROPOUT):
            continue
        own: list[np.ndarray[Any, Any]] = []
        if layer["operation"] in WITH_PARAMETERS:
            own = [np.zeros(weight, np.float32) for weight in _weight_shapes(layer, shape)]
            own.append(np.zeros(own[-1].shape[-1], np.float32))
        y, _ = forward([layer], own, np.zeros((1, *shape), np.float32))
        shape = tuple(int(size) for size in y.shape[1:])
    return shapes


def _weight_shapes(layer: Mapping[str, Any], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    if layer["operation"] == "layer.dense":
        return [(*shape, int(layer["units"]))]
    if layer["operation"] == "layer.rnn":
        units = int(layer["units"])
        return [(shape[-1], units), (units, units)]
    return [(*layer["kernel"], shape[-1] // layer.get("groups", 1), int(layer["filters"]))]
