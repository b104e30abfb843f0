"""A recurrent network whose gradients explode: digits read four pixels at a time, 16 steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import trainer
from ..layers import dense, rnn
from ..losses import softmax_cross_entropy
from ..trainer import OnStage, Plan
from .training import Part, batches, silent

PIXELS, UNITS, GAIN, EPOCHS, LIMIT = 4, 32, 2.0, 10, 0.3
SGD = {"operation": "optim.sgd", "lr": 1.0}
CLIPPED = Plan(SGD, clip={"operation": "clip.global_norm", "max_norm": LIMIT})
UNCLIPPED = Plan(SGD)
CHANCE = float(np.log(10))
"""The loss of who says one tenth for every digit."""


def initial(seed: int, gain: float = GAIN) -> list[Any]:
    """Return parameters whose recurrent weight is ``gain`` times a rotation.

    Every step back in time multiplies the gradient by at most ``gain``: by 2¹⁵ = 32,768 over a digit where
    tanh is the identity, by much less where it saturates.
    """
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((UNITS, UNITS)))
    weight = rng.standard_normal((PIXELS, UNITS)) / np.sqrt(PIXELS)
    output = rng.standard_normal((UNITS, 10)) / np.sqrt(UNITS)
    params = [weight, gain * rotation, np.zeros(UNITS), output, np.zeros(10)]
    return [p.astype(np.float32) for p in params]


def sequences(part: Part) -> Part:
    """Return images as sequences (N, T, 4)."""
    return Part(part.x.reshape(len(part.x), -1, PIXELS), part.labels)


def states(params: Any, x: Any) -> tuple[Any, Any]:
    """Return the states after each step, from zeros, and the backward pass."""
    weight, recurrent, bias, *_ = params
    return rnn(x, weight, recurrent, bias, np.zeros((len(x), UNITS), x.dtype))


def gradients(params: Any, x: Any, labels: Any) -> tuple[Any, list[Any]]:
    """Return the loss and its gradients; only the last state is read out."""
    h, to_sequence = states(params, x)
    logits, to_state = dense(h[:, -1], *params[3:])
    loss, loss_gradient = softmax_cross_entropy(logits, labels, "mean")
    dlast, *readout = to_state(loss_gradient())
    dh = np.zeros_like(h)
    dh[:, -1] = dlast
    _, *recurrent, _ = to_sequence(dh)
    return loss, [*recurrent, *readout]


def run(
    plan: Plan,
    part: Part,
    seed: int,
    *,
    epochs: int = EPOCHS,
    gain: float = GAIN,
    on_stage: OnStage | None = None,
    progress: Callable[[str], None] = silent,
) -> tuple[list[float], list[float], list[Any]]:
    """Train; return the losses and the norms step by step, and the parameters."""
    state = trainer.start(plan, initial(seed, gain))
    losses, norms = [], []
    for step in batches(sequences(part), 32, epochs, seed):
        ((x, labels),) = step
        loss, grads = gradients(state.params, x, labels)
        trace = trainer.Trace()
        state = trainer.train_step(plan, state, [grads], trace)
        losses.append(float(loss))
        norms.append(float(trace.of("penalty", "total_norm")[0]))
        progress(f"recurrent network: step {len(losses)}, loss {losses[-1]:.3f}")
    return losses, norms, state.params


def share_right(params: Any, part: Part) -> float:
    """Return the accuracy."""
    h, _ = states(params, sequences(part).x)
    logits, _ = dense(h[:, -1], *params[3:])
    return float(np.mean(logits.argmax(axis=1) == part.labels))
