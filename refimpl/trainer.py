"""Training in its one order, every stage with a name.

    forward → loss → backward → accumulate → unscale → penalty → finite_check
            → clip → update → prox → mask_schedule → mask → record

A stage's name, the step and what came out of it go to ``on_stage``, so that two runs can be compared
stage by stage. Everything is a pure function of :class:`State` and the batch; what varies from run to
run is data: a :class:`Plan` is made from the plain descriptions that the fixtures use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from . import clipping, lr_schedules, optimizers, regularization, schedules, scores
from .arrays import Array, accumulation_dtype, namespace, present, scalar
from .models import Model, loss, run
from .norms import NormClip
from .pruning import apply_mask, prune_fraction

Description = Mapping[str, Any]
Grads = list[Array | None]
OnStage = Callable[[str, int, dict[str, Any]], None]

CLIPS: dict[str, Callable[..., Any]] = {
    "clip.value": clipping.clip_value,
    "clip.norm": lambda grads, **options: clipping.clip_norm(grads, **options)[0],
}
PENALTIES: dict[str, Callable[..., Any]] = {
    "penalty.l1": regularization.penalty_l1,
    "penalty.l2": regularization.penalty_l2,
    "penalty.elastic_net": regularization.penalty_elastic_net,
    "penalty.group_lasso": regularization.penalty_group_lasso,
}
PROXES: dict[str, Callable[..., Any]] = {
    "prox.l1": regularization.prox_l1,
    "prox.l2": regularization.prox_l2,
    "prox.elastic_net": regularization.prox_elastic_net,
    "prox.group_lasso": regularization.prox_group_lasso,
}
OPTIMIZERS: dict[str, Callable[..., optimizers.Optimizer]] = {
    "optim.sgd": optimizers.sgd,
    "optim.adam": optimizers.adam,
    "optim.adamw": optimizers.adamw,
    "optim.rmsprop": optimizers.rmsprop,
    "optim.adagrad": optimizers.adagrad,
}
SCORES: dict[str, Callable[..., Any]] = {
    "score.magnitude": lambda params, grads: scores.magnitude(params),
    "score.gradient": lambda params, grads: scores.gradient(grads),
    "score.taylor": scores.taylor,
    "score.snip": scores.snip,
    "score.movement": scores.movement,
    "score.fisher": lambda params, grads: scores.fisher(grads),
}


@dataclass(frozen=True)
class Plan:
    """What is done at every step, from plain descriptions (dicts with an ``operation``).

    Attributes:
        optimizer: ``{"operation": "optim.sgd", "lr": 0.1, …}``; ``lr`` may also be a list with one
            rate per step, or a schedule ``{"schedule": "cosine", "lr": 0.1, "steps": 100, …}``
            (:func:`refimpl.lr_schedules.described`).
        clip: ``{"operation": "clip.global_norm", "max_norm": 1.0}``, or None.
        penalty: ``{"operation": "penalty.l1", "strength": 1e-3}``, or None; its gradient joins before
            the clip.
        prox: ``{"operation": "prox.l1", "strength": 1e-3}``, or None; its step is the learning rate.
        prune: ``{"score": "score.magnitude", "schedule": {"operation": "schedule.polynomial", …},
            "scope": "global", "parameters": [indices]}``, or None. The schedule's sparsity is of all
            the weights of these parameters. Dial ``gradient``: ``dense``, or ``masked`` where the mask
            is part of the model, so that the gradient of a pruned weight is zero.
        accumulate: ``mean`` or ``sum`` over micro-batches.
        loss_scale: by which the gradients that come in are multiplied: a number, or one per step.
    """

    optimizer: Description
    clip: Description | None = None
    penalty: Description | None = None
    prox: Description | None = None
    prune: Description | None = None
    accumulate: str = "mean"
    loss_scale: float | Sequence[float] = 1.0
    _rates: float | Sequence[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what no stage can do."""
        if self.accumulate not in ("mean", "sum"):
            raise ValueError(f"accumulate must be mean or sum, got {self.accumulate!r}")
        scale = self.loss_scale
        for value in [scale] if isinstance(scale, int | float) else scale:
            if not 0 < value < float("inf"):
                raise ValueError(f"loss_scale must be a finite number > 0, got {value}")
        rates = self.optimizer.get("lr")
        if rates is None:
            raise ValueError("the optimizer of a plan needs lr, a number, a list or a schedule")
        rates = lr_schedules.described(rates) if isinstance(rates, Mapping) else rates
        object.__setattr__(self, "_rates", rates)

    def scale(self, step: int) -> float:
        """Return the loss scale of a step."""
        return _at("loss_scale", self.loss_scale, step)

    def lr(self, step: int) -> float:
        """Return the learning rate of a step."""
        return _at("lr", self._rates, step)

    @cached_property
    def measured(self) -> Callable[..., tuple[Array, Callable[[], Grads]]]:
        """The norm that is reported, that of a global clip, else the 2-norm, and what then clips."""
        if self.clip is None:
            return lambda grads, reuse: (clipping.global_norm(grads), lambda: grads)
        options = _options(self.clip)
        if self.clip["operation"] == "clip.global_norm":
            own = {"duplicates": options.pop("duplicates", "once"), "clip": NormClip(**options)}
            return partial(clipping.measure_global_norm, **own)
        clip = _named(CLIPS, self.clip, "clip")
        return lambda grads, reuse: (clipping.global_norm(grads), lambda: clip(grads, **options))

    @cached_property
    def stepper(self) -> optimizers.Optimizer:
        """The optimiser, made at its first use."""
        options = _options(self.optimizer) | {"lr": self.lr(0)}
        return _named(OPTIMIZERS, self.optimizer, "optimizer")(**options)


