"""What article A5 says, each statement with a run that shows how it is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .. import losses, models, trainer
from ..trainer import Plan
from .a5 import ADAM, EPOCHS, GLOBAL_CLIP, MODEL, SGD, VARIANTS, fit, measure, regression
from .report import Claim, Report, Table
from .training import Options

EDGES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, float("inf"))


def l2(options: Options) -> Report:
    """The histogram of the first layer's weights under L2, sub-gradient and proximal L1."""
    data = regression(options.data, options.seed)
    counts: dict[str, list[int]] = {}
    for name, extra in VARIANTS.items():
        plan = Plan(SGD, clip=GLOBAL_CLIP, **extra)
        w = abs(fit(data, plan, options.epochs or EPOCHS, options.seed).params[0])
        bins = [int(np.count_nonzero((a < w) & (w <= b))) for a, b in pairwise(EDGES)]
        counts[name] = [int(np.count_nonzero(w == 0)), *bins]
    header = ("penalty", "0", "≤ 1e-5", "≤ 1e-4", "≤ 0.001", "≤ 0.01", "≤ 0.1", "> 0.1")
    rows: list[Any] = [(name, *bins) for name, bins in counts.items()]
    table = Table("Weights of the first layer by magnitude", header, ("", *[",d"] * 7), rows)
    text = "L2 divides weights by a little more than 1 at every step: they get small, none becomes zero."
    numbers = {name: bins[0] for name, bins in counts.items()}
    return Report("L2 as a way to sparsity", [text], [table], (), numbers)


def subgradient(options: Options) -> Report:
    """Exact zeros after the same run with the sub-gradient and with the proximal step."""
    seeds = options.each(1)
    rows, numbers = [], {}
    for name in ("L1, sub-gradient", "L1, proximal"):
        found = measure(Plan(SGD, clip=GLOBAL_CLIP, **VARIANTS[name]), options, seeds)
        rows.append((name, found["exact"][0], found["near"][0], found["error"][0]))
        numbers[name] = found["exact"][0]
    header = ("λ = 0.001", "exactly 0", "|w| < 0.001", "test error (digits)")
    text = (
        "The sub-gradient step carries a weight past zero and back again; the proximal step, "
        "sign(w)·max(|w| - ηλ, 0), ends on it."
    )
    table = Table("", header, ("", ".1%", ".1%", ".3f"), rows)
    return Report("A sub-gradient step on L1 gives zeros", [text], [table], (), numbers)


def broadcast(options: Options) -> Report:
    """Mean squared error of (n, 1) against (n,): the mean over n² wrong pairs."""
    data = regression(options.data, options.seed)
    perfect = data.y
    wrong = np.mean((perfect - data.y[:, 0]) ** 2, dtype=np.float64)
    try:
        losses.mse(perfect, data.y[:, 0])
        refused = ""
    except ValueError as error:
        refused = str(error)
    constant = np.full_like(data.y, data.y.mean())
    rows = [
        ("the targets themselves", float(wrong), 0.0),
        (
            "their mean, always",
            float(np.mean((constant - data.y[:, 0]) ** 2, dtype=np.float64)),
            float(np.mean((constant - data.y) ** 2, dtype=np.float64)),
        ),
    ]
    *learnt, spread = _learnt_wrongly(options)
    rows.append(("what is learnt from the wrong loss", learnt[0], learnt[1]))
    table = Table("", ("prediction", "(n, 1) - (n,)", "(n, 1) - (n, 1)"), ("", ".4f", ".4f"), rows)
    text = (
        f"The difference has {len(data.y)}×{len(data.y)} entries. A perfect prediction gets twice the loss "
        f"of a constant, so training on it ends at the constant. refimpl refuses: {refused}"
    )
    numbers = {
        "perfect": rows[0][1],
        "constant": rows[1][1],
        "refused": float(bool(refused)),
        "spread": spread,
    }
    return Report("Outputs (n, 1) against targets (n,)", [text], [table], (), numbers)


def _learnt_wrongly(options: Options) -> tuple[float, float, float]:
    """Train on the broadcast loss, Σ_ij (y_i - t_j)² / n², whose gradient is 2 (y_i - mean t) / n."""
    data = regression(options.data, options.seed)
    plan = Plan(ADAM, clip=GLOBAL_CLIP)
    state = trainer.start(plan, models.initial_params(MODEL, (data.x.shape[1],), options.seed))
    for _ in range(300):
        y, backprop = models.forward(MODEL, state.params, data.x)
        _, grads = backprop(2 * (y - data.y.mean()) / len(y))
        state = trainer.train_step(plan, state, [grads])
    y, _ = models.forward(MODEL, state.params, data.x)
    return (
        float(np.mean((y - data.y[:, 0]) ** 2, dtype=np.float64)),
        float(np.mean((y - data.y) ** 2, dtype=np.float64)),
        float(y.std()),
    )


def half_range(options: Options) -> Report:
    """Clip(g, -c/2, c/2): the limit is half of what c is elsewhere."""
    from ..clipping import clip_value

    g = [np.array([0.2, -0.4, 0.6, -2.0])]
    rows: list[Any] = []
    for name, (clipped,) in (
        ("range = 1", clip_value(g, range=1.0)),
        ("limit 1", clip_value(g, min=-1.0, max=1.0)),
    ):
        assert clipped is not None
        rows.append((name, *(float(v) for v in clipped)))
    table = Table("", ("c", "0.2", "-0.4", "0.6", "-2.0"), ("", "g", "g", "g", "g"), rows)
    text = "c is the width of the interval here; in the other articles it is its half."
    return Report("c/2 is the limit", [text], [table], (), {"third": rows[0][3]})


CLAIMS = (
    Claim(
        "constraints",
        "`tf.keras.constraints.L1L2` adds the penalty.",
        "There is no such class: penalties are regularisers (`tf.keras.regularizers.L1L2`); a constraint "
        "changes a weight after the step.",
        needs="tensorflow",
    ),
    Claim(
        "l2",
        "L2 is one of the ways to sparsity.",
        "It shrinks and does not zero; of the three the proximal L1 alone gives zeros.",
        l2,
    ),
    Claim(
        "subgradient",
        "Training with λ‖w‖₁ in the loss makes weights zero.",
        "A sub-gradient step gives small weights and not one exact zero; the proximal step does.",
        subgradient,
    ),
    Claim(
        "broadcast",
        "The loss is the mean of the squares of output minus target.",
        "Its outputs are (n, 1) and its targets (n,): the difference is (n, n), and what is minimised has "
        "nothing to do with the single points.",
        broadcast,
    ),
    Claim(
        "range",
        "Gradients are clipped to [-c/2, c/2].",
        "That is a choice, not a mistake; but c then means half of what it means elsewhere.",
        half_range,
    ),
)
