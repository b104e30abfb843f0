"""A recipe's short run through two implementations, step by step, within derived tolerances."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.cases import Stream
from conformance.oracle import perturbed
from conformance.oracle.models import EXACTLY, Noise, backward, forward, loss_and_gradient

RUNS, SAFETY, ROUNDOFF = 8, 2.0, 2.0**-24
DEFAULTS = {
    "optim.sgd": {"momentum": 0.0, "dampening": 0.0, "nesterov": False},
    "optim.adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False},
}
TOLERANCE = (
    f"tolerance: for each entry {SAFETY:g} × the largest deviation among {RUNS} float64 runs with each stage's "
    "result moved by a random amount within its float32 error bound; of an array that entry is shown which "
    "comes nearest to its tolerance"
)
Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One compared number: a step's loss or norm, or a parameter at the end."""

    name: str
    difference: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Say whether the difference is within the tolerance; NaN is not."""
        return self.difference <= self.tolerance


def load(path: Path) -> dict[str, Any]:
    """Return the arrays of a script or an answer."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def run(script: Arrays, noise: Noise) -> dict[str, Any]:
    """Run a script in float64 with noise (:mod:`refimpl.recipes.script` says what it holds).

    It follows the dialect that the script names. Of the conventions that this changes, the ones that
    matter in real arithmetic are here: where the learning rate stands in a momentum is not, while it is
    constant.
    """
    d, optimizer, clip = _described(script)
    params = [np.asarray(p, np.float64) for p in _numbered(script, "params")]
    moments: list[Any] = [{} for _ in params]
    masks: list[Any] = [None] * len(params)
    losses, norms, begun = [], [], 0
    pairs = zip(_numbered(script, "x"), _numbered(script, "targets"), strict=True)
    for step, (x, targets) in enumerate(pairs):
        if d.get("prune") and d["prune"]["step"] == step:
            masks = _masks(script, d, params, noise)
            params = _masked(params, masks)
            moments, begun = [{} for _ in params], step
        y, backs, _ = forward(d["model"], params, np.asarray(x, np.float64), noise)
        name = d["loss"]["operation"]
        loss, dy = loss_and_gradient(name, y, perturbed.wide(targets), "mean", noise)
        grads = backward(backs, dy)
        if d.get("shrink"):
            params = _shrunk(d["shrink"], params, grads)
        if d.get("penalty"):
            grads = [
                perturbed.penalised(g, p, d["penalty"], noise)
                for g, p in zip(grads, params, strict=True)
            ]
        clipped, total = perturbed._clipped(grads, clip, noise)
        params = [
            perturbed.updated(p, g, m, optimizer, optimizer["lr"], step - begun + 1, noise)
            for p, g, m in zip(params, clipped, moments, strict=True)
        ]
        params = _masked(params, masks)
        moments = [
            m if mask is None else {k: np.where(mask, v, 0.0) for k, v in m.items()}
            for m, mask in zip(moments, masks, strict=True)
        ]
        losses.append(float(loss))
        norms.append(total)
    result = {"loss": np.array(losses), "total_norm": np.array(norms)}
    result |= {f"params.{i}": p for i, p in enumerate(params)}
    return result | {f"masks.{i}": m for i, m in enumerate(masks) if m is not None}


def _described(script: Arrays) -> tuple[Any, dict[str, Any], dict[str, Any] | None]:
    """Return the description, and its optimiser and clip in full, in the script's dialect."""
    d = json.loads(str(script["description"]))
    dialect = json.loads(str(script["dialect"])) if "dialect" in script else {}
    name = d["optimizer"]["operation"]
    optimizer = {"weight_decay": 0.0, **DEFAULTS[name], **d["optimizer"], **dialect.get(name, {})}
    if optimizer.get("hyperparameters") == "float32":
        for key in {"lr", "momentum"} & set(optimizer):
            optimizer[key] = float(np.float32(optimizer[key]))
    if not d.get("clip"):
        return d, optimizer, None
    known = {"ord": 2, "min": None, "max": None}
    return d, optimizer, known | d["clip"] | dialect.get(d["clip"]["operation"], {})


