"""Mistakes that any optimiser can make, whatever its rule is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.exact import ONE, full, real
from conformance.operation import Mistake, Oracle
from conformance.oracle import optimizers
from conformance.oracle.optimizers import Move, Rule, Settings, Slots, Tracked, constant


class Wrong:
    """Makes oracles that go wrong in one place from an optimiser's check and rule."""

    def __init__(self, check: Callable[[Settings], None], rule: Rule) -> None:
        """Take the refusals and the rule that are right."""
        self.check, self.rule = check, rule

    def settings(self, **changed: Any) -> Oracle:
        """Return an oracle under other parameters than those asked for."""
        return self.oracle(lambda inputs, s: (inputs, s | changed))

    def move(self, move: Move) -> Oracle:
        """Return an oracle that decays or steps in another way."""
        return self.oracle(move=move)

    def follow(self, rule: Rule) -> Oracle:
        """Return an oracle with another rule."""
        return self.oracle(rule=rule)

    def oracle(
        self, change: Callable[..., Any] | None = None, rule: Any = None, move: Any = None
    ) -> Oracle:
        """Return an oracle with changed inputs, settings, rule or move."""

        def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
            self.check(settings)
            if change is not None:
                inputs, settings = change(inputs, settings)
            return optimizers.trajectory(
                inputs, settings, rule or self.rule, move or optimizers.move
            )

        return mistaken

    def everywhere(self) -> tuple[Mistake, ...]:
        """Return the mistakes that do not depend on the rule."""
        return (
            Mistake("weight decay ignored", "the option does nothing",
                    self.settings(weight_decay=0.0),
                    ("PaddlePaddle/Paddle#5836", "ml-explore/mlx#473")),
            Mistake("weight decay with the wrong sign", "weights grow: 1 + lr·wd",
                    self.move(decay_grows), ("harvard-edge/cs249r_book#2058",)),
            Mistake("weight decay skips zero gradients", "a gradient of zeros counts as absent",
                    self.move(decay_skips_zero), ("pytorch/pytorch#149476",)),
            Mistake("weight decay written to the gradient", "g += wd·w compounds when g is used again",
                    self.move(decay_piles_up), ("ml-explore/mlx#4426", "pytorch/pytorch#12218")),
            Mistake("twice the weight decay", "wd is taken for the factor of wd·w²",
                    self.move(double_decay), ("titu1994/DenseNet#57",)),
            Mistake("weight decay after the update", "the new weight decays: (w - step)·(1 - lr·wd)",
                    self.move(decay_after), ("bitsandbytes-foundation/bitsandbytes#2010",)),
            Mistake("state lost", "every step is a first step", self.move(state_lost),
                    ("kozistr/pytorch_optimizer#516",)),
            Mistake("ascent", "the step is added", self.move(ascent),
                    ("kozistr/pytorch_optimizer#528",)),
            Mistake("learning rate frozen", "the first learning rate stays",
                    self.oracle(frozen_rate)),
            Mistake("absent gradient as zero", "state and decay go on without a gradient",
                    self.oracle(absent_as_zero)),
            Mistake("only the first parameter", "the others never move",
                    self.oracle(first_only)),
        )  # fmt: skip


def state_lost(w: Tracked, g: Tracked, slots: Slots, s: Settings, rule: Rule) -> Any:
    """Each step starts with empty slots."""
    return optimizers.move(w, g, {}, s | {"t": 1}, rule)


def decay_skips_zero(w: Tracked, g: Tracked, slots: Slots, s: Settings, rule: Rule) -> Any:
    """A gradient of zeros is taken for an absent one."""
    if all(x == 0 for x in g.exact):
        return w, {name: slot for name, slot in slots.items() if name != "t"}
    return optimizers.move(w, g, slots, s, rule)


def decay_grows(w: Tracked, g: Tracked, slots: Slots, s: Settings, rule: Rule) -> Any:
    """The weight decay has the wrong sign."""
    return optimizers.move(w, g, slots, s | {"weight_decay": -s["weight_decay"]}, rule)


def double_decay(w: Tracked, g: Tracked, slots: Slots, s: Settings, rule: Rule) -> Any:
    """The decay adds 2·wd·w, the gradient of wd·w²."""
    return optimizers.move(w, g, slots, s | {"weight_decay": 2 * s["weight_decay"]}, rule)


def decay_piles_up(w: Tracked, g: Tracked, slots: Slots, s: Settings, rule: Rule) -> Any:
    """wd·w is written into the caller's gradient, and stays there when it is used again."""
    left = slots.get("left", optimizers.nothing(w))
    added = constant(real(s["weight_decay"])) * w
    moved, kept = optimizers.move(w, g + left, slots, s, rule)
    return moved, kept | {"left": left + added}


def decay_after(w: Tracked, g: Tracked, slots: Slots, s: Settings, rule: Rule) -> Any:
    """The step comes first, then the weight decays."""
    moved, kept = optimizers.move(w, g, slots, s | {"weight_decay": 0}, rule)
    rate = ONE - s["lr"] * real(s["weight_decay"])
    return moved * Tracked(full((1,), rate), full((1,), ONE)), kept


def ascent(w: Tracked, g: Tracked, slots: Slots, s: Settings, rule: Rule) -> Any:
    """The step is added."""
    moved, kept = optimizers.move(w, g, slots, s, rule)
    return w + (w - moved), kept


def frozen_rate(inputs: dict[str, Any], s: Settings) -> Any:
    """A change of the learning rate is ignored."""
    return inputs, s | {"lr": s["lr"][0] if isinstance(s["lr"], list) else s["lr"]}


def absent_as_zero(inputs: dict[str, Any], s: Settings) -> Any:
    """An absent gradient counts as zeros."""
    params = inputs["params"]
    steps = [
        [np.zeros_like(w) if g is None else g for w, g in zip(params, grads, strict=True)]
        for grads in inputs["grads"]
    ]
    return {"params": params, "grads": steps}, s


def first_only(inputs: dict[str, Any], s: Settings) -> Any:
    """Only the first parameter is moved."""
    steps = [[*grads[:1], *[None] * (len(grads) - 1)] for grads in inputs["grads"]]
    return {"params": inputs["params"], "grads": steps}, s
