"""A5: a regression network trained with a clip and a penalty together; who gets zeros, and at what cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import models, trainer
from ..trainer import Plan, State
from . import training
from .report import Chart, Report, Series, Table, measured, over
from .script import Script
from .training import Options

TITLE = "A5 · Clipping with sparse optimisation"
EPOCHS, LR, CLIP = 1000, 0.01, 1.0
MODEL = (
    {"operation": "layer.dense", "units": 64},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 1},
)
LOSS = {"operation": "loss.mse"}
ADAM = {"operation": "optim.adam", "lr": LR}
SGD = {"operation": "optim.sgd", "lr": 0.2}
GLOBAL_CLIP = {"operation": "clip.global_norm", "max_norm": CLIP}
NOISE = 36
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {},
    "L2, gradient": {"penalty": {"operation": "penalty.l2", "strength": 1e-3}},
    "L1, sub-gradient": {"penalty": {"operation": "penalty.l1", "strength": 1e-3}},
    "L1, proximal": {"prox": {"operation": "prox.l1", "strength": 1e-3}},
}
STRENGTHS = (0.0, 0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Regression:
    """1,000 points to learn from and the others to test: features (n, pixels + noise), targets (n, 1)."""

    x: Any
    y: Any
    test_x: Any
    test_y: Any


def regression(name: str, seed: int) -> Regression:
    """Return the task: which digit it is, as a number, from its pixels and from columns of pure noise."""
    every = training.load(name)
    rng = np.random.default_rng(seed)
    pixels = every.x.reshape(len(every.labels), -1)
    noise = rng.random((len(pixels), NOISE), dtype=np.float32)
    x = np.concatenate([pixels, noise], axis=1)
    y = (every.labels[:, None] / 9).astype(np.float32)
    order = rng.permutation(len(y))
    rows, others = order[:1000], order[1000:2000]
    return Regression(x[rows], y[rows], x[others], y[others])


def fit(data: Regression, plan: Plan, epochs: int, seed: int) -> State:
    """Train on all points at once, as the article does."""
    params = models.initial_params(MODEL, (data.x.shape[1],), seed)
    steps = ([(data.x, data.y)] for _ in range(epochs))
    return trainer.train(MODEL, LOSS, plan, trainer.start(plan, params), steps)


def root_mean_square_error(params: Any, data: Regression) -> float:
    """Return the error on the test points, in units of a digit."""
    y, _ = models.forward(MODEL, params, data.test_x)
    return float(9 * np.sqrt(np.mean((y - data.test_y) ** 2, dtype=np.float64)))


def zeros(params: Any) -> dict[str, float]:
    """Return shares of the first layer's weights: exactly zero, nearly zero, zero on noise columns."""
    w = params[0]
    return {
        "exact": float(np.mean(w == 0)),
        "near": float(np.mean(abs(w) < 1e-3)),
        "noise": float(np.mean(w[-NOISE:] == 0)),
    }


def measure(plan: Plan, options: Options, seeds: list[int]) -> dict[str, list[float]]:
    """Return error and zeros of a plan, seed by seed."""
    found: dict[str, list[float]] = {"error": [], "exact": [], "near": [], "noise": []}
    for seed in seeds:
        data = regression(options.data, seed)
        params = fit(data, plan, options.epochs or EPOCHS, seed).params
        found["error"].append(root_mean_square_error(params, data))
        for name, share in zeros(params).items():
            found[name].append(share)
    return found


def run(options: Options) -> Report:
    """Compare penalties at one strength, then the proximal L1 at several."""
    seeds = options.each(3)
    rows: list[Any] = []
    path: list[Any] = []
    numbers: dict[str, Any] = {}
    for name, extra in VARIANTS.items():
        options.progress(f"A5: {name}")
        found = measure(Plan(SGD, clip=GLOBAL_CLIP, **extra), options, seeds)
        rows.append([name, *(measured(found[k]) for k in ("error", "exact", "near", "noise"))])
        numbers[name] = {key: measured(values) for key, values in found.items()}
    for strength in STRENGTHS:
        options.progress(f"A5: proximal, λ {strength:g}")
        prox = {"operation": "prox.l1", "strength": strength}
        found = measure(Plan(ADAM, clip=GLOBAL_CLIP, prox=prox), options, seeds)
        path.append([strength, *(measured(found[k]) for k in ("error", "exact", "noise"))])
    numbers |= {f"adam, λ {z[0]:g}": {"error": z[1], "exact": z[2]} for z in path}
    tables = [
        Table(
            f"Plain gradient steps, λ = 0.001; {over(seeds)}; shares are of the first layer's weights",
            ("penalty", "test error (digits)", "exactly 0", "|w| < 0.001", "0 on noise inputs"),
            ("", ".3f", ".1%", ".1%", ".1%"),
            rows,
        ),
        Table(
            f"Adam, then the proximal step; {over(seeds)}",
            ("λ", "test error (digits)", "exactly 0", "0 on noise inputs"),
            ("g", ".3f", ".1%", ".1%"),
            path,
        ),
    ]
    chart = Chart(
        "Error against sparsity", "share of exact zeros", "test error (digits)",
        [Series("Adam, proximal L1, λ from 0 to 0.1", [(z.mean, e.mean, e.error) for _, e, z, _ in path])],
    )  # fmt: skip
    return Report(TITLE, NOTES, tables, [chart], numbers)


NOTES = (
    f"Which digit it is, as a number, from 64 pixels and {NOISE} columns of pure noise: 100 inputs and 1,000 "
    "points as in the article, whose own points are random numbers. MLP 100→64 ReLU→1, mean squared error, "
    f"all points at once, {EPOCHS:,} epochs, clip by global norm {CLIP:g}.",
    f"The penalties are compared under plain gradient steps of {SGD['lr']}, where all minimise one sum. The "
    f"article's Adam ({LR}) divides the gradient by its own size and the proximal step is not divided: there λ "
    "has to be larger, and is no longer that of the sum.",
)


def script(seed: int) -> Script:
    """Return a short run with the penalty in the gradient: 24 plain gradient steps over 25 points.

    The points are such that with the seed 0 no rounding turns a unit or the sign of a weight. Adam would
    not do: it walks weights that only the penalty moves to and fro across zero, and where a step ends
    within a rounding of zero no other program need agree on the next one.
    """
    data = regression("digits", seed)
    description = {
        "model": list(MODEL),
        "loss": LOSS,
        "optimizer": SGD,
        "clip": GLOBAL_CLIP,
        "penalty": VARIANTS["L1, sub-gradient"]["penalty"],
    }
    params = models.initial_params(MODEL, (data.x.shape[1],), seed)
    rows = slice(125, 150)
    return Script(description, params, [data.x[rows]] * 24, [data.y[rows]] * 24)
