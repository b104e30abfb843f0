"""Whole models, forward and backward: exactly, or as float64 with rounding errors put in.

Each layer is one function ``layer(description, own, x, noise, sides, given)``: it returns its output and
the function that goes back through it. ``own`` are its parameters, ``noise`` moves every result within
the error bound of the operations that it takes (:class:`Noise`), ``sides`` takes down on which side of
its kinks each unit was, and ``given`` holds the masks of dropout, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from conformance.cases import Stream
from conformance.exact import Reject, ctx
from conformance.oracle import activations, layers
from conformance.oracle.windows import Axis, place

Array: TypeAlias = Any
Description: TypeAlias = Mapping[str, Any]
Back: TypeAlias = Callable[[Array], tuple[Array, ...]]
"""``back(dy)`` returns dx and the gradients of the layer's parameters."""


@dataclass
class Noise:
    """Random errors within a bound: ``count`` roundoffs ``u`` of a magnitude."""

    u: float
    stream: Stream | None = None

    def __call__(self, value: Array, magnitude: Array, count: float) -> Array:
        """Return the value moved by at most count·u·magnitude."""
        if self.stream is None:
            return value
        return value + count * self.u * magnitude * self.stream.uniform(*np.shape(value))


EXACTLY = Noise(0.0)


def axes(layer: Description, shape: tuple[int, ...], window: Any) -> tuple[Axis, Axis]:
    """Return how the windows of a layer lie along rows and columns."""
    sliding = {"padding": [[0, 0], [0, 0]], "dilation": [1, 1], "ceil_mode": False}
    stride = None if "window" in layer else [1, 1]
    return place(shape, list(window), sliding | {"stride": stride} | dict(layer))


def dense(
    layer: Description, own: list[Array], x: Array, noise: Noise, *_: Any
) -> tuple[Array, Back]:
    """Return x W + b."""
    return _affine(layers.dense_forward, layers.dense_backward, x, *own, noise)


def conv2d(
    layer: Description, own: list[Array], x: Array, noise: Noise, *_: Any
) -> tuple[Array, Back]:
    """Return the cross-correlation with the kernel."""
    where = axes(layer, x.shape, own[0].shape[:2])
    return _affine(layers.conv2d_forward, layers.conv2d_backward, x, *own, noise, *where)


