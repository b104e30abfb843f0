"""What article A2 says, each statement with a run that shows how it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import clipping, models, trainer
from ..trainer import Trace
from . import training
from .a2 import EPOCHS, PLAN, THRESHOLDS, dense, masks_below, network, run
from .report import Claim, Report, Table
from .training import Data, Options


def flatten(options: Options) -> Report:
    """The flattened size: 64 channels after two 3×3 convolutions without padding and a pool of 2."""
    rows = []
    for size in (8, 28, 32):
        model = network((28, 28, 1))[:6]
        params = models.initial_params(model, (size, size, 1), 0)
        y, _ = models.forward(model, params, np.zeros((1, size, size, 1), np.float32))
        rows.append((f"{size}×{size}", int(y.shape[1])))
    sizes = {f"inputs_{name.split('×')[0]}": number for name, number in rows}
    text = (
        "A size that is typed in must fit (size - 4)//2 squared, times 64; "
        "it is computed here: 9,216 for 28×28."
    )
    table = Table("", ("image", "inputs of the dense layer"), ("", "d"), rows)
    return Report("The flattened size", [text], [table], (), sizes)


def raise_(options: Options) -> Report:
    """Thresholds and what they cost: a higher one prunes more and is never the cure."""
    data = training.parts(options.data, options.seed)
    model, state = network(data.shape), dense(data, options.seed, options.epochs or EPOCHS)
    rows = []
    for threshold in (0.0, *THRESHOLDS):
        masks = masks_below(model, state.params, threshold)
        params = training.pruned(PLAN, state.params, masks).params
        share = training.share_right(model, params, data.validation)
        rows.append((threshold, training.sparsity(masks), share))
    text = "Where accuracy has fallen, a higher threshold lowers it further; it has to come down."
    table = Table(
        "", ("ε", "sparsity", "validation accuracy"), ("g", ".1%", ".2%"), rows
    )  # fmt: skip
    numbers = {"first": rows[0][2], "middle": rows[-3][2], "last": rows[-1][2]}
    return Report("The threshold is raised when accuracy falls", [text], [table], (), numbers)


def retraining(options: Options) -> Report:
    """Pruned and not trained again, against trained again: two columns of the recipe's table."""
    report = run(Options(options.data, options.seed, options.seeds or 1, options.epochs,
                         options.progress))  # fmt: skip
    lost = report.numbers["dense"].mean - report.numbers["pruned_90"].mean
    text = (
        f"At 90 % sparsity without retraining {100 * lost:.1f} points of accuracy are gone; "
        f"with it {100 * report.numbers['loss_90_against_dense'].mean:+.1f}."
    )
    numbers = {"lost_without": lost, "lost_with": report.numbers["loss_90_against_dense"].mean}
    return Report("No retraining is needed", [text], report.tables[:1], report.charts, numbers)


def integer(options: Options) -> Report:
    """How often a value clip at c acts at all: gradients of this CNN are far below 1."""
    data = training.parts(options.data, options.seed)
    model = network(data.shape)
    grads = _gradients(model, data, options)
    total = sum(g.size for g in grads)
    rows = []
    for c in (0.001, 0.01, 0.1, 0.5, 1.0, 2.0):
        changed = sum(int(np.count_nonzero(abs(g) > c)) for g in grads)
        rows.append((c, changed, changed / total))
    largest = max(float(abs(g).max()) for g in grads)
    text = (
        f"The largest of {total:,} entries in the first epoch is {largest:.3f}. An integer is at "
        "least 1: it clips nothing, or next to nothing; the limits that act lie below."
    )
    table = Table("", ("c", "entries clipped", "share"), ("g", ",d", ".3%"), rows)
    numbers = {
        "largest": largest,
        "share_at_1": rows[4][2],
        "share_at_0.01": rows[1][2],
    }
    return Report("c is a positive integer", [text], [table], (), numbers)


def direction(options: Options) -> Report:
    """Its text clips by value, its code by norm: the angle that each turns the gradient by."""
    data = training.parts(options.data, options.seed)
    grads = _gradients(network(data.shape), data, options)[:8]
    rows = []
    for c in (0.1, 0.03, 0.01, 0.003):
        by_value = clipping.clip_value(grads, min=-c, max=c)
        by_norm, _ = clipping.clip_global_norm(grads, c)
        angles = [_angle(grads, g) for g in (by_value, by_norm)]
        rows.append((c, *angles))
    text = "A clip by norm keeps the direction, a clip by value does not: two methods, not one."
    header = ("c", "by value, degrees", "by norm, degrees")
    table = Table("", header, ("g", ".2f", ".2f"), rows)
    numbers = {"value_degrees": rows[-1][1], "norm_degrees": rows[-1][2]}
    return Report("Clipped by value, or by norm", [text], [table], (), numbers)


def _gradients(model: models.Model, data: Data, options: Options) -> list[Any]:
    """Return the gradients of every step of the first epoch, before any clip."""
    trace = Trace()
    params = models.initial_params(model, data.shape, options.seed)
    start = trainer.start(PLAN, params)
    training.fit(model, PLAN, start, data.train, epochs=1, seed=options.seed, on_stage=trace)
    return [g for grads in trace.of("penalty", "grads") for g in grads]


def _angle(a: list[Any], b: list[Any]) -> float:
    one, other = (np.concatenate([np.ravel(g).astype(np.float64) for g in v]) for v in (a, b))
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


CLAIMS = (
    Claim(
        "flatten",
        "The dense layer after the convolutions has a number of inputs that is typed in.",
        "The size printed fits no 28×28 input. It follows from the input, and must be computed.",
        flatten,
    ),
    Claim(
        "if-tensor",
        "`if tensor < x` chooses what is clipped and what is pruned.",
        "A tensor of more than one element has no truth value: the program stops there. The choice is made "
        "element by element (`where`).",
        needs="torch",
    ),
    Claim(
        "raise",
        "If accuracy falls after pruning, the threshold is to be raised.",
        "A higher threshold prunes more. It must be lowered.",
        raise_,
    ),
    Claim(
        "retraining",
        "No retraining is needed after pruning.",
        "At low sparsities that is nearly so; at high ones accuracy is lost without it and won back with it.",
        retraining,
    ),
    Claim(
        "integer",
        "The clipping constant c is a positive integer.",
        "Any positive real number will do, and gradients here are so small that an integer clips nothing.",
        integer,
    ),
    Claim(
        "direction",
        "Gradients are clipped element by element (text); `clip_grad_norm_` does it (code).",
        "These are two methods: the first turns the gradient, the second only shortens it.",
        direction,
    ),
)
