"""``secateurs study``: each algorithm step by step, as data that a terminal and a page print alike.

A topic is a list of stages (:mod:`adapters.study.model`); one module a topic builds it by running
``refimpl`` on a fixture's inputs or on a seeded run, and :mod:`adapters.study.terminal` and
:mod:`adapters.study.html` show it. It explains the canonical code and judges nobody, so it is no part of the
suite, which imports nothing of ``refimpl``. Its tests hold every number against the oracle.
"""

from __future__ import annotations

from importlib import import_module

from adapters.study.model import Topic

TOPICS = {
    "value": ("clip_value", "value clip: each element into an interval"),
    "norm": ("clip_norm", "norm clip: each tensor by its own norm"),
    "global_norm": ("clip_global_norm", "global-norm clip: all tensors by one factor"),
    "agc": ("clip_unitwise", "adaptive clip (AGC): each unit by its weights' norm"),
    "per_example": ("clip_per_example", "per-example clip: each example before the mean"),
    "magnitude": ("prune_scores:magnitude", "magnitude pruning: scores, the cut, ties, the mask"),
    "gradient": ("prune_scores:gradient", "gradient pruning: the same by the size of gradients"),
    "taylor": ("prune_scores:taylor", "Taylor pruning: by the first-order change of the loss"),
    "structured": ("prune_structured", "structured pruning: whole rows, columns, filters"),
    "n_m": ("prune_n_m", "N:M pruning: n of every m neighbours"),
    "schedule": ("schedule", "cubic schedule: how the target sparsity grows"),
    "l1": ("penalties:l1", "L1 against proximal L1: which of them makes zeros"),
    "l2": ("penalties:l2", "L2: it shrinks, and makes no zeros"),
    "conv": ("conv", "convolution, forward and backward, cell by cell"),
    "step": ("training_step", "one whole training step: accumulate, unscale, clip, update, mask"),
    "adam": ("adam", "Adam: moments, bias correction, where eps goes"),
    "training": (
        "training_curves:training",
        "training curves on the digits, with and without clipping and pruning",
    ),
    "rnn": ("training_curves:rnn", "a recurrent network whose gradients explode"),
}
"""Name: the module (and its function, where it makes several), and what it shows."""


def load(name: str) -> Topic:
    """Return a topic by name; KeyError if there is none."""
    module, _, function = TOPICS[name][0].partition(":")
    topic: Topic = getattr(import_module(f"adapters.study.{module}"), function or "topic")()
    return topic