@dataclass(frozen=True)
class State:
    """What a step starts from. ``masks`` has one boolean array, or None, per parameter.

    ``running`` holds the running mean and variance of each batch norm; empty where no account of
    them is kept.
    """

    params: list[Array]
    optimizer: dict[str, Any]
    masks: list[Array | None]
    step: int = 0
    running: list[Array] = field(default_factory=list)


@dataclass
class Trace:
    """A recording of every stage: ``(step, stage, what came out)`` in order."""

    records: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, stage: str, step: int, values: dict[str, Any]) -> None:
        """Record one stage; pass the trace as ``on_stage``."""
        self.records.append((step, stage, values))

    def of(self, stage: str, name: str) -> list[Any]:
        """Return one recorded value of a stage, step by step."""
        return [values[name] for _, s, values in self.records if s == stage]


def _ignore(stage: str, step: int, values: dict[str, Any]) -> None:
    """Listen to no stage."""


def start(
    plan: Plan,
    params: Sequence[Array],
    masks: Sequence[Array | None] | None = None,
    running: Sequence[Array] = (),
) -> State:
    """Return the state before the first step; masks keep the weights pruned from then on.

    ``running`` are the running values that the model's batch norms start from
    (:func:`refimpl.models.initial_running`), if account is to be kept of them.
    """
    kept = [None] * len(params) if masks is None else list(masks)
    if len(kept) != len(params):
        raise ValueError(f"there are {len(params)} parameters but {len(kept)} masks")
    return State(list(params), plan.stepper.init(list(params)), kept, running=list(running))


