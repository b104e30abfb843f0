"""Learning-rate schedules: plain functions that return one learning rate per step.

Every schedule returns a list of ``steps`` Python floats, one for each of the steps 0 ... steps - 1;
the list can stand wherever a learning rate can. Rates are in the units of the optimiser's ``lr``,
finite and at least 0; anything else raises ValueError. :func:`described` makes a schedule from a
plain description, as a plan or a checkpoint holds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import checks


def constant(lr: float, *, steps: int) -> list[float]:
    """Return ``lr`` at every step."""
    return [checks.number("lr", lr, low=0.0)] * checks.integer("steps", steps, low=0)


def step(lr: float, *, steps: int, every: int, factor: float = 0.1) -> list[float]:
    """Return a rate that is multiplied by ``factor`` every ``every`` steps.

    lr(t) = lr * factor**floor(t / every), with ``every`` >= 1 and ``factor`` in [0, 1].
    """
    lr = checks.number("lr", lr, low=0.0)
    every = checks.integer("every", every, low=1)
    factor = checks.number("factor", factor, low=0.0, high=1.0)
    return [lr * factor ** (t // every) for t in range(checks.integer("steps", steps, low=0))]


def cosine(lr: float, *, steps: int, final: float = 0.0) -> list[float]:
    """Return half a cosine from ``lr`` at step 0 to ``final``, which step ``steps`` would have.

    lr(t) = final + (lr - final) * (1 + cos(pi * t / steps)) / 2, with ``final`` <= ``lr``.
    Source: Loshchilov & Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts",
    equation 5 without restarts.
    """
    lr = checks.number("lr", lr, low=0.0)
    final = checks.number("final", final, low=0.0, high=lr)
    steps = checks.integer("steps", steps, low=0)
    return [final + (lr - final) * (1.0 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]


def warm_up(rates: Sequence[float], steps: int) -> list[float]:
    """Return a schedule whose first ``steps`` rates climb linearly to what they were.

    lr(t) = rates[t] * (t + 1) / steps for t < steps, so that the first step is not wasted on a rate
    of 0, and step ``steps - 1`` has its full rate already. ``steps`` 0 changes nothing.
    Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour".
    """
    steps = checks.integer("steps", steps, low=0)
    climb = [rate * (t + 1) / steps for t, rate in enumerate(rates[:steps])]
    return climb + list(rates[steps:])


SCHEDULES: dict[str, Callable[..., list[float]]] = {
    "constant": constant,
    "step": step,
    "cosine": cosine,
}


def described(description: Mapping[str, Any]) -> list[float]:
    """Return the schedule of ``{"schedule": "cosine", "lr": 0.1, "steps": 100, "warm_up": 10}``.

    The other entries are the arguments of the function that ``schedule`` names; ``warm_up`` is
    the number of steps of :func:`warm_up`, 0 if it is not given. Raises ValueError for an unknown
    schedule or an argument that it does not have.
    """
    options = dict(description)
    name, climb = options.pop("schedule", None), options.pop("warm_up", 0)
    if name not in SCHEDULES:
        raise ValueError(
            f"unknown learning-rate schedule {name!r}; there are: {', '.join(SCHEDULES)}"
        )
    try:
        rates = SCHEDULES[name](**options)
    except TypeError as error:
        raise ValueError(f"learning-rate schedule {name!r}: {error}") from None
    return warm_up(rates, climb)