def _affine(
    forward: Any, backward: Any, x: Array, weight: Array, bias: Array, noise: Noise, *where: Any
) -> tuple[Array, Back]:
    y, context = forward(x, weight, bias, *where)
    if noise.stream is None:
        return y, lambda dy: backward(context, dy)
    terms, magnitudes = forward(np.abs(x), np.abs(weight), np.abs(bias), *where)

    def back(dy: Array) -> tuple[Array, ...]:
        rows = dy.size // dy.shape[-1]
        counts = (weight.size // weight.shape[-2], rows, rows)
        pairs = zip(backward(context, dy), backward(magnitudes, np.abs(dy)), counts, strict=True)
        return tuple(noise(*pair) for pair in pairs)

    return noise(y, terms, prod(weight.shape[:-1]) + 1), back


def relu(
    layer: Description, own: list[Array], x: Array, noise: Noise, sides: list[Array], *_: Any
) -> tuple[Array, Back]:
    """Return max(x, 0)."""
    sides.append(np.asarray(x > 0, dtype=bool))
    y, context = layers.relu_forward(x)
    return y, lambda dy: (layers.relu_backward(context, dy),)


def leaky_relu(
    layer: Description, own: list[Array], x: Array, noise: Noise, sides: list[Array], *_: Any
) -> tuple[Array, Back]:
    """Return x where it is positive, slope·x elsewhere."""
    positive, slope = np.asarray(x > 0, dtype=bool), float(layer["slope"])
    sides.append(positive)

    def leak(values: Array) -> Array:
        leaked = np.where(positive, values, slope * values)
        return noise(leaked, abs(leaked), 2)

    return leak(x), lambda dy: (leak(dy),)


def _s_shaped(name: str) -> Callable[..., tuple[Array, Back]]:
    exactly, roughly, slope = {
        "tanh": (ctx.tanh, np.tanh, lambda y: 1 - y * y),
        "sigmoid": (
            activations.sigmoid,
            lambda v: 1 / (1 + np.exp(-v)),
            lambda y: y * (1 - y),
        ),
    }[name]

    def layer_function(
        layer: Description, own: list[Array], x: Array, noise: Noise, *_: Any
    ) -> tuple[Array, Back]:
        y = layers.apply(exactly, roughly, x)
        y = noise(y, abs(y), 4)
        return y, lambda dy: (noise(dy * slope(y), abs(dy) * (slope(y) + y * y), 4),)

    return layer_function


def max_pool2d(
    layer: Description, own: list[Array], x: Array, noise: Noise, sides: list[Array], *_: Any
) -> tuple[Array, Back]:
    """Return the largest element of each window; the first of equals wins."""
    rows, columns = axes(layer, x.shape, layer["window"])
    y, context = layers.max_pool2d_forward(x, rows, columns)
    # Zeros that a ReLU left are equal, and whichever of them wins its gradient ends there.
    sides += [np.asarray(won & (y[:, i, j, :] != 0), dtype=bool)
              for (i, j), taps in context[1].items() for _, won in taps]  # fmt: skip
    overlap = rows.overlap() * columns.overlap()

    def back(dy: Array) -> tuple[Array, ...]:
        terms = layers.max_pool2d_backward(context, abs(dy))
        return (noise(layers.max_pool2d_backward(context, dy), terms, overlap - 1),)

    return y, back


def avg_pool2d(
    layer: Description, own: list[Array], x: Array, noise: Noise, *_: Any
) -> tuple[Array, Back]:
    """Return the mean of each window."""
    where = axes(layer, x.shape, layer["window"])
    mean, context = layers.avg_pool2d_forward(x, *where)
    terms, magnitudes = layers.avg_pool2d_forward(abs(x), *where)
    count = prod(layer["window"]) + 1

    def back(dy: Array) -> tuple[Array, ...]:
        shared = layers.avg_pool2d_backward(magnitudes, abs(dy))
        return (noise(layers.avg_pool2d_backward(context, dy), shared, count),)

    return noise(mean, terms, count), back


def flatten(
    layer: Description, own: list[Array], x: Array, noise: Noise, *_: Any
) -> tuple[Array, Back]:
    """Return (N, …) as (N, rest)."""
    y, context = layers.flatten_forward(x)
    return y, lambda dy: (layers.flatten_backward(context, dy),)


def dropout(
    layer: Description, own: list[Array], x: Array, noise: Noise, sides: list[Array],
    given: Iterator[Array],
) -> tuple[Array, Back]:  # fmt: skip
    """Return x/(1 - rate) where the mask keeps, 0 elsewhere."""
    mask, kept = next(given), 1 - ctx.mpf(float(layer["rate"]))

    def thin(values: Array) -> Array:
        share = kept if values.dtype == object else float(kept)
        y = np.where(mask, values / share, layers.zeros(values.shape, values))
        return noise(y, abs(y), 3)

    return thin(x), lambda dy: (thin(dy),)


def batch_norm(
    layer: Description, own: list[Array], x: Array, noise: Noise, *_: Any
) -> tuple[Array, Back]:
    """Return scale·(x - mean)/√(var + eps) + shift, by mean and variance of this very batch."""
    (scale, shift), over = own, tuple(range(x.ndim - 1))
    count = prod(x.shape[:-1])
    mean = noise(x.sum(axis=over) / count, abs(x).sum(axis=over) / count, count)
    centred = x - mean
    var = (centred * centred).sum(axis=over) / count
    # The errors of x - mean, a roundoff of both, meet the deviations once more.
    loose = (abs(centred) * (abs(x) + abs(mean))).sum(axis=over) / count
    var = noise(noise(var, var, count + 3), loose, 2) + float(layer.get("eps", 1e-5))
    factor = scale / layers.apply(ctx.sqrt, np.sqrt, var)
    normal = centred * (factor / scale)
    # As a·x + (shift - a·mean) it rounds a·x and a·mean, which are larger than their difference.
    folded = (abs(x) + abs(mean)) * abs(factor)
    y = noise(centred * factor + shift, folded + abs(shift), 6)

    def back(dy: Array) -> tuple[Array, ...]:
        dshift = noise(dy.sum(axis=over), abs(dy).sum(axis=over), count)
        along = (abs(dy) * (abs(x) + abs(mean))).sum(axis=over) * abs(factor / scale)
        dscale = noise((dy * normal).sum(axis=over), along, count + 6)
        parts = abs(dy) + (abs(dshift) + abs(normal * dscale)) / count
        dx = factor * (dy - (dshift + normal * dscale) / count)
        return noise(dx, abs(factor) * parts, 8), dscale, dshift

    return y, back


def rnn(
    layer: Description, own: list[Array], x: Array, noise: Noise, *_: Any
) -> tuple[Array, Back]:
    """Return the states h = tanh(x W + h U + b) of a recurrent layer that starts from zeros."""
    (weight, recurrent, bias), truncate = own, layer.get("truncate")
    h = [layers.zeros((x.shape[0], weight.shape[1]), x)]
    for t in range(x.shape[1]):
        a = x[:, t] @ weight + h[t] @ recurrent + bias
        terms = abs(x[:, t]) @ abs(weight) + abs(h[t]) @ abs(recurrent) + abs(bias)
        a = noise(a, terms, len(weight) + len(recurrent) + 1)
        state = layers.apply(ctx.tanh, np.tanh, a)
        h.append(noise(state, abs(state), 4))

    def back(dy: Array) -> tuple[Array, ...]:
        dx, carried = layers.zeros(x.shape, x), layers.zeros(h[0].shape, x)
        sums = [layers.zeros(p.shape, x) for p in own]
        sizes = [layers.zeros(p.shape, x) for p in own]
        for t in reversed(range(x.shape[1])):
            if truncate is not None and (t + 1) % truncate == 0:
                carried = layers.zeros(h[0].shape, x)
            dh, slope = dy[:, t] + carried, 1 - h[t + 1] * h[t + 1]
            da = noise(dh * slope, abs(dy[:, t]) + abs(carried), 5)
            wide = len(recurrent)
            dx[:, t] = noise(da @ weight.T, abs(da) @ abs(weight.T), wide)
            carried = noise(da @ recurrent.T, abs(da) @ abs(recurrent.T), wide)
            for i, before in enumerate((x[:, t], h[t])):
                sums[i] = sums[i] + before.T @ da
                sizes[i] = sizes[i] + abs(before).T @ abs(da)
            sums[2], sizes[2] = sums[2] + da.sum(axis=0), sizes[2] + abs(da).sum(axis=0)
        count = x.shape[0] * x.shape[1]
        return dx, *(noise(s, m, count) for s, m in zip(sums, sizes, strict=True))

    return layers_output(h), back


def layers_output(states: list[Array]) -> Array:
    """Return all states but the first as one sequence (N, T, units)."""
    return np.stack(states[1:], axis=1)


LAYERS: dict[str, tuple[int, Callable[..., tuple[Array, Back]]]] = {
    "layer.dense": (2, dense),
    "layer.conv2d": (2, conv2d),
    "layer.relu": (0, relu),
    "layer.leaky_relu": (0, leaky_relu),
    "layer.sigmoid": (0, _s_shaped("sigmoid")),
    "layer.tanh": (0, _s_shaped("tanh")),
    "layer.max_pool2d": (0, max_pool2d),
    "layer.avg_pool2d": (0, avg_pool2d),
    "layer.flatten": (0, flatten),
    "layer.dropout": (0, dropout),
    "layer.batch_norm": (2, batch_norm),
    "layer.rnn": (3, rnn),
}
"""Each layer: the number of its parameters, and its function."""

RANKS = {
    "layer.dense": (2, 1),
    "layer.conv2d": (4, 1),
    "layer.batch_norm": (1, 1),
    "layer.rnn": (2, 2, 1),
}
"""How many axes the parameters of a layer have; the last axis of each is that of the units."""


def forward(
    model: Sequence[Description], params: Sequence[Array], x: Array, noise: Noise,
    masks: Sequence[Array] = (),
) -> tuple[Array, list[Back], list[Array]]:  # fmt: skip
    """Return the output, the way back layer by layer, and on which side of its kink each unit was."""
    backs: list[Back] = []
    sides: list[Array] = []
    remaining, given = list(params), iter(masks)
    for layer in model:
        count, function = LAYERS[layer["operation"]]
        own, remaining = remaining[:count], remaining[count:]
        for parameter, rank in zip(own, RANKS.get(layer["operation"], ()), strict=True):
            # Else it would be broadcast against the others to some shape or other.
            if parameter.ndim != rank or parameter.shape[-1] != own[0].shape[-1]:
                shape = tuple(parameter.shape)
                raise Reject(f"a parameter of {layer['operation']} has the shape {shape}")
        x, back = function(layer, own, x, noise, sides, given)
        backs.append(back)
    return x, backs, sides


def backward(backs: list[Back], dy: Array) -> list[Array]:
    """Return the gradients of the parameters."""
    grads: list[Array] = []
    for back in reversed(backs):
        dy, *own = back(dy)
        grads = [*own, *grads]
    return grads


def loss_and_gradient(
    name: str, y: Array, targets: Array, reduction: str, noise: Noise
) -> tuple[Any, Array]:
    """Return the loss and its gradient with respect to the output."""
    share = 1.0 / len(y) if reduction == "mean" else 1.0
    if name == "loss.mse":
        value, context = layers.mse_forward(y, targets, reduction)
        gradient = layers.mse_backward(context)
        value = np.asarray(value)[()]
        return noise(value, value, y.size + 4), noise(gradient, abs(gradient), 4)
    if name == "loss.binary_cross_entropy":
        return _binary_cross_entropy(y, targets, 1 if reduction == "sum" else y.size, noise)
    value, context = layers.softmax_cross_entropy_forward(y, targets, reduction)
    gradient = layers.softmax_cross_entropy_backward(context)
    value = np.asarray(value)[()]
    if noise.stream is None:
        return value, gradient
    top = np.max(np.abs(y), axis=-1, keepdims=True)
    # A softmax near 0 or 1 still has the absolute error of the exponentials it is made of.
    gradient = noise(gradient, np.abs(gradient) + share * (1 + 0 * top), 8)
    return noise(value, float(np.mean(top)) + abs(value), 8 + len(y)), gradient


def _binary_cross_entropy(z: Array, targets: Array, count: int, noise: Noise) -> tuple[Any, Array]:
    """Return log(1 + exp(z)) - t·z, as a mean or a sum, and its gradient σ(z) - t."""
    likely = layers.apply(activations.sigmoid, lambda v: 1 / (1 + np.exp(-v)), z)
    soft = layers.apply(lambda v: ctx.log1p(ctx.exp(v)), lambda v: np.log1p(np.exp(v)), z)
    value = (soft - targets * z).sum() / count
    gradient = noise((likely - targets) / count, (likely + abs(targets)) / count, 6)
    return noise(value, (soft + abs(targets * z) + abs(z)).sum() / count, z.size + 6), gradient
