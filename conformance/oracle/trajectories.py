"""Whole training runs of small models: exactly, and as float64 runs with rounding errors put in.

The exact run gives the expected numbers. How far a float32 run may stray from them no closed formula
says, since every step starts from the last one's errors; so the run is repeated in float64 with each
stage's result moved by a random amount within that stage's own error bound (operations counted × unit
roundoff). What such runs stray, an implementation may stray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from conformance.cases import Stream
from conformance.exact import ZERO, exact, full
from conformance.oracle import layers, training
from conformance.oracle.optimizers import Tracked
from conformance.oracle.windows import Axis, place

Array = Any
Settings = dict[str, Any]
Model = Sequence[Mapping[str, Any]]

TOLERANCE_WHY = (
    "Every stage has a first-order error bound: a sum of n products γ = (n+1)·u times the sum of absolute"
    " products; softmax 8·u; the norm (N/2+4)·u; the update 12·u of the step and u of the parameter. The run"
    " is repeated 16 times in float64 with each stage's result moved by a random amount within its bound, and"
    " each tensor is allowed twice the largest deviation that was seen. No activation comes so near to a kink"
    " that a run changes sides; the cases are chosen so, and that is checked when they are made."
)
RUNS = 16
SAFETY = 2.0


class Kink(Exception):
    """A perturbed run took another side of a kink: the case cannot be judged."""


@dataclass
class Noise:
    """Random errors within a bound: ``bound`` roundoffs ``u`` of a magnitude."""

    u: float
    stream: Stream | None = None

    def __call__(self, value: Array, magnitude: Array, count: float) -> Array:
        """Return the value moved by at most count·u·magnitude."""
        if self.stream is None:
            return value
        shape = np.shape(value)
        return value + count * self.u * magnitude * self.stream.uniform(*shape)


EXACTLY = Noise(0.0)


def axes(layer: Mapping[str, Any], shape: tuple[int, ...], window: Any) -> tuple[Axis, Axis]:
    """Return how the windows of a layer lie along rows and columns."""
    sliding = {"padding": [[0, 0], [0, 0]], "dilation": [1, 1], "ceil_mode": False}
    stride = None if "window" in layer else [1, 1]
    return place(shape, list(window), sliding | {"stride": stride} | dict(layer))


def forward(
    model: Model, params: list[Array], x: Array, noise: Noise
) -> tuple[Array, list[Any], list[Array]]:
    """Return the output, what the way back needs, and on which side of its kink each unit was."""
    contexts: list[Any] = []
    sides: list[Array] = []
    remaining = list(params)
    for layer in model:
        name = layer["operation"]
        if name in ("layer.dense", "layer.conv2d"):
            weight, bias, *remaining = remaining
            where = () if name == "layer.dense" else axes(layer, x.shape, weight.shape[:2])
            x, context = _affine(x, weight, bias, where, noise)
        elif name == "layer.relu":
            sides.append(np.asarray(x > 0, dtype=bool))
            x, context = layers.relu_forward(x)
        elif name == "layer.avg_pool2d":
            rows, columns = axes(layer, x.shape, layer["window"])
            mean, context = layers.avg_pool2d_forward(x, rows, columns)
            x = noise(mean, np.abs(mean), prod(layer["window"]))
        else:
            x, context = layers.flatten_forward(x)
        contexts.append((name, context))
    return x, contexts, sides


def _affine(x: Array, weight: Array, bias: Array, where: Any, noise: Noise) -> tuple[Array, Any]:
    function: Any = layers.conv2d_forward if where else layers.dense_forward
    y, context = function(x, weight, bias, *where)
    if noise.stream is None:
        return y, context
    terms, _ = function(np.abs(x), np.abs(weight), np.abs(bias), *where)
    return noise(y, terms, prod(weight.shape[:-1]) + 1), context


def backward(contexts: list[Any], dy: Array, noise: Noise) -> list[Array]:
    """Return the gradients of the parameters."""
    grads: list[Array] = []
    for name, context in reversed(contexts):
        if name in ("layer.dense", "layer.conv2d"):
            dy, *own = _affine_backward(name, context, dy, noise)
            grads = [*own, *grads]
        elif name == "layer.relu":
            dy = layers.relu_backward(context, dy)
        elif name == "layer.avg_pool2d":
            dy = layers.avg_pool2d_backward(context, dy)
        else:
            dy = layers.flatten_backward(context, dy)
    return grads


def _affine_backward(name: str, context: Any, dy: Array, noise: Noise) -> tuple[Array, ...]:
    function: Any = layers.dense_backward if name == "layer.dense" else layers.conv2d_backward
    exactly = function(context, dy)
    if noise.stream is None:
        return exactly
    x, weight, bias, *where = context
    terms = function((np.abs(x), np.abs(weight), bias, *where), np.abs(dy))
    rows = dy.size // dy.shape[-1]
    counts = (weight.size // weight.shape[-2], rows, rows)
    return tuple(noise(v, t, n) for v, t, n in zip(exactly, terms, counts, strict=True))


def loss_and_gradient(
    name: str, y: Array, targets: Array, reduction: str, noise: Noise
) -> tuple[Any, Array]:
    """Return the loss and its gradient with respect to the output."""
    if name == "loss.mse":
        value, context = layers.mse_forward(y, targets, reduction)
        gradient = layers.mse_backward(context)
    else:
        value, context = layers.softmax_cross_entropy_forward(y, targets, reduction)
        gradient = layers.softmax_cross_entropy_backward(context)
    value = np.asarray(value)[()]
    if noise.stream is None:
        return value, gradient
    top = np.max(np.abs(y), axis=-1, keepdims=True) if y.ndim > 1 else np.abs(y)
    share = 1.0 / len(y) if reduction == "mean" else 1.0
    # A softmax near 0 or 1 still has the absolute error of the exponentials it is made of.
    gradient = noise(gradient, np.abs(gradient) + share * (1 + 0 * top), 8)
    return noise(value, float(np.mean(top)) + abs(value), 8 + len(y)), gradient


@dataclass
class Recorded:
    """What one run did, step by step."""

    loss: list[Any]
    grads: list[list[Array]]
    total_norm: list[Any]
    params: list[list[Array]]
    masks: list[list[Array | None]]
    sides: list[Array]


def exact_run(inputs: dict[str, Any], settings: Settings) -> Recorded:
    """Train exactly. ``settings`` hold the nested settings of clip, penalty and optimiser."""
    params = [exact(p) for p in inputs["params"]]
    slots: list[Settings] = [{"t": 0} for _ in params]
    masks: list[Any] = [None] * len(params)
    record = Recorded([], [], [], [], [], [])
    clip, optimizer = settings["clip"], settings["optimizer"]
    for step, (xs, targets) in enumerate(zip(inputs["x"], inputs["targets"], strict=True)):
        losses, micro = [], []
        for x, t in zip(xs, targets, strict=True):
            y, contexts, sides = forward(settings["model"], params, exact(x), EXACTLY)
            value, dy = loss_and_gradient(*_loss(settings, y, t), EXACTLY)
            losses.append(value)
            micro.append(backward(contexts, dy, EXACTLY))
            record.sides += sides
        grads = training.accumulate(micro, settings["accumulate"])
        count = len(losses) if settings["accumulate"] == "mean" else 1
        record.loss.append(sum(losses, ZERO) / count)
        weights = [Tracked(p, full(p.shape)) for p in params]
        if settings["prune"] is not None and settings["prune"]["gradient"] == "masked":
            grads = [training.apply_masks([g], [m])[0] for g, m in zip(grads, masks, strict=True)]
        grads = training.add_penalty(grads, weights, settings["penalty"])
        record.grads.append([g.exact for g in grads if g is not None])
        record.total_norm.append(training.norm(grads, training.order_of(clip)).exact.item())
        clipped = training.clip_all(grads, clip)
        lr = training.at(optimizer["lr"], step)
        weights, slots = training.update(weights, clipped, slots, optimizer, lr)
        masks = new_masks(settings["prune"], step, [w.exact for w in weights], masks)
        weights = training.apply_masks(weights, masks)
        slots = training.mask_slots(slots, masks)
        params = [w.exact for w in weights]
        record.params.append(params)
        record.masks.append(masks)
    return record


def _loss(settings: Settings, y: Array, targets: Array) -> tuple[str, Array, Array, str]:
    description = settings["loss"]
    name = description["operation"]
    wanted = exact(targets) if name == "loss.mse" and y.dtype == object else targets
    return name, y, wanted, description.get("reduction", "mean")


def sparsity_at(schedule: Mapping[str, Any], step: int) -> float | None:
    """Return the sparsity of a polynomial schedule where the masks are made anew, else None.

    s = final + (initial - final)·(1 - progress)^power (Zhu & Gupta 2017).
    """
    begin, end = int(schedule["begin"]), int(schedule["end"])
    frequency = int(schedule.get("frequency", 1))
    if not begin <= step <= end or ((step - begin) % frequency and step != end):
        return None
    first, last = float(schedule["initial"]), float(schedule["final"])
    progress = (step - begin) / (end - begin) if end > begin else 1.0
    return last + (first - last) * (1.0 - progress) ** float(schedule["power"])


def new_masks(
    prune: Settings | None, step: int, params: list[Array], masks: list[Any]
) -> list[Any]:
    """Return the masks after a step: the smallest magnitudes of all chosen weights are pruned."""
    sparsity = None if prune is None else sparsity_at(prune["schedule"], step)
    if prune is None or sparsity is None:
        return masks
    chosen = list(prune["parameters"])
    flat = [
        (masks[i] is None or bool(masks[i].ravel()[j]), abs(x), i, j)
        for i in chosen
        for j, x in enumerate(params[i].ravel())
    ]
    count = round(sparsity * len(flat))
    pruned = {(i, j) for _, _, i, j in sorted(flat)[:count]}
    result = list(masks)
    for i in chosen:
        kept = [(i, j) not in pruned for j in range(params[i].size)]
        result[i] = np.array(kept, dtype=bool).reshape(params[i].shape)
    return result


def perturbed_run(inputs: dict[str, Any], settings: Settings, noise: Noise) -> Recorded:
    """Train in float64 with noise; the optimisers are SGD with momentum and Adam as defined."""
    params = [np.asarray(p, dtype=np.float64) for p in inputs["params"]]
    moments: list[Settings] = [{} for _ in params]
    masks: list[Any] = [None] * len(params)
    record = Recorded([], [], [], [], [], [])
    for step, (xs, targets) in enumerate(zip(inputs["x"], inputs["targets"], strict=True)):
        losses, micro = [], []
        for x, t in zip(xs, targets, strict=True):
            values = np.asarray(x, dtype=np.float64)
            y, contexts, sides = forward(settings["model"], params, values, noise)
            value, dy = loss_and_gradient(*_loss(settings, y, t), noise)
            losses.append(value)
            micro.append(backward(contexts, dy, noise))
            record.sides += sides
        count = len(micro) if settings["accumulate"] == "mean" else 1
        grads = [sum(parts) / count for parts in zip(*micro, strict=True)]
        grads = [noise(g, np.abs(g), len(micro)) for g in grads]
        record.loss.append(sum(losses) / count)
        penalty = settings["penalty"]
        if penalty is not None:
            grads = [g + _penalty(p, penalty) for g, p in zip(grads, params, strict=True)]
        record.grads.append(grads)
        grads, total = _clipped(grads, settings["clip"], noise)
        record.total_norm.append(total)
        optimizer = settings["optimizer"]
        lr = training.at(optimizer["lr"], step)
        params = [
            _updated(p, g, m, optimizer, lr, step + 1, noise)
            for p, g, m in zip(params, grads, moments, strict=True)
        ]
        masks = new_masks(settings["prune"], step, params, masks)
        for i, mask in enumerate(masks):
            if mask is not None:
                params[i] = np.where(mask, params[i], 0.0)
                moments[i] = {k: np.where(mask, v, 0.0) for k, v in moments[i].items()}
        record.params.append(params)
        record.masks.append(masks)
    return record


def _penalty(p: Array, penalty: Settings) -> Array:
    strength = float(penalty["strength"])
    return strength * np.sign(p) if penalty["operation"] == "penalty.l1" else 2 * strength * p


def _clipped(grads: list[Array], clip: Settings | None, noise: Noise) -> tuple[list[Array], float]:
    order = training.order_of(clip)
    flat = np.concatenate([g.ravel() for g in grads])
    total = float(np.linalg.norm(flat, order))
    total = float(noise(np.float64(total), total, flat.size / 2 + 4))
    if clip is None:
        return grads, total
    if clip["operation"] == "clip.value":
        low = -np.inf if clip["min"] is None else float(clip["min"])
        high = np.inf if clip["max"] is None else float(clip["max"])
        return [np.clip(g, low, high) for g in grads], total
    limit = float(clip["max_norm"])
    norms = [total if clip["operation"] == "clip.global_norm" else np.linalg.norm(g) for g in grads]
    return [g * min(1.0, limit / n) for g, n in zip(grads, norms, strict=True)], total


def _updated(
    p: Array, g: Array, moments: Settings, s: Settings, lr: float, t: int, noise: Noise
) -> Array:
    if s["weight_decay"] and s["operation"] != "optim.adamw":
        g = g + float(s["weight_decay"]) * p
    if s["operation"] == "optim.sgd":
        mu = float(s["momentum"])
        v = mu * moments["v"] + (1 - float(s["dampening"])) * g if "v" in moments else g
        moments["v"] = noise(v, np.abs(v) + np.abs(g), 3)
        step = lr * (g + mu * moments["v"] if s["nesterov"] else moments["v"])
    else:
        b1, b2 = float(s["beta1"]), float(s["beta2"])
        m = b1 * moments.get("m", 0.0) + (1 - b1) * g
        v = b2 * moments.get("v", 0.0) + (1 - b2) * g * g
        moments["m"], moments["v"] = noise(m, np.abs(m) + np.abs(g), 4), noise(v, v, 4)
        step = (
            lr
            * (moments["m"] / (1 - b1**t))
            / (np.sqrt(moments["v"] / (1 - b2**t)) + float(s["eps"]))
        )
        if s["operation"] == "optim.adamw":
            p = p * (1 - lr * float(s["weight_decay"]))
    return noise(p - step, 12 * np.abs(step) + np.abs(p), 1)


@dataclass
class Deviation:
    """For each recorded tensor the largest distance that any perturbed run had from the others."""

    loss: list[float]
    grads: list[list[float]]
    total_norm: list[float]
    params: list[list[float]]


def deviations(inputs: dict[str, Any], settings: Settings, u: float, seed: int) -> Deviation:
    """Return what rounding may do to each recorded tensor (see TOLERANCE_WHY).

    Raises:
        Kink: a perturbed run took another side of a kink, or chose another mask.
    """
    base = perturbed_run(inputs, settings, EXACTLY)
    steps, tensors = len(base.loss), len(base.params[0])
    worst = Deviation(
        [0.0] * steps,
        [[0.0] * tensors for _ in range(steps)],
        [0.0] * steps,
        [[0.0] * tensors for _ in range(steps)],
    )
    for run in range(RUNS):
        other = perturbed_run(inputs, settings, Noise(u, Stream(1000 * seed + run)))
        if any((a != b).any() for a, b in zip(base.sides, other.sides, strict=True)):
            raise Kink("a unit changed the side of its kink")
        for ours, theirs in zip(base.masks, other.masks, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                if a is not None and b is not None and (a != b).any():
                    raise Kink("a mask was chosen otherwise")
        for t in range(steps):
            worst.loss[t] = max(worst.loss[t], abs(other.loss[t] - base.loss[t]))
            worst.total_norm[t] = max(
                worst.total_norm[t], abs(other.total_norm[t] - base.total_norm[t])
            )
            for i in range(tensors):
                for kept, run_a, run_b in (
                    (worst.grads, base.grads, other.grads),
                    (worst.params, base.params, other.params),
                ):
                    off = float(np.max(np.abs(run_a[t][i] - run_b[t][i]), initial=0.0))
                    kept[t][i] = max(kept[t][i], off)
    return worst
