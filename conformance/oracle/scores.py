"""What the scores share: which entries have one, refusals, and mistakes in a formula.

A score is a formula of numbers that stand at the same place in several lists of tensors. It has the
shape and the dtype of the tensor it belongs to, which is the first input of its operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.exact import Exact, Reject, exact
from conformance.operation import Mistake, Oracle, Value

Settings = dict[str, Any]
Formula = Callable[..., Exact]
"""``formula(*arrays)``: the exact scores of one tensor from its exact inputs, all of them flat."""
Scoring = Callable[[list[list[Exact]], Settings], list[Exact]]
"""``scoring(entries, settings)``: all tensors at once, for a score that knows the whole."""

WEIGHTS = {"weights": "list of float tensors of any shapes; null is an absent one"}
GRADS = {"grads": "list of gradients of the same shapes; null is an absent one"}
OUTPUTS = {"scores": "the list of scores: the lowest are pruned first"}


def check(inputs: dict[str, Any]) -> None:
    """Refuse lists whose lengths or shapes do not fit each other: broadcasting would hide mistakes."""
    (first, owners), *others = inputs.items()
    for name, tensors in others:
        if len(tensors) != len(owners):
            raise Reject(f"{first} and {name} must have the same length")
        for owner, other in zip(owners, tensors, strict=True):
            if owner is not None and other is not None and owner.shape != other.shape:
                raise Reject(f"{first} and {name} must have the same shape")


def together(inputs: dict[str, Any], settings: Settings, scoring: Scoring) -> dict[str, Any]:
    """Score all tensors at once; a tensor that is absent in any input takes no part."""
    lists = list(inputs.values())
    there = [
        i
        for i, row in enumerate(zip(*lists, strict=True))
        if all(tensor is not None for tensor in row)
    ]
    # flat: NumPy would turn results of 0-d arrays of objects into bare numbers
    entries = [[exact(tensors[i]).ravel() for tensors in lists] for i in there]
    scores: list[Any] = [None] * len(lists[0])
    for i, result in zip(there, scoring(entries, settings), strict=True):
        owner = lists[0][i]
        scores[i] = Value(np.asarray(result, dtype=object).reshape(owner.shape), owner.dtype.name)
    return {"scores": scores}


def each(formula: Formula) -> Scoring:
    """Return the scoring of a formula that is applied tensor by tensor."""
    return lambda entries, settings: [formula(*entry) for entry in entries]


def oracle(formula: Formula) -> Oracle:
    """Return the oracle of a formula without parameters, the refusals included."""
    return scoring_oracle(each(formula))


def scoring_oracle(scoring: Scoring) -> Oracle:
    """Return the oracle of a scoring, the refusals included."""

    def ask(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        check(inputs)
        return together(inputs, settings, scoring)

    return ask


def saliency(w: Exact, g: Exact) -> Exact:
    """Return |g·w|, what the loss changes by when w is set to zero, to first order."""
    return abs(g * w)


# --- mistakes that any score can make -----------------------------------------------------------


def broadcast(scoring: Scoring) -> Oracle:
    """Return an oracle that stretches tensors to the shape of the first instead of refusing them."""

    def ask(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        owners = next(iter(inputs.values()))
        stretched = {name: _stretched(tensors, owners) for name, tensors in inputs.items()}
        check(stretched)
        return together(stretched, settings, scoring)

    return ask


def _stretched(tensors: list[Any], owners: list[Any]) -> list[Any]:
    if len(tensors) != len(owners):
        return tensors
    result = []
    for tensor, owner in zip(tensors, owners, strict=True):
        absent = tensor is None or owner is None
        fits = not absent and np.broadcast_shapes(tensor.shape, owner.shape) == owner.shape
        result.append(np.broadcast_to(tensor, owner.shape) if fits else tensor)
    return result


def absent_as_zero(scoring: Scoring) -> Oracle:
    """Return an oracle that takes an absent tensor for zeros where another is there."""

    def ask(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        check(inputs)
        filled: dict[str, list[Any]] = {name: [] for name in inputs}
        for row in zip(*inputs.values(), strict=True):
            there = next((tensor for tensor in row if tensor is not None), None)
            for name, tensor in zip(inputs, row, strict=True):
                zeros = None if there is None else np.zeros_like(there)
                filled[name].append(zeros if tensor is None else tensor)
        return together(filled, settings, scoring)

    return ask


def shared(scoring: Scoring) -> tuple[Mistake, ...]:
    """Return the mistakes that do not depend on the formula of two tensors."""
    return (
        Mistake(
            "shapes are broadcast",
            "a tensor of another shape is stretched instead of refused",
            broadcast(scoring),
        ),
        Mistake(
            "absent as zero",
            "a weight without a gradient scores 0 and goes first, instead of having no score",
            absent_as_zero(scoring),
        ),
    )
