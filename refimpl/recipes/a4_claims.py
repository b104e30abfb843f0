"""What article A4 says, each statement with a run that shows how it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import compression, models, trainer
from ..trainer import State
from . import neurons, training
from .a4 import EPOCHS, MODEL, PLAN, THRESHOLD, below, dense, lowest
from .report import Claim, Report, Table, measured, over
from .training import Options

SHARE = 0.5
"""Of the hidden neurons, that go before three ways to one size are compared."""
TEMPERATURE = 4.0


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
        p = _softmax(logits)
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


def distillation(options: Options) -> Report:
    """Reach one size in three ways: by pruning, from new weights, and taught by the large network."""
    epochs, seeds = options.epochs or EPOCHS, options.each(5)
    ways: dict[str, list[float]] = {}
    sizes = []
    for seed in seeds:
        options.progress(f"A4: distillation, seed {seed}")
        data = training.parts(options.data, seed)
        teacher = dense(data, seed, epochs)
        scores = neurons.gradients(MODEL, teacher.params, data.train.x, data.train.labels)
        masks = neurons.masks(MODEL, teacher.params, lowest(scores, SHARE))
        start = training.pruned(PLAN, teacher.params, masks)
        tuned = training.fit(MODEL, PLAN, start, data.train, epochs=epochs, seed=seed + 500)
        small, left = compression.remove_units(MODEL, tuned.params, data.shape)
        sizes.append(float(sum(p.size for p in left)))
        fresh = trainer.start(PLAN, models.initial_params(small, data.shape, seed + 900))
        alone = training.fit(small, PLAN, fresh, data.train, epochs=2 * epochs, seed=seed + 500)
        pupil = taught(small, fresh, teacher.params, data.train, 2 * epochs, seed + 500)
        results: dict[str, tuple[models.Model, State]] = {
            "the large network": (MODEL, teacher),
            "pruned, fine-tuned": (MODEL, tuned),
            "small, from the labels": (small, alone),
            "small, from the large one": (small, pupil),
        }
        for name, (model, state) in results.items():
            right = training.share_right(model, state.params, data.test)
            ways.setdefault(name, []).append(right)
    rows = [(name, measured(values)) for name, values in ways.items()]
    text = (
        f"Each way ends at the same {measured(sizes).mean:,.0f} parameters ({SHARE:.0%} of the neurons gone) "
        f"after {2 * epochs} epochs; for a pupil the {epochs} of its teacher come on top. It sees no label, "
        f"only the teacher's probabilities at temperature {TEMPERATURE:g}."
    )
    table = Table(over(seeds), ("", "test accuracy"), ("", ".2%"), rows)
    return Report("One size, three ways to it", [text], [table], (), dict(rows))


def taught(
    model: models.Model, state: State, teacher: Any, part: training.Part, epochs: int, seed: int
) -> State:
    """Train a network to give the probabilities of A4's large one, both softened by a temperature T.

    The gradient in the pupil's logits is T·(softmax(z/T) - softmax(t/T)) / N, that of T² times the
    cross-entropy with the teacher's softened probabilities (Hinton, Vinyals & Dean 2015, section 2).
    """
    logits, _ = models.forward(MODEL, teacher, part.x)
    for [(x, wanted)] in training.batches(training.Part(part.x, logits), 32, epochs, seed):
        z, backprop = models.forward(model, state.params, x)
        apart = _softmax(z / TEMPERATURE) - _softmax(wanted / TEMPERATURE)
        _, grads = backprop(TEMPERATURE * apart / len(x), with_dx=False)
        state = trainer.train_step(PLAN, state, [grads])
    return state


def _softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


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
    Claim(
        "distillation",
        "Gradient pruning is compared with knowledge distillation, in words.",
        "Both end at a smaller network. At one size and length neither is better here by two standard errors.",
        distillation,
    ),
)
