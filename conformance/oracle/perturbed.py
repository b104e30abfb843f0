"""Training runs in float64 with rounding errors put in: how far may an implementation stray?

The exact run gives the expected numbers. How far a float32 run may stray from them no closed formula
says, since every step starts from the last one's errors; so the run is repeated in float64 with each
stage's result moved by a random amount within that stage's own error bound (operations counted × unit
roundoff). What such runs stray, an implementation may stray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.cases import Stream
from conformance.oracle import training
from conformance.oracle.models import EXACTLY, Noise, backward, forward, loss_and_gradient
from conformance.oracle.trajectories import Recorded, dropped, loss_of, new_masks

Array = Any
Settings = dict[str, Any]

TOLERANCE_WHY = (
    "Every stage has a first-order error bound: a sum of n products γ = (n+1)·u times the sum of absolute"
    " products; an elementary function 4·u; softmax 8·u; the norm (N/2+4)·u; averages of an optimiser 4·u of"
    " their terms, the update 12·u of the step and u of the parameter. The run is repeated 16 times in"
    " float64 with each stage's result moved by a random amount within its bound, and each tensor is"
    " allowed twice the largest deviation that was seen. No activation comes so near to a kink"
    " that a run changes sides; the cases are chosen so, and that is checked when they are made."
)
RUNS = 16
SAFETY = 2.0


class Kink(Exception):
    """A perturbed run took another side of a kink: the case cannot be judged."""


def perturbed_run(inputs: dict[str, Any], settings: Settings, noise: Noise) -> Recorded:
    """Train in float64 with noise; the optimisers are as defined, all dials at their defaults."""
    params = [np.asarray(p, dtype=np.float64) for p in inputs["params"]]
    moments: list[Settings] = [{} for _ in params]
    masks: list[Any] = [None] * len(params)
    record = Recorded([], [], [], [], [], [])
    for step, (xs, targets) in enumerate(zip(inputs["x"], inputs["targets"], strict=True)):
        losses: list[Any] = []
        micro: list[Any] = []
        for x, t in zip(xs, targets, strict=True):
            values = np.asarray(x, dtype=np.float64)
            given = dropped(inputs, step, len(losses))
            y, backs, sides = forward(settings["model"], params, values, noise, given)
            value, dy = loss_and_gradient(*loss_of(settings, y, wide(t)), noise)
            losses.append(value)
            micro.append(backward(backs, dy))
            record.sides += sides
        count = len(micro) if settings["accumulate"] == "mean" else 1
        grads = [sum(parts) / count for parts in zip(*micro, strict=True)]
        grads = [noise(g, np.abs(g), len(micro)) for g in grads]
        record.loss.append(sum(losses) / count)
        penalty = settings["penalty"]
        if penalty is not None:
            grads = [penalised(g, p, penalty, noise) for g, p in zip(grads, params, strict=True)]
        record.grads.append(grads)
        grads, total = _clipped(grads, settings["clip"], noise)
        record.total_norm.append(total)
        optimizer = settings["optimizer"]
        lr = training.at(optimizer["lr"], step)
        params = [
            updated(p, g, m, optimizer, lr, step + 1, noise)
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


def wide(targets: Array) -> Array:
    """Return targets that are numbers as float64; class indices stay as they are."""
    return targets if targets.dtype.kind == "i" else np.asarray(targets, dtype=np.float64)


def penalised(g: Array, p: Array, penalty: Settings, noise: Noise) -> Array:
    """Return the gradient with that of the penalty."""
    kind = penalty["operation"].removeprefix("penalty.")
    if kind == "group_lasso":
        axis = penalty["axis"]
        named = axis if isinstance(axis, list) else [axis]
        groups = {a % p.ndim for a in named}
        rest = tuple(a for a in range(p.ndim) if a not in groups)
        norms = np.sqrt((p * p).sum(axis=rest, keepdims=True))
        extra = float(penalty["strength"]) * p / np.where(norms == 0, 1.0, norms)
        return noise(g + extra, np.abs(g + extra) + np.abs(extra), p.size + 6)
    first = float(penalty["l1"] if kind == "elastic_net" else penalty.get("strength", 0.0))
    second = float(penalty["l2"]) if kind == "elastic_net" else first
    extra = (kind != "l2") * first * np.sign(p) + (kind != "l1") * 2 * second * p
    return noise(g + extra, np.abs(g + extra) + np.abs(extra), 5)


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
    # in a dialect something is added to the norm
    norms = [n + float(clip.get("eps", 0.0)) for n in norms]
    return [g * min(1.0, limit / n) for g, n in zip(grads, norms, strict=True)], total


def updated(
    p: Array, g: Array, moments: Settings, s: Settings, lr: float, t: int, noise: Noise
) -> Array:
    """Return a parameter after step t, from 1; ``moments`` is the optimiser's state of it."""
    if s["weight_decay"] and s["operation"] != "optim.adamw":
        g = g + float(s["weight_decay"]) * p
        g = noise(g, np.abs(g) + float(s["weight_decay"]) * np.abs(p), 3)
    step = UPDATES[s["operation"]](g, moments, s, lr, t, noise)
    if s["operation"] == "optim.adamw":
        p = p * (1 - lr * float(s["weight_decay"]))
    return noise(p - step, 12 * np.abs(step) + 3 * np.abs(p), 1)