def compare(script: Arrays, answer: Arrays, progress: Any = lambda line: None) -> list[Row]:
    """Return refimpl's results beside another's, number by number, each with what is allowed."""
    base = run(script, EXACTLY)
    allowed = {name: _distance(name, v, v) for name, v in base.items()}
    for index in range(RUNS):
        progress(f"how far rounding may carry: run {index + 1} of {RUNS}")
        other = run(script, Noise(ROUNDOFF, Stream(1000 + index)))
        for name, most in allowed.items():
            allowed[name] = np.maximum(most, _distance(name, base[name], other[name]))
    rows = []
    for name in allowed:
        found = _distance(name, script[f"result.{name}"], answer[name])
        limit = SAFETY * allowed[name]
        if name in ("loss", "total_norm"):
            pairs = zip(found, limit, strict=True)
            rows += [Row(f"{name}, step {t}", float(f), float(a)) for t, (f, a) in enumerate(pairs)]
        else:
            # the entry that uses up the most of what it is allowed
            worst = np.argmax(np.where(found == 0, 0.0, found / np.maximum(limit, 1e-300)))
            rows.append(Row(name, float(found.flat[worst]), float(limit.flat[worst])))
    return rows


def _distance(name: str, a: Any, b: Any) -> Any:
    """Return the distance entry by entry; of a mask how many entries differ."""
    if name.startswith("masks"):
        return np.full(1, np.count_nonzero(a != b), float)
    return np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))


def _numbered(arrays: Arrays, name: str) -> list[Any]:
    count = sum(key.startswith(f"{name}.") for key in arrays)
    return [arrays[f"{name}.{i}"] for i in range(count)]


def _masked(params: list[Any], masks: list[Any]) -> list[Any]:
    pairs = zip(params, masks, strict=True)
    return [p if m is None else np.where(m, p, 0.0) for p, m in pairs]


def _shrunk(how: Any, params: list[Any], grads: list[Any]) -> list[Any]:
    result = list(params)
    for i in how["parameters"]:
        small = np.abs(grads[i]) <= float(np.float32(how["threshold"]))
        result[i] = np.where(small, params[i] * (1 - how["rate"]), params[i])
    return result


def _masks(script: Arrays, d: Any, params: list[Any], noise: Noise) -> list[Any]:
    how = d["prune"]
    if how["by"] == "magnitude":
        chosen = how["parameters"]
        flat = np.concatenate([np.abs(params[i]).ravel() for i in chosen])
        kept = np.ones(flat.size, bool)
        kept[np.argsort(flat, kind="stable")[: round(how["amount"] * flat.size)]] = False
        pieces = np.split(kept, np.cumsum([params[i].size for i in chosen])[:-1])
        by_place = dict(zip(chosen, pieces, strict=True))
        return [
            by_place[i].reshape(p.shape) if i in by_place else None for i, p in enumerate(params)
        ]
    y, backs, _ = forward(d["model"], params, np.asarray(script["score.x"], np.float64), noise)
    _, dy = loss_and_gradient(
        "loss.softmax_cross_entropy", y, script["score.targets"], "sum", noise
    )
    scores = []
    for layer, back in reversed(list(zip(d["model"], backs, strict=True))):
        if layer["operation"] == "layer.dense":
            scores.append(np.abs(dy).mean(axis=0))
        dy, *_ = back(dy)
    masks = [np.ones(p.shape, bool) for p in params]
    for i, score in enumerate(scores[:0:-1]):
        keep = score >= how["threshold"]
        masks[2 * i] &= keep[None, :]
        masks[2 * i + 1] &= keep
        masks[2 * i + 2] &= keep[:, None]
    return masks
