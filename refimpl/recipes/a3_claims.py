"""What article A3 says, each statement with a run that shows how it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import clipping, models, trainer
from ..trainer import Plan
from . import recurrent, training
from .a3 import EPOCHS, SGD, plain
from .report import Claim, Report, Table
from .training import Options


def million(options: Options) -> Report:
    """A function that does nothing above 10⁶ parameters, beside one that clips."""

    def as_printed(grads: list[Any], limit: float) -> list[Any]:
        if sum(g.size for g in grads) > 10**6:
            return grads
        return list(clipping.clip_global_norm(grads, limit)[0])

    rows: list[Any] = []
    for count in (1_000_000, 1_000_001):
        grads = [np.full(count, 0.037, np.float32)]
        norms = [
            float(clipping.global_norm(g))
            for g in (grads, as_printed(grads, 1.0), clipping.clip_global_norm(grads, 1.0)[0])
        ]
        rows.append((count, *norms))
    header = ("parameters", "norm", "after the article's function", "after the clip")
    table = Table("", header, (",d", ".3f", ".3f", ".3f"), rows)
    text = "One parameter more and the gradient goes through as it is; nothing says so."
    numbers = {"below": rows[0][2], "above": rows[1][2], "clipped": rows[1][3]}
    return Report("Clipping stops at 10⁶ parameters", [text], [table], (), numbers)


def twice(options: Options) -> Report:
    """Train with softmax inside the loss, with a softmax before it, with a log-softmax before it."""
    data = training.parts(options.data, options.seed)
    model = plain(data.shape)
    rows, numbers = [], {}
    for name, before in (("logits", None), ("softmax", _softmax), ("log-softmax", _log_softmax)):
        state = trainer.start(Plan(SGD), models.initial_params(model, data.shape, options.seed))
        losses = []
        for step in training.batches(data.train, 32, options.epochs or EPOCHS, options.seed):
            ((x, labels),) = step
            z, backprop = models.forward(model, state.params, x)
            y, pullback = (z, lambda dy: dy) if before is None else before(z)
            loss, loss_gradient = models.loss(training.CROSS_ENTROPY, y, labels)
            _, grads = backprop(pullback(loss_gradient()))
            state = trainer.train_step(Plan(SGD), state, [grads])
            losses.append(float(loss))
        accuracy = training.share_right(model, state.params, data.test)
        rows.append((name, float(np.mean(losses[-40:])), accuracy))
        numbers[name] = {"loss": rows[-1][1], "accuracy": accuracy}
    floor = float(np.log(1 + 9 * np.exp(-1)))
    table = Table(
        "",
        ("given to the cross-entropy", "loss, last 40 steps", "test accuracy"),
        ("", ".4f", ".2%"),
        rows,
    )
    text = (
        f"Probabilities taken for logits lie between 0 and 1: the loss of a perfect answer is ln(1 + 9/e) = "
        f"{floor:.4f}, and gradients are small. Log-softmax twice is the same as once: superfluous, not wrong."
    )
    return Report(
        "Softmax applied twice", [text], [table], (), {"floor": floor, **numbers}
    )  # fmt: skip


def _softmax(z: Any) -> tuple[Any, Any]:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return p, lambda dp: p * (dp - (dp * p).sum(axis=1, keepdims=True))


def _log_softmax(z: Any) -> tuple[Any, Any]:
    p, _ = _softmax(z)
    return np.log(p), lambda dy: dy - p * dy.sum(axis=1, keepdims=True)


def stack(options: Options) -> Report:
    """Stack the gradients of a model, whose shapes differ; then take the norm of the norms."""
    data = training.parts(options.data, options.seed)
    model = plain(data.shape)
    params = models.initial_params(model, data.shape, options.seed)
    try:
        np.stack(params)
        answer = "stacked"
    except ValueError as error:
        answer = str(error)
    each = [float(np.linalg.norm(p)) for p in params]
    total, by_hand = float(clipping.global_norm(params)), float(np.sqrt(np.sum(np.square(each))))
    text = (
        f"NumPy: {answer}. Tensors of unequal shapes have no stack; the global norm is the norm of their "
        f"norms: {by_hand:.6f} by hand, {total:.6f} by clip.global_norm."
    )
    numbers = {"refused": float(answer != "stacked"), "norm": total, "by_hand": by_hand}
    return Report("The norm of a stack of gradients", [text], (), (), numbers)


def vanishing(options: Options) -> Report:
    """How much gradient is left after T steps back, and what a clip does to it."""
    rng = np.random.default_rng(options.seed)
    params = recurrent.initial(options.seed, gain=0.7)
    rows, highest = [], 0.0
    for steps in (4, 8, 16, 32):
        x = rng.random((32, steps, recurrent.PIXELS), dtype=np.float32)
        h, back = recurrent.states(params, x)
        dh = np.zeros_like(h)
        dh[:, -1] = rng.standard_normal(h[:, -1].shape) / len(x)
        dh0 = back(dh)[-1]
        before = float(np.linalg.norm(dh0)) / float(np.linalg.norm(dh))
        clipped, _ = clipping.clip_global_norm([dh0], 1.0)
        after = float(clipping.global_norm(clipped)) / float(np.linalg.norm(dh))
        highest = max(highest, after / before)
        rows.append((steps, before, after))
    table = Table(
        "Gradient at the first state over gradient at the last one, recurrent weight 0.7 times a rotation",
        ("steps", "not clipped", "clipped at 1"),
        ("d", ".1e", ".1e"),
        rows,
    )
    text = (
        "The coefficient min(1, c/‖g‖) is never above 1: a clip makes large gradients smaller and leaves small "
        "ones as they are."
    )
    numbers = {"highest": highest, "left_after_32": rows[-1][1]}
    return Report("Clipping against vanishing gradients", [text], [table], (), numbers)


CLAIMS = (
    Claim(
        "parameters",
        "`clip_grad_norm_(gradients, max_norm)` clips them.",
        "The function takes parameters and clips their `.grad`. Gradients have none: nothing happens, norm 0.",
        needs="torch",
    ),
    Claim(
        "million",
        "The function returns at once for more than 10⁶ parameters.",
        "Clipping is then silently off, just where models are large.",
        million,
    ),
    Claim(
        "twice",
        "Log-softmax before the cross-entropy (PyTorch), softmax with `from_logits=True` (Keras).",
        "The loss applies softmax itself. A second log-softmax changes nothing, a second softmax a lot.",
        twice,
    ),
    Claim(
        "stack",
        "The total norm is the norm of `stack(gradients)`.",
        "Gradients of a model have unequal shapes and can't be stacked.",
        stack,
    ),
    Claim(
        "grad",
        "The gradients are read from `layer.grad`.",
        "Layers have no `.grad`; parameters have.",
        needs="torch",
    ),
    Claim(
        "vanishing",
        "Clipping cures exploding and vanishing gradients.",
        "It limits large gradients. What has vanished stays vanished.",
        vanishing,
    ),
    Claim(
        "source",
        "It cites a paper as the source of norm clipping.",
        "The sources are Mikolov 2012 (Statistical Language Models Based on Neural Networks, PhD thesis, Brno) "
        "and Pascanu, Mikolov & Bengio 2013 (On the difficulty of training recurrent neural networks).",
    ),
)
