"""Whole training runs of small models, exactly, step by step in the order of ``train.step``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.exact import ZERO, exact, full
from conformance.oracle import training
from conformance.oracle.models import EXACTLY, backward, forward, loss_and_gradient
from conformance.oracle.optimizers import Tracked

Array = Any
Settings = dict[str, Any]


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
        losses: list[Any] = []
        micro: list[Any] = []
        for x, t in zip(xs, targets, strict=True):
            given = dropped(inputs, step, len(losses))
            y, backs, sides = forward(settings["model"], params, exact(x), EXACTLY, given)
            value, dy = loss_and_gradient(*loss_of(settings, y, t), EXACTLY)
            losses.append(value)
            micro.append(backward(backs, dy))
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


def dropped(inputs: dict[str, Any], step: int, micro_batch: int) -> list[Array]:
    """Return the masks of the dropout layers for one micro-batch, in order."""
    return inputs["dropout"][step][micro_batch] if inputs.get("dropout") is not None else []


def loss_of(settings: Settings, y: Array, targets: Array) -> tuple[str, Array, Array, str]:
    """Return the name, the arguments and the reduction of the loss."""
    description = settings["loss"]
    name = description["operation"]
    classes = name == "loss.softmax_cross_entropy"
    wanted = exact(targets) if not classes and y.dtype == object else targets
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
