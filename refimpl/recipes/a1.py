"""A1: while training, weights with a small gradient are shrunk, or pruned; what that does to a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .. import models, trainer
from ..trainer import Plan, State
from . import training
from .a2 import masks_at
from .report import Chart, Report, Series, Table, measured, over
from .script import Script, of_batches, shrunk
from .training import Data, Options

TITLE = "A1 · Gradient-threshold weight pruning during training"
EPOCHS = 10
PLAN = Plan({"operation": "optim.sgd", "lr": 0.1})
MODEL = (
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 32},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 10},
)
WEIGHTS = [0, 2]
THRESHOLDS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
RATES = (0.5, 1.0)


def fit(data: Data, seed: int, epochs: int, how: dict[str, Any] | None) -> State:
    """Train; before each update weights whose gradient is small are multiplied by 1 - rate."""
    state = trainer.start(PLAN, models.initial_params(MODEL, data.shape, seed))
    for step in training.batches(data.train, 32, epochs, seed):
        ((x, labels),) = step
        y, backprop = models.forward(MODEL, state.params, x)
        _, loss_gradient = models.loss(training.CROSS_ENTROPY, y, labels)
        _, grads = backprop(loss_gradient())
        if how is not None:
            state = replace(state, params=shrunk(how, state.params, grads))
        state = trainer.train_step(PLAN, state, [grads])
    return state


def shrinking(threshold: float, rate: float, by: str = "element") -> dict[str, Any]:
    """Describe what is shrunk and by how much (:mod:`refimpl.recipes.script`)."""
    return {"threshold": threshold, "rate": rate, "by": by, "parameters": WEIGHTS}


def _zeros(params: Any) -> float:
    weights = [params[i] for i in WEIGHTS]
    return sum(int(np.count_nonzero(w == 0)) for w in weights) / sum(w.size for w in weights)


def _small(params: Any) -> float:
    weights = [params[i] for i in WEIGHTS]
    return sum(int(np.count_nonzero(abs(w) < 1e-3)) for w in weights) / sum(w.size for w in weights)


def run(options: Options) -> Report:
    """Train at several thresholds and rates; prune a plain network to the same sparsity."""
    seeds, epochs = options.each(3), options.epochs or EPOCHS
    rows: list[Any] = []
    numbers: dict[str, Any] = {}
    curves: dict[str, list[tuple[float, float, float]]] = {}
    found: list[tuple[float, ...]]
    plain = {}
    for seed in seeds:
        data = training.parts(options.data, seed)
        plain[seed] = (data, fit(data, seed, epochs, None))
    cases = [("element", r, t) for r in RATES for t in THRESHOLDS] + [("row", 0.5, 0.01)]
    for by, rate, threshold in cases:
        options.progress(f"A1: by {by}, α {rate}, ε {threshold:g}")
        found = []
        for seed in seeds:
            data, dense = plain[seed]
            params = fit(data, seed, epochs, shrinking(threshold, rate, by)).params
            small = _small(params)
            masks = masks_at(MODEL, dense.params, small)
            other = training.pruned(PLAN, dense.params, masks)
            right = training.share_right(MODEL, params, data.test)
            by_size = training.share_right(MODEL, other.params, data.test)
            found.append((right, _zeros(params), small, by_size))
        accuracy, zero, near, pruned = (measured(v) for v in zip(*found, strict=True))
        rows.append([by, rate, threshold, accuracy, zero, near, pruned])
        numbers[f"{by}, rate {rate:g}, threshold {threshold:g}"] = {
            "accuracy": accuracy, "zeros": zero, "small": near, "by_magnitude": pruned,
        }  # fmt: skip
        if by == "element":
            curves.setdefault(f"α = {rate:g}", []).append(
                (near.mean, accuracy.mean, accuracy.error)
            )
            curves.setdefault(f"magnitude, as many (α = {rate:g})", []).append(
                (near.mean, pruned.mean, pruned.error)
            )
    table = Table(
        f"{epochs} epochs; {over(seeds)}; the last column: as many weights of an ordinary run pruned by size",
        ("by", "α", "ε", "test accuracy", "exactly 0", "|w| < 0.001", "by magnitude"),
        ("", "g", "g", ".2%", ".1%", ".1%", ".2%"),
        rows,
    )
    lines = [Series(name, sorted(points)) for name, points in curves.items()]
    chart = Chart("Weights that are (nearly) zero", "share of |w| < 0.001", "test accuracy", lines)
    return Report(TITLE, NOTES, [table], [chart], numbers)


NOTES = (
    "MLP 64→32 ReLU→10, SGD 0.1, batch 32, cross-entropy. Before each update weights whose gradient has "
    "|g| ≤ ε are multiplied by 1 - α. By row: the squared norm of a row's gradient is compared, as in the "
    "article's program with 0.01 and α = 0.5.",
    "What is zeroed at one step is moved again by the next: at α = 1 a weight is zero at the end only if its "
    "gradient was small and its update zero in the last step.",
)


def script(seed: int) -> Script:
    """Return a short run: 40 steps that shrink by half what has |g| <= 1e-4.

    The batches are such that with the seed 0 no rounding turns a unit or a choice.
    """
    data = training.parts("digits", seed)
    description = {
        "model": list(MODEL),
        "loss": training.CROSS_ENTROPY,
        "optimizer": PLAN.optimizer,
        "shrink": shrinking(1e-4, 0.5),
    }
    params = models.initial_params(MODEL, data.shape, seed)
    return of_batches(description, params, data.train, 40, 32, seed + 8)