def train_step(
    plan: Plan,
    state: State,
    micro_grads: Sequence[Grads],
    on_stage: OnStage = _ignore,
    *,
    reuse: bool = False,
) -> State:
    """Take one step from the gradients of its micro-batches; constraints of ``train.step``.

    The gradients are those of the scaled loss. They are accumulated (mean or sum), divided by the
    loss scale, joined by the penalty's gradient, checked, clipped, given to the optimiser; then the
    proximal step, new masks if the schedule says so, and the masks on weights *and* optimiser state.
    If any gradient is not finite the step is skipped: nothing changes, the optimiser's step count
    included. That one question is the only value this function asks of the device.

    Returns the next state; nothing of the given one is written to. Nor is anything written to the
    gradients, unless they are given up with ``reuse``: then a global clip may take their memory.
    """
    step = state.step
    grads = _masked(plan, _accumulate(micro_grads, plan.accumulate), state.masks)
    on_stage("accumulate", step, {"grads": grads})
    grads = _divided(grads, plan.scale(step))
    on_stage("unscale", step, {"grads": grads})
    grads = _add_penalty(plan, state.params, grads)
    # New masks may be chosen by the gradients as they are before the clip.
    total_norm, clip = plan.measured(grads, reuse=reuse and plan.prune is None)
    if state.params and not present(grads):
        total_norm = _zero(state.params)
    on_stage("penalty", step, {"grads": grads, "total_norm": total_norm})
    # A norm overflows, in the end, where no gradient does; only then are they looked at one by one.
    finite = math.isfinite(total_norm) or all_finite(grads)
    on_stage("finite_check", step, {"skipped": not finite})
    if not finite:
        on_stage("record", step, {"params": state.params, "masks": state.masks})
        return replace(state, step=step + 1)
    clipped = clip()
    on_stage("clip", step, {"grads": clipped})
    lr = plan.lr(step)
    params, optimizer_state = plan.stepper.update(state.params, clipped, state.optimizer, lr=lr)
    on_stage("update", step, {"params": params})
    if plan.prox is not None:
        prox = _named(PROXES, plan.prox, "prox")
        params = prox(params, **_options(plan.prox), step=lr)
        on_stage("prox", step, {"params": params})
    masks = _new_masks(plan, step, params, grads, state.masks)
    on_stage("mask_schedule", step, {"masks": masks})
    if present(masks):
        params = [p if m is None else apply_mask(p, m) for p, m in zip(params, masks, strict=True)]
        optimizer_state = optimizers.mask_state(optimizer_state, masks)
    on_stage("mask", step, {"params": params})
    on_stage("record", step, {"params": params, "masks": masks})
    return State(params, optimizer_state, masks, step + 1, state.running)


def train(
    model: Model,
    loss_description: Description,
    plan: Plan,
    state: State,
    steps: Iterable[Sequence[tuple[Any, ...]]],
    on_stage: OnStage = _ignore,
) -> State:
    """Train a model: ``steps`` holds, for each step, its micro-batches ``(x, targets)``.

    Each micro-batch goes forward and back; the loss that is recorded is combined over them as the
    gradients are. The gradients are multiplied by the loss scale before they are summed. A model
    with dropout drops by a third entry ``(x, targets, masks)``, a list with one mask for each of its
    dropout layers; without it nothing is dropped.
    """
    for micro_batches in steps:
        losses, micro_grads = [], []
        for x, targets, *dropped in micro_batches:
            y, backprop, running = run(
                model,
                state.params,
                x,
                masks=dropped[0] if dropped else None,
                running=state.running or None,
            )
            if running or state.running:
                state = replace(state, running=running)
            on_stage("forward", state.step, {"y": y})
            value, loss_gradient = loss(loss_description, y, targets)
            losses.append(value)
            scale, dy = plan.scale(state.step), loss_gradient()
            _, grads = backprop(dy if scale == 1 else dy * scale, with_dx=False)
            on_stage("backward", state.step, {"grads": grads})
            micro_grads.append(grads)
        if on_stage is not _ignore:
            total = sum(losses[1:], losses[0])
            mean = total / len(losses) if plan.accumulate == "mean" else total
            on_stage("loss", state.step, {"loss": mean})
        # Whoever listens may keep the gradients, else they are ours.
        state = train_step(plan, state, micro_grads, on_stage, reuse=on_stage is _ignore)
    return state


