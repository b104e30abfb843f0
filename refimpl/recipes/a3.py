"""A3: training with norm clipping; two small CNNs, and a recurrent network that needs the clip."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import models, trainer
from ..trainer import Plan, Trace
from . import recurrent, training
from .report import Chart, Report, Series, Table, measured, over
from .script import Script, of_batches
from .training import Data, Options

TITLE = "A3 · Training with norm clipping"
EPOCHS = 5
SGD = {"operation": "optim.sgd", "lr": 0.1}
ADAM = {"operation": "optim.adam", "lr": 0.001}
CLIPS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "each tensor": {"operation": "clip.norm", "max_norm": 1.0},
    "global": {"operation": "clip.global_norm", "max_norm": 1.0},
}


def plain(shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the CNN of the article's PyTorch program; its log-softmax belongs to the loss."""
    return [
        {"operation": "layer.conv2d", "filters": 16 if shape[0] < 16 else 32, "kernel": [3, 3]},
        {"operation": "layer.relu"},
        {"operation": "layer.flatten"},
        {"operation": "layer.dense", "units": 10},
    ]


def pooled(shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the CNN of its Keras program: max-pooling, dense 128; its softmax belongs to the loss."""
    return [
        {"operation": "layer.conv2d", "filters": 16 if shape[0] < 16 else 32, "kernel": [3, 3]},
        {"operation": "layer.relu"},
        {"operation": "layer.max_pool2d", "window": [2, 2]},
        {"operation": "layer.flatten"},
        {"operation": "layer.dense", "units": 128},
        {"operation": "layer.relu"},
        {"operation": "layer.dense", "units": 10},
    ]


NETWORKS = {"conv, dense; SGD 0.1": (plain, SGD), "max-pool; Adam 0.001": (pooled, ADAM)}


def measure(
    model: Any, plan: Plan, data: Data, seed: int, epochs: int
) -> tuple[float, float, float]:
    """Train; return test accuracy, the share of steps whose norm was above 1, the largest norm."""
    trace = Trace()
    state = trainer.start(plan, models.initial_params(model, data.shape, seed))
    state = training.fit(
        model, plan, state, data.train, epochs=epochs, seed=seed, on_stage=_only_norms(trace)
    )
    norms = np.array([float(n) for n in trace.of("penalty", "total_norm")])
    accuracy = training.share_right(model, state.params, data.test)
    return accuracy, float(np.mean(norms > 1)), float(norms.max())


def _only_norms(trace: Trace) -> trainer.OnStage:
    def listen(stage: str, step: int, values: dict[str, Any]) -> None:
        if stage == "penalty":
            trace(stage, step, {"total_norm": values["total_norm"]})

    return listen


def run(options: Options) -> Report:
    """Train both CNNs with and without a clip, then the recurrent network."""
    seeds, epochs = options.each(3), options.epochs or EPOCHS
    rows: list[Any] = []
    for name, (network, optimizer) in NETWORKS.items():
        for kind, clip in CLIPS.items():
            found = []
            for seed in seeds:
                options.progress(f"A3: {name}, clip {kind}, seed {seed}")
                data = training.parts(options.data, seed)
                model = network(data.shape)
                found.append(measure(model, Plan(optimizer, clip=clip), data, seed, epochs))
            rows.append([name, kind, *(measured(v) for v in zip(*found, strict=True))])
    table = Table(
        f"{epochs} epochs, batch 32, max norm 1; {over(seeds)}",
        ("network", "clip", "test accuracy", "steps with norm > 1", "largest norm"),
        ("", "", ".2%", ".0%", ".2f"),
        rows,
    )
    recurrent_table, chart, numbers = demonstrate(options, seeds)
    numbers |= {f"{row[0]}, {row[1]}": row[2] for row in rows}
    return Report(TITLE, NOTES, [table, recurrent_table], [chart], numbers)


def demonstrate(options: Options, seeds: list[int]) -> tuple[Table, Chart, dict[str, Any]]:
    """Train the recurrent network with and without the clip."""
    epochs = options.epochs or recurrent.EPOCHS
    rows: list[Any] = []
    lines = []
    numbers: dict[str, Any] = {}
    for name, plan in (
        ("no clip", recurrent.UNCLIPPED),
        (f"clip {recurrent.LIMIT}", recurrent.CLIPPED),
    ):
        found = []
        for seed in seeds:
            data = training.parts(options.data, seed)
            losses, norms, params = recurrent.run(
                plan, data.train, seed, epochs=epochs, progress=options.progress
            )
            share = recurrent.share_right(params, data.test)
            found.append((float(np.mean(losses[-40:])), max(norms), share))
            if seed == seeds[0]:
                smooth = np.convolve(losses, np.ones(10) / 10, "valid")
                lines.append(
                    Series(name, [(i + 10.0, float(v), np.nan) for i, v in enumerate(smooth)])
                )
        last, largest, right = (measured(v) for v in zip(*found, strict=True))
        rows.append([name, last, largest, right])
        numbers[f"recurrent, {name}"] = {"loss": last, "norm": largest, "accuracy": right}
        numbers[f"recurrent, {name}, worst loss"] = max(f[0] for f in found)
        numbers[f"recurrent, {name}, best loss"] = min(f[0] for f in found)
    table = Table(
        f"Recurrent network, digits four pixels at a time; {over(seeds)}; guessing: {recurrent.CHANCE:.3f}",
        ("clip", "loss, last 40 steps", "largest norm", "test accuracy"),
        ("", ".3f", ".0f", ".1%"),
        rows,
    )
    chart = Chart("A recurrent network whose gradients explode", "step", "loss (mean of 10)", lines)
    return table, chart, numbers


NOTES = (
    "Images of 8×8 with 16 filters (the article: 28×28, 32). SGD with learning rate 0.1 instead of 0.01: "
    "an epoch here has 40 steps instead of 1,875. Softmax is part of the loss, once.",
    f"The recurrent network: {recurrent.UNITS} tanh units, recurrent weight {recurrent.GAIN} times a rotation, "
    f"SGD {recurrent.SGD['lr']:g}, {recurrent.EPOCHS} epochs.",
)


def script(seed: int) -> Script:
    """Return a short run of the CNN with max-pooling: 12 steps of Adam with a clip by global norm.

    The batches are such that with the seed 0 no rounding turns a unit.
    """
    data = training.parts("digits", seed)
    model = pooled(data.shape)
    description = {
        "model": model,
        "loss": training.CROSS_ENTROPY,
        "optimizer": ADAM,
        "clip": CLIPS["global"],
    }
    params = models.initial_params(model, data.shape, seed)
    return of_batches(description, params, data.train, 12, 8, seed + 1)
