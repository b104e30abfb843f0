"""What the layers of every library with automatic differentiation share: gradients under the suite's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tensor = Any
Tensors = dict[str, Tensor]
Outputs = dict[str, Any]
PullBack = Callable[[Callable[..., Tensor], Tensors, Tensor], tuple[Tensor, Tensors]]
"""``pull_back(function, inputs, dy)``: ``y = function(**inputs)``, and what dy gives each input by name."""
Run = Callable[..., Outputs]
LOSSES = {"empty_mean": "undefined", "loss_dtype": "input_dtype"}
"""What all their losses do: a mean over nothing is NaN, and a loss has the dtype of its input."""


def with_gradients(pull_back: PullBack) -> Run:
    """Return ``run(function, dy, **inputs)``: ``y`` and ``d<name>`` of each input, ``None`` for absent ones."""

    def run(function: Callable[..., Tensor], dy: Tensor, **inputs: Tensor | None) -> Outputs:
        given = {name: x for name, x in inputs.items() if x is not None}
        y, grads = pull_back(function, given, dy)
        return {"y": y, **{f"d{name}": grads.get(name) for name in inputs}}

    return run


def elementwise(run: Run, function: Callable[..., Tensor]) -> Run:
    """Return the layer of a function of ``x`` and parameters."""

    def of_x(x: Tensor, dy: Tensor, **params: Any) -> Outputs:
        return run(lambda x: function(x, **params), dy, x=x)

    return of_x


def in_stretches(
    states_of: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    h0: Tensor,
    truncate: int | None,
    cut: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """Return what a recurrent layer gives for each stretch of ``truncate`` steps of x (N, T, in).

    ``cut`` lets no gradient through from one stretch to the state before it.
    """
    length = x.shape[1]
    stretch = truncate or length
    found, state = [], h0
    for start in range(0, max(length, 1), max(stretch, 1)):
        found.append(states_of(x[:, start : start + stretch], state))
        state = cut(found[-1][:, -1])
    return found
