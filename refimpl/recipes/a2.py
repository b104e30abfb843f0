"""A2: clip while training a small CNN, prune by magnitude, validate; with and without fine-tuning."""

from __future__ import annotations

from typing import Any

from .. import models, trainer
from ..pruning import prune_fraction, prune_threshold
from ..scores import magnitude
from ..trainer import Plan, State
from . import training
from .report import Chart, Report, Series, Table, measured, over
from .script import Script, of_batches
from .training import Data, Options

TITLE = "A2 · Clip while training, prune by magnitude after, validate"
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
EPOCHS, FINE_TUNING, CLIP = 20, 20, 0.5
THRESHOLDS = (0.003, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2)
ALLOWED_LOSS = 0.01
PLAN = Plan(
    {"operation": "optim.sgd", "lr": 0.1, "momentum": 0.9},
    clip={"operation": "clip.global_norm", "max_norm": CLIP},
)


def network(shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the article's CNN; for the 8×8 digits with half its filters and 64 dense units."""
    first, second, units = (16, 32, 64) if shape[0] < 16 else (32, 64, 100)
    return [
        {"operation": "layer.conv2d", "filters": first, "kernel": [3, 3]},
        {"operation": "layer.relu"},
        {"operation": "layer.conv2d", "filters": second, "kernel": [3, 3]},
        {"operation": "layer.relu"},
        {"operation": "layer.avg_pool2d", "window": [2, 2]},
        {"operation": "layer.flatten"},
        {"operation": "layer.dense", "units": units},
        {"operation": "layer.relu"},
        {"operation": "layer.dense", "units": 10},
    ]


def dense(data: Data, seed: int, epochs: int = EPOCHS, plan: Plan = PLAN) -> State:
    """Train the CNN without pruning."""
    model = network(data.shape)
    params = models.initial_params(model, data.shape, seed)
    return training.fit(
        model, plan, trainer.start(plan, params), data.train, epochs=epochs, seed=seed
    )


def masks_at(model: models.Model, params: Any, amount: float) -> list[Any]:
    """Return the masks that prune a share of all weights, the smallest magnitudes first."""
    chosen = training.weights_of(model)
    weights = [params[i] for i in chosen]
    masks, _ = prune_fraction(weights, magnitude(weights), amount=amount, scope="global")
    return training.spread(masks, chosen, len(params))


def masks_below(model: models.Model, params: Any, threshold: float) -> list[Any]:
    """Return the masks that prune every weight with |w| <= threshold."""
    chosen = training.weights_of(model)
    weights = [params[i] for i in chosen]
    masks, _ = prune_threshold(weights, magnitude(weights), threshold)
    return training.spread(masks, chosen, len(params))


def run(options: Options) -> Report:
    """Train, prune, fine-tune, over several seeds; every accuracy is of the test part."""
    seeds = options.each(5)
    epochs = EPOCHS if options.epochs is None else options.epochs
    tuning = max(1, epochs * FINE_TUNING // EPOCHS)
    before: dict[float, list[float]] = {s: [] for s in (0.0, *SPARSITIES)}
    after: dict[float, list[float]] = {s: [] for s in (0.0, *SPARSITIES)}
    rows: list[list[Any]] = []
    for seed in seeds:
        data = training.parts(options.data, seed)
        model = network(data.shape)
        options.progress(f"A2 seed {seed}: training {epochs} epochs")
        state = dense(data, seed, epochs)
        for amount in before:
            options.progress(f"A2 seed {seed}: sparsity {amount:.0%}")
            masks = masks_at(model, state.params, amount) if amount else [None] * 8
            start = training.pruned(PLAN, state.params, masks)
            before[amount].append(training.share_right(model, start.params, data.test))
            tuned = training.fit(model, PLAN, start, data.train, epochs=tuning, seed=seed + 500)
            after[amount].append(training.share_right(model, tuned.params, data.test))
        rows.append([seed, *_best_threshold(model, state, data)])
    base = after[0.0]
    table = Table(
        f"Test accuracy, {over(seeds)}",
        ("sparsity", "no fine-tuning", f"{tuning} epochs more", "against dense, same epochs"),
        (".0%", ".2%", ".2%", "+.2%"),
        [
            (
                amount,
                measured(before[amount]),
                measured(after[amount]),
                measured([a - b for a, b in zip(after[amount], base, strict=True)]),
            )
            for amount in before
        ],
    )
    chosen = Table(
        f"The largest ε that costs at most {ALLOWED_LOSS:.0%} of validation accuracy, not fine-tuned",
        ("seed", "ε", "sparsity", "validation", "test", "test, dense"),
        ("d", "g", ".1%", ".2%", ".2%", ".2%"),
        rows,
    )
    lines = [("no fine-tuning", before), (f"{tuning} epochs of fine-tuning", after)]
    chart = Chart(
        "Accuracy against sparsity", "sparsity", "test accuracy",
        [
            Series(name, [(s, *measured(v)[:2]) for s, v in values.items()])
            for name, values in lines
        ],
    )  # fmt: skip
    numbers = {
        "dense": measured(before[0.0]),
        "dense_same_epochs": measured(base),
        "pruned_90": measured(before[0.9]),
        "tuned_90": measured(after[0.9]),
        "loss_90_against_dense": measured(
            [a - b for a, b in zip(before[0.0], after[0.9], strict=True)]
        ),
        "loss_90_against_same_epochs": measured(
            [a - b for a, b in zip(base, after[0.9], strict=True)]
        ),
    }
    return Report(TITLE, _notes(data, model), [table, chosen], [chart], numbers)


def _notes(data: Data, model: models.Model) -> list[str]:
    height, width = data.shape[:2]
    filters = [layer["filters"] for layer in model if "filters" in layer]
    parts = [len(p.labels) for p in (data.train, data.validation, data.test)]
    return [
        f"Images of {height}×{width}; filters {filters[0]} and {filters[1]} (the article: 28×28, 32 and 64); "
        f"{parts[0]} to learn from, {parts[1]} to choose by, {parts[2]} to test.",
        "SGD with momentum 0.9, batch 32, clip by global norm 0.5 as in the article; learning rate 0.1 instead "
        "of 0.01, for an epoch here has 40 steps instead of 1,875.",
    ]


def _best_threshold(model: models.Model, state: State, data: Data) -> tuple[float, ...]:
    """Choose ε on the validation part; return it, the sparsity and three accuracies."""
    start = training.share_right(model, state.params, data.validation)
    best = (0.0, 0.0, start, training.share_right(model, state.params, data.test))
    for threshold in THRESHOLDS:
        masks = masks_below(model, state.params, threshold)
        params = training.pruned(PLAN, state.params, masks).params
        share = training.share_right(model, params, data.validation)
        if share >= start - ALLOWED_LOSS:
            test = training.share_right(model, params, data.test)
            best = (threshold, training.sparsity(masks), share, test)
    return (*best, training.share_right(model, state.params, data.test))


def script(seed: int) -> Script:
    """Return a short run: 6 steps, half of all weights pruned, 6 steps of fine-tuning.

    It is so short that with the seed 0 no rounding turns a unit.
    """
    data = training.parts("digits", seed)
    model = network(data.shape)
    description = {
        "model": model,
        "loss": training.CROSS_ENTROPY,
        "optimizer": PLAN.optimizer,
        "clip": PLAN.clip,
        "prune": {
            "step": 6,
            "by": "magnitude",
            "amount": 0.5,
            "parameters": training.weights_of(model),
        },
    }
    params = models.initial_params(model, data.shape, seed)
    return of_batches(description, params, data.train, 12, 4, seed)
