"""What article A4 says, each statement with a run that shows how it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import models
from . import neurons, training
from .a4 import EPOCHS, MODEL, PLAN, THRESHOLD, below, dense
from .report import Claim, Report, Table
from .training import Options


def _trained(options: Options) -> tuple[training.Data, Any, list[Any]]:
    data = training.parts(options.data, options.seed)
    state = dense(data, options.seed, options.epochs or EPOCHS)
    scores = neurons.gradients(MODEL, state.params, data.train.x, data.train.labels)
    return data, state, scores


def gradients(options: Options) -> Report:
    """Set the small gradients to zero, as the program does, and count what has been pruned."""
    data, state, scores = _trained(options)
    kept = below(scores, THRESHOLD)
    # what the program does: the gradients change, and are thrown away
    zeroed = [np.where(k, s, 0.0) for k, s in zip(kept, scores, strict=True)]
    before = [p.copy() for p in state.params]
    masked = training.pruned(PLAN, state.params, neurons.masks(MODEL, state.params, kept))
    rows = []
    for name, params in (("as printed", state.params), ("neurons pruned", masked.params)):
        off = sum(int(np.count_nonzero(~params[i].any(axis=0))) for i in (0, 2, 4))
        rows.append((name, off, training.share_right(MODEL, params, data.test)))
    unchanged = all(np.array_equal(a, b) for a, b in zip(before, state.params, strict=True))
    text = (
        f"{sum(int((z == 0).sum()) for z in zeroed)} gradients have been set to zero; the weights are "
        f"{'bit for bit what they were' if unchanged else 'changed'}."
    )
    table = Table("", ("", "neurons without weights", "test accuracy"), ("", "d", ".2%"), rows)
    numbers = {"printed": rows[0][1], "pruned": rows[1][1], "unchanged": float(unchanged)}
    return Report("Gradients are set to zero, not neurons", [text], [table], (), numbers)


def output(options: Options) -> Report:
    """The gradient of the network's output, a softmax, beside that of the loss."""
    data, state, scores = _trained(options)
    x = data.train.x
    largest = []
    for place in neurons.hidden(MODEL):
        count = sum(models.parameter_count(layer) for layer in MODEL[: place + 1])
        z, _ = models.forward(MODEL[: place + 1], state.params[:count], x)
        logits, backprop = models.forward(MODEL[place + 1 :], state.params[count:], z)
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        # the gradient of the sum of all outputs in the logits: p·(1 - Σp) = 0 but for rounding
        dz, _ = backprop(p * (1 - p.sum(axis=1, keepdims=True)))
        largest.append(float(np.mean(abs(dz), axis=0).max()))
    rows = [
        (f"hidden layer {i + 1}", float(s.max()), biggest)
        for i, (s, biggest) in enumerate(zip(scores, largest, strict=True))
    ]
    text = (
        "The outputs of a softmax sum to 1 whatever the weights are: their sum has gradient zero, what is left "
        f"is rounding, and every neuron is below T = {THRESHOLD}."
    )
    header = ("largest mean |gradient| of a neuron", "of the loss", "of the outputs' sum")
    table = Table("", header, ("", ".1e", ".1e"), rows)
    numbers = {"loss": max(r[1] for r in rows), "output": max(largest)}
    return Report("The network's output as the loss", [text], [table], (), numbers)


def refit(options: Options) -> Report:
    """Train on after pruning, without a mask and with one."""
    data, state, scores = _trained(options)
    every = neurons.masks(MODEL, state.params, below(scores, THRESHOLD))
    into, out = (_only(state.params, scores, side) for side in (0, 1))
    rows, numbers = [], {}
    for name, masks, masked in (
        ("incoming weights, no mask", into, False),
        ("outgoing weights, no mask", out, False),
        ("both and the bias, no mask", every, False),
        ("both and the bias, mask", every, True),
    ):
        start = training.pruned(PLAN, state.params, masks)
        begin = start if masked else training.unmasked(start)
        tuned = training.fit(MODEL, PLAN, begin, data.train, epochs=2, seed=options.seed + 500)
        pairs = list(zip(tuned.params, masks, strict=True))
        zeros = sum(int(np.count_nonzero((p == 0) & ~m)) for p, m in pairs)
        wanted = sum(int(np.count_nonzero(~m)) for m in masks)
        rows.append((name, zeros / wanted, training.share_right(MODEL, tuned.params, data.test)))
        numbers[name] = zeros / wanted
    text = (
        "The optimiser moves every weight that has a gradient. Where weights, bias and outgoing weights are "
        "all zero a ReLU unit stays dead by accident: neither side has a gradient. Only a mask is sure."
    )
    header = ("set to zero, two epochs more", "pruned weights still 0", "test accuracy")
    table = Table("", header, ("", ".1%", ".2%"), rows)
    return Report("Trained again after pruning", [text], [table], (), numbers)


def _only(params: Any, scores: list[Any], side: int) -> list[Any]:
    """Return masks of the pruned units' incoming weights (side 0) or outgoing ones (side 1) alone."""
    result = [np.ones(p.shape, bool) for p in params]
    for layer, score in enumerate(scores):
        keep = score >= THRESHOLD
        place = 2 * (layer + side)
        result[place] = result[place] & (keep[:, None] if side else keep[None, :])
    return result


CLAIMS = (
    Claim(
        "gradients",
        "`g = where(|g| < T, 0, g)` prunes the neurons.",
        "It changes an array of gradients that nobody uses afterwards. Nothing is pruned.",
        gradients,
    ),
    Claim(
        "output",
        "The gradient is that of the network's output.",
        "It has to be that of the loss; the sum of softmax outputs is 1 and has no gradient.",
        output,
    ),
    Claim(
        "refit",
        "After pruning, the model is fitted once more.",
        "Without a mask pruned weights grow back, unless the unit happens to be dead.",
        refit,
    ),
)
