"""One training step from given gradients, exactly, in the one order of its stages.

Every number carries a bound on what rounding may do to it (:class:`~.optimizers.Tracked`), from the
accumulation of micro-batches to the updated parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import ceil, inf
from typing import Any

import numpy as np

from conformance.exact import ONE, ZERO, Real, Reject, ctx, each, exact, full, magnitude, real
from conformance.oracle import clipping
from conformance.oracle.groups import group_axes, groups, size_factor
from conformance.oracle.optimizers import Rule, Tracked, adagrad, adam, move, rmsprop, sgd
from conformance.oracle.optimizers import through as used_hyperparameter

Settings = dict[str, Any]
Grads = list[Tracked | None]
SubSettings = Callable[[Mapping[str, Any], str], Settings]
"""``sub(description, prefix)``: the settings of the operation that a description names."""

RULES: dict[str, Rule] = {
    "optim.sgd": sgd,
    "optim.adam": adam,
    "optim.adamw": adam,
    "optim.rmsprop": rmsprop,
    "optim.adagrad": adagrad,
}

TOLERANCE_WHY = (
    "Each number carries a first-order bound on its rounding error in roundoffs u, from the sum over"
    " micro-batches (k-1 additions, one division) through unscaling (one division), the penalty (two"
    " products, one sum), the norm ((N+2)/p + 4, plus what the gradients bring), the coefficient c/n and"
    " its product (4) to the optimiser (see optim.sgd). The bound is the scale of the comparison; 2 ULP,"
    " because another order of the same operations at most doubles their number."
)


def tracked(tensor: Any) -> Tracked:
    """Return a given tensor: exact, without error."""
    values = exact(tensor)
    return Tracked(values, full(values.shape))


def accumulate(micro: list[list[Any]], how: str) -> Grads:
    """Return the sum or mean of the gradients of micro-batches; absent only if absent in all."""
    result: Grads = []
    for parts in zip(*micro, strict=True):
        given = [tracked(g) for g in parts if g is not None]
        if not given:
            result.append(None)
            continue
        # Sums run in any order, so each of the k-1 additions may see the sum of all absolute terms.
        value = sum((g.exact for g in given[1:]), given[0].exact)
        terms = sum((magnitude(g.exact) for g in given[1:]), magnitude(given[0].exact))
        total = Tracked(value, (len(given) - 1) * terms)
        result.append(_by(total, ONE / len(micro)) if how == "mean" else total)
    return result


def _by(x: Tracked, factor: Real) -> Tracked:
    value = x.exact * factor
    return Tracked(value, x.error * abs(factor) + magnitude(value))


def unscale(grads: Grads, scale: float) -> Grads:
    """Divide by the loss scale."""
    factor = ONE / real(scale)
    return [None if g is None else _by(g, factor) for g in grads]


def add_penalty(grads: Grads, params: list[Tracked], penalty: Settings | None) -> Grads:
    """Add the penalty's gradient: λ·sign(w), 2λw, both, or λ·w/‖w_group‖."""
    if penalty is None:
        return grads
    extra = [PENALTIES[penalty["operation"]](w, penalty) for w in params]
    return [e if g is None else g + e for g, e in zip(grads, extra, strict=True)]


def _l1(w: Tracked, penalty: Settings) -> Tracked:
    strength = real(float(penalty["strength"]))
    extra = each(lambda x: strength * ctx.sign(x), w.exact)
    return Tracked(extra, magnitude(extra))


def _l2(w: Tracked, penalty: Settings) -> Tracked:
    factor = real(float(penalty["strength"])) * (1 if penalty.get("half") else 2)
    extra = w.exact * factor
    return Tracked(extra, w.error * factor + 2 * magnitude(extra))


def _elastic_net(w: Tracked, penalty: Settings) -> Tracked:
    first = _l1(w, {"strength": penalty["l1"]})
    return first + _l2(w, {**penalty, "strength": penalty["l2"]})


def _group_lasso(w: Tracked, penalty: Settings) -> Tracked:
    factor = real(float(penalty["strength"])) * size_factor(w.exact, penalty)
    extra, errors = full(w.exact.shape), full(w.exact.shape)
    places = np.arange(w.exact.size).reshape(w.exact.shape)
    for _, members in groups(places, group_axes(w.exact, penalty)):
        at = np.unravel_index(members.ravel(), w.exact.shape)
        values, own = w.exact[at], w.error[at]
        n = ctx.sqrt(ctx.fsum(x * x for x in values))
        if n == 0:
            continue
        # S squares and S-1 additions, of which the root halves the error, and the root itself.
        off = ctx.fsum(abs(x) * e for x, e in zip(values, own, strict=True)) / n
        relative = off / n + len(values) // 2 + 3
        extra[at] = values * (factor / n)
        errors[at] = own * (factor / n) + magnitude(extra[at]) * (relative + 4)
    return Tracked(extra, errors)


PENALTIES = {
    "penalty.l1": _l1,
    "penalty.l2": _l2,
    "penalty.elastic_net": _elastic_net,
    "penalty.group_lasso": _group_lasso,
}


def finite(grads: Grads) -> bool:
    """Say whether every element is finite."""
    return all(ctx.isfinite(x) for g in grads if g is not None for x in g.exact.ravel())