def _sgd(g: Array, moments: Settings, s: Settings, lr: float, t: int, noise: Noise) -> Array:
    mu = float(s["momentum"])
    v = mu * moments["v"] + (1 - float(s["dampening"])) * g if "v" in moments else g
    moments["v"] = noise(v, np.abs(v) + np.abs(g), 3)
    return lr * (g + mu * moments["v"] if s["nesterov"] else moments["v"])


def _adam(g: Array, moments: Settings, s: Settings, lr: float, t: int, noise: Noise) -> Array:
    b1, b2 = float(s["beta1"]), float(s["beta2"])
    moments["m"] = m = _average(b1, moments.get("m", 0.0), g, noise)
    moments["v"] = v = _average(b2, moments.get("v", 0.0), g * g, noise)
    if s["amsgrad"]:
        moments["largest"] = v = np.maximum(moments.get("largest", 0.0), v)
    c1, c2 = (_correction(beta, t, s, noise) for beta in (b1, b2))
    if s.get("eps_at") == "before_bias_correction":
        return lr * np.sqrt(c2) / c1 * m / (np.sqrt(v) + float(s["eps"]))
    return lr * (m / c1) / (np.sqrt(v / c2) + float(s["eps"]))


def _correction(beta: float, t: int, s: Settings, noise: Noise) -> Any:
    """Return 1 - β^t, in a dialect that computes it in float32 with the error that this has."""
    if s.get("hyperparameters", "exact") == "exact":
        return 1 - beta**t
    power = float(np.float32(beta)) ** t
    return noise(np.float64(1 - power), 1 + 2 * (t - 1) * power, 1)


def _rmsprop(g: Array, moments: Settings, s: Settings, lr: float, t: int, noise: Noise) -> Array:
    alpha, mu = float(s["alpha"]), float(s["momentum"])
    moments["v"] = v = _average(alpha, moments.get("v", 0.0), g * g, noise)
    if s["centered"]:
        moments["a"] = a = _average(alpha, moments.get("a", 0.0), g, noise)
        v = noise(v - a * a, v + a * a, 2)
    scaled = g / (np.sqrt(v) + float(s["eps"]))
    if not mu:
        return lr * scaled
    b = mu * moments.get("b", 0.0) + scaled
    moments["b"] = noise(b, np.abs(b) + np.abs(scaled), 4)
    return lr * moments["b"]


def _adagrad(g: Array, moments: Settings, s: Settings, lr: float, t: int, noise: Noise) -> Array:
    total = moments.get("sum", float(s["initial_accumulator"])) + g * g
    moments["sum"] = noise(total, total, 2)
    slowed = lr / (1 + (t - 1) * float(s["lr_decay"]))
    return slowed * g / (np.sqrt(moments["sum"]) + float(s["eps"]))


def _average(beta: float, old: Array, new: Array, noise: Noise) -> Array:
    mean = beta * old + (1 - beta) * new
    return noise(mean, np.abs(mean) + (1 - beta) * np.abs(new), 4)


UPDATES = {
    "optim.sgd": _sgd,
    "optim.adam": _adam,
    "optim.adamw": _adam,
    "optim.rmsprop": _rmsprop,
    "optim.adagrad": _adagrad,
}


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
