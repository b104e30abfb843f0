"""How an optimiser's rule for one array becomes a step for all of them: see :mod:`refimpl.optimizers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from . import checks
from .arrays import (
    Array,
    Namespace,
    accumulation_dtype,
    astype,
    elementwise,
    namespace,
    through_float32,
)

Arrays = Sequence[Array | None]
State = dict[str, list[Any]]
Slots = dict[str, Any]
Rule = Callable[[Array, Slots, float], tuple[Array, Slots]]

DECAY = ("coupled", "decoupled_by_lr", "decoupled")


class Update(Protocol):
    """One step of an optimiser."""

    def __call__(
        self, params: Sequence[Array], grads: Arrays, state: State, lr: float | None = None
    ) -> tuple[list[Array], State]:
        """Return the new parameters and the new state; ``lr`` overrides the one at construction."""


class Optimizer(NamedTuple):
    """A pair of pure functions; all that changes from step to step is in the state."""

    init: Callable[[Sequence[Array]], State]
    update: Update


def optimizer(
    rule: Rule,
    slots: dict[str, float],
    lr: float,
    weight_decay: float,
    decay: str,
    hyperparameters: str = "exact",
    *,
    count_absent: bool = False,
) -> Optimizer:
    """Turn a rule for one array into an optimiser; ``slots`` names its state and how it starts."""
    default_lr = checks.number("lr", lr, low=0.0)
    weight_decay = checks.number("weight_decay", weight_decay, low=0.0)
    checks.choice("decay", decay, DECAY)
    narrow = hyperparameters == "float32"
    weight_decay = through_float32(weight_decay) if narrow else weight_decay

    def init(params: Sequence[Array]) -> State:
        state: State = {"step": [0 for _ in params], **{name: [] for name in slots}}
        for index, w in enumerate(params):
            xp = namespace(w)
            checks.real_floating(xp, f"params[{index}]", w)
            dtype = accumulation_dtype(xp, w)
            for name, start in slots.items():
                state[name].append(xp.full_like(w, start, dtype=dtype))
        return state

    def update(
        params: Sequence[Array], grads: Arrays, state: State, lr: float | None = None
    ) -> tuple[list[Array], State]:
        rate = default_lr if lr is None else checks.number("lr", lr, low=0.0)
        rate = through_float32(rate) if narrow else rate
        checks.same_length("params", params, "grads", grads)
        checks.same_length("params", params, "the state", state["step"])
        new_params = list(params)
        new_state = {name: list(values) for name, values in state.items()}
        steps, states = new_state["step"], [new_state[name] for name in slots]
        for index, (param, grad) in enumerate(zip(params, grads, strict=True)):
            if grad is None:
                steps[index] += count_absent
                continue
            xp = namespace(param, grad)
            checks.real_floating(xp, f"grads[{index}]", grad)
            if param.shape != grad.shape:
                checks.same_shape(f"params[{index}]", param, f"grads[{index}]", grad)
            steps[index] = count = steps[index] + 1
            move = partial(moved, xp, rate, count)
            before = [kept[index] for kept in states]
            new_params[index], *after = elementwise(xp, move, param, grad, *before)
            for kept, value in zip(states, after, strict=True):
                kept[index] = value
        return new_params, new_state

    def moved(
        xp: Namespace, rate: float, count: int, param: Array, grad: Array, *before: Array
    ) -> tuple[Array, ...]:
        """Return the new parameter and its new state, in the order of ``slots``."""
        dtype = accumulation_dtype(xp, param)
        w, g = astype(xp, param, dtype), astype(xp, grad, dtype)
        if weight_decay and decay == "coupled":
            g = g + weight_decay * w
        elif weight_decay:
            w = w * (1.0 - (rate * weight_decay if decay == "decoupled_by_lr" else weight_decay))
        given: Slots = dict(zip(slots, before, strict=True))
        given["step"] = count
        step, after = rule(g, given, rate)
        return astype(xp, w - step, param.dtype), *[after[name] for name in slots]

    return Optimizer(init, update)
