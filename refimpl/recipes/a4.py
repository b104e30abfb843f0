"""A4: prune the neurons whose gradient is small; measure, fine-tune under a mask, remove them for real."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import compression, models, trainer
from ..trainer import Plan, State
from . import neurons, training
from .report import Chart, Report, Series, Table, measured, over
from .script import Script, of_batches
from .training import Data, Options

TITLE = "A4 · Gradient pruning of neurons"
EPOCHS, THRESHOLD = 10, 0.01
MODEL = (
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 32},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 64},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 32},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 10},
)
PLAN = Plan({"operation": "optim.adam", "lr": 0.001})
AMOUNTS = (0.25, 0.5, 0.75)


def dense(data: Data, seed: int, epochs: int = EPOCHS) -> State:
    """Train the network of the article."""
    params = models.initial_params(MODEL, data.shape, seed)
    state = trainer.start(PLAN, params)
    return training.fit(MODEL, PLAN, state, data.train, epochs=epochs, seed=seed)


def below(scores: list[Any], threshold: float) -> list[Any]:
    """Keep the units whose score is not below a threshold (compare: lt)."""
    return [score >= threshold for score in scores]


def lowest(scores: list[Any], amount: float) -> list[Any]:
    """Keep all but the lowest scores of all hidden units; of equals the first ones go."""
    flat = np.concatenate(scores)
    kept = np.ones(flat.size, bool)
    kept[np.argsort(flat, kind="stable")[: round(amount * flat.size)]] = False
    return np.split(kept, np.cumsum([s.size for s in scores])[:-1])


def by_weights(params: Any) -> list[Any]:
    """Return each hidden unit's 2-norm of its incoming weights, for comparison."""
    return [np.sqrt(np.sum(params[i] ** 2, axis=0)) for i in (0, 2, 4)]


def run(options: Options) -> Report:
    """Prune at the article's threshold, then at fixed shares of neurons, beside pruning by weights."""
    seeds, epochs = options.each(5), options.epochs or EPOCHS
    at_threshold: list[Any] = []
    curves: dict[str, dict[float, list[float]]] = {}
    for seed in seeds:
        options.progress(f"A4: seed {seed}")
        data = training.parts(options.data, seed)
        state = dense(data, seed, epochs)
        score = neurons.gradients(MODEL, state.params, data.train.x, data.train.labels)
        at_threshold.append(_measure(state, below(score, THRESHOLD), data, seed, epochs))
        for name, ranked in (
            ("|gradient|", score),
            ("|incoming weights|", by_weights(state.params)),
        ):
            for amount in AMOUNTS:
                found = _measure(state, lowest(ranked, amount), data, seed, epochs)
                for when, value in (("at once", found["pruned"]), ("fine-tuned", found["tuned"])):
                    line = curves.setdefault(f"{name}, {when}", {})
                    line.setdefault(amount, []).append(value)
    stages = ("dense", "pruned", "tuned")
    rows: list[Any] = [
        [
            label,
            *(
                measured([found[f"{stage}{part}"] for found in at_threshold])
                for part in ("_train", "_validation", "")
            ),
        ]
        for label, stage in zip(("before", "pruned", f"{epochs} epochs more"), stages, strict=True)
    ]
    share, size = (measured([found[k] for found in at_threshold]) for k in ("share", "parameters"))
    tables = [
        Table(
            f"T = {THRESHOLD}: {100 * share.mean:.0f} % of the 128 hidden neurons go; {over(seeds)}",
            ("", "training accuracy", "validation", "test"),
            ("", ".2%", ".2%", ".2%"),
            rows,
        ),
        Table(
            "Test accuracy at fixed shares of neurons, ranked two ways",
            ("ranked by, measured", *(f"{a:.0%} pruned" for a in AMOUNTS)),
            ("", ".2%", ".2%", ".2%"),
            [[name, *(measured(line[a]) for a in AMOUNTS)] for name, line in curves.items()],
        ),
    ]
    chart = Chart(
        "Neurons pruned", "share of hidden neurons pruned", "test accuracy",
        [Series(n, [(a, *measured(v)[:2]) for a, v in line.items()]) for n, line in curves.items()],
    )  # fmt: skip
    numbers = {stage: rows[i][3] for i, stage in enumerate(stages)}
    numbers |= {"share": share, "parameters": size}
    full = sum(p.size for p in models.initial_params(MODEL, data.shape, 0))
    notes = (
        "64 pixels, hidden layers of 32, 64 and 32 ReLU units, 10 outputs; Adam 0.001, batch 32. The gradient "
        "of a neuron is the mean over the training examples of |∂ℓ/∂z|, z what it gives to its ReLU.",
        f"Physically removed, the network at T = {THRESHOLD} has {size.mean:,.0f} of {full:,} parameters "
        "and the same outputs.",
    )
    return Report(TITLE, notes, tables, [chart], numbers)


def _measure(state: State, kept: list[Any], data: Data, seed: int, epochs: int) -> dict[str, float]:
    """Return accuracies before, after, and after fine-tuning under the mask; size after removal."""
    pruned = training.pruned(PLAN, state.params, neurons.masks(MODEL, state.params, kept))
    tuned = training.fit(MODEL, PLAN, pruned, data.train, epochs=epochs, seed=seed + 500)
    found: dict[str, float] = {}
    for name, params in (
        ("dense", state.params),
        ("pruned", pruned.params),
        ("tuned", tuned.params),
    ):
        for part in ("train", "validation", "test"):
            suffix = "" if part == "test" else f"_{part}"
            found[name + suffix] = training.share_right(MODEL, params, getattr(data, part))
    _, smaller = compression.remove_units(MODEL, tuned.params, data.shape)
    found["parameters"] = float(sum(p.size for p in smaller))
    found["share"] = 1 - float(np.mean(np.concatenate(kept)))
    return found


def script(seed: int) -> Script:
    """Return a short run: 16 steps, neurons pruned, 16 steps under the mask.

    The batches are such that with the seed 0 no rounding turns a unit.
    """
    data = training.parts("digits", seed)
    description = {
        "model": list(MODEL),
        "loss": training.CROSS_ENTROPY,
        "optimizer": PLAN.optimizer,
        "prune": {"step": 16, "by": "neurons", "threshold": 0.004},
    }
    params = models.initial_params(MODEL, data.shape, seed)
    made = of_batches(description, params, data.train, 32, 32, seed + 11)
    score = (data.train.x[:256], data.train.labels[:256])
    return Script(made.description, made.params, made.x, made.targets, score)
