"""The training step and whole runs of the canonical implementation, put before the suite."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from adapters.base import Operations
from refimpl import trainer
from refimpl.arrays import namespace

Tensors = list[Any]
Outputs = dict[str, Any]

WIDE = ("float64", "float32")

operations = Operations()


def _as_it_is(state: trainer.State) -> trainer.State:
    return state


after_step: Callable[[trainer.State], trainer.State] = _as_it_is
"""What is done to the state after each training step; an adapter of a lazy library computes it."""


def _plan(params: dict[str, Any]) -> trainer.Plan:
    """Return a plan; a dial such as ``clip.eps`` belongs to the description before its dot."""
    own = {name: value for name, value in params.items() if "." not in name}
    for name, value in params.items():
        stage, _, dial = name.partition(".")
        if dial and own.get(stage) is not None and _takes(own[stage].get("operation"), dial):
            own[stage] = {**own[stage], dial.removeprefix("uncorrected_"): value}
    return trainer.Plan(**own)


def _takes(operation: str | None, dial: str) -> bool:
    """Say whether an operation of refimpl has a dial (SGD has no eps_at)."""
    if operation in trainer.OPTIMIZERS:
        taken = inspect.signature(trainer.OPTIMIZERS[operation]).parameters
        # RMSprop and Adagrad, which correct no bias, have an eps_at of their own.
        if dial.removeprefix("uncorrected_") == "eps_at" and "eps_at" in taken:
            return ("bias_correction" in taken) == (dial == "eps_at")
        return dial in taken
    return operation in (None, "clip.norm", "clip.global_norm")


def _stack(numbers: list[Any]) -> Any:
    return namespace(*numbers).stack(numbers)


@operations.operation("train.step", dtypes=WIDE)
def train_step(params: Tensors, grads: Any, masks: Any = None, **plan: Any) -> Outputs:
    """``refimpl.trainer.train_step``, one after the other."""
    chosen, trace = _plan(plan), trainer.Trace()
    state = trainer.start(chosen, params, masks)
    for micro_batches in grads:
        state = after_step(trainer.train_step(chosen, state, micro_batches, trace))
    return {
        "params": trace.of("record", "params"),
        "total_norm": _stack(trace.of("penalty", "total_norm")),
        "skipped": np.array(trace.of("finite_check", "skipped"), dtype=np.int32),
    }


@operations.operation("train.trajectory", dtypes=WIDE)
def train_trajectory(
    params: Tensors,
    x: Any,
    targets: Any,
    dropout: Any = None,
    *,
    model: Any,
    loss: Any,
    **plan: Any,
) -> Outputs:
    """``refimpl.trainer.train``."""
    chosen, trace = _plan(plan), trainer.Trace()
    given = [x, targets] if dropout is None else [x, targets, dropout]
    steps = [list(zip(*parts, strict=True)) for parts in zip(*given, strict=True)]
    state = trainer.start(chosen, params)
    for step in steps:
        state = after_step(trainer.train(model, loss, chosen, state, [step], trace))
    outputs = {
        "loss": _stack(trace.of("loss", "loss")),
        "grads": trace.of("penalty", "grads"),
        "total_norm": _stack(trace.of("penalty", "total_norm")),
        "params": trace.of("record", "params"),
    }
    return outputs | ({"masks": trace.of("record", "masks")} if chosen.prune else {})