def norm(grads: Grads, order: float) -> Tracked:
    """Return the p-norm of all gradients with its bound, as arrays of one element."""
    given = [g for g in grads if g is not None]
    values = [abs(x) for g in given for x in g.exact.ravel()]
    errors = [e for g in given for e in g.error.ravel()]
    if any(not ctx.isfinite(x) for x in values):
        undefined = any(x != x for x in values)
        return Tracked(full((), ctx.nan if undefined else ctx.inf), full(()))
    if order == inf:
        return Tracked(full((), max(values, default=ZERO)), full((), max(errors, default=ZERO)))
    p = real(order)
    n = sum((x**p for x in values), ZERO) ** (ONE / p)
    if n == 0:
        return Tracked(full((), n), full(()))
    passed = sum(((x / n) ** (p - 1) * e for x, e in zip(values, errors, strict=True)), ZERO)
    own = (ceil((len(values) + 2) / order) + 4) * n
    return Tracked(full((), n), full((), passed + own))


def order_of(clip: Settings | None) -> float:
    """Return the p of the norm that is reported: that of a global clip, else 2."""
    return 2.0 if clip is None or clip["operation"] != "clip.global_norm" else float(clip["ord"])


def clip_all(grads: Grads, clip: Settings | None) -> Grads:
    """Clip by value, by each tensor's norm, or by the global norm."""
    if clip is None:
        return grads
    if clip["operation"] == "clip.value":
        return [None if g is None else _limit(g, clip) for g in grads]
    clipping.check(clip)
    order = float(clip["ord"])
    if clip["operation"] == "clip.global_norm":
        n = norm(grads, order)
        return [None if g is None else _scale(g, n, clip) for g in grads]
    return [None if g is None else _scale(g, norm([g], order), clip) for g in grads]


def _scale(g: Tracked, n: Tracked, clip: Settings) -> Tracked:
    top = n.exact.item()
    one = clipping.apply(full((1,), ONE), top, clip)
    coefficient = ONE if isinstance(one, np.ndarray) else one.exact[0]
    if coefficient == 1 and isinstance(one, np.ndarray):
        return g
    relative = n.error.item() / top if top and ctx.isfinite(top) else ZERO
    value = g.exact * coefficient
    return Tracked(value, g.error * abs(coefficient) + magnitude(value) * (relative + 4))


def _limit(g: Tracked, clip: Settings) -> Tracked:
    width = clip["range"]
    low = -inf if clip["min"] is None else float(clip["min"])
    high = inf if clip["max"] is None else float(clip["max"])
    if width is not None:
        low, high = -float(width) / 2, float(width) / 2
    if low > high:
        raise Reject(f"min must be <= max, got {low} and {high}")
    value = each(lambda x: min(max(x, ctx.mpf(low)), ctx.mpf(high)), g.exact)
    return Tracked(value, g.error + magnitude(value))


def update(
    params: list[Tracked], grads: Grads, slots: list[dict[str, Any]], optimizer: Settings, lr: float
) -> tuple[list[Tracked], list[dict[str, Any]]]:
    """Take one optimiser step; absent gradients leave parameter and state alone."""
    rule = RULES[optimizer["operation"]]
    moved, states = list(params), list(slots)
    for i, g in enumerate(grads):
        if g is None:
            counts = optimizer.get("step_count") == "optimizer"
            states[i] = slots[i] | {"t": slots[i].get("t", 0) + counts}
            continue
        now = optimizer | {"lr": used_hyperparameter(lr, optimizer, optimizer["dtype"])}
        now["t"] = slots[i].get("t", 0) + 1
        moved[i], after = _shaped(move, params[i], g, slots[i], now, rule)
        states[i] = {"t": now["t"], **after}
    return moved, states


def _shaped(
    step: Any, w: Tracked, g: Tracked, slots: dict[str, Any], settings: Settings, rule: Rule
) -> tuple[Tracked, dict[str, Any]]:
    shape = w.exact.shape
    flat = [Tracked(x.exact.ravel(), x.error.ravel()) for x in (w, g)]
    new, after = step(*flat, slots, settings, rule)
    return Tracked(new.exact.reshape(shape), new.error.reshape(shape)), after


def apply_masks(params: list[Any], masks: list[Any] | None) -> list[Any]:
    """Set masked weights to zero, without error."""
    if masks is None:
        return params
    return [w if m is None else _masked(w, m) for w, m in zip(params, masks, strict=True)]


def _masked(w: Tracked, mask: Any) -> Tracked:
    zero = full(w.exact.shape)
    return Tracked(np.where(mask, w.exact, zero), np.where(mask, w.error, zero))


def mask_slots(slots: list[dict[str, Any]], masks: list[Any] | None) -> list[dict[str, Any]]:
    """Set the optimiser state of masked weights to zero."""
    if masks is None:
        return slots
    return [
        state
        if mask is None
        else {
            name: _masked(value, mask.ravel()) if isinstance(value, Tracked) else value
            for name, value in state.items()
        }
        for state, mask in zip(slots, masks, strict=True)
    ]


def locator(stages: Mapping[str, tuple[int, str]]) -> Callable[[str], tuple[Any, str]]:
    """Return a function that says where in a run a path such as ``grads[3][1]`` lies, and how to say it.

    ``stages`` has, for each output, the place of its stage in a step, and the stage's name.
    """

    def locate(path: str) -> tuple[Any, str]:
        name = path.split("[")[0].split()[0]
        numbers = [int(n) for n in re.findall(r"\[(\d+)", path)]
        rank, stage = stages.get(name, (9, name))
        step = numbers[0] if numbers else 0
        # The second number of a list of steps is that of a tensor; a norm or a loss is one number a step.
        several = len(numbers) > 1
        tensor = numbers[1] if several else 0
        place = f", tensor {tensor}" if several or name in ("grads", "params") else ""
        return (step, rank, tensor), f"step {step}, stage {stage}{place}"

    return locate


def at(value: Any, step: int) -> float:
    """Return a parameter that is one number, or one per step."""
    return float(value[step] if isinstance(value, list | tuple) else value)
