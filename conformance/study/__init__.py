"""``secateurs study``: each algorithm step by step, as data that a terminal and a page print alike.

A topic is a list of stages (:mod:`conformance.study.model`); one module a topic builds it by running
``refimpl`` on a fixture's inputs or on a seeded run, and :mod:`conformance.study.terminal` and
:mod:`conformance.study.html` show it. This package alone of the suite imports ``refimpl``: it explains
the canonical code and judges nobody. Its tests hold every number against the oracle.
"""

from __future__ import annotations

from importlib import import_module

from conformance.study.model import Topic

TOPICS = {
    "value": ("clip_value", "value clip: each element into an interval"),
    "norm": ("clip_norm", "norm clip: each tensor by its own norm"),
    "global_norm": ("clip_global_norm", "global-norm clip: all tensors by one factor"),
    "agc": ("clip_unitwise", "adaptive clip (AGC): each unit by its weights' norm"),
    "per_example": ("clip_per_example", "per-example clip: each example before the mean"),
}
"""Name: the module, and what it shows."""


def load(name: str) -> Topic:
    """Return a topic by name; KeyError if there is none."""
    module, _ = TOPICS[name]
    topic: Topic = import_module(f"conformance.study.{module}").topic()
    return topic
