"""How an optimiser's rule for one array becomes a step for all of them: see :mod:`refimpl.optimizers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from .bundles import Part, bundled, bundled_already

Arrays = Sequence[Array | None]
State = dict[str, list[Any]]
Slots = dict[str, Any]
Group = tuple[Sequence[int], list[list[Array]], Part]
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
        before = [params, *[state[name] for name in slots]]
        pairs = zip(state["step"], grads, strict=True)
        steps = [step + (count_absent or grad is not None) for step, grad in pairs]
        groups: Iterable[Group]
        known = bundled_already(grads, *before)
        if known is not None and steps.count(steps[0]) == len(steps):
            groups = [(range(len(steps)), *known)]
        else:
            groups = _groups(steps, grads, before)
        results: list[tuple[Sequence[int], list[Any]]] = []
        for places, joined, part in groups:
            xp = namespace(joined[0][0], joined[1][0])
            move = partial(moved, xp, rate, steps[places[0]])
            made = [elementwise(xp, move, *entry) for entry in zip(*joined, strict=True)]
            results.append((places, [part(list(column)) for column in zip(*made, strict=True)]))
        if len(results) == 1 and len(results[0][0]) == len(params):
            ((_, after),) = results
        else:
            after = _in_place(before, results)
        new_params, *new_slots = after
        return new_params, {"step": steps, **dict(zip(slots, new_slots, strict=True))}

    def moved(
        xp: Namespace, rate: float, count: int, grad: Array, param: Array, *before: Array
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


def _groups(steps: list[int], grads: Arrays, before: Sequence[Sequence[Array]]) -> Iterator[Group]:
    """Yield the places of arrays that one computation can move, of one step and dtype, and these bundled.

    They are the gradients first, then the parameters and what the state has of them, in ``before``.
    Raises ValueError for a gradient that does not fit its parameter.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, (grad, param, *slots) in enumerate(zip(grads, *before, strict=True)):
        if grad is None:
            continue
        checks.real_floating(namespace(param, grad), f"grads[{index}]", grad)
        checks.same_shape(f"params[{index}]", param, f"grads[{index}]", grad)
        kind = steps[index], *[array.dtype for array in (grad, param, *slots)]
        groups.setdefault(kind, []).append(index)
    for places in groups.values():
        columns = [[each[place] for place in places] for each in (grads, *before)]
        yield places, *bundled(namespace(columns[0][0]), *columns)


def _in_place(
    before: Sequence[Sequence[Array]], results: list[tuple[Sequence[int], list[Any]]]
) -> list[list[Any]]:
    """Return the columns of what was before with what was made of some entries in their places."""
    after = [list(column) for column in before]
    for places, made in results:
        for column, values in zip(after, made, strict=True):
            for place, value in zip(places, values, strict=True):
                column[place] = value
    return after
