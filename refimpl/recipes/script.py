"""A short run as data, which another framework repeats step by step: ``secateurs recipe A2 --with torch``.

The file is NumPy's ``.npz``, without pickle. ``description`` is JSON: ``model``, ``loss``, ``optimizer``,
``clip``, ``penalty``, ``prox`` as the trainer has them, and

- ``shrink``: ``{"threshold", "rate"}``: before every step each entry of the weights ``parameters`` whose
  gradient has |g| <= threshold is multiplied by 1 - rate; ``by`` is ``element``, or ``row``, where the sum
  of the squares of a row's gradient is compared;
- ``prune``: ``{"step", "by", …}``: before step ``step`` masks are made once, and the optimiser starts anew.
  By ``magnitude`` the share ``amount`` of all ``parameters``; by ``neurons`` every hidden unit whose mean
  |∂ℓ/∂z| over ``score.x`` is below ``threshold``, with its incoming weights, its bias, its outgoing weights.

``params.i``, ``x.t`` and ``targets.t`` are the initial parameters and each step's examples; ``result.*``
what refimpl made of them, with the dials of ``dialect``, JSON by operation.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import models, scores, trainer
from ..files import write_whole
from ..pruning import prune_fraction, shrink
from ..trainer import Plan, State
from . import neurons, training

Arrays = Sequence[Any]


@dataclass(frozen=True)
class Script:
    """A run: its description, the initial parameters, and each step's examples and targets."""

    description: Mapping[str, Any]
    params: Arrays
    x: Arrays
    targets: Arrays
    score: tuple[Any, Any] | None = None


def of_batches(
    description: Mapping[str, Any],
    params: Arrays,
    part: training.Part,
    steps: int,
    size: int,
    seed: int,
) -> Script:
    """Return a script over the first batches of a shuffled part."""
    order = trainer.minibatches(len(part.labels), size, seed)
    rows = [next(order) for _ in range(steps)]
    xs, labels = [part.x[r] for r in rows], [part.labels[r] for r in rows]
    return Script(description, params, xs, labels)


def plan(script: Script) -> Plan:
    """Return the plan of a script's steps."""
    d = script.description
    return Plan(d["optimizer"], clip=d.get("clip"), penalty=d.get("penalty"), prox=d.get("prox"))


def replay(script: Script) -> dict[str, Any]:
    """Run a script with the canonical trainer; return losses, norms, parameters and masks."""
    d, how = script.description, plan(script)
    state = trainer.start(how, script.params)
    losses, norms = [], []
    for step, (x, targets) in enumerate(zip(script.x, script.targets, strict=True)):
        if d.get("prune") and d["prune"]["step"] == step:
            state = training.pruned(how, state.params, masks(script, state))
        y, backprop = models.forward(d["model"], state.params, x)
        loss, loss_gradient = models.loss(d["loss"], y, targets)
        _, grads = backprop(loss_gradient())
        if d.get("shrink"):
            state = replace(state, params=shrunk(d["shrink"], state.params, grads))
        trace = trainer.Trace()
        state = trainer.train_step(how, state, [grads], trace)
        losses.append(loss)
        norms += trace.of("penalty", "total_norm")
    result = {"loss": np.stack(losses), "total_norm": np.stack(norms)}
    result |= {f"params.{i}": p for i, p in enumerate(state.params)}
    return result | {f"masks.{i}": m for i, m in enumerate(state.masks) if m is not None}


def shrunk(how: Mapping[str, Any], params: Sequence[Any], grads: Sequence[Any]) -> list[Any]:
    """Return parameters of which those with a small gradient are shrunk."""
    chosen = list(how["parameters"])
    weights, own = [params[i] for i in chosen], [grads[i] for i in chosen]
    score: list[Any]
    if how["by"] == "row":
        # one score for all weights of a row; a squared norm, as the article has it
        score = [np.broadcast_to(np.sum(g * g, axis=-1, keepdims=True), g.shape) for g in own]
    else:
        score = scores.gradient(own)
    small = dict(zip(chosen, shrink(weights, score, how["threshold"], how["rate"]), strict=True))
    return [small.get(i, p) for i, p in enumerate(params)]


def masks(script: Script, state: State) -> list[Any]:
    """Return the masks that a script makes of a state."""
    how, params = script.description["prune"], state.params
    if how["by"] == "neurons":
        assert script.score is not None
        model = script.description["model"]
        measured = neurons.gradients(model, params, *script.score)
        return neurons.masks(model, params, [g >= how["threshold"] for g in measured])
    chosen = list(how["parameters"])
    weights = [params[i] for i in chosen]
    made, _ = prune_fraction(
        weights, scores.magnitude(weights), amount=how["amount"], scope="global"
    )
    return training.spread(made, chosen, len(params))


def save(path: Path, script: Script, dialect: Mapping[str, Any] | None = None) -> None:
    """Write a script, with what refimpl makes of it.

    ``dialect`` has dials for the operations of the script, ``{"optim.adam": {"eps_at": …}}``: refimpl
    then follows the conventions that a framework documents. The script itself stays as it is.
    """
    arrays: dict[str, Any] = {
        "description": np.array(json.dumps(script.description)),
        "dialect": np.array(json.dumps(dialect or {})),
    }
    for name in ("params", "x", "targets"):
        arrays |= {f"{name}.{i}": a for i, a in enumerate(getattr(script, name))}
    if script.score is not None:
        arrays |= {"score.x": script.score[0], "score.targets": script.score[1]}
    d = dict(script.description)
    for stage in ("optimizer", "clip"):
        if d.get(stage):
            d[stage] = {**d[stage], **(dialect or {}).get(d[stage]["operation"], {})}
    spoken = replace(script, description=d)
    arrays |= {f"result.{name}": value for name, value in replay(spoken).items()}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, content.getvalue())
