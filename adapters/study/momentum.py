"""Momentum under a mask: which pruned weights come back."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from adapters.study.cases import case
from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Fill, Mark, Plot, Stage, Table
from adapters.study.numbers import exact
from refimpl import optimizers
from refimpl.masks import apply_mask

CASE = "train.step/masks-momentum-f32"
WAYS = (
    "weights masked once, momentum kept",
    "weights masked after every step, momentum kept",
    "weights and momentum masked once",
)
Weights = list[Any]


@cache
def run(way: str) -> tuple[list[Weights], list[Weights]]:
    """Return weights and velocities after each step.

    The first step is dense; then the fixture's masks prune, and the gradients of what is pruned are
    zero from there on, as they are where the mask is part of the model.
    """
    inputs = case(CASE).inputs
    masks = list(inputs["masks"])
    optimizer = optimizers.sgd(lr=0.1, momentum=0.9)
    params = list(inputs["params"])
    state = optimizer.init(params)
    weights, velocities = [], []
    for step, (grads,) in enumerate(inputs["grads"]):
        given = grads if step == 0 else _masked(grads, masks)
        params, state = optimizer.update(params, given, state)
        if step == 0 or way == WAYS[1]:
            params = _masked(params, masks)
        if step == 0 and way == WAYS[2]:
            state = optimizers.mask_state(state, masks)
        weights.append(list(params))
        velocities.append(list(state["velocity"]))
    return weights, velocities


def _masked(tensors: Weights, masks: Weights) -> Weights:
    return [apply_mask(t, m) for t, m in zip(tensors, masks, strict=True)]


def _fill(choice: Choice) -> Fill:
    masks = case(CASE).inputs["masks"]
    rows = []
    for way in WAYS:
        weights, velocities = run(way)
        revived = sum(int(np.sum((w != 0) & ~m)) for w, m in zip(weights[-1], masks, strict=True))
        ghost = sum(int(np.sum((v != 0) & ~m)) for v, m in zip(velocities[-1], masks, strict=True))
        rows.append(
            (
                way,
                exact(weights[-1][0][0, 1]),
                exact(velocities[-1][0][0, 1]),
                str(revived),
                str(ghost),
            )
        )
    marks = []
    for colour, way in enumerate(WAYS):
        weights, _ = run(way)
        marks.append(
            Mark(
                "line",
                way,
                tuple((i + 1, float(w[0][0, 1])) for i, w in enumerate(weights)),
                colour + 1,
            )
        )
    v = run(WAYS[0])[1][0][0][0, 1]
    after = run(WAYS[0])[0][1][0][0, 1]
    return Fill(
        r"v = 0.9 \cdot («v») + 0 \quad w = 0 - 0.1 \cdot v = «w»",
        {"v": exact(v), "w": exact(after)},
        f"{rows[0][3]} weights that were pruned have come back where only the weights were masked, and once.",
        (
            Plot("The pruned weight `w1[0, 1]`, step by step", "step", "weight", tuple(marks)),
            Table("After four steps",
                  ("what was masked", "`w1[0, 1]`", "its momentum", "weights revived",
                      "momenta that are not zero"),
                  tuple(rows), ("bad", "", "kept")),
        ),
    )  # fmt: skip


def stage() -> Stage:
    """Return the stage that every page on unstructured pruning ends with."""
    return Stage(
        "momentum",
        "Momentum under a mask",
        """Momentum remembers gradients from before the cut. A weight that was set to zero once is
            moved on by that memory although its gradient is zero now: it comes back. Masking after
            every step holds the weight down, but the momentum lives on underneath. refimpl masks
            weights and optimiser state, so nothing is left that could revive a weight.""",
        r"v \leftarrow \mu v + g \quad w \leftarrow w - \eta v",
        (
            excerpt(optimizers.mask_state, 'if name != "step"', "for array, mask in"),
            excerpt(optimizers.sgd, 'v = used * slots["velocity"]'),
        ),
        CASE,
        _fill,
    )