def minibatches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Yield the indices of one epoch's batches: a seeded shuffle, the last batch may be smaller."""
    order = np.random.default_rng(seed).permutation(count)
    for begin in range(0, count, size):
        yield [int(index) for index in order[begin : begin + size]]


def all_finite(grads: Sequence[Array | None]) -> bool:
    """Say whether every element is finite. Reads one value from the device."""
    given = present(grads)
    if not given:
        return True
    xp = namespace(*given)
    return bool(xp.all(xp.stack([xp.all(xp.isfinite(g)) for g in given])))


def _accumulate(micro_grads: Sequence[Grads], how: str) -> Grads:
    if not micro_grads:
        raise ValueError("a step needs at least one micro-batch")
    total = micro_grads[0]
    for grads in micro_grads[1:]:
        if len(grads) != len(total):
            raise ValueError(f"micro-batches have {len(total)} and {len(grads)} gradients")
        total = [
            b if a is None else a if b is None else a + b for a, b in zip(total, grads, strict=True)
        ]
    if how == "sum" or len(micro_grads) == 1:
        return total
    return _divided(total, len(micro_grads))


def _divided(grads: Grads, divisor: float) -> Grads:
    return grads if divisor == 1 else [None if g is None else g / divisor for g in grads]


def _masked(plan: Plan, grads: Grads, masks: list[Array | None]) -> Grads:
    if plan.prune is None or plan.prune.get("gradient", "dense") == "dense":
        return grads
    pairs = zip(grads, masks, strict=True)
    return [g if g is None or m is None else apply_mask(g, m) for g, m in pairs]


def _add_penalty(plan: Plan, params: list[Array], grads: Grads) -> Grads:
    if plan.penalty is None:
        return grads
    _, extra = _named(PENALTIES, plan.penalty, "penalty")(params, **_options(plan.penalty))
    return [e if g is None else g + e for g, e in zip(grads, extra, strict=True)]


def _zero(params: Sequence[Array]) -> Array:
    """Return the norm of no gradients, in the library and on the device of the parameters."""
    xp = namespace(*params)
    return scalar(xp, 0.0, params[0], accumulation_dtype(xp, *params))


def _new_masks(
    plan: Plan, step: int, params: list[Array], grads: Grads, masks: list[Array | None]
) -> list[Array | None]:
    if plan.prune is None:
        return masks
    sparsity, updates = _schedule(plan.prune["schedule"], step)
    if not updates:
        return masks
    chosen = list(plan.prune["parameters"])
    weights = [params[i] for i in chosen]
    score = SCORES[plan.prune["score"]](weights, [grads[i] for i in chosen])
    previous = [_all_kept(params[i]) if masks[i] is None else masks[i] for i in chosen]
    scope = plan.prune.get("scope", "global")
    new, _ = prune_fraction(
        weights, score, amount=sparsity, scope=scope, previous=previous, iterate="total"
    )
    result = list(masks)
    for index, mask in zip(chosen, new, strict=True):
        result[index] = mask
    return result


def _schedule(description: Description, step: int) -> tuple[float, bool]:
    function = getattr(schedules, description["operation"].removeprefix("schedule."))
    options = _options(description)
    options["steps"] = max(step + 1, int(options.get("end") or 0) + 1)
    sparsity, updates = function(**options)
    return float(sparsity[step]), bool(updates[step])


def _all_kept(weights: Array) -> Array:
    xp = namespace(weights)
    return xp.ones_like(weights, dtype=xp.bool)


def _named(table: Mapping[str, Any], description: Description, what: str) -> Any:
    name = description["operation"]
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; there are: {', '.join(table)}")
    return table[name]


def _options(description: Description) -> dict[str, Any]:
    return {name: value for name, value in description.items() if name != "operation"}


def _at(name: str, value: float | Sequence[float], step: int) -> float:
    if isinstance(value, (int, float)):
        return value
    if step >= len(value):
        raise ValueError(f"{name} is given for {len(value)} steps, but this is step {step}")
    return value[step]
